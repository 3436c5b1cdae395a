"""A worker that is a process of this machine, seen from within."""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import time
import traceback
from multiprocessing.connection import Connection
from typing import NoReturn

from longvu_cli.engines.assignment import Assignment
from longvu_cli.engines.worker import work
from longvu_cli.manifest import Row

# What the work is given to tidy up when it is over: a file of features may be half written.
_FAREWELL_S = 1.0


def main(number: int) -> None:
    """Work for whoever is at the other end of a connection, until that hangs up.

    Args:
        number: of the connection's file; the first message is an :class:`Assignment`, the others are rows.
    """
    # Ctrl-C is for the process that started this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    # As in the command itself: decoding threads and the one that feeds the GPU take turns.
    sys.setswitchinterval(0.0005)
    connection = Connection(number)
    assignment = connection.recv()
    assert isinstance(assignment, Assignment), "it is told what to do first"
    rows: queue.SimpleQueue[Row | None] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, rows), daemon=True).start()
    code = 1
    try:
        work(assignment, iter(rows.get, None), connection.send)
        code = 0
    except (BrokenPipeError, SystemExit):
        code = 0  # nobody wants more of it
    except Exception:  # noqa: BLE001  what is left of it is in its stderr
        traceback.print_exc()
    finally:
        _end(code)


def _listen(connection: Connection, rows: queue.SimpleQueue[Row | None]) -> None:
    try:
        while True:
            rows.put(connection.recv())
    except (EOFError, OSError):
        # Whoever started it is gone: nobody wants what it is at.
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_FAREWELL_S)
        os._exit(0)


def _end(code: int) -> NoReturn:
    """End without the second that an interpreter with torch in it takes."""
    from longvu_cli.isolation import server

    if server.cache_info().currsize:
        server(os.getpid()).close()
    sys.stderr.flush()
    os._exit(code)
