"""Names of models → folders that hold their weights, downloaded into the Hugging Face cache where they are missing.

The hub is asked for one listing per repository. Only the files that the request needs are fetched, each once, and each
is compared with the listing: its size always, its SHA-256 after a download. What does not match is taken out of the
cache again. Nothing is printed; the caller hears of a download before it starts.
"""

from __future__ import annotations

import glob
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Any

from huggingface_hub import (
    HfApi,
    constants,
    get_cached_repo_tree,
    is_offline_mode,
    snapshot_download,
)
from huggingface_hub.errors import (
    CachedRepoTreeNotFoundError,
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    XetDownloadError,
)
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils.tqdm import tqdm

from longvu_cli.checkpoint import (
    CONFIG_FILE,
    find_weight_file,
    is_index,
    preferred_weight_file,
    read_index,
    shards_holding,
)
from longvu_cli.config import ModelConfig, ModelOptions
from longvu_cli.errors import (
    DownloadFailed,
    HubUnreachable,
    NotACheckpoint,
    UsageError,
    WeightsDamaged,
    WeightsError,
    WeightsGated,
    WeightsNotFound,
)

TINY = "tiny"
DINOV2_REPO = "facebook/dinov2-giant"
SIGLIP_REPO = "google/siglip-so400m-patch14-384"

_TINY_FOLDER = Path(__file__).parent / TINY
_DINOV2_FOLDER = "dinov2"
_SIGLIP_FOLDER = "siglip"
_CONNECTOR_PREFIXES = ("model.mm_projector", "model.vision_query", "model.vision_sampler", "model.image_newline")
EMBEDDINGS = "model.embed_tokens.weight"
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
)
# A fast tokenizer is built from these only where there is no tokenizer.json.
_VOCABULARY_FILES = ("vocab.json", "merges.txt", "tokenizer.model")
# ORG/NAME by the hub's rules: no "--" or "..", no "-" or "." at either end.
_REPO_ID = re.compile(r"(?!.*(--|\.\.))(?!.{97})\w(?:[\w.-]*\w)?/\w(?:[\w.-]*\w)?", re.ASCII)
# The base class of the HTTP client's own errors, whichever client this release of huggingface_hub uses.
_TRANSPORT_ERROR: type[BaseException] = HfHubHTTPError.__bases__[0]


@dataclass(frozen=True)
class Variant:
    """A released model.

    Attributes:
        name: what ``--model`` calls it.
        repo: its hub repository.
        parameters: of the decoder and the connector, without the towers.
        embedding_parameters: of these, the ones of the input embeddings and ``lm_head``.
    """

    name: str
    repo: str
    parameters: int
    embedding_parameters: int

    @property
    def bytes(self) -> int:
        """Size of the weights, two bytes per parameter."""
        return 2 * self.parameters


def _released() -> Iterator[Variant]:
    sizes = (
        ("7b", "Vision-CAIR/LongVU_Qwen2_7B", 7_671_665_664, 2 * 152_064 * 3584),
        ("3b", "Vision-CAIR/LongVU_Llama3_2_3B", 3_658_867_712, 2 * 128_256 * 3072),
        ("1b", "Vision-CAIR/LongVU_Llama3_2_1B", 1_544_303_616, 2 * 128_256 * 2048),
    )
    for name, repo, parameters, embeddings in sizes:
        yield Variant(name, repo, parameters, embeddings)
        # The image models have no position embeddings: 3 layers, 2 towers, 4 keys, 1024 channels.
        yield Variant(f"{name}-image", f"{repo}_img", parameters - 3 * 2 * 4 * 1024, embeddings)


VARIANTS: Mapping[str, Variant] = MappingProxyType({variant.name: variant for variant in _released()})


class Part(Enum):
    """How much of a model a command needs; the config, the tokenizer and the towers always belong to it."""

    VISION = "vision"
    """The connector; no tensor of the language model."""
    QUESTION = "question"
    """The connector and the language model's input embeddings."""
    ANSWER = "answer"
    """Everything."""

    def needs(self, tensor: str) -> bool:
        """Whether the tensor of this name belongs to the part."""
        if self is Part.ANSWER:
            return True
        return tensor.startswith(_CONNECTOR_PREFIXES) or (self is Part.QUESTION and tensor == EMBEDDINGS)


