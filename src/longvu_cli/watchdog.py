"""Ends this process when it gets nowhere."""

from __future__ import annotations

import signal
import time

# How much longer than its patience in CPU time a process may stand still on the clock: a disk may have to spin up.
_CLOCK_FACTOR = 6.0
# Beats come by the thousand; the timers are wound up no more often than this, in seconds.
_REWIND_S = 0.1


class Watchdog:
    """Kills the process by a signal, even inside a library that never returns, unless :meth:`beat` is called in time.

    Args:
        patience_s: CPU seconds, of all threads together.
    """

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._rewound = 0.0
        self._waits = False
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        self._rewind()

    def beat(self) -> None:
        """Something got done."""
        if time.monotonic() - self._rewound > _REWIND_S:
            self._rewind()

    def wait(self) -> None:
        """It is others now who take their time."""
        self._waits = True
        signal.setitimer(signal.ITIMER_REAL, 0)

    def go_on(self) -> None:
        """The others are done."""
        self._waits = False
        self._rewind()

    def _rewind(self) -> None:
        self._rewound = time.monotonic()
        signal.setitimer(signal.ITIMER_PROF, self._patience_s)
        if not self._waits:
            signal.setitimer(signal.ITIMER_REAL, self._patience_s * _CLOCK_FACTOR)
