"""Errors → one sentence, the next thing to try, and an exit code. The only place that does it."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import NoReturn

import typer

from longvu_cli.cli.output import Output, OutputFailed
from longvu_cli.cli.start import INTERRUPTED
from longvu_cli.errors import DeviceError, LongVUError, UsageError, VideoError, WeightsError

OK = 0
BUG = 1
USAGE = 2
SOME_FAILED = 6
TERMINATED = 143

_EXIT_CODES: tuple[tuple[type[LongVUError], int], ...] = (
    (UsageError, USAGE),
    (VideoError, 3),
    (WeightsError, 4),
    (DeviceError, 5),
)


class Terminated(BaseException):
    """SIGTERM or SIGHUP arrived."""


def exit_code(error: LongVUError) -> int:
    """The documented exit code of an error."""
    return next((code for kind, code in _EXIT_CODES if isinstance(error, kind)), BUG)


def run(output: Output, body: Callable[[], int]) -> int:
    """Run a command's body and turn whatever it raises into what a user should see.

    Returns:
        The exit code.
    """
    try:
        with _signals_raise():
            code = body()
            output.close()
            return code
    except OutputFailed as error:
        output.error_text(error)
        _quiet_end()
        return BUG
    except LongVUError as error:
        return _told(output, partial(output.error, error), exit_code(error))
    except (KeyboardInterrupt, typer.Abort):  # Abort: Ctrl-C or Ctrl-D where something was asked
        return _told(output, output.interrupted, INTERRUPTED)
    except Terminated:
        return _told(output, output.interrupted, TERMINATED)
    except BrokenPipeError:
        return _quiet_end()
    except Exception as error:  # noqa: BLE001  a traceback shown to a user is a bug of its own
        return _told(output, partial(output.bug, error, traceback.format_exc()), BUG)


def _told(output: Output, tell: Callable[[], None], code: int) -> int:
    """Say it, unless nobody is there to read it."""
    try:
        tell()
        output.close()
    except OutputFailed as error:
        output.error_text(error)
        _quiet_end()
    except OSError:
        _quiet_end()
    return code


def _quiet_end() -> int:
    """The reader of our output has gone: end without a word, and keep the interpreter from flushing into the void."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())
    return OK


@contextmanager
def _signals_raise() -> Iterator[None]:
    """While it runs, Ctrl-C, SIGTERM and SIGHUP unwind, so that what is open gets closed."""

    def unwind(number: int, frame: FrameType | None) -> NoReturn:
        raise Terminated

    # Windows has no SIGHUP.
    endings = {number: unwind for number in signal.Signals if number.name in ("SIGTERM", "SIGHUP")}
    handlers = {signal.SIGINT: signal.default_int_handler, **endings}
    # Under nohup, SIGHUP is ignored, and stays so.
    heard = [number for number in handlers if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handlers[number]) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