@dataclass(frozen=True)
class DownloadPlan:
    """What is about to be downloaded from one repository.

    Attributes:
        files: the files that the cache lacks.
        bytes_total: size of all files that are needed of this repository.
        bytes_missing: size of those that the cache lacks.
        destination: the folder of the cache that they go to.
    """

    repo: str
    files: tuple[str, ...]
    bytes_total: int
    bytes_missing: int
    destination: Path


@dataclass(frozen=True)
class Weights:
    """Where the weights of one model are on this machine.

    Attributes:
        name: the short name, repository id or folder name.
        source: the repository id, or the path of the folder.
        revision: the commit; None for a folder.
        checkpoint: folder of the language model and the connector.
        dinov2, siglip: folders of the towers.
    """

    name: str
    source: str
    revision: str | None
    checkpoint: Path
    dinov2: Path
    siglip: Path


def locate(
    options: ModelOptions,
    part: Part,
    *,
    on_download: Callable[[DownloadPlan], None],
    tqdm_class: type[Any] | None = None,
) -> Weights:
    """Find the weights, and download into the Hugging Face cache what is missing.

    Args:
        part: how much of the model is needed; of a sharded checkpoint only the shards with that part are fetched.
        on_download: hears of each repository's download before it starts.
        tqdm_class: draws the progress, as :func:`huggingface_hub.snapshot_download` takes it; None draws nothing.

    Raises:
        UsageError: the model's name is none, or ``revision`` is given for a folder.
        WeightsNotFound: there is no such folder, repository, revision or file.
        NotACheckpoint: the folder or repository holds no LongVU model.
        WeightsGated: the hub wants a login or an accepted licence.
        HubUnreachable: the hub does not answer, or is not to be asked, and the cache is not complete.
        DownloadFailed: the transfer broke off, or there is no room for it.
        WeightsDamaged: what arrived is not what the hub lists.
    """
    hub = _Hub(options.offline or is_offline_mode(), on_download, tqdm_class or _SilentBar)
    source = _model_source(options)
    if isinstance(source, Path):
        return _locate_folder(options, source, hub)
    return _locate_repo(options, source, part, hub)


def _locate_folder(options: ModelOptions, folder: Path, hub: _Hub) -> Weights:
    find_weight_file(folder)
    ModelConfig.from_file(folder / CONFIG_FILE)
    towers = _Towers.of(options, {name for name in (_DINOV2_FOLDER, _SIGLIP_FOLDER) if (folder / name).is_dir()})
    selections = towers.selections(hub)
    hub.fetch(selections)
    return Weights(
        name=folder.resolve().name if options.model != TINY else TINY,
        source=str(folder),
        revision=None,
        checkpoint=folder,
        dinov2=towers.folder(towers.dinov2, folder, selections),
        siglip=towers.folder(towers.siglip, folder, selections),
    )


def _locate_repo(options: ModelOptions, repo: str, part: Part, hub: _Hub) -> Weights:
    listing = hub.listing(repo, options.revision)
    _require_longvu(listing, hub)
    towers = _Towers.of(options, {name for name in (_DINOV2_FOLDER, _SIGLIP_FOLDER) if _has_model(listing, name)})
    files = [*_tokenizer_files(listing), CONFIG_FILE, *_weight_files(listing, "", part.needs, hub)]
    for tower in (towers.dinov2, towers.siglip):
        if isinstance(tower, _Subfolder):
            files += _tower_files(listing, f"{tower.name}/", hub)
    selections = towers.selections(hub)
    hub.fetch([_Selection(listing, tuple(files)), *selections])
    return Weights(
        name=options.model,
        source=repo,
        revision=listing.commit,
        checkpoint=listing.snapshot,
        dinov2=towers.folder(towers.dinov2, listing.snapshot, selections),
        siglip=towers.folder(towers.siglip, listing.snapshot, selections),
    )


