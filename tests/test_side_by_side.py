"""Threads whose results come in order, a few at a time, and that end when nobody waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from longvu_cli.side_by_side import Channel, Workers, cores

Work = Callable[[int, Channel[int]], None]


def counting() -> Work:
    def work(task: int, channel: Channel[int]) -> None:
        for number in range(10):
            channel.put(10 * task + number)

    return work


def running() -> int:
    return sum(thread.name == "decoding" for thread in threading.enumerate())


@pytest.mark.parametrize("count", [1, 3, 8])
def test_results_come_in_order(count: int) -> None:
    workers = Workers(count, counting, capacity=2)
    channels = [workers.submit(task) for task in range(6)]
    assert [result for channel in channels for result in channel.results()] == list(range(60))
    workers.close()
    assert running() == 0


def test_a_worker_waits_for_its_reader() -> None:
    put: list[int] = []

    def noting() -> Work:
        def work(task: int, channel: Channel[int]) -> None:
            for number in range(10):
                channel.put(number)
                put.append(number)

        return work

    workers = Workers(1, noting, capacity=3)
    channel = workers.submit(0)
    until = time.monotonic() + 60
    while len(put) < 3 and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.1)
    assert len(put) == 3
    assert list(channel.results()) == list(range(10))
    workers.close()


def test_closing_ends_workers_that_wait() -> None:
    workers = Workers(3, counting, capacity=1)
    for task in range(6):
        workers.submit(task)
    workers.close()
    assert running() == 0


def test_an_error_comes_after_the_results() -> None:
    def failing() -> Work:
        def work(task: int, channel: Channel[int]) -> None:
            channel.put(task)
            raise ZeroDivisionError

        return work

    workers = Workers(2, failing, capacity=1)
    results = workers.submit(7).results()
    assert next(results) == 7
    with pytest.raises(ZeroDivisionError):
        next(results)
    # The thread goes on with other tasks.
    assert next(workers.submit(8).results()) == 8
    workers.close()


def test_there_are_cores() -> None:
    assert cores() >= 1
