"""Results as lines of a file that several processes extend at once, and that outlives all of them.

Every change happens under a lock, and a line is one write. A process that is killed leaves at worst the beginning of a
line, which the next one cuts off. The locks are bytes of an empty file beside the results, so the kernel lets go of
them when a process dies, however it dies::

    byte 0      shared by all that have the file open; exclusive for the last of them, which removes it
    byte 1      reading and changing the results
    byte 2 + n  working on the row whose key begins with n
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from longvu_cli.errors import UsageError
from longvu_cli.result_stream import Entry

_PRESENT, _CHANGING, _FIRST_ROW = 0, 1, 2
# Hexadecimal digits of a key that choose its byte: as many as a file offset has room for.
_KEY_DIGITS = 15
# How every line begins: nothing else is ever cut off.
_BEGINNING = b'{"schema_version": '


class ResultFile:
    """A file of results, open for one of its processes. A context manager.

    Args:
        path: of the results; made when the first line is written.

    Raises:
        UsageError: it is no file of results, or cannot be read, written or locked.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(os.path.realpath(path))
        self._shown = path
        self._lock_path = self.path.with_name(f"{self.path.name}.lock")
        self._aside = self.path.with_name(f"{self.path.name}.rewriting")
        self._entries: dict[str, Entry] = {}
        self._read_from: tuple[int, int] = (0, 0)
        self._read_to = 0
        with self._refused():
            if self.path.exists() and not self.path.is_file():
                raise UsageError(f"{path} is no regular file", hint="name a file for the results")
            self._lock = _open_lock(self._lock_path)
        try:
            with self._refused():
                self.refresh()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def entries(self) -> Mapping[str, Entry]:
        """The lines by their keys, as they were when last looked at."""
        return self._entries

    def refresh(self) -> None:
        """Look at what others have written since.

        Raises:
            UsageError: a line is no result.
            OSError: the file cannot be read.
        """
        with self._changing():
            self._catch_up()

    def claim(self, key: str, *, wait: bool = False) -> bool:
        """Reserve a row for this process, until it is released or the process ends; False: another one has it."""
        try:
            fcntl.lockf(self._lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), 1, _byte(key))
        except (BlockingIOError, PermissionError):  # POSIX allows both
            return False
        self.refresh()
        return True

    def release(self, key: str) -> None:
        """Let go of a claim."""
        fcntl.lockf(self._lock, fcntl.LOCK_UN, 1, _byte(key))

    def append(self, record: Mapping[str, Any]) -> None:
        """Add a line, whole or not at all; none if there already is one of the record's key.

        Raises:
            OSError: it cannot be written (a full disk, for instance).
        """
        line = f"{json.dumps(record, allow_nan=False)}\n".encode()
        with self._changing():
            self._catch_up()
            if record["key"] in self._entries:
                return
            file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            try:
                end = os.fstat(file).st_size
                if os.write(file, line) < len(line):
                    os.ftruncate(file, end)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            finally:
                os.close(file)
            self._catch_up()

    def drop(self, stale: Callable[[Entry], bool]) -> int:
        """Take lines out, all at once; says how many.

        Raises:
            OSError: the file cannot be written again.
        """
        with self._changing():
            self._aside.unlink(missing_ok=True)  # of a process that was killed while it was at it
            self._catch_up()
            doomed = {key for key, entry in self._entries.items() if stale(entry)}
            if doomed:
                self._rewrite_without(doomed)
                self._catch_up()
        return len(doomed)

    def close(self) -> None:
        """Give back all claims, and remove the file of the locks if no other process has it open."""
        with suppress(OSError):
            fcntl.lockf(self._lock, fcntl.LOCK_EX, 1, _CHANGING)
            # Of two that end together, the second finds that the first is no longer there.
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _PRESENT)
            if os.fstat(self._lock).st_size == 0:  # or it is someone's own file, which has the same name
                self._lock_path.unlink()
        os.close(self._lock)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        fcntl.lockf(self._lock, fcntl.LOCK_EX, 1, _CHANGING)
        try:
            yield
        finally:
            fcntl.lockf(self._lock, fcntl.LOCK_UN, 1, _CHANGING)

    def _catch_up(self) -> None:
        """Read the lines that came since, and cut off one that was left half written."""
        try:
            file = os.open(self.path, os.O_RDWR)
        except FileNotFoundError:
            self._entries, self._read_to = {}, 0
            return
        with open(file, "rb") as stream:
            status = os.fstat(file)
            identity = (status.st_dev, status.st_ino)
            if identity != self._read_from or status.st_size < self._read_to:
                self._entries, self._read_from, self._read_to = {}, identity, 0
            stream.seek(self._read_to)
            for line in stream:
                if not line.endswith(b"\n"):
                    self._require_ours(line.startswith(_BEGINNING[: len(line)]))
                    os.ftruncate(file, self._read_to)
                    return
                entry = _entry(line)
                self._require_ours(entry is not None)
                if entry is not None:
                    self._entries[entry.key] = entry
                self._read_to += len(line)

    def _require_ours(self, ours: bool) -> None:
        if not ours:
            raise UsageError(
                f"{self._shown} holds something else than results of longvu",
                hint="name a new file for the results",
            )

    def _rewrite_without(self, doomed: set[str]) -> None:
        try:
            with self.path.open("rb") as old, self._aside.open("wb") as new:
                for line in old:
                    entry = _entry(line)
                    if entry is None or entry.key not in doomed:
                        new.write(line)
                new.flush()
                os.fsync(new.fileno())
            shutil.copymode(self.path, self._aside)
            os.replace(self._aside, self.path)
        finally:
            self._aside.unlink(missing_ok=True)

    @contextmanager
    def _refused(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UsageError(
                f"results cannot be written to {self._shown}: {error.strerror}", hint="name another file"
            ) from error


def _open_lock(path: Path) -> int:
    """The file of the locks, open, and this process counted among those that have it open."""
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.lockf(lock, fcntl.LOCK_SH, 1, _PRESENT)
            # The last process may have removed it between the two lines above.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(lock), path.stat()):
                    return lock
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)


def _byte(key: str) -> int:
    return _FIRST_ROW + int(key[:_KEY_DIGITS], 16)


def _entry(line: bytes) -> Entry | None:
    """What a line says; None: it is no result."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or not _is_key(record.get("key")):
        return None
    return Entry(
        key=record["key"],
        failed="error" in record,
        place=record.get("place"),
        manifest=record.get("manifest"),
    )


def _is_key(value: object) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")