def _model_source(options: ModelOptions) -> Path | str:
    """A folder, or the id of a repository."""
    if options.model in VARIANTS:
        return VARIANTS[options.model].repo
    source = _installed_tiny_folder() if options.model == TINY else _folder_or_repo(options.model)
    if source is None:
        raise UsageError(
            f"there is no model named {options.model!r}",
            hint=f"choose one of {', '.join([*VARIANTS, TINY])}, a hub repository (ORG/NAME) or a folder",
        )
    if isinstance(source, Path) and options.revision is not None:
        raise UsageError(
            f"--revision {options.revision} has no meaning for the folder {source}",
            hint="leave --revision out, or name a hub repository",
        )
    return source


def tiny_folder() -> Path:
    """Where an installation has the tiny model and the clip of its world, if it has them."""
    return _TINY_FOLDER


def _installed_tiny_folder() -> Path:
    folder = tiny_folder()
    if not (folder / CONFIG_FILE).is_file():
        raise WeightsNotFound(
            "the tiny model is not part of this installation", hint=f"choose one of {', '.join(VARIANTS)}"
        )
    return folder


def _folder_or_repo(text: str) -> Path | str | None:
    """What a user means by the text; None: neither a path nor a repository id."""
    if os.path.isdir(text) or text.startswith((".", "~")) or os.path.isabs(text) or "\\" in text:
        return _existing_folder(text)
    if text.count("/") > 1 or text.endswith("/") or os.path.isfile(text):
        return _existing_folder(text)
    return text if _REPO_ID.fullmatch(text) else None


def _existing_folder(text: str) -> Path:
    folder = Path(os.path.expanduser(text))
    if os.path.isfile(folder):
        raise NotACheckpoint(f"{text} is a file, not a folder", hint=f"name its folder: {folder.parent}")
    if not os.path.isdir(folder):
        raise WeightsNotFound(f"there is no folder {text}", hint="check the path")
    return folder


@dataclass(frozen=True)
class _Subfolder:
    """A tower that lies in the checkpoint's own folder."""

    name: str


@dataclass(frozen=True)
class _Towers:
    """Where each tower comes from: a folder, a hub repository (its id), or a subfolder of the checkpoint."""

    dinov2: Path | str | _Subfolder
    siglip: Path | str | _Subfolder

    @classmethod
    def of(cls, options: ModelOptions, subfolders: set[str]) -> _Towers:
        return cls(
            dinov2=_tower_source("--dinov2", options.dinov2, _DINOV2_FOLDER, subfolders, DINOV2_REPO),
            siglip=_tower_source("--siglip", options.siglip, _SIGLIP_FOLDER, subfolders, SIGLIP_REPO),
        )

    def selections(self, hub: _Hub) -> list[_Selection]:
        """What is needed of the towers' own repositories."""
        listings = [hub.listing(tower, None) for tower in (self.dinov2, self.siglip) if isinstance(tower, str)]
        return [_Selection(listing, tuple(_tower_files(listing, "", hub))) for listing in listings]

    @staticmethod
    def folder(tower: Path | str | _Subfolder, checkpoint: Path, selections: Sequence[_Selection]) -> Path:
        """The folder of a tower, once everything is fetched.

        Raises:
            NotACheckpoint, WeightsNotFound: it holds no model.
        """
        if isinstance(tower, str):
            return next(item.listing.snapshot for item in selections if item.listing.repo == tower)
        folder = checkpoint / tower.name if isinstance(tower, _Subfolder) else tower
        find_weight_file(folder)
        return folder


def _tower_source(
    flag: str, option: str | None, subfolder: str, subfolders: set[str], default: str
) -> Path | str | _Subfolder:
    if option is None:
        return _Subfolder(subfolder) if subfolder in subfolders else default
    source = _folder_or_repo(option)
    if source is None:
        raise UsageError(f"{flag} {option!r} is neither a folder nor a hub repository (ORG/NAME)")
    return source


@dataclass(frozen=True)
class _ListedFile:
    """What the hub says of a file; None where it is not known.

    Attributes:
        blob: what the cache calls the content.
    """

    size: int | None
    sha256: str | None
    blob: str | None


