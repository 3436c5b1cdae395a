"""Files of hub repositories: listed by the hub, fetched into the Hugging Face cache, compared before they are used.

The hub is asked for one listing per repository. What the cache lacks is fetched, each file once. No file is handed out
before its content was compared with the digest that the hub has for it, whoever put it into the cache; after that its
size and time of change are looked at, at every start. What is not right is fetched again. Nothing is printed; the
caller hears of a download, or of much to be read, before it starts.
"""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import (
    HfApi,
    constants,
    get_cached_repo_tree,
    hf_hub_download,
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
from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]
from huggingface_hub.utils.tqdm import tqdm

from longvu_cli.checkpoint import CONFIG_FILE
from longvu_cli.errors import (
    DownloadFailed,
    HubUnreachable,
    WeightsDamaged,
    WeightsError,
    WeightsGated,
    WeightsNotFound,
)
from longvu_cli.verified import Verified, has_digest, is_digest

# The base class of the HTTP client's own errors, whichever client this release of huggingface_hub uses.
_TRANSPORT_ERROR: type[BaseException] = HfHubHTTPError.__bases__[0]
# Content that is being transferred: ``ETAG.RANDOM.incomplete``.
_INCOMPLETE = ".incomplete"
# The folder of a repository: ``models--ORG--NAME``.
_REPO_PREFIX = "models--"
# How long to try for the lock of a transfer that is presumed dead.
_LOCK_S = 0.05


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
class ListedFile:
    """What the hub says of a file; None where it is not known.

    Attributes:
        etag: its digest, which is also what the cache calls the content.
    """

    size: int | None
    etag: str | None


@dataclass(frozen=True)
class Listing:
    """The files of a repository at one commit.

    Attributes:
        revision: what was asked for.
        from_cache: why the hub was not asked, or what it answered instead; None: this is its own listing.
    """

    repo: str
    revision: str
    commit: str
    files: Mapping[str, ListedFile]
    from_cache: WeightsError | None

    @property
    def storage(self) -> Path:
        """The repository's folder in the cache."""
        return storage_of(self.repo)

    @property
    def snapshot(self) -> Path:
        """The folder with the files of this commit."""
        return self.storage / "snapshots" / self.commit

    def is_here(self, file: str) -> bool:
        """Whether the file lies in the snapshot, not empty and of the listed size."""
        return _has_size(self.snapshot / file, self.files[file].size)

    def stored(self, file: str) -> Path | None:
        """Where the cache has a content of the listed size, perhaps of another commit; it need not be transferred."""
        if self.is_here(file):
            return self.snapshot / file
        etag = self.files[file].etag
        blob = None if etag is None else self.storage / "blobs" / etag
        return blob if blob is not None and _has_size(blob, self.files[file].size) else None

    def digest(self, file: str) -> str | None:
        """What the content must have: as listed or, without the hub's listing, as the cache has it from the hub."""
        return self.files[file].etag or digest_of_link(self.snapshot / file)

    def is_current(self) -> bool:
        """Whether the cache knows that the revision is this commit; without it, it is not found offline."""
        reference = self.storage / "refs" / self.revision
        return self.revision == self.commit or (reference.is_file() and reference.read_text() == self.commit)

    def size(self, files: Iterable[str]) -> int:
        """Bytes of these files, as far as the listing says."""
        return sum(self.files[file].size or 0 for file in files)


@dataclass(frozen=True)
class Selection:
    """The files that are needed of a repository."""

    listing: Listing
    files: tuple[str, ...]


