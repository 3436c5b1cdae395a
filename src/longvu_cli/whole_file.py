"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# How the name of a file begins that is not whole yet.
ASIDE = ".writing-"


@contextmanager
def whole_file(target: Path, *, private: bool = False, durable: bool = False) -> Iterator[Path]:
    """A new, empty file beside the target, which takes the target's place when all went well, and else goes.

    Its name is its own: of processes that write the same file at a time, the last one wins, and nothing is torn.

    Args:
        private: only the user may read it, whatever the umask says.
        durable: it is on the disk before it takes the target's place, so that a power failure leaves one of the two.

    Raises:
        OSError: the folder is missing or cannot be written to, or the disk is full.
    """
    aside = target.with_name(f"{ASIDE}{os.urandom(8).hex()}{target.suffix[:20]}")
    os.close(os.open(aside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600 if private else 0o666))
    try:
        yield aside
        if durable:
            with aside.open("rb+") as written:
                os.fsync(written.fileno())
        os.replace(aside, target)
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
