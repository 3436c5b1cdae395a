"""Several workers, each with a model of its own, and the one place that gives them rows.

A thread for each worker passes on what the worker tells; everything else happens in the thread that asks for answers.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from longvu_cli.engines.engine import Answered, Failed, Outcome
from longvu_cli.engines.events import CannotLoad, Died, Event, Loaded, Lost, Told, Unreachable, Without
from longvu_cli.errors import LongVUError, UsageError, WorkerDied
from longvu_cli.manifest import Row
from longvu_cli.owed import Owed

# A row that so many workers died at is given to no other; where so many died at their start, no other is started.
_MOST_DEATHS = 3
# How often rows that other processes are at are looked at while there is other work.
_LOOK_S = 1.0
# What workers are given to end by themselves.
_FAREWELL_S = 1.2


class Worker(Protocol):
    """A process with a model, seen from outside."""

    def send(self, row: Row) -> None:
        """Give it a row; that it is gone is noticed elsewhere."""

    def events(self) -> Iterator[Event]:
        """What it tells, as it comes, to the end; :class:`Died` or :class:`Unreachable` is the last."""

    def dismiss(self) -> None:
        """Ask it to end at once."""

    def make_gone(self, within_s: float) -> None:
        """See to it that it has ended, after it was dismissed, by itself or by force."""


@dataclass
class _Lane:
    """A place for a worker, which keeps its number when another takes it.

    Attributes:
        relay: the thread that passes on what it tells.
        ready: the worker has its model.
        row: the worker is at.
        failed_starts: workers that died here one after the other without getting ready.
        error: why no worker can be here any more.
    """

    number: int
    worker: Worker | None = None
    relay: threading.Thread | None = None
    ready: bool = False
    row: Row | None = None
    failed_starts: int = 0
    error: LongVUError | None = None

    @property
    def idle(self) -> bool:
        return self.ready and self.row is None

    @property
    def vacant(self) -> bool:
        return self.worker is None and self.error is None


class Dispatcher:
    """An engine of several workers. A context manager: the first worker is ready within it, and all are gone after it.

    The first loads alone, so that what has to be downloaded is downloaded once. The others are started when there are
    videos for them. The rows of a video go to one worker; what a worker was at when it died goes to the next.

    Args:
        hire: starts the worker of a place, counted from 0.
        lanes: most workers at a time.
        on_told: hears how it goes.

    Raises:
        LongVUError: the first worker cannot load its model, or none can be reached.
        WorkerDied: it died three times.
    """

    def __init__(self, hire: Callable[[int], Worker], lanes: int, on_told: Callable[[Told], None]) -> None:
        self.lanes = lanes
        self.identity = ""
        self.context_length = 0
        self._hire = hire
        self._on_told = on_told
        self._lanes = [_Lane(number) for number in range(lanes)]
        self._events: queue.SimpleQueue[tuple[Worker, Event]] = queue.SimpleQueue()
        self._deaths: Counter[int] = Counter()

    def __enter__(self) -> Self:
        first = self._lanes[0]
        try:
            while not first.ready:
                if first.error is not None:
                    raise first.error
                if first.vacant:
                    self._start(first)
                self._next(timeout=None, owed=None)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def answers(self, owed: Owed) -> Generator[Outcome, None, None]:
        """See :class:`~longvu_cli.engines.engine.Engine`."""
        self._deaths.clear()
        while True:
            self._give_out(owed)
            if not any(lane.row for lane in self._lanes):
                if not owed.left:
                    return
                idle = next((lane for lane in self._lanes if lane.idle), None)
                if idle is not None:
                    # Nobody is at anything: only rows of other processes are left.
                    if (row := owed.take(idle.number, wait=True)) is None:
                        return
                    self._give(idle, row)
                    continue
                self._require_some()
            outcome = self._next(timeout=_LOOK_S if owed.waiting else None, owed=owed)
            if outcome is not None:
                yield outcome

    def _give_out(self, owed: Owed) -> None:
        """Rows for who has none, and workers for the videos that nobody has."""
        for lane in self._lanes:
            if lane.idle and (row := owed.take(lane.number, wait=False)) is not None:
                self._give(lane, row)
        coming = sum(lane.worker is not None and lane.row is None for lane in self._lanes)
        vacant = [lane for lane in self._lanes if lane.vacant]
        for lane in vacant[: max(0, owed.left - coming)]:
            self._start(lane)

    def _give(self, lane: _Lane, row: Row) -> None:
        assert lane.worker is not None, "only who is there gets a row"
        lane.row = row
        lane.worker.send(row)

    def _start(self, lane: _Lane) -> None:
        lane.worker = worker = self._hire(lane.number)

        def relay() -> None:
            for event in worker.events():
                self._events.put((worker, event))

        lane.relay = threading.Thread(target=relay, name=f"longvu-worker-{lane.number}", daemon=True)
        lane.relay.start()

    def _next(self, *, timeout: float | None, owed: Owed | None) -> Outcome | None:
        """Wait for an event; returns it if it is what came of a row."""
        try:
            worker, event = self._events.get(timeout=timeout)
        except queue.Empty:
            return None
        lane = next((lane for lane in self._lanes if lane.worker is worker), None)
        if lane is None:  # it was let go of
            return None
        match event:
            case Answered() | Failed():
                lane.row = None
                return event
            case Loaded():
                self._welcome(lane, event)
            case CannotLoad(error=error):
                self._close(lane, error)
            case Died():
                return self._bury(lane, event, owed)
            case Unreachable(error=error):
                self._on_told(event)
                raise error
            case _:
                self._on_told(event)
        return None

    def _welcome(self, lane: _Lane, loaded: Loaded) -> None:
        lane.failed_starts = 0
        if self.identity and loaded.identity != self.identity:
            self._close(
                lane,
                UsageError(
                    f"worker {lane.number + 1} has another model than worker 1, or other numbers ({loaded.info.dtype})",
                    hint="have the same weights and the same kind of device everywhere, or name --revision and --dtype",
                ),
            )
            return
        lane.ready = True
        if not self.identity:
            self.identity = loaded.identity
            self.context_length = loaded.context_length
            self._on_told(loaded)

    def _bury(self, lane: _Lane, died: Died, owed: Owed | None) -> Outcome | None:
        row, was_ready = lane.row, lane.ready
        lane.worker, lane.ready, lane.row = None, False, None
        if row is not None and owed is not None:
            self._deaths[row.number] += 1
            if self._deaths[row.number] >= _MOST_DEATHS:
                owed.leave(lane.number)
                return Failed(row, WorkerDied(f"{_MOST_DEATHS} workers died at it; the last {died.how}", hint=_HINT))
            owed.leave(lane.number, row)
        elif owed is not None:
            owed.leave(lane.number)
        lane.failed_starts += not was_ready
        if lane.failed_starts >= _MOST_DEATHS:
            told = f"{_MOST_DEATHS} workers died while they loaded the model; the last {died.how}"
            self._close(lane, WorkerDied(told, hint=_HINT))
            return None
        self._on_told(Lost(lane.number + 1, died, row))
        return None

    def _close(self, lane: _Lane, error: LongVUError) -> None:
        """No more workers in this place; others may go on."""
        if lane.worker is not None:
            lane.worker.dismiss()
            lane.worker.make_gone(_FAREWELL_S)
        lane.worker, lane.ready, lane.error = None, False, error
        if any(other.error is None for other in self._lanes) and self.identity:
            self._on_told(Without(lane.number + 1, error))

    def _require_some(self) -> None:
        errors = [lane.error for lane in self._lanes if lane.error is not None]
        if len(errors) == len(self._lanes):
            raise errors[0]

    def _end(self) -> None:
        workers = [lane.worker for lane in self._lanes if lane.worker is not None]
        for lane in self._lanes:
            lane.worker, lane.ready, lane.row = None, False, None
        for worker in workers:
            worker.dismiss()
        until = time.monotonic() + _FAREWELL_S
        for worker in workers:
            worker.make_gone(max(0.0, until - time.monotonic()))
        for lane in self._lanes:
            if lane.relay is not None:
                lane.relay.join(_FAREWELL_S)


_HINT = "the machine may have run out of memory; try fewer --processes, and --verbose for what they said last"