@dataclass(frozen=True)
class Hub:
    """The Hugging Face hub and its cache on this machine.

    Attributes:
        offline: whether it is not to be asked.
        on_download: hears of each repository's download before it starts.
        on_check: hears of a repository's files that are read to be compared: how many bytes.
        tqdm_class: draws the progress of a download; None draws nothing.
    """

    offline: bool
    on_download: Callable[[DownloadPlan], None]
    on_check: Callable[[str, int], None]
    tqdm_class: type[Any] | None
    verified: Verified

    def listing(self, repo: str, revision: str | None) -> Listing:
        """The files of a repository: as the hub lists them or, where it gives no answer, as the cache does."""
        wanted = revision or constants.DEFAULT_REVISION
        if self.offline:
            return _cached_listing(
                repo, wanted, HubUnreachable("offline mode is on", hint="run once without --offline")
            )
        try:
            return remote_listing(repo, wanted)
        except (HubUnreachable, WeightsGated) as error:
            return _cached_listing(repo, wanted, error)

    def fetch(self, selections: Sequence[Selection]) -> None:
        """Compare what the cache has, and download the rest, after looking whether there is room for all of it.

        Raises:
            HubUnreachable: something is missing, or was never compared, and the hub cannot be asked.
            WeightsDamaged: a file is not what the hub lists, and the hub cannot be asked; or it arrived so.
            DownloadFailed: the transfer broke off, or there is no room for it.
        """
        for item in selections:
            self._announce_check(item)
        lacking = [[file for file in item.files if not self._is_right(item.listing, file)] for item in selections]
        plans = [_plan(item, files) for item, files in zip(selections, lacking, strict=True)]
        _require_space(sum(plan.bytes_missing for plan in plans))
        for item, files, plan in zip(selections, lacking, plans, strict=True):
            if plan.files:
                self.on_download(plan)
            wanted = [file for file in item.files if file in files or not item.listing.is_here(file)]
            if wanted or not (item.listing.from_cache or item.listing.is_current()):
                self._download(item, wanted)
            _sweep(item.listing)

    def _announce_check(self, selection: Selection) -> None:
        """Say how much is about to be read."""
        listing, unread = selection.listing, 0
        for file in selection.files:
            path = listing.stored(file)
            if path is not None and not self.verified.knows(path, listing.digest(file)):
                unread += path.stat().st_size
        if unread:
            self.on_check(listing.repo, unread)

    def _is_right(self, listing: Listing, file: str) -> bool:
        """Whether the cache has the file as the hub lists it; with the hub out of reach, anything else is an error."""
        path, digest = listing.stored(file), listing.digest(file)
        right = path is not None and self._compare(path, digest)
        linked = listing.is_here(file)
        if listing.from_cache is None or (right and linked):
            return right
        if path is None or (right and not linked):
            raise _not_in_cache(listing.repo, file, listing.from_cache)
        if digest is None:
            raise HubUnreachable(
                f"{file} of {listing.repo} was never compared with what the hub lists, and "
                f"{listing.from_cache.message}",
                hint=listing.from_cache.hint,
            )
        raise WeightsDamaged(
            f"{file} of {listing.repo} in the cache is not what the hub lists, and {listing.from_cache.message}",
            hint="run it without --offline: what is damaged is downloaded again",
        )

    def _compare(self, path: Path, digest: str | None) -> bool:
        if self.verified.knows(path, digest):
            return True
        if digest is None:
            return False
        with _cache_errors(path):
            right = has_digest(path, digest)
        if right:
            self.verified.note(path, digest)
        return right

    def _download(self, selection: Selection, wanted: Sequence[str]) -> None:
        """Fetch or link one file after the other, in this thread: Ctrl-C ends it at once, without a trace."""
        listing = selection.listing
        with _hub_errors(listing.repo, listing.revision, transferring=True):
            for file in wanted:
                self._remove_unless_right(listing, file)
                hf_hub_download(listing.repo, file, revision=listing.commit, tqdm_class=self.tqdm_class or _SilentBar)
        for file in wanted:
            self._require_right(listing, file)
        with _hub_errors(listing.repo, listing.revision):
            # Everything is here: this notes the listing and the revision for offline use.
            snapshot = snapshot_download(
                listing.repo,
                revision=listing.revision,
                allow_patterns=[glob.escape(file) for file in selection.files],
                tqdm_class=_SilentBar,
            )
        if Path(snapshot).name != listing.commit:
            raise DownloadFailed(f"{listing.repo} was changed on the hub during the download", hint="run it again")

    def _remove_unless_right(self, listing: Listing, file: str) -> None:
        """Make place: a wrong file would be taken for complete. One that another process has just fetched stays."""
        with _transfer_lock(listing, file):
            path = listing.stored(file)
            if path is None or not self._compare(path, listing.digest(file)):
                remove_from_cache(listing, file)

    def _require_right(self, listing: Listing, file: str) -> None:
        """Compare a file that was just downloaded; what differs leaves the cache again."""
        if not (listing.snapshot / file).is_file():
            raise DownloadFailed(f"{file} of {listing.repo} did not arrive", hint="run it again")
        if listing.is_here(file) and self._compare(listing.snapshot / file, listing.digest(file)):
            return
        remove_from_cache(listing, file)
        raise WeightsDamaged(
            f"{file} of {listing.repo} did not arrive as the hub lists it, and was deleted from the cache",
            hint="run it again; when it happens again, something between here and the hub changes files",
        )


class _SilentBar(tqdm):
    """Progress that is not drawn."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        draw_nothing: Any = super().__init__
        draw_nothing(*args, **{**kwargs, "disable": True})


def storage_of(repo: str) -> Path:
    """A repository's folder in the cache."""
    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo, repo_type="model")


def cached_commits(repo: str) -> list[str]:
    """The commits of a repository of which the cache has files."""
    folder = storage_of(repo) / "snapshots"
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else []


def cached_repos() -> list[str]:
    """The model repositories of which the cache has files."""
    cache = Path(constants.HF_HUB_CACHE)
    names = (
        [entry.name.removeprefix(_REPO_PREFIX) for entry in cache.glob(f"{_REPO_PREFIX}*")] if cache.is_dir() else []
    )
    repos = sorted(name.replace("--", "/", 1) for name in names if name.count("--") == 1)
    return [repo for repo in repos if cached_commits(repo)]