@dataclass(frozen=True)
class _Listing:
    """The files of a repository at one commit.

    Attributes:
        revision: what was asked for.
        from_cache: why the hub was not asked, or what it answered instead; None: this is its own listing.
    """

    repo: str
    revision: str
    commit: str
    files: Mapping[str, _ListedFile]
    from_cache: WeightsError | None

    @property
    def storage(self) -> Path:
        """The repository's folder in the cache."""
        return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=self.repo, repo_type="model")

    @property
    def snapshot(self) -> Path:
        """The folder with the files of this commit."""
        return self.storage / "snapshots" / self.commit

    def is_here(self, file: str) -> bool:
        """Whether the file lies in the snapshot, not empty and of the listed size."""
        return _has_size(self.snapshot / file, self.files[file].size)

    def is_stored(self, file: str) -> bool:
        """Whether the cache has the content, perhaps from another commit, so that it need not be transferred."""
        blob = self.files[file].blob
        return self.is_here(file) or (
            blob is not None and _has_size(self.storage / "blobs" / blob, self.files[file].size)
        )

    def is_current(self) -> bool:
        """Whether the cache knows that the revision is this commit; without it, it is not found offline."""
        reference = self.storage / "refs" / self.revision
        return self.revision == self.commit or (reference.is_file() and reference.read_text() == self.commit)

    def size(self, files: Sequence[str]) -> int:
        """Bytes of these files, as far as the listing says."""
        return sum(self.files[file].size or 0 for file in files)


@dataclass(frozen=True)
class _Selection:
    """The files that are needed of a repository."""

    listing: _Listing
    files: tuple[str, ...]


@dataclass(frozen=True)
class _Hub:
    """The Hugging Face hub and its cache on this machine."""

    offline: bool
    on_download: Callable[[DownloadPlan], None]
    tqdm_class: type[Any]

    def listing(self, repo: str, revision: str | None) -> _Listing:
        """The files of a repository: as the hub lists them or, where it gives no answer, as the cache does."""
        wanted = revision or constants.DEFAULT_REVISION
        if self.offline:
            return _cached_listing(
                repo, wanted, HubUnreachable("offline mode is on", hint="run once without --offline")
            )
        try:
            return _remote_listing(repo, wanted)
        except (HubUnreachable, WeightsGated) as error:
            return _cached_listing(repo, wanted, error)

    def fetch(self, selections: Sequence[_Selection]) -> None:
        """Download what the cache lacks, after looking whether there is room for all of it."""
        incomplete = [item for item in selections if not all(item.listing.is_here(file) for file in item.files)]
        for item in incomplete:
            if item.listing.from_cache is not None:
                lacking = next(file for file in item.files if not item.listing.is_here(file))
                raise _not_in_cache(item.listing.repo, lacking, item.listing.from_cache)
        plans = [_plan(item) for item in selections]
        _require_space(sum(plan.bytes_missing for plan in plans))
        for item, plan in zip(selections, plans, strict=True):
            if plan.files:
                self.on_download(plan)
            if item in incomplete or not (item.listing.from_cache or item.listing.is_current()):
                self._download(item, plan.files)

    def _download(self, selection: _Selection, missing: Sequence[str]) -> None:
        listing = selection.listing
        with _hub_errors(listing.repo, listing.revision):
            for file in missing:
                # A file of the wrong size would be taken for complete.
                _remove_from_cache(listing, file)
            snapshot = snapshot_download(
                listing.repo,
                revision=listing.revision,
                allow_patterns=[glob.escape(file) for file in selection.files],
                tqdm_class=self.tqdm_class,
            )
        if Path(snapshot).name != listing.commit:
            raise DownloadFailed(f"{listing.repo} was changed on the hub during the download", hint="run it again")
        for file in missing:
            _verify(listing, file)


