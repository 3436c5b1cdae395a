"""Workers that are actors of Ray, on this machine or on a cluster, each with a GPU of its own where there are some.

Ray gives them their places and says when one has died; which row goes to whom, how often a row is tried and what is
written are the dispatcher's, as with other workers.
"""

from __future__ import annotations

import os
import queue
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from longvu_cli.engines.assignment import Assignment
from longvu_cli.engines.dispatcher import Dispatcher
from longvu_cli.engines.events import Died, Event, Told, Unreachable
from longvu_cli.engines.gpus import gpu_count
from longvu_cli.engines.ray_environment import own_environment, ray_environment
from longvu_cli.engines.ray_link import RayLink, linked
from longvu_cli.engines.ray_messages import CLIENT, Begin, Dismiss, Give, Hire, Join
from longvu_cli.errors import ServerUnreachable, UsageError
from longvu_cli.manifest import Row
from longvu_cli.scratch import scratch_errors

# Sockets are below the folder, and their names may have 107 bytes.
_LONGEST_FOLDER = 30
# For somebody to listen at an address, and for Ray to connect there.
_OPEN_S = 10.0
_PATIENCE_S = 60.0


class RayWorker:
    """A worker that is an actor.

    Args:
        cpus, gpus: that it takes.
    """

    def __init__(self, link: RayLink, assignment: Assignment, *, cpus: int, gpus: int) -> None:
        self._link = link
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._ended = threading.Event()
        self._number = link.enrol(self)
        link.order(Hire(self._number, assignment, cpus, gpus))

    def hear(self, event: Event) -> None:
        """See :class:`~longvu_cli.engines.ray_link.Listener`."""
        self._events.put(event)
        if isinstance(event, Died | Unreachable):
            self._events.put(None)
            self._ended.set()

    def send(self, row: Row) -> None:
        """See :class:`~longvu_cli.engines.dispatcher.Worker`."""
        self._link.order(Give(self._number, row))

    def events(self) -> Iterator[Event]:
        """See :class:`~longvu_cli.engines.dispatcher.Worker`."""
        while (event := self._events.get()) is not None:
            yield event

    def dismiss(self) -> None:
        """See :class:`~longvu_cli.engines.dispatcher.Worker`."""
        self._link.order(Dismiss(self._number))

    def make_gone(self, within_s: float) -> None:
        """See :class:`~longvu_cli.engines.dispatcher.Worker`."""
        self._ended.wait(within_s)  # by force it ends with the driver: Ray lets no actor outlive that
        self._events.put(None)


@contextmanager
def open_ray(
    assignment: Assignment, count: int | None, address: str | None, on_told: Callable[[Told], None]
) -> Iterator[Dispatcher]:
    """An engine of actors, the first of which has its model.

    Args:
        count: how many; None: one per GPU.
        address: of a running cluster; None: processes of Ray's own are started here, and ended.

    Raises:
        UsageError: there are no GPUs to be counted, or the address is none.
        ServerUnreachable: there is no cluster at it, or it was lost.
        LongVUError: the model cannot be loaded.
    """
    on_gpus = assignment.model.device in ("auto", "cuda")
    cores = os.cpu_count() or 1
    if address is None:
        gpus = gpu_count(assignment.model.device)
        lanes = _lanes(count, gpus)
        cpus = max(1, cores // lanes)
        cluster = _own(max(cores, lanes), gpus)
    else:
        cpus = 1
        cluster = _running(address)
    with cluster as link:
        if address is not None:
            gpus = link.gpus if on_gpus else 0
            lanes = _lanes(count, gpus)

        def hire(number: int) -> RayWorker:
            return RayWorker(link, assignment, cpus=cpus, gpus=1 if gpus else 0)

        with Dispatcher(hire, lanes, on_told) as dispatcher:
            yield dispatcher


def _lanes(count: int | None, gpus: int) -> int:
    if count is None and not gpus:
        raise UsageError("there is no GPU, for one process each", hint="say how many processes: --processes 2")
    if gpus and count is not None and count > gpus:
        raise UsageError(f"there are {gpus} GPUs for {count} processes", hint=f"use --processes {gpus}, or auto")
    return gpus if count is None else count


@contextmanager
def _own(cpus: int, gpus: int) -> Iterator[RayLink]:
    """Processes of Ray's on this machine, which end with the block."""
    usual = tempfile.gettempdir()
    with scratch_errors():
        folder = tempfile.mkdtemp(prefix="longvu-", dir=usual if len(usual) < _LONGEST_FOLDER else "/tmp")
    try:
        # Ray itself has a limit for each of them.
        with linked(Begin(folder, cpus, gpus), own_environment(), "Ray on this machine", patience_s=None) as link:
            yield link
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _running(address: str) -> Iterator[RayLink]:
    """A cluster that is there, and stays."""
    on_loopback = _verify(address)
    environment = ray_environment(on_loopback=on_loopback)
    with linked(Join(address), environment, f"the Ray cluster at {address}", _PATIENCE_S) as link:
        yield link


def _verify(address: str) -> bool:
    """Notice in seconds that nobody is there: Ray would try for long.

    Returns:
        Whether it listens on the loopback only.
    """
    if address == "auto":
        return False
    host, _, port = address.removeprefix(CLIENT).rpartition(":")
    if not host or not port.isdecimal() or int(port) >= 2**16:
        raise UsageError(f"--address {address} is no address of a cluster", hint="write HOST:PORT, or auto")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_OPEN_S) as connection:
            there: str = connection.getpeername()[0]
    except OSError as error:
        raise ServerUnreachable(
            f"there is no Ray cluster at {address}: {error.strerror or error}", hint="start one with `ray start --head`"
        ) from error
    return (there == "::1" or there.startswith("127.")) and not listens_outside(int(port))


def listens_outside(port: int) -> bool:
    """Whether this machine listens there at the address by which others know it."""
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unsent:
        unsent.connect(("8.8.8.8", 80))  # as Ray finds it
        socket.create_connection((unsent.getsockname()[0], port), timeout=_OPEN_S).close()
        return True
    return False
