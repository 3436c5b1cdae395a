"""Videos that lie on the server's disks: which of them a client may name."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

from longvu_cli.serving.failures import refused

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)
_UPLOAD = re.compile(r"file-[0-9a-f]{32}")
_DATA, _FILE = "data:", "file:"


@dataclass(frozen=True)
class NamedPath:
    """A file on the server's disks, as the client wrote it.

    Attributes:
        bytes, modified_ns: of the file that the client means, if it says so.
    """

    path: str
    bytes: int | None = None
    modified_ns: int | None = None


@dataclass(frozen=True)
class NamedUpload:
    """A file that was uploaded before."""

    id: str


@dataclass(frozen=True)
class SentAlong:
    """A file in the request itself, in base64."""

    base64: str


Reference = NamedPath | NamedUpload | SentAlong


def reference_of(address: str) -> Reference:
    """What a client's address of a video means.

    Raises:
        Refused: it is of no kind that is served. Nothing is fetched from anywhere.
    """
    if address[: len(_DATA)].lower() == _DATA:
        kind, _, content = address.partition(",")
        if not kind.lower().endswith(";base64"):
            raise refused(400, "BadVideoUrl", "a data: URL has to be base64", param="messages")
        return SentAlong(content)
    if _UPLOAD.fullmatch(address):
        return NamedUpload(address)
    if address[: len(_FILE)].lower() == _FILE:
        return NamedPath(_path_of(address))
    if _SCHEME.match(address):
        raise refused(
            400,
            "BadVideoUrl",
            "videos are not fetched from other places",
            hint="upload the file, or give its path",
            param="messages",
        )
    if not address.startswith("/"):
        raise refused(400, "BadVideoUrl", "the path of a video has to be a whole one", param="messages")
    return NamedPath(address)


def _path_of(address: str) -> str:
    try:
        parts = urlsplit(address)
        host = parts.hostname
    except ValueError:
        raise refused(400, "BadVideoUrl", "the file: URL is none", param="messages") from None
    if host not in (None, "", "localhost"):
        raise refused(400, "BadVideoUrl", "a file: URL cannot name another machine", param="messages")
    # Names of files may hold any bytes.
    return os.fsdecode(unquote_to_bytes(address.partition(":")[2].removeprefix(f"//{host or ''}")))


class AllowedPaths:
    """The folders that clients may name videos in.

    Args:
        folders: with all that is below them. A link is followed first, and what counts is where it leads.
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        self._folders = tuple(Path(os.path.realpath(folder)) for folder in folders)

    def resolve(self, named: NamedPath) -> Path:
        """The file itself, without links.

        Raises:
            Refused: it is outside; whether there is such a file is not told then. Or it is another than the client
                means.
        """
        try:
            path = Path(os.path.realpath(named.path))
        except (OSError, ValueError):
            raise _outside() from None
        if not any(path.is_relative_to(folder) for folder in self._folders):
            raise _outside()
        if named.bytes is not None or named.modified_ns is not None:
            _require_same(path, named)
        return path


def _outside() -> Exception:
    return refused(
        403,
        "PathNotAllowed",
        "the video is in none of the folders that this server may read",
        hint="upload it, or start the server with --allow-path",
        param="messages",
    )


def _require_same(path: Path, named: NamedPath) -> None:
    try:
        status = path.stat()
    except OSError:
        same = False
    else:
        same = named.bytes in (None, status.st_size) and named.modified_ns in (None, status.st_mtime_ns)
    if not same:
        raise refused(412, "OtherFile", "the server has another file at this path, or none", param="messages")