class _SilentBar(tqdm):
    """Progress that is not drawn."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        draw_nothing: Any = super().__init__
        draw_nothing(*args, **{**kwargs, "disable": True})


def _remote_listing(repo: str, revision: str) -> _Listing:
    with _hub_errors(repo, revision):
        info = HfApi().model_info(repo, revision=revision, files_metadata=True, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    files = {
        sibling.rfilename: _ListedFile(
            size=sibling.size,
            sha256=sibling.lfs.sha256 if sibling.lfs else None,
            blob=sibling.lfs.sha256 if sibling.lfs else sibling.blob_id,
        )
        for sibling in info.siblings or ()
    }
    return _Listing(repo, revision, info.sha or "", files, from_cache=None)


def _cached_listing(repo: str, revision: str, reason: WeightsError) -> _Listing:
    try:
        folder = Path(snapshot_download(repo, revision=revision, local_files_only=True, allow_patterns=[CONFIG_FILE]))
    except LocalEntryNotFoundError:
        raise _not_in_cache(repo, None, reason) from None
    try:
        tree = get_cached_repo_tree(repo, revision=folder.name)
        files = {entry.path: _ListedFile(entry.size, None, None) for entry in tree}
    except CachedRepoTreeNotFoundError:
        # Older releases of huggingface_hub kept no listing: what is there has to do.
        found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        files = dict.fromkeys(found, _ListedFile(None, None, None))
    return _Listing(repo, revision, folder.name, files, from_cache=reason)


def _not_in_cache(repo: str, file: str | None, reason: WeightsError) -> WeightsError:
    if isinstance(reason, WeightsGated):
        return reason
    what = repo if file is None else f"{file} of {repo}"
    return HubUnreachable(f"{what} is not in the cache, and {reason.message}", hint=reason.hint)


def _has_model(listing: _Listing, folder: str) -> bool:
    return f"{folder}/{CONFIG_FILE}" in listing.files


def _require_longvu(listing: _Listing, hub: _Hub) -> None:
    """Look at config.json first: nobody wants to learn after 15 GB that the model is another one."""
    _require_config(listing, "")
    hub.fetch([_Selection(listing, (CONFIG_FILE,))])
    ModelConfig.from_file(listing.snapshot / CONFIG_FILE)


def _require_config(listing: _Listing, prefix: str) -> None:
    if prefix + CONFIG_FILE not in listing.files:
        raise NotACheckpoint(
            f"the repository {listing.repo} has no {prefix}{CONFIG_FILE}", hint="check the repository's name"
        )


def _tokenizer_files(listing: _Listing) -> list[str]:
    names = _TOKENIZER_FILES if _TOKENIZER_FILES[0] in listing.files else _TOKENIZER_FILES + _VOCABULARY_FILES
    return [name for name in names if name in listing.files]


def _tower_files(listing: _Listing, prefix: str, hub: _Hub) -> list[str]:
    _require_config(listing, prefix)
    settings = (prefix + CONFIG_FILE, f"{prefix}preprocessor_config.json")
    weights = _weight_files(listing, prefix, lambda tensor: True, hub)
    return [*(file for file in settings if file in listing.files), *weights]


def _weight_files(listing: _Listing, prefix: str, needs: Callable[[str], bool], hub: _Hub) -> list[str]:
    """The weight files under the prefix that hold the needed tensors; an index is fetched to know them."""
    names = [file.removeprefix(prefix) for file in listing.files if file.startswith(prefix)]
    main = preferred_weight_file(names)
    if main is None:
        raise WeightsNotFound(
            f"the repository {listing.repo} has no weights in a known form", hint="check the repository's name"
        )
    if not is_index(main):
        return [prefix + main]
    hub.fetch([_Selection(listing, (prefix + main,))])
    weight_map = read_index(listing.snapshot / (prefix + main))
    shards = [prefix + file for file in shards_holding(weight_map, {name for name in weight_map if needs(name)})]
    for shard in shards:
        if shard not in listing.files:
            raise WeightsNotFound(
                f"the repository {listing.repo} lacks {shard}, which its index names", hint="choose another revision"
            )
    return [prefix + main, *shards]


def _plan(selection: _Selection) -> DownloadPlan:
    listing = selection.listing
    missing = tuple(file for file in selection.files if not listing.is_stored(file))
    return DownloadPlan(
        repo=listing.repo,
        files=missing,
        bytes_total=listing.size(selection.files),
        bytes_missing=listing.size(missing),
        destination=listing.storage,
    )


def _require_space(needed: int) -> None:
    cache = Path(constants.HF_HUB_CACHE)
    disk = next(folder for folder in (cache.absolute(), *cache.absolute().parents) if folder.exists())
    free = shutil.disk_usage(disk).free
    if needed > free:
        raise DownloadFailed(
            f"the download needs {needed / 1e9:.2f} GB, but only {free / 1e9:.2f} GB are free in {cache}",
            hint="free some space, or set HF_HOME to a folder on a larger disk",
        )


def _has_size(path: Path, size: int | None) -> bool:
    """Whether it is a file of this size; of an unknown size, whether it is not empty."""
    if not os.path.isfile(path):
        return False
    actual = path.stat().st_size
    return actual > 0 if size is None else actual == size


def _verify(listing: _Listing, file: str) -> None:
    """Compare a file that was just downloaded with the hub's listing; what differs leaves the cache again."""
    path = listing.snapshot / file
    if not path.is_file():
        raise DownloadFailed(f"{file} of {listing.repo} did not arrive", hint="run it again")
    sha256 = listing.files[file].sha256
    if listing.is_here(file) and (sha256 is None or _sha256(path) == sha256):
        return
    _remove_from_cache(listing, file)
    raise WeightsDamaged(
        f"{file} of {listing.repo} did not arrive as the hub lists it, and was deleted from the cache",
        hint="run it again; when it happens again, something between here and the hub changes files",
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _remove_from_cache(listing: _Listing, file: str) -> None:
    """Delete a file of a snapshot together with the content that it links to."""
    _unlink_chain(listing.snapshot / file)
    blob = listing.files[file].blob
    if blob is not None:
        _unlink_chain(listing.storage / "blobs" / blob)


def _unlink_chain(path: Path) -> None:
    """Delete a link and what it leads to, link by link, but nothing outside the cache.

    Large files may be two links away: snapshot → blob of the repository → blob of the whole cache.
    """
    cache = Path(constants.HF_HUB_CACHE).resolve()
    while path.parent.resolve().is_relative_to(cache) and os.path.lexists(path):
        target = path.parent / os.readlink(path) if path.is_symlink() else None
        path.unlink()
        if target is None:
            return
        path = target


@contextmanager
def _hub_errors(repo: str, revision: str) -> Iterator[None]:
    """Turn the errors of huggingface_hub into those of this package."""
    try:
        yield
    except (EntryNotFoundError, XetDownloadError, OSError, _TRANSPORT_ERROR) as error:
        raise _translated(error, repo, revision) from error


def _translated(error: BaseException, repo: str, revision: str) -> WeightsError:
    if isinstance(error, GatedRepoError):
        return _gated(repo)
    if isinstance(error, RepositoryNotFoundError):
        return WeightsNotFound(
            f"the hub has no repository {repo}, or none that you may see",
            hint="check the name; for a private repository set HF_TOKEN",
        )
    if isinstance(error, RevisionNotFoundError):
        return WeightsNotFound(
            f"the repository {repo} has no revision {revision}", hint="check --revision, or leave it out"
        )
    if isinstance(error, LocalEntryNotFoundError):
        # huggingface_hub hides what the hub answered behind this one.
        return _unreachable(repo, error) if error.__cause__ is None else _translated(error.__cause__, repo, revision)
    if isinstance(error, EntryNotFoundError):
        return WeightsNotFound(f"a file of {repo} is gone from the hub", hint="run it again")
    if isinstance(error, HfHubHTTPError):
        refused = error.response.status_code in (401, 403)
        return _gated(repo) if refused else _unreachable(repo, error)
    if isinstance(error, (_TRANSPORT_ERROR, OfflineModeIsEnabled, ConnectionError, TimeoutError)):
        return _unreachable(repo, error)
    return DownloadFailed(
        f"the download of {repo} failed: {_first_line(error)}",
        hint="run it again; check that the cache (HF_HOME) is writable and has room",
    )


def _gated(repo: str) -> WeightsGated:
    return WeightsGated(
        f"the hub does not give {repo} without a permission",
        hint=f"accept the licence at {constants.ENDPOINT}/{repo}, and set HF_TOKEN to a token of that account",
    )


def _unreachable(repo: str, error: BaseException) -> HubUnreachable:
    status = f"status {error.response.status_code}" if isinstance(error, HfHubHTTPError) else _first_line(error)
    return HubUnreachable(
        f"the hub did not answer when asked for {repo} ({status})",
        hint="check the connection and try again; a model that was downloaded before runs with --offline",
    )


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
