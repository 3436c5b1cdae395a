"""What the command and Ray's driver, a process of its own, say to each other."""

from __future__ import annotations

from dataclasses import dataclass

from longvu_cli.engines.assignment import Assignment
from longvu_cli.engines.events import Event
from longvu_cli.manifest import Row

CLIENT = "ray://"
"""Before the address of a server that connects to its cluster for others."""


@dataclass(frozen=True)
class Begin:
    """Start Ray's processes on this machine.

    Attributes:
        folder: where they have their files.
        cpus, gpus: of this machine, for actors.
    """

    folder: str
    cpus: int
    gpus: int


@dataclass(frozen=True)
class Join:
    """Connect to a cluster that runs."""

    address: str


@dataclass(frozen=True)
class Hire:
    """Have another worker.

    Attributes:
        worker: its number, which no other has had.
        cpus, gpus: that it takes.
    """

    worker: int
    assignment: Assignment
    cpus: int
    gpus: int


@dataclass(frozen=True)
class Give:
    """A row for a worker."""

    worker: int
    row: Row


@dataclass(frozen=True)
class Dismiss:
    """Have a worker end at once."""

    worker: int


@dataclass(frozen=True)
class Connected:
    """There is a cluster.

    Attributes:
        gpus: that it has.
    """

    gpus: int


@dataclass(frozen=True)
class CannotConnect:
    """There is none, and what Ray says about it."""

    reason: str


@dataclass(frozen=True)
class Said:
    """What a worker tells; :class:`~longvu_cli.engines.events.Died` is the last."""

    worker: int
    event: Event


Place = Begin | Join
"""Said first."""
Order = Hire | Give | Dismiss
"""Said to a driver that has connected."""
