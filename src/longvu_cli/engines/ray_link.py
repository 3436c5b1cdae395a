"""Ray's driver, a process of its own, seen from outside. Nothing here imports Ray."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from multiprocessing.connection import Connection
from socket import socketpair
from typing import IO, Protocol

import psutil

from longvu_cli.engines.child import end_with_all, importing_us
from longvu_cli.engines.events import Event, Unreachable
from longvu_cli.engines.ray_messages import CannotConnect, Connected, Order, Place, Said
from longvu_cli.errors import ServerUnreachable
from longvu_cli.scratch import scratch_file

_PROGRAM = "import sys; from longvu_cli.engines.ray_driver import main; main(int(sys.argv[1]))"
# Of what it wrote, how much is kept for whoever looks for the reason of its end.
_LAST_BYTES = 4000


class Listener(Protocol):
    """Hears what one worker tells."""

    def hear(self, event: Event) -> None:
        """The next that it tells."""


class RayLink:
    """What is said to the driver, and who hears what comes back.

    Args:
        name: of the cluster, for errors.
        written: what the driver wrote to its streams.

    Attributes:
        gpus: that the cluster has.
    """

    def __init__(self, connection: Connection, name: str, written: IO[bytes]) -> None:
        self.gpus = 0
        self._connection = connection
        self._name = name
        self._written = written
        self._listeners: list[Listener] = []
        self._changing = threading.Lock()
        self._broken: Unreachable | None = None
        self._relay: threading.Thread | None = None

    def connect(self, place: Place, patience_s: float | None) -> None:
        """Have the driver connect.

        Args:
            patience_s: how long it may take.

        Raises:
            ServerUnreachable: it cannot.
        """
        with suppress(BrokenPipeError, ConnectionResetError):
            self._connection.send(place)
        if not self._connection.poll(patience_s):
            raise ServerUnreachable(
                f"{self._name} did not answer within {patience_s:.0f} s",
                hint="see `ray status --address`; the port is that of the head's GCS",
            )
        try:
            answer = self._connection.recv()
        except (EOFError, ConnectionResetError):
            answer = CannotConnect("".join(self._last_words().strip().splitlines()[-1:])[:300])
        if isinstance(answer, CannotConnect):
            raise ServerUnreachable(f"there is no connection to {self._name}", hint=answer.reason)
        assert isinstance(answer, Connected), "this comes first"
        self.gpus = answer.gpus
        self._relay = threading.Thread(target=self._pass_on, name="longvu-ray", daemon=True)
        self._relay.start()

    def join(self) -> None:
        """Wait until all was heard of a driver that has ended."""
        if self._relay is not None:
            self._relay.join()

    def enrol(self, listener: Listener) -> int:
        """The number of a new worker, of which the listener is told."""
        with self._changing:
            self._listeners.append(listener)
            if self._broken is not None:
                listener.hear(self._broken)
            return len(self._listeners) - 1

    def order(self, order: Order) -> None:
        """Have something done; that nobody is there to do it is heard elsewhere."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self._connection.send(order)

    def _pass_on(self) -> None:
        with suppress(EOFError, OSError):  # a message that was cut off is none
            while True:
                said = self._connection.recv()
                assert isinstance(said, Said), "it has connected"
                self._listeners[said.worker].hear(said.event)
        with self._changing:
            self._broken = Unreachable(
                ServerUnreachable(
                    f"{self._name} was lost",
                    hint="results in a file are kept; the same command goes on with the rest",
                ),
                self._last_words(),
            )
            for listener in self._listeners:
                listener.hear(self._broken)

    def _last_words(self) -> str:
        self._written.seek(max(0, self._written.seek(0, os.SEEK_END) - _LAST_BYTES))
        return self._written.read().decode(errors="replace")


@contextmanager
def linked(place: Place, environment: Mapping[str, str], name: str, patience_s: float | None) -> Iterator[RayLink]:
    """Start the driver and wait until it has connected; neither it nor what it has started outlives the block.

    Args:
        environment: of the driver.
        name: of the cluster, for errors.
        patience_s: how long it may take to connect.

    Raises:
        ServerUnreachable: it cannot connect.
    """
    with scratch_file() as written:
        ours, theirs = socketpair()
        with theirs:
            driver = subprocess.Popen(
                # -P: what lies in the current folder is not imported.
                [sys.executable, "-P", "-c", _PROGRAM, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=written,
                stderr=written,
                pass_fds=[theirs.fileno()],
                env=importing_us(environment),
                # Ctrl-C is for this process, which then lets go of the other.
                start_new_session=True,
            )
        with closing(Connection(ours.detach())) as connection, driver:
            link = RayLink(connection, name, written)
            try:
                link.connect(place, patience_s)
                yield link
            finally:
                end_with_all([psutil.Process(driver.pid)])
                link.join()
