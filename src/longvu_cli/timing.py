"""Seconds per stage."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")


class Stopwatch:
    """Adds up the seconds that each named stage takes.

    Args:
        synchronize: called before the clock is read, to wait for work under way on a device.
    """

    def __init__(self, synchronize: Callable[[], None]) -> None:
        self._synchronize = synchronize
        self._seconds: dict[str, float] = {}
        self._started = time.perf_counter()

    @contextmanager
    def stage(self, name: str, *, on_device: bool = True) -> Iterator[None]:
        """Count the time of a block.

        Args:
            on_device: whether the block starts work on the device, which is waited for.
        """
        begin = time.perf_counter()
        try:
            yield
        finally:
            if on_device:
                self._synchronize()
            self.add(name, time.perf_counter() - begin)

    def over(self, name: str, items: Iterable[Item]) -> Iterator[Item]:
        """Count the time that an iterable takes to make its items."""
        iterator = iter(items)
        while True:
            begin = time.perf_counter()
            try:
                item = next(iterator)
            except StopIteration:
                return
            finally:
                self.add(name, time.perf_counter() - begin)
            yield item

    def add(self, name: str, seconds: float) -> None:
        """Add seconds to a stage."""
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds

    def seconds(self, name: str) -> float:
        """Seconds of a stage so far; 0 when it never ran."""
        return self._seconds.get(name, 0.0)

    def elapsed(self) -> float:
        """Seconds since the stopwatch was made."""
        return time.perf_counter() - self._started
