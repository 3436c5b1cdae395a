"""Reading every file of cached models again, to compare it with what the hub lists."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from longvu_cli.checkpoint import CONFIG_FILE
from longvu_cli.config import ModelConfig
from longvu_cli.errors import WeightsError, WeightsNotFound
from longvu_cli.hub import ListedFile, cached_commits, cached_repos, digest_of_link, remote_listing, storage_of
from longvu_cli.verified import Verified, has_digest
from longvu_cli.weights import DINOV2_REPO, SIGLIP_REPO, VARIANTS, repo_named


class State(StrEnum):
    """What came out for a file."""

    OK = "ok"
    DAMAGED = "damaged"
    MISSING = "missing"
    """The cache has a name for it, and no content."""
    UNKNOWN = "unknown"
    """Nothing is known to compare it with."""


@dataclass(frozen=True)
class FileCheck:
    """One file.

    Attributes:
        revision: the commit.
        bytes: its size.
    """

    repo: str
    revision: str
    file: str
    bytes: int
    state: State

    @property
    def is_bad(self) -> bool:
        """Whether a model could not be loaded with it."""
        return self.state in (State.DAMAGED, State.MISSING)


def repos_of(names: list[str]) -> list[str]:
    """Names of models → their repositories; no names: every LongVU model and tower that the cache has.

    Raises:
        UsageError: a name is none, or that of a model that comes from no hub.
        WeightsNotFound: the cache has nothing of a model.
    """
    if not names:
        return [repo for repo in cached_repos() if is_ours(repo)]
    repos = [repo_named(name) for name in names]
    for repo in repos:
        if not cached_commits(repo):
            raise WeightsNotFound(f"the cache has nothing of {repo}", hint="it is downloaded when it is first used")
    return list(dict.fromkeys(repos))


def verify(repo: str, *, offline: bool, verified: Verified) -> Iterator[FileCheck]:
    """Read each file of a repository that the cache has, and compare it.

    What is right is noted, and need not be read when the model is loaded; what is not is fetched again then.

    Args:
        offline: compare with the digests that the hub gave when the files came, without asking it again.
    """
    for commit in cached_commits(repo):
        snapshot = storage_of(repo) / "snapshots" / commit
        listed = {} if offline else _listed(repo, commit)
        for path in sorted(path for path in snapshot.rglob("*") if not path.is_dir()):
            file = path.relative_to(snapshot).as_posix()
            digest = listed[file].etag if file in listed else digest_of_link(path)
            size = os.path.getsize(path) if os.path.isfile(path) else 0
            yield FileCheck(repo, commit, file, size, _state(path, digest, verified))


def _listed(repo: str, commit: str) -> dict[str, ListedFile]:
    """What the hub says; nothing where it does not answer: the names in the cache are from it, too."""
    try:
        return dict(remote_listing(repo, commit).files)
    except WeightsError:
        return {}


def _state(path: Path, digest: str | None, verified: Verified) -> State:
    if not os.path.isfile(path):
        return State.MISSING
    if digest is None:
        return State.UNKNOWN
    try:
        right = has_digest(path, digest)
    except OSError:
        right = False
    if right:
        verified.note(path, digest)
        return State.OK
    verified.forget(path)
    return State.DAMAGED


def is_ours(repo: str) -> bool:
    """Whether the cache has a released model or tower, or another LongVU model, under this name."""
    if repo in (DINOV2_REPO, SIGLIP_REPO, *(variant.repo for variant in VARIANTS.values())):
        return True
    try:
        for commit in cached_commits(repo):
            ModelConfig.from_file(storage_of(repo) / "snapshots" / commit / CONFIG_FILE)
    except WeightsError:
        return False
    return True
