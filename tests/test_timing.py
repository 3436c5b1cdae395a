"""timing.py, with a clock that the tests turn."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from longvu_cli import timing
from longvu_cli.timing import Stopwatch


class Clock:
    """Stands still until it is turned."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(timing, "time", clock)
    return clock


def test_a_stage_that_never_ran_has_no_seconds(clock: Clock) -> None:
    assert Stopwatch(lambda: None).seconds("decode") == 0


def test_a_stage_adds_up(clock: Clock) -> None:
    watch = Stopwatch(lambda: None)
    for seconds in (1.0, 2.5):
        with watch.stage("decode"):
            clock.now += seconds
        clock.now += 10
    assert watch.seconds("decode") == 3.5
    assert watch.elapsed() == 23.5


def test_a_stage_waits_for_the_device(clock: Clock) -> None:
    def wait() -> None:
        clock.now += 7

    watch = Stopwatch(wait)
    with watch.stage("siglip"):
        clock.now += 1
    assert watch.seconds("siglip") == 8


def test_a_stage_that_fails_is_counted_too(clock: Clock) -> None:
    watch = Stopwatch(lambda: None)
    with pytest.raises(KeyError), watch.stage("decode"):
        clock.now += 2
        raise KeyError
    assert watch.seconds("decode") == 2


def test_an_iterable_is_timed_without_its_consumer(clock: Clock) -> None:
    def items() -> Iterator[int]:
        for item in range(3):
            clock.now += 1
            yield item
        clock.now += 0.5

    watch = Stopwatch(lambda: None)
    seen = []
    for item in watch.over("decode", items()):
        clock.now += 100
        seen.append(item)
    assert seen == [0, 1, 2]
    assert watch.seconds("decode") == 3.5


def test_an_iterable_that_fails_passes_its_error_on(clock: Clock) -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("gone")

    watch = Stopwatch(lambda: None)
    with pytest.raises(OSError, match="gone"):
        list(watch.over("decode", items()))
