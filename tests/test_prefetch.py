"""prefetch.py: work ahead in a thread of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from longvu_cli.prefetch import prefetched


class Source:
    """Counts what was asked of it, and notes its end."""

    def __init__(self, count: int, *, fails_at: int | None = None) -> None:
        self.made = 0
        self.closed = False
        self._count, self._fails_at = count, fails_at

    def items(self) -> Iterator[int]:
        try:
            for number in range(self._count):
                if number == self._fails_at:
                    raise LookupError("the third item is bad")
                self.made += 1
                yield number
        finally:
            self.closed = True


def settled(source: Source, least: int) -> int:
    """How many items were made once the thread waits, which it does not before it made so many."""
    until = time.monotonic() + 60
    while source.made < least and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.05)
    return source.made


def threads() -> int:
    return sum(thread.name == "longvu-prefetch" for thread in threading.enumerate())


def test_the_items_come_in_order() -> None:
    assert list(prefetched(Source(100).items(), 3)) == list(range(100))
    assert list(prefetched(range(5), 1)) == [0, 1, 2, 3, 4]
    assert list(prefetched([], 1)) == []


def test_it_works_ahead_but_not_without_bound() -> None:
    source = Source(100)
    ahead = prefetched(source.items(), 4)
    assert source.made == 0
    assert next(ahead) == 0
    # One was read, four wait, and one more is in the thread's hand.
    assert settled(source, least=6) == 6
    ahead.close()


def test_an_error_comes_in_its_place() -> None:
    ahead = prefetched(Source(9, fails_at=3).items(), 2)
    assert [next(ahead), next(ahead), next(ahead)] == [0, 1, 2]
    with pytest.raises(LookupError, match="third item"):
        next(ahead)
    assert threads() == 0


def test_closing_early_ends_the_thread_and_closes_the_source() -> None:
    source = Source(1000)
    ahead = prefetched(source.items(), 2)
    next(ahead)
    assert threads() == 1
    ahead.close()
    assert source.closed
    assert source.made < 10
    assert threads() == 0
