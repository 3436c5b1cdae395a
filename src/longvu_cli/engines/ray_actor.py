"""A worker that is an actor of Ray, seen from within."""

from __future__ import annotations

import queue
import sys
import threading

from longvu_cli.engines.assignment import Assignment
from longvu_cli.engines.events import Event
from longvu_cli.manifest import Row

TIDY_S = 0.5
"""What it is given to tidy up."""


class Actor:
    """The work has a thread of its own, calls come in others."""

    def __init__(self, assignment: Assignment) -> None:
        self._rows: queue.SimpleQueue[Row | None] = queue.SimpleQueue()
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._dismissed = threading.Event()
        sys.setswitchinterval(0.0005)
        self._thread = threading.Thread(target=self._work, args=(assignment,), daemon=True)
        self._thread.start()

    def send(self, row: Row) -> None:
        """Give it a row."""
        self._rows.put(row)

    def next(self) -> Event:
        """The next that it tells."""
        return self._events.get()

    def dismiss(self) -> None:
        """Stop, and tidy up."""
        self._dismissed.set()
        self._rows.put(None)
        self._thread.join(TIDY_S)

    def _work(self, assignment: Assignment) -> None:
        # Whoever starts actors imports this file, too, and needs no model.
        from longvu_cli.engines.worker import work

        work(assignment, iter(self._rows.get, None), self._events.put, on_progress=self._go_on)

    def _go_on(self, stage: str, done: int, total: int | None) -> None:
        if self._dismissed.is_set():
            sys.exit()  # of the thread
