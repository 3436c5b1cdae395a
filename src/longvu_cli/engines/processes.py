"""Workers that are processes of this machine, each with a GPU of its own where there are some."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from socket import socketpair

from longvu_cli.engines.assignment import Assignment
from longvu_cli.engines.child import importing_us
from longvu_cli.engines.dispatcher import Dispatcher
from longvu_cli.engines.events import Died, Event, Told
from longvu_cli.engines.gpus import gpu_count
from longvu_cli.errors import UsageError
from longvu_cli.manifest import Row
from longvu_cli.scratch import scratch_file

_PROGRAM = "import sys; from longvu_cli.engines.process_worker import main; main(int(sys.argv[1]))"
_VISIBLE = "CUDA_VISIBLE_DEVICES"
# Of what a worker wrote to stderr, how much is kept for whoever looks for the reason of its death.
_LAST_BYTES = 4000


class ProcessWorker:
    """A worker in a process of its own.

    Args:
        environment: of the process.
    """

    def __init__(self, assignment: Assignment, environment: Mapping[str, str]) -> None:
        self._stderr = scratch_file()
        ours, theirs = socketpair()
        with theirs:
            self._process = subprocess.Popen(
                # -P: what lies in the current folder is not imported.
                [sys.executable, "-P", "-c", _PROGRAM, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._stderr,
                pass_fds=[theirs.fileno()],
                env=importing_us(environment),
                # Ctrl-C is for this process, which then lets go of the others.
                start_new_session=True,
            )
        self._connection = Connection(ours.detach())
        self._send(assignment)

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._process.pid

    def send(self, row: Row) -> None:
        """See :class:`~longvu_cli.engines.dispatcher.Worker`."""
        self._send(row)

    def events(self) -> Iterator[Event]:
        """See :class:`~longvu_cli.engines.dispatcher.Worker`."""
        try:
            while True:
                yield self._connection.recv()
        except (EOFError, OSError):  # a message that was cut off is none
            self._process.wait()
            yield self._died()

    def dismiss(self) -> None:
        """See :class:`~longvu_cli.engines.dispatcher.Worker`."""
        self._process.terminate()

    def make_gone(self, within_s: float) -> None:
        """See :class:`~longvu_cli.engines.dispatcher.Worker`."""
        try:
            self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _send(self, message: Assignment | Row) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):
            self._connection.send(message)

    def _died(self) -> Died:
        code = self._process.returncode
        how = f"was killed ({signal.Signals(-code).name})" if code < 0 else f"ended with code {code}"
        self._stderr.seek(max(0, self._stderr.seek(0, os.SEEK_END) - _LAST_BYTES))
        return Died(how, self._stderr.read().decode(errors="replace"))


def environment_of(number: int, *, of: int, gpus: Sequence[str]) -> dict[str, str]:
    """The environment of a worker: it sees its own GPU, or has its share of the cores.

    Args:
        of: so many workers.
        gpus: those that may be used, as ``CUDA_VISIBLE_DEVICES`` has them; none: work on the CPU.
    """
    if gpus:
        return {**os.environ, _VISIBLE: gpus[number % len(gpus)]}
    return {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // of)), **os.environ}


def visible_gpus(count: int) -> list[str]:
    """The names of the GPUs of this process.

    Args:
        count: how many there are.
    """
    named = [name.strip() for name in os.environ.get(_VISIBLE, "").split(",") if name.strip()]
    return named[:count] if named else [str(number) for number in range(count)]


@contextmanager
def open_processes(assignment: Assignment, count: int | None, on_told: Callable[[Told], None]) -> Iterator[Dispatcher]:
    """An engine of processes, the first of which has its model.

    Args:
        count: how many; None: one per GPU.

    Raises:
        UsageError: there are no GPUs to be counted.
        LongVUError: the model cannot be loaded.
    """
    gpus = visible_gpus(gpu_count(assignment.model.device))
    if count is None and not gpus:
        raise UsageError("there is no GPU, for one process each", hint="say how many processes: --processes 2")
    lanes = len(gpus) if count is None else count

    def hire(number: int) -> ProcessWorker:
        return ProcessWorker(assignment, environment_of(number, of=lanes, gpus=gpus))

    with Dispatcher(hire, lanes, on_told) as dispatcher:
        yield dispatcher
