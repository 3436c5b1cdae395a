"""Whether a file is what the hub says it is: its digest, and a note of the files whose digest was right.

Reading 15 GB takes long, so a file is read once, and after that its size and its time of change must be those of then.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path

from longvu_cli.folders import cache_folder
from longvu_cli.whole_file import whole_file

_NOTES = "verified.json"
_FORMAT = 1
_PIECE_BYTES = 2**20
# Lengths of the two kinds of digest that the hub gives: SHA-256 of large files, git's SHA-1 of small ones.
_SHA256_DIGITS, _GIT_DIGITS = 64, 40


def is_digest(etag: str) -> bool:
    """Whether the hub's name for a content is a digest that can be compared."""
    return len(etag) in (_SHA256_DIGITS, _GIT_DIGITS) and set(etag) <= set("0123456789abcdef")


def has_digest(path: Path, etag: str) -> bool:
    """Read the whole file, and compare.

    Raises:
        OSError: it cannot be read.
    """
    if not is_digest(etag):
        return False
    with path.open("rb") as file:
        if len(etag) == _SHA256_DIGITS:
            return hashlib.file_digest(file, "sha256").hexdigest() == etag
        digest = hashlib.sha1(b"blob %d\0" % os.fstat(file.fileno()).st_size, usedforsecurity=False)
        while piece := file.read(_PIECE_BYTES):
            digest.update(piece)
        return digest.hexdigest() == etag


class Verified:
    """The files whose digest was right when they were read. Losing this costs nothing but reading them again.

    Args:
        path: of the notes; made with the first.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def default(cls) -> Verified:
        """The user's own."""
        return cls(cache_folder() / _NOTES)

    def knows(self, file: Path, etag: str | None) -> bool:
        """Whether the file was right, and was not changed since.

        Args:
            etag: the digest that it must have had; None: any.
        """
        noted = self._read().get(os.path.realpath(file))
        with suppress(OSError):
            return noted is not None and noted == _stamp(file, noted[0] if etag is None else etag)
        return False

    def note(self, file: Path, etag: str) -> None:
        """Remember that a file is right; nothing happens where that cannot be written."""
        with suppress(OSError):
            self._write({**self._read(), os.path.realpath(file): _stamp(file, etag)})

    def forget(self, file: Path) -> None:
        """Read the file again the next time."""
        notes = self._read()
        if notes.pop(os.path.realpath(file), None) is not None:
            with suppress(OSError):
                self._write(notes)

    def _read(self) -> dict[str, list[object]]:
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        if not isinstance(content, dict) or content.get("format") != _FORMAT or not isinstance(content["files"], dict):
            return {}
        return {path: stamp for path, stamp in content["files"].items() if isinstance(stamp, list) and len(stamp) == 3}

    def _write(self, notes: dict[str, list[object]]) -> None:
        """All at once: of two processes the later wins, and what the other noted is read again one day."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        kept = {path: stamp for path, stamp in notes.items() if os.path.exists(path)}
        with whole_file(self.path, private=True) as aside:
            aside.write_text(json.dumps({"format": _FORMAT, "files": kept}), encoding="utf-8")


def _stamp(file: Path, etag: object) -> list[object]:
    status = file.stat()
    return [etag, status.st_size, status.st_mtime_ns]
