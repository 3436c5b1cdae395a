"""What can be told of a file without looking at what is in it, and its name as it may be shown."""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path

from longvu_cli.errors import VideoNotFound


def printable(text: str) -> str:
    """The text with control, direction and other unprintable characters written as escapes (``\\x1b``)."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
    )


def without_secrets(path: str) -> str:
    """An address without the name, password and query that it may hold; other paths as they are."""
    return re.sub(r"^([a-z][a-z0-9+.-]+:/+)(?:.*@)?([^?#]*).*", r"\1\2", path, flags=re.IGNORECASE | re.DOTALL)


def without_passwords(text: str) -> str:
    """A sentence of which no address holds a name and password."""
    return re.sub(r"\S+", lambda word: _without_password(word[0]), text)


def _without_password(word: str) -> str:
    """In a time that grows with the length alone: a sentence may repeat what a file of rows says, however long."""
    before, at, place = word.rpartition("@")
    scheme = re.search(r"[a-z][a-z0-9+.-]{1,30}:/+", before, flags=re.IGNORECASE) if at else None
    return word if scheme is None else before[: scheme.end()] + place


def readable_file(path: str | Path) -> Path:
    """The absolute path of a regular, non-empty file that may be read; a pipe or device is never opened."""
    name = printable(str(path))
    try:
        status = Path(path).stat()
        if stat.S_ISDIR(status.st_mode):
            raise VideoNotFound(f"{name} is a directory", hint="name a video file")
        if not stat.S_ISREG(status.st_mode):
            raise VideoNotFound(f"{name} is not a regular file", hint="save the video to a file first")
        with Path(path).open("rb"):
            pass
    except (OSError, ValueError) as error:
        raise _not_found(path, name, error) from None
    if status.st_size == 0:
        raise VideoNotFound(f"{name}: the file is empty", hint="copy or download it again")
    return Path(os.path.abspath(path))


def _not_found(path: str | Path, name: str, error: OSError | ValueError) -> VideoNotFound:
    # pathlib writes `//` as `/`. The address is not repeated: it may hold a password.
    if re.match(r"[a-z][a-z0-9+.-]+:/", str(path), re.IGNORECASE) or "://" in str(path):
        return VideoNotFound("URLs are not supported", hint="download the video and name the file")
    if isinstance(error, ValueError):
        return VideoNotFound(f"{name}: no such file (the name holds a null character)", hint="check the path")
    if isinstance(error, PermissionError):
        return VideoNotFound(f"{name}: permission denied", hint="check who may read the file and its folder")
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return VideoNotFound(f"{name}: no such file", hint="check the path")
    if error.errno == errno.ELOOP:
        return VideoNotFound(f"{name}: its symbolic links form a loop", hint="name the file itself")
    return VideoNotFound(f"{name} cannot be read: {error.strerror}", hint="check the path and the disk")


def beginning(file: Path, size: int = 256) -> bytes:
    """The first bytes of a file."""
    with file.open("rb") as stream:
        return stream.read(size)


def ending(file: Path, size: int) -> bytes:
    """The last bytes of a file; all of them where it has no more."""
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - size))
        return stream.read(size)