def is_main(repo: str, commit: str) -> bool:
    """Whether the cache takes this commit for the repository's main branch."""
    reference = storage_of(repo) / "refs" / constants.DEFAULT_REVISION
    return reference.is_file() and reference.read_text() == commit


def digest_of_link(path: Path) -> str | None:
    """The digest that the hub gave for a file of a snapshot: the cache names contents so. None: it is no such link."""
    if not path.is_symlink():
        return None
    name = os.path.basename(os.readlink(path))
    return name if is_digest(name) else None


def remote_listing(repo: str, revision: str) -> Listing:
    """The files of a repository as the hub lists them.

    Raises:
        WeightsError: it does not.
    """
    with _hub_errors(repo, revision):
        info = HfApi().model_info(repo, revision=revision, files_metadata=True, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    files = {
        sibling.rfilename: ListedFile(
            size=sibling.size,
            etag=sibling.lfs.sha256 if sibling.lfs else sibling.blob_id,
        )
        for sibling in info.siblings or ()
    }
    return Listing(repo, revision, info.sha or "", files, from_cache=None)


def _cached_listing(repo: str, revision: str, reason: WeightsError) -> Listing:
    try:
        folder = Path(snapshot_download(repo, revision=revision, local_files_only=True, allow_patterns=[CONFIG_FILE]))
    except LocalEntryNotFoundError:
        raise _not_in_cache(repo, None, reason) from None
    try:
        tree = get_cached_repo_tree(repo, revision=folder.name)
        files = {entry.path: ListedFile(entry.size, None) for entry in tree}
    except CachedRepoTreeNotFoundError:
        # Older releases of huggingface_hub kept no listing: what is there has to do.
        found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        files = dict.fromkeys(found, ListedFile(None, None))
    return Listing(repo, revision, folder.name, files, from_cache=reason)


def _not_in_cache(repo: str, file: str | None, reason: WeightsError) -> WeightsError:
    if isinstance(reason, WeightsGated):
        return reason
    what = repo if file is None else f"{file} of {repo}"
    return HubUnreachable(f"{what} is not in the cache, and {reason.message}", hint=reason.hint)


def _plan(selection: Selection, lacking: Sequence[str]) -> DownloadPlan:
    listing = selection.listing
    return DownloadPlan(
        repo=listing.repo,
        files=tuple(lacking),
        bytes_total=listing.size(selection.files),
        bytes_missing=listing.size(lacking),
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


@contextmanager
def _transfer_lock(listing: Listing, file: str) -> Iterator[None]:
    """The lock that huggingface_hub holds while it fetches this content."""
    etag = listing.files[file].etag
    if etag is None:
        yield
        return
    lock = _lock_path(listing, etag)
    lock.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):
        yield


def _lock_path(listing: Listing, etag: str) -> Path:
    return Path(constants.HF_HUB_CACHE) / ".locks" / listing.storage.name / f"{etag}.lock"


def _sweep(listing: Listing) -> None:
    """Delete what killed processes left half transferred; where one still holds the lock, it is at it."""
    for partial in (listing.storage / "blobs").glob(f"*{_INCOMPLETE}"):
        # A time-out is an OSError, too.
        with suppress(OSError), WeakFileLock(_lock_path(listing, partial.name.split(".")[0]), timeout=_LOCK_S):
            partial.unlink(missing_ok=True)


def remove_from_cache(listing: Listing, file: str) -> None:
    """Delete a file of a snapshot together with the content that it links to."""
    _unlink_chain(listing.snapshot / file)
    etag = listing.files[file].etag
    if etag is not None:
        _unlink_chain(listing.storage / "blobs" / etag)


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
def _cache_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise WeightsDamaged(
            f"{path} cannot be read: {error.strerror}", hint="check its permissions and the disk that it is on"
        ) from error


@contextmanager
def _hub_errors(repo: str, revision: str, *, transferring: bool = False) -> Iterator[None]:
    """Turn the errors of huggingface_hub into those of this package."""
    try:
        yield
    except (EntryNotFoundError, XetDownloadError, OSError, _TRANSPORT_ERROR) as error:
        if transferring and isinstance(error, _TRANSPORT_ERROR) and not isinstance(error, HfHubHTTPError):
            raise _broken_off(repo, _first_line(error)) from error
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
        status = error.response.status_code
        if status == 404:
            return WeightsNotFound(f"the hub has no such files of {repo}", hint="check the name, and run it again")
        return _gated(repo) if status in (401, 403) else _unreachable(repo, error)
    if isinstance(error, (_TRANSPORT_ERROR, OfflineModeIsEnabled, ConnectionError, TimeoutError)):
        return _unreachable(repo, error)
    return _broken_off(repo, (isinstance(error, OSError) and error.strerror) or _first_line(error))


def _broken_off(repo: str, reason: str) -> DownloadFailed:
    return DownloadFailed(
        f"the download of {repo} broke off: {reason}",
        hint="run it again: files that have arrived are kept; check that the cache (HF_HOME) is writable and has room",
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
