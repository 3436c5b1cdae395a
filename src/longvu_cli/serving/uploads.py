"""Files that clients sent, in a folder of their own that goes with the server."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import secrets
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from longvu_cli.serving.failures import Refused, refused
from longvu_cli.serving.multipart import FileForm
from longvu_cli.video_file import printable

# A file's time of change is of its content: the feature cache knows the same content again, however it came.
# 2^60 ns are 36 years after 1970, which every file system can hold.
_TIME_BITS = 60
_LONGEST_NAME = 255


@dataclass
class Upload:
    """A file that a client sent.

    Attributes:
        users: requests that need it.
        is_doomed: it goes when nobody needs it any more.
    """

    id: str
    path: Path
    size: int
    filename: str
    purpose: str
    created: int
    users: int = 0
    is_doomed: bool = False


class Uploads:
    """The folder. A context manager, which removes it; its methods belong to one thread.

    Args:
        max_file_bytes: of one file.
        max_bytes: of all together. Those not used for longest make room.
    """

    def __init__(self, *, max_file_bytes: int, max_bytes: int) -> None:
        self.max_file_bytes = max_file_bytes
        self._max_bytes = max_bytes
        self._folder = tempfile.TemporaryDirectory(prefix="longvu-uploads-", ignore_cleanup_errors=True)
        # The last used come last.
        self._uploads: dict[str, Upload] = {}
        self._coming_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    @property
    def size(self) -> int:
        """Bytes of all files, those that are coming included."""
        return sum(upload.size for upload in self._uploads.values()) + self._coming_bytes

    async def receive(self, content_type: str, body: AsyncIterator[bytes]) -> Upload:
        """Keep the file of a form, as it comes.

        Raises:
            Refused: it is malformed or too large, or there is no room.
        """
        with self._coming() as coming:
            form = FileForm(content_type, coming.write)
            async for data in body:
                form.feed(data)
            form.finish()
            return self._kept(coming, filename=form.filename, purpose=form.purpose)

    def hold_sent_along(self, content: str) -> Upload:
        """Keep a file of a request (base64) for as long as the request needs it.

        Raises:
            Refused: it is no base64, or there is no room.
        """
        try:
            data = base64.b64decode(content, validate=True)
        except (binascii.Error, ValueError):
            raise refused(400, "BadVideoUrl", "the video in the request is no base64", param="messages") from None
        with self._coming() as coming:
            coming.write(data)
            upload = self._kept(coming, filename="", purpose="")
        upload.is_doomed = True
        upload.users = 1
        return upload

    def get(self, name: str) -> Upload:
        """The upload of an id.

        Raises:
            Refused: there is none.
        """
        upload = self._uploads.get(name)
        if upload is None or upload.is_doomed:
            raise refused(404, "NoSuchFile", "there is no upload of this id", hint="upload the file again")
        return upload

    def hold(self, name: str) -> Upload:
        """The same, which stays until it is released."""
        upload = self.get(name)
        upload.users += 1
        self._uploads[name] = self._uploads.pop(name)
        return upload

    def release(self, upload: Upload) -> None:
        """A request does not need it any more."""
        upload.users -= 1
        self._sweep(upload)

    def remove(self, name: str) -> None:
        """Let an upload go, when nobody needs it any more.

        Raises:
            Refused: there is none.
        """
        upload = self.get(name)
        upload.is_doomed = True
        self._sweep(upload)

    def _sweep(self, upload: Upload) -> None:
        if upload.is_doomed and not upload.users:
            self._uploads.pop(upload.id)
            upload.path.unlink(missing_ok=True)

    @contextmanager
    def _coming(self) -> Iterator[_Coming]:
        """A file that is about to come, and goes unless it is kept."""
        try:
            coming = _Coming(Path(self._folder.name) / f"file-{secrets.token_hex(16)}", self._admit)
            try:
                yield coming
            finally:
                self._coming_bytes -= coming.size
                if coming.path.name not in self._uploads:
                    coming.path.unlink(missing_ok=True)
                coming.close()
        except OSError as error:
            raise refused(507, "NoRoom", f"the file cannot be kept: {error.strerror}") from error

    def _admit(self, so_far: int, more: int) -> None:
        """Make room for a piece of a file."""
        if so_far + more > self.max_file_bytes:
            raise too_large(self.max_file_bytes)
        for upload in [upload for upload in self._uploads.values() if not upload.users]:
            if self.size + more <= self._max_bytes:
                break
            upload.is_doomed = True
            self._sweep(upload)
        if self.size + more > self._max_bytes:
            raise refused(507, "NoRoom", "there is no room for more uploads", hint="delete some, or try again later")
        self._coming_bytes += more

    def _kept(self, coming: _Coming, *, filename: str, purpose: str) -> Upload:
        coming.close()
        changed = int.from_bytes(coming.digest.digest()[:8]) >> (64 - _TIME_BITS)
        os.utime(coming.path, ns=(changed, changed))
        upload = Upload(
            id=coming.path.name,
            path=coming.path,
            size=coming.size,
            filename=shown_name(filename),
            purpose=printable(purpose),
            created=int(time.time()),
        )
        self._uploads[upload.id] = upload
        return upload


class _Coming:
    """A file that is being written.

    Args:
        admit: hears how much there is and how much more comes, and refuses what is too much.
    """

    def __init__(self, path: Path, admit: Callable[[int, int], None]) -> None:
        self.path = path
        self.size = 0
        self.digest = hashlib.sha256()
        self._admit = admit
        self._file = path.open("xb")

    def write(self, data: bytes) -> None:
        """A piece of it."""
        self._admit(self.size, len(data))
        self.size += len(data)
        self.digest.update(data)
        self._file.write(data)

    def close(self) -> None:
        """What was written is in the file."""
        self._file.close()


def shown_name(filename: str) -> str:
    """What a client calls a file, as it may be told: without folders, and in characters that harm nothing."""
    return printable(re.split(r"[/\\]", filename)[-1])[:_LONGEST_NAME] or "upload"


def too_large(most_bytes: int) -> Refused:
    """The refusal of what is larger than allowed."""
    return refused(413, "TooLarge", "the request is too large", hint=f"{most_bytes:,} bytes are the most")
