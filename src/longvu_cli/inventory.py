"""Which models and towers are on this machine; fetching and removing them. Asks the hub only to fetch."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from huggingface_hub import constants, is_offline_mode, scan_cache_dir

from longvu_cli.config import ModelOptions
from longvu_cli.errors import WeightsError, WeightsNotFound
from longvu_cli.hub import DownloadPlan, Hub, cached_repos, storage_of
from longvu_cli.verification import is_ours
from longvu_cli.verified import Verified
from longvu_cli.weights import TINY, TOWERS, VARIANTS, Part, locate, needed_files, repo_named, tiny_folder


class Kind(StrEnum):
    """What it is."""

    MODEL = "model"
    TOWER = "tower"


class State(StrEnum):
    """How much of it is here."""

    COMPLETE = "complete"
    PARTIAL = "partial"
    """Something is here, but not all that an answer needs."""
    ABSENT = "absent"
    BUNDLED = "bundled"
    """It came with the package."""


@dataclass(frozen=True)
class Item:
    """A model without its towers, or a tower.

    Attributes:
        name: what ``--model`` calls it; a tower's own name; the repository of another LongVU model in the cache.
        repo: None for the model that comes with the package.
        download_bytes: about the size of its weight files on the hub; None where that is not known.
        cached_bytes: what it takes on the disk, of every revision.
    """

    name: str
    kind: Kind
    repo: str | None
    download_bytes: int | None
    cached_bytes: int
    state: State


def inventory() -> list[Item]:
    """The released models, the towers, the tiny model, and what else of LongVU the cache has."""
    items = [_item(name, Kind.MODEL, variant.repo, variant.bytes) for name, variant in VARIANTS.items()]
    items += [_item(name, Kind.TOWER, tower.repo, tower.bytes) for name, tower in TOWERS.items()]
    known = {item.repo for item in items}
    others = [repo for repo in cached_repos() if repo not in known and is_ours(repo)]
    items += [_item(repo, Kind.MODEL, repo, None) for repo in others]
    if (tiny_folder() / "config.json").is_file():
        items.append(Item(TINY, Kind.MODEL, None, 0, _size(tiny_folder()), State.BUNDLED))
    return items


def download(
    name: str,
    options: ModelOptions,
    *,
    on_download: Callable[[DownloadPlan], None],
    on_check: Callable[[str, int], None],
    tqdm_class: type[Any] | None,
) -> Path:
    """Fetch a model with its towers, or a tower alone, so that it runs offline.

    Args:
        options: revision and towers, for a model.
        on_download, on_check, tqdm_class: see :func:`longvu_cli.weights.locate`.

    Returns:
        Its folder.

    Raises:
        UsageError: the name is none, or that of a model that comes from no hub.
        WeightsError: see :func:`longvu_cli.weights.locate`.
    """
    repo = repo_named(name)
    if repo not in {tower.repo for tower in TOWERS.values()}:
        found = locate(options, Part.ANSWER, on_download=on_download, on_check=on_check, tqdm_class=tqdm_class)
        return found.checkpoint
    hub = Hub(is_offline_mode(), on_download, on_check, tqdm_class, Verified.default())
    selection = needed_files(repo, hub)
    hub.fetch([selection])
    return selection.listing.snapshot


def cached_bytes(repo: str) -> int:
    """What a repository takes on the disk.

    Raises:
        WeightsNotFound: the cache has nothing of it.
    """
    if not storage_of(repo).is_dir():
        raise WeightsNotFound(f"the cache has nothing of {repo}", hint="see `longvu models list`")
    return _stored(repo)


def remove(repo: str) -> None:
    """Delete a repository from the cache: all its revisions, and what was left half transferred.

    Raises:
        WeightsError: something of it may not be deleted.
    """
    storage = storage_of(repo)
    cache = scan_cache_dir(constants.HF_HUB_CACHE)
    commits = [
        revision.commit_hash
        for cached in cache.repos
        if cached.repo_type == "model" and cached.repo_id == repo
        for revision in cached.revisions
    ]
    # The library knows which contents other repositories share; a repository without a snapshot it does not see.
    cache.delete_revisions(*commits).execute()
    try:
        if storage.is_dir():
            shutil.rmtree(storage)
    except OSError as error:
        raise WeightsError(
            f"{error.filename} cannot be deleted: {error.strerror}", hint="check its permissions"
        ) from error


def _item(name: str, kind: Kind, repo: str, bytes_listed: int | None) -> Item:
    size = _stored(repo)
    state = State.ABSENT if size == 0 else State.COMPLETE if _is_complete(repo) else State.PARTIAL
    return Item(name, kind, repo, bytes_listed, size, state)


def _is_complete(repo: str) -> bool:
    """Whether the cache has every file that an answer needs, of the size that the hub listed."""
    try:
        selection = needed_files(repo, Hub(True, _unheard, _unheard, None, Verified.default()))
    except WeightsError:
        return False
    return all(selection.listing.is_here(file) for file in selection.files)


def _unheard(*_: object) -> None:
    """What is downloaded or compared is no news here."""


def _stored(repo: str) -> int:
    """Bytes of a repository's contents, also of those that have not arrived in full."""
    return _size(*(storage_of(repo) / part for part in ("blobs", "snapshots")))


def _size(*folders: Path) -> int:
    """Bytes of the files under some folders, those behind links counted once."""
    files = {os.path.realpath(path) for folder in folders for path in folder.rglob("*") if path.is_file()}
    return sum(os.path.getsize(file) for file in files)
