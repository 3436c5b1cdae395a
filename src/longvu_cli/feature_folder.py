"""The folder with the features of videos: what is in it, and what has to leave it. Needs no torch.

``feature_cache.py`` writes and reads the entries; several processes may do so at a time.
"""

from __future__ import annotations

import json
import stat
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from longvu_cli.folders import cache_folder
from longvu_cli.whole_file import ASIDE

SUFFIX = ".safetensors"
# The entry in a file's metadata that holds the facts, as JSON.
FACTS = "longvu"
# Seconds after which nobody can still be writing an entry.
_ABANDONED_S = 3600


@dataclass(frozen=True)
class CachedVideo:
    """What an entry says of itself.

    Attributes:
        video: path of the video when it was last looked at in full; it may be elsewhere by now.
        duration_s: seconds; None where they are not known.
        sampled, kept: frames.
    """

    video: str
    duration_s: float | None
    sampled: int
    kept: int


@dataclass(frozen=True)
class Entry:
    """One file of the folder.

    Attributes:
        key: digest of the video and of every setting that matters.
        used_s: when it was last used, in seconds since 1970.
        content: None where the file is damaged; it is made again when it is next needed.
    """

    path: Path
    key: str
    bytes: int
    used_s: float
    content: CachedVideo | None


@dataclass(frozen=True)
class _File:
    path: Path
    bytes: int
    used_s: float


class FeatureFolder:
    """The entries in a folder, which need not exist."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def default(cls) -> FeatureFolder:
        """The user's own."""
        return cls(cache_folder() / "features")

    def entries(self) -> list[Entry]:
        """What is there, the last used first."""
        return [
            Entry(file.path, file.path.stem, file.bytes, file.used_s, _content(file.path)) for file in self._files()
        ]

    def prune(
        self, *, max_bytes: int | None = None, older_than_s: float | None = None, everything: bool = False
    ) -> list[Path]:
        """Let entries go, and what killed processes left half written.

        Args:
            max_bytes: the least recently used go until the rest is no larger.
            older_than_s: those go that were not used for so long.
            everything: all go.

        Returns:
            The entries that went.

        Raises:
            OSError: one may not be removed.
        """
        now = time.time()
        self._sweep(now)
        gone: list[Path] = []
        total = 0
        for file in self._files():
            total += file.bytes
            too_much = max_bytes is not None and total > max_bytes
            too_old = older_than_s is not None and now - file.used_s > older_than_s
            if everything or too_much or too_old:
                file.path.unlink(missing_ok=True)
                gone.append(file.path)
        return gone

    def _files(self) -> list[_File]:
        """By the time of their last use, the latest first."""
        found = [file for path in self.folder.glob(f"*{SUFFIX}") if (file := _stat(path)) is not None]
        return sorted(found, key=lambda file: file.used_s, reverse=True)

    def _sweep(self, now: float) -> None:
        for path in self.folder.glob(f"{ASIDE}*"):
            aside = _stat(path)
            if aside is not None and now - aside.used_s > _ABANDONED_S:
                path.unlink(missing_ok=True)


def _stat(path: Path) -> _File | None:
    try:
        status = path.stat()
    except FileNotFoundError:  # another process let it go
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    return _File(path, status.st_size, status.st_mtime_ns / 1e9)


def _content(path: Path) -> CachedVideo | None:
    with suppress(OSError, SafetensorError, ValueError, KeyError, TypeError, IndexError):
        with safe_open(path, framework="np") as file:
            facts = json.loads(file.metadata()[FACTS])
            kept = int(file.get_slice("indices").get_shape()[0])
        video = facts["video"]
        return CachedVideo(
            video=str(video["path"]), duration_s=video["duration_s"], sampled=len(facts["times"]), kept=kept
        )
    return None
