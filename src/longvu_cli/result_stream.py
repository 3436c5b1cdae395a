"""Where results go: what a file of them and a stream of them have in common, and the stream."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Entry:
    """What a line of the results says about its row.

    Attributes:
        failed: it is an error.
        place, manifest: as the line has them, or None.
    """

    key: str
    failed: bool
    place: str | None
    manifest: str | None


class Results(Protocol):
    """Where results go: ``ResultFile``, or :class:`ResultStream`."""

    @property
    def entries(self) -> Mapping[str, Entry]:
        """What is there, by key."""

    def refresh(self) -> None:
        """Look at what others have written since."""

    def claim(self, key: str, *, wait: bool = False) -> bool:
        """Reserve a row, and refresh; False: another process has it."""

    def release(self, key: str) -> None:
        """Let go of a claim."""

    def append(self, record: Mapping[str, Any]) -> None:
        """Add a line."""

    def drop(self, stale: Callable[[Entry], bool]) -> int:
        """Take lines out; says how many."""


class ResultStream:
    """Results that go where nobody can look them up again, such as a pipe.

    Args:
        write: takes a line without its end.
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._entries: dict[str, Entry] = {}

    @property
    def entries(self) -> Mapping[str, Entry]:
        """What was written, by key."""
        return self._entries

    def refresh(self) -> None:
        """Nobody else writes."""

    def claim(self, key: str, *, wait: bool = False) -> bool:
        """Nobody else works."""
        return True

    def release(self, key: str) -> None:
        """See :meth:`claim`."""

    def append(self, record: Mapping[str, Any]) -> None:
        """Write a line."""
        self._write(json.dumps(record, allow_nan=False))
        self._entries[record["key"]] = Entry(record["key"], failed="error" in record, place=None, manifest=None)

    def drop(self, stale: Callable[[Entry], bool]) -> int:
        """What is written is written."""
        return 0
