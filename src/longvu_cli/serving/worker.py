"""One thread for the model, and a bounded queue before it."""

from __future__ import annotations

import asyncio
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from longvu_cli.errors import LongVUError
from longvu_cli.manifest import Settings
from longvu_cli.results import Answer, Chunk
from longvu_cli.serving.failures import Failure, Refused, failure_of, unexpected
from longvu_cli.serving.options import seconds_shown

# Of the time that an answer took lately, how much the last one counts.
_LAST_COUNTS = 0.2


@dataclass(frozen=True)
class Task:
    """A question about a file.

    Attributes:
        history: questions and answers that came before, the oldest first.
        called: what the client calls the file, if it has another name here.
    """

    video: Path
    question: str
    history: tuple[tuple[str, str], ...]
    settings: Settings
    called: str | None = None

    def failure_of(self, error: LongVUError) -> Failure:
        """How an error is told to who asked."""
        failure = failure_of(error)
        return failure if self.called is None else failure.calling(self.video, self.called)


class Outcome(StrEnum):
    """How a task ended."""

    ANSWERED = "answered"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class Done:
    """A task that ended.

    Attributes:
        waited_s: in the queue.
        worked_s: with the model; 0 if it never came to that.
        answer: if there is one.
    """

    outcome: Outcome
    waited_s: float
    worked_s: float
    answer: Answer | None = None


Event = str | Answer | Failure
"""A piece of an answer; the last is the whole answer, or what went wrong."""
Progress = Callable[[str, int, int | None], None]
Ask = Callable[[Task, Progress], Generator[Chunk, None, None]]


class Job:
    """A task in the queue, or at work: hands events to the event loop that it was made in.

    Nothing that the model makes waits for who reads it: an answer is no longer than its limit of tokens.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.cancelled = threading.Event()
        self.submitted = time.monotonic()
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event] = asyncio.Queue()

    async def next(self) -> Event:
        """The next event."""
        return await self._events.get()

    def put(self, event: Event) -> None:
        """Hand over an event, from any thread."""
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    def check(self, *_: object) -> None:
        """Stop the thread that is at it if nobody wants the answer; a progress callback.

        Raises:
            Cancelled: nobody does.
        """
        if self.cancelled.is_set():
            raise Cancelled


class Cancelled(Exception):
    """Nobody waits for the answer any more."""


class Worker:
    """The thread. A context manager, which ends it.

    Args:
        ask: streams the answer to a task, and calls back from time to time.
        queue: jobs that may wait.
        on_done: hears of every task that ended, in some thread.
        on_bug: hears where an unexpected error came from.
    """

    def __init__(
        self,
        ask: Ask,
        *,
        queue: int,
        grace_s: float,
        on_done: Callable[[Done], None],
        on_bug: Callable[[str], None],
    ) -> None:
        self._ask = ask
        self._queue = queue
        self._grace_s = grace_s
        self._on_done = on_done
        self._on_bug = on_bug
        self._usual_s = 1.0
        self._waiting: deque[Job] = deque()
        self._working: Job | None = None
        self._closed = False
        self._changed = threading.Condition()
        # What the model is in the middle of cannot be kept from ending with the process.
        self._thread = threading.Thread(target=self._run, name="longvu-model", daemon=True)

    def __enter__(self) -> Worker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.refuse()
        with self._changed:
            if self._working is not None:
                self._working.cancelled.set()
        self._thread.join(self._grace_s)

    @property
    def waiting(self) -> int:
        """Jobs in the queue."""
        return len(self._waiting)

    @property
    def is_working(self) -> bool:
        """Whether the model is at work."""
        return self._working is not None

    @property
    def is_alive(self) -> bool:
        """Whether jobs are taken up."""
        return self._thread.is_alive()

    def submit(self, task: Task) -> Job:
        """Put a task into the queue.

        Raises:
            Refused: the queue is full, or the server is about to end.
        """
        job = Job(task)
        with self._changed:
            if self._closed:
                raise Refused(_ENDING)
            # One that the thread is about to take up does not wait.
            idle = self._working is None and not self._waiting
            if not idle and len(self._waiting) >= self._queue:
                raise Refused(self._full())
            self._waiting.append(job)
            self._changed.notify()
        return job

    def cancel(self, job: Job) -> None:
        """Nobody waits for a job any more: its place is free at once, or its answer stops."""
        job.cancelled.set()
        with self._changed:
            if job in self._waiting:
                self._waiting.remove(job)
                self._on_done(Done(Outcome.CANCELLED, time.monotonic() - job.submitted, 0.0))

    def refuse(self) -> None:
        """Take nothing more, and send home who waits; what is at work goes on."""
        with self._changed:
            self._closed = True
            while self._waiting:
                job = self._waiting.popleft()
                self._on_done(Done(Outcome.FAILED, time.monotonic() - job.submitted, 0.0))
                job.put(_ENDING)
            self._changed.notify()

    def give_up(self) -> None:
        """Stop what is at work, too, and send home who waits for it."""
        with self._changed:
            job = self._working
        if job is not None:
            job.cancelled.set()
            job.put(_ENDING)

    def _full(self) -> Failure:
        return Failure(
            429,
            "QueueFull",
            f"{len(self._waiting)} requests wait already",
            "try again a little later",
            headers={"retry-after": seconds_shown(self._usual_s)},
        )

    def _run(self) -> None:
        while (job := self._next()) is not None:
            try:
                self._work(job)
            finally:
                with self._changed:
                    self._working = None

    def _next(self) -> Job | None:
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            self._working = self._waiting.popleft() if self._waiting else None
            return self._working

    def _work(self, job: Job) -> None:
        began = time.monotonic()
        outcome, last = self._answered(job)
        worked_s = time.monotonic() - began
        if outcome is Outcome.ANSWERED:
            self._usual_s += _LAST_COUNTS * (worked_s - self._usual_s)
        answer = last if isinstance(last, Answer) else None
        self._on_done(Done(outcome, began - job.submitted, worked_s, answer))
        if last is not None:
            job.put(last)

    def _answered(self, job: Job) -> tuple[Outcome, Answer | Failure | None]:
        """Hand over an answer as it is made, and return what it ends with.

        An error goes as its words: its traceback would keep a video's tensors.
        """
        answer: Answer | None = None
        try:
            job.check()
            with closing(self._ask(job.task, job.check)) as chunks:
                for chunk in chunks:
                    job.check()
                    if chunk.text:
                        job.put(chunk.text)
                    answer = chunk.answer
        except Cancelled:
            return Outcome.CANCELLED, None
        except LongVUError as error:
            return Outcome.FAILED, job.task.failure_of(error)
        except Exception as error:  # noqa: BLE001  a bug that one request meets must not end the server
            self._on_bug(traceback.format_exc())
            return Outcome.FAILED, unexpected(error)
        return Outcome.ANSWERED, answer


_ENDING = Failure(503, "ServerEnding", "the server is about to end", headers={"retry-after": "10"})
