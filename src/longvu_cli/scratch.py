"""Temporary files, for which there may be no room."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from longvu_cli.errors import NoScratchSpace


def scratch_file() -> IO[bytes]:
    """A new file without a name, so that nothing is left behind whatever happens.

    Without a buffer: what found no room would be written again, and fail again, when the file is closed.

    Raises:
        NoScratchSpace: there is no folder for it.
    """
    with scratch_errors():
        return tempfile.TemporaryFile(buffering=0, prefix="longvu-")


def write_all(file: IO[bytes], data: memoryview) -> None:
    """Write all of some bytes; a disk that is nearly full takes a part of them first.

    Raises:
        NoScratchSpace: the disk is full, for instance.
    """
    with scratch_errors():
        while data:
            data = data[file.write(data) :]


@contextmanager
def scratch_errors() -> Iterator[None]:
    """Errors of the system, as ours.

    Raises:
        NoScratchSpace: the block raised one.
    """
    try:
        yield
    except OSError as error:
        raise NoScratchSpace(
            f"a temporary file cannot be written or read: {error.strerror}",
            hint="free some space, or set TMPDIR to a folder on a larger disk",
        ) from error
