"""The console script. It is there before anything else is imported, so that Ctrl-C never shows a traceback."""

from __future__ import annotations

import os
import signal

INTERRUPTED = 130


def main() -> None:
    """Import the command line, and start it. Ctrl-C, until the command listens and after it is done, ends at once."""
    # In the background of a script, Ctrl-C is ignored, and stays so.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _end)
    from longvu_cli.cli.app import main as start

    start()


def _end(*_: object) -> None:
    os._exit(INTERRUPTED)
