"""Work done side by side by a few threads, its results handed over in order and a few at a time."""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Generic, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


def cores() -> int:
    """CPU cores that this process may use."""
    # Only Linux tells which ones those are.
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


class Stopped(Exception):
    """Nobody waits for the results any more."""


class Channel(Generic[Result]):
    """Hands the results of one task from its worker to the reader; the worker waits while ``capacity`` are unread."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._results: deque[Result] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._stopped = False
        self._error: BaseException | None = None

    @property
    def ended(self) -> bool:
        """Whether its work is done."""
        return self._ended

    def put(self, result: Result) -> None:
        """Hand over a result.

        Raises:
            Stopped: see :meth:`stop`.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or len(self._results) < self._capacity)
            if self._stopped:
                raise Stopped
            self._results.append(result)
            self._changed.notify_all()

    def end(self, error: BaseException | None = None) -> None:
        """No further result comes; the reader meets the error, if there is one, after the results."""
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify_all()

    def stop(self) -> None:
        """The results are not wanted any more."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def refuse_stopped(self) -> None:
        """To be called now and then during long work.

        Raises:
            Stopped: see :meth:`stop`.
        """
        if self._stopped:
            raise Stopped

    def results(self) -> Iterator[Result]:
        """The results as they come.

        Raises:
            BaseException: what the work raised.
        """
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ended or self._results)
                if not self._results:
                    break
                result = self._results.popleft()
                self._changed.notify_all()
            yield result
        if self._error is not None:
            raise self._error


class Workers(Generic[Task, Result]):
    """Threads that take tasks in order. :meth:`close` ends them.

    Args:
        count: threads at most; each of the first tasks starts one.
        make_work: called once in each thread; gives what does a task and puts its results.
        capacity: results of one task that wait at most.
    """

    def __init__(self, count: int, make_work: Callable[[], Callable[[Task, Channel[Result]], None]], capacity: int):
        self.count = count
        self._make_work = make_work
        self._capacity = capacity
        self._tasks: SimpleQueue[tuple[Task, Channel[Result]] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._channels: list[Channel[Result]] = []

    def submit(self, task: Task) -> Channel[Result]:
        """Have a task done."""
        channel: Channel[Result] = Channel(self._capacity)
        self._channels = [*(one for one in self._channels if not one.ended), channel]
        self._tasks.put((task, channel))
        if len(self._threads) < self.count:
            thread = threading.Thread(target=self._run, name="decoding", daemon=True)
            self._threads.append(thread)
            thread.start()
        return channel

    def close(self) -> None:
        """Stop all work and wait for the threads to end."""
        for channel in self._channels:
            channel.stop()
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        work: Callable[[Task, Channel[Result]], None] | None = None
        while (item := self._tasks.get()) is not None:
            task, channel = item
            try:
                channel.refuse_stopped()
                work = work or self._make_work()
                work(task, channel)
                channel.end()
            except BaseException as error:  # noqa: BLE001 - the reader raises it
                channel.end(error)
            del item, task, channel
