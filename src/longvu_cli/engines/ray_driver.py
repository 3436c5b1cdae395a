"""Ray's driver, seen from within: a process that connects to a cluster, and has actors there for who started it.

In the process of the command it could not be. Where Ray loses its cluster it ends the process that it is in, in its own
words; and while it connects, or starts, nothing can interrupt it.
"""

from __future__ import annotations

import logging
import os
import queue
import shutil
import socket
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any, NoReturn

import psutil
import ray
from ray.exceptions import RayError

from longvu_cli.engines.child import adopt_orphans, end_with_all
from longvu_cli.engines.events import Died
from longvu_cli.engines.ray_actor import TIDY_S, Actor
from longvu_cli.engines.ray_messages import (
    CLIENT,
    Begin,
    CannotConnect,
    Connected,
    Dismiss,
    Give,
    Hire,
    Join,
    Order,
    Place,
    Said,
)

# What goes from worker to worker is small.
_STORE_BYTES = 100 * 2**20
# How often somebody looks whether this machine's part of the cluster is there.
_LOOK_S = 1.0
_REASON_LETTERS = 300


def main(number: int) -> None:
    """Do what whoever is at the other end of a connection orders, until that hangs up.

    Args:
        number: of the connection's file; the first message is a ``Place``, the others are ``Order``.
    """
    connection = Connection(number)
    place: Place = connection.recv()
    if isinstance(place, Begin):
        adopt_orphans()
    _Driver(connection, place).work()


def _connect(place: Place) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if isinstance(place, Begin):
        ray.init(
            address="local",  # an environment variable could name a cluster
            num_cpus=place.cpus,
            num_gpus=place.gpus,
            include_dashboard=False,
            object_store_memory=_STORE_BYTES,
            _temp_dir=place.folder,
            **quiet,
        )
    else:
        ray.init(place.address, **quiet)


class _Driver:
    """Has actors, by the numbers of the workers that they are."""

    def __init__(self, connection: Connection, place: Place) -> None:
        self._connection = connection
        self._place = place
        self._orders: queue.SimpleQueue[Order] = queue.SimpleQueue()
        self._telling = threading.Lock()
        self._leaving = threading.Lock()
        self._actors: dict[int, Any] = {}
        self._raylet: tuple[str, int] | None = None

    def work(self) -> None:
        """Connect, and do what is ordered."""
        threading.Thread(target=self._listen, daemon=True).start()
        try:
            _connect(self._place)
            self._raylet = _raylet(self._place)
            gpus = int(ray.cluster_resources().get("GPU", 0))  # type: ignore[no-untyped-call]
        except Exception as error:  # noqa: BLE001  whatever it is, Ray cannot be used
            self._tell(CannotConnect(" ".join(str(error).split())[:_REASON_LETTERS]))
            self._leave(1)
        self._tell(Connected(gpus))
        threading.Thread(target=self._watch, daemon=True).start()
        with self._failing():
            while True:
                self._obey(self._orders.get())

    def _listen(self) -> None:
        with suppress(EOFError, OSError):
            while True:
                self._orders.put(self._connection.recv())
        self._leave(0)  # nobody wants more of it

    def _obey(self, order: Order) -> None:
        match order:
            case Hire():
                self._hire(order)
            case Give(worker=worker, row=row):
                with suppress(RayError):
                    self._actors[worker].send.remote(row)
            case Dismiss(worker=worker):
                threading.Thread(target=self._dismiss, args=(worker,), daemon=True).start()

    def _hire(self, order: Hire) -> None:
        # A row that is sent, a question for what comes next, and a dismissal may be there at a time.
        made = ray.remote(Actor).options(num_cpus=order.cpus, num_gpus=order.gpus, max_concurrency=4)
        self._actors[order.worker] = made.remote(order.assignment)
        threading.Thread(target=self._pass_on, args=(order.worker,), daemon=True).start()

    def _pass_on(self, worker: int) -> None:
        """What an actor tells, to its end."""
        actor = self._actors[worker]
        with self._failing():
            try:
                while True:
                    self._tell(Said(worker, ray.get(actor.next.remote())))
            except RayError as error:
                self._look()  # where all are lost, that is not about one worker
                # One that cannot be reached for a moment is given up, too.
                ray.kill(actor)
                self._tell(Said(worker, Died("died", str(error))))

    def _dismiss(self, worker: int) -> None:
        actor = self._actors[worker]
        with suppress(RayError):
            ray.wait([actor.dismiss.remote()], timeout=TIDY_S)
        # Whether it can be killed does not matter any more, and without its head a cluster would not hear of it.
        self._tell(Said(worker, Died("was dismissed", "")))
        with suppress(RayError):
            ray.kill(actor)

    def _tell(self, message: Connected | CannotConnect | Said) -> None:
        with self._telling, suppress(BrokenPipeError, ConnectionResetError):
            self._connection.send(message)

    def _watch(self) -> None:
        """End with this machine's part of the cluster, without which Ray would wait for ever.

        Where the rest is lost, Ray itself ends this process, after a minute in which it may come back.
        """
        while True:
            self._look()
            time.sleep(_LOOK_S)

    def _look(self) -> None:
        if self._raylet is None:
            return
        try:
            socket.create_connection(self._raylet).close()
        except ConnectionRefusedError:
            os.write(2, b"nobody listens any more where the raylet of this machine did\n")
            self._leave(1)
        except OSError:
            pass  # this process has too many files open, say: that tells nothing

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """What goes wrong in the block is the end, and left in stderr."""
        try:
            yield
        except Exception:  # noqa: BLE001  a thread that ended alone would be waited for
            traceback.print_exc()
            self._leave(1)

    def _leave(self, code: int) -> NoReturn:
        """End. Actors on a cluster end with their driver; what was started here leaves nothing, either."""
        self._leaving.acquire()  # for ever: whoever else wants to leave waits until that is done
        if isinstance(self._place, Begin):
            end_with_all(psutil.Process().children())
            shutil.rmtree(self._place.folder, ignore_errors=True)
        os._exit(code)


def _raylet(place: Place) -> tuple[str, int] | None:
    if isinstance(place, Join) and place.address.startswith(CLIENT):
        return None  # a server on the other side has it
    own = ray.get_runtime_context().get_node_id()
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    (node,) = [node for node in nodes if node["NodeID"] == own]
    return str(node["NodeManagerAddress"]), int(node["NodeManagerPort"])
