"""Workers that are actors of Ray, on this machine or on a cluster, each with a GPU of its own where there are some.

Ray gives them their places and says when one has died; which row goes to whom, how often a row is tried and what is
written are the dispatcher's, as with other workers. ``ray_environment.py`` comes first: Ray reads its variables when it
is imported.
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, redirect_stdout, suppress
from typing import Any

import ray
from ray.exceptions import RayError

from longvu_cli.engines.assignment import Assignment
from longvu_cli.engines.dispatcher import Dispatcher
from longvu_cli.engines.events import Died, Event, Told
from longvu_cli.engines.gpus import gpu_count
from longvu_cli.engines.ray_cluster import own_cluster
from longvu_cli.errors import ServerUnreachable, UsageError
from longvu_cli.manifest import Row

_TIDY_S = 0.5
_PATIENCE_S = 10.0


class Actor:
    """A worker, seen from within: the work has a thread of its own, calls come in others."""

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
        self._thread.join(_TIDY_S)

    def pid(self) -> int:
        """Of its process."""
        return os.getpid()

    def _work(self, assignment: Assignment) -> None:
        # Whoever starts actors imports this file, too, and needs no model.
        from longvu_cli.engines.worker import work

        work(assignment, iter(self._rows.get, None), self._events.put, on_progress=self._go_on)

    def _go_on(self, stage: str, done: int, total: int | None) -> None:
        if self._dismissed.is_set():
            sys.exit()  # of the thread


class RayWorker:
    """A worker that is an actor.

    Args:
        cpus, gpus: that it takes.
    """

    def __init__(self, assignment: Assignment, *, cpus: int, gpus: int) -> None:
        # A row that is sent, a question for what comes next, and a dismissal may be there at a time.
        made = ray.remote(Actor).options(num_cpus=cpus, num_gpus=gpus, max_concurrency=4)
        self._actor: Any = made.remote(assignment)
        self._dismissal: Any = None
        self._given_until = 0.0

    def send(self, row: Row) -> None:
        """See :class:`~longvu_cli.engines.dispatcher.Worker`."""
        with suppress(RayError):
            self._actor.send.remote(row)

    def events(self) -> Iterator[Event]:
        """See :class:`~longvu_cli.engines.dispatcher.Worker`."""
        try:
            while True:
                yield ray.get(self._actor.next.remote())
        except RayError as error:
            # One that cannot be reached for a moment is given up, too.
            ray.kill(self._actor)
            yield Died("died", str(error))

    def dismiss(self) -> None:
        """See :class:`~longvu_cli.engines.dispatcher.Worker`."""
        with suppress(RayError):
            self._dismissal = self._actor.dismiss.remote()
            self._given_until = time.monotonic() + _TIDY_S

    def make_gone(self, within_s: float) -> None:
        """See :class:`~longvu_cli.engines.dispatcher.Worker`."""
        with suppress(RayError):
            ray.wait([self._dismissal], timeout=max(0.0, min(within_s, self._given_until - time.monotonic())))
            ray.kill(self._actor)


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
        ServerUnreachable: there is no cluster at it.
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
    # Ray's threads print what its processes say, and stdout is for results.
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), cluster:
        if address is not None:
            resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
            gpus = int(resources.get("GPU", 0)) if on_gpus else 0
            lanes = _lanes(count, gpus)

        def hire(number: int) -> RayWorker:
            return RayWorker(assignment, cpus=cpus, gpus=1 if gpus else 0)

        with Dispatcher(hire, lanes, on_told) as dispatcher:
            yield dispatcher


def _lanes(count: int | None, gpus: int) -> int:
    if count is None and not gpus:
        raise UsageError("there is no GPU, for one process each", hint="say how many processes: --processes 2")
    if gpus and count is not None and count > gpus:
        raise UsageError(f"there are {gpus} GPUs for {count} processes", hint=f"use --processes {gpus}, or auto")
    return gpus if count is None else count


@contextmanager
def _own(cpus: int, gpus: int) -> Iterator[None]:
    """Processes of Ray's on this machine, which end with the block."""
    with own_cluster(cpus=cpus, gpus=gpus) as address, _connected(address):
        yield


@contextmanager
def _running(address: str) -> Iterator[None]:
    """A cluster that is there, and stays."""
    _require_open(address)
    with _connected(address):
        yield


def _require_open(address: str) -> None:
    """Notice in seconds that nobody is there: Ray would try for minutes."""
    if address == "auto":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal() or int(port) >= 2**16:
        raise UsageError(f"--address {address} is no address of a cluster", hint="write HOST:PORT, or auto")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE_S).close()
    except OSError as error:
        raise ServerUnreachable(
            f"there is no Ray cluster at {address}: {error.strerror or error}", hint="start one with `ray start --head`"
        ) from error


@contextmanager
def _connected(address: str) -> Iterator[None]:
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    try:
        # In the main thread Ray would take SIGTERM for itself. And what interrupts this one waits until the other is
        # done: a connection that is half made ends in a crash.
        with ThreadPoolExecutor(1) as other:
            other.submit(ray.init, address, log_to_driver=False, logging_level=logging.CRITICAL).result()
    except (OSError, RuntimeError, ValueError, RayError) as error:
        ray.shutdown()
        raise ServerUnreachable(
            f"there is no Ray cluster at {address}", hint=" ".join(str(error).split())[:300]
        ) from error
    except BaseException:
        ray.shutdown()
        raise
    if threading.current_thread() is threading.main_thread():
        # Below Python it takes SIGTERM all the same, and would tell where it came.
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))
    try:
        yield
    finally:
        ray.shutdown()
