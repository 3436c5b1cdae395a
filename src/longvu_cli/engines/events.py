"""What a worker tells, and what is told of it; all of it can be sent from one process to another."""

from __future__ import annotations

from dataclasses import dataclass

from longvu_cli.engines.engine import Answered, Failed
from longvu_cli.errors import LongVUError
from longvu_cli.hub import DownloadPlan
from longvu_cli.manifest import Row
from longvu_cli.results import ModelInfo


@dataclass(frozen=True)
class Chosen:
    """``auto`` takes this model."""

    model: str


@dataclass(frozen=True)
class Comparing:
    """Files of a repository are about to be compared with what the hub lists."""

    repo: str
    size: int


@dataclass(frozen=True)
class Loaded:
    """The model is there.

    Attributes:
        identity: tells its answers from another's.
        context_length: its own, in tokens.
    """

    info: ModelInfo
    identity: str
    context_length: int


@dataclass(frozen=True)
class CannotLoad:
    """The model cannot be had, and why. The worker ends."""

    error: LongVUError


@dataclass(frozen=True)
class Noticed:
    """What may make an answer less than it seems."""

    text: str


@dataclass(frozen=True)
class Bug:
    """Where an unexpected error came from."""

    trace: str


@dataclass(frozen=True)
class Died:
    """A worker is gone without having been dismissed.

    Attributes:
        how: "was killed (SIGKILL)".
        trace: the last that it said.
    """

    how: str
    trace: str


@dataclass(frozen=True)
class Lost:
    """What a death costs.

    Attributes:
        worker: counts from 1.
        row: it was at, if any, which goes back to the others.
    """

    worker: int
    died: Died
    row: Row | None


@dataclass(frozen=True)
class Without:
    """The work goes on without one of the workers, which cannot start."""

    worker: int
    error: LongVUError


@dataclass(frozen=True)
class Unreachable:
    """No worker can be reached any more, and why.

    Attributes:
        trace: the last that was heard.
    """

    error: LongVUError
    trace: str


Told = Chosen | DownloadPlan | Comparing | Loaded | Noticed | Bug | Lost | Without | Unreachable
"""For whoever watches."""
Event = Chosen | DownloadPlan | Comparing | Loaded | CannotLoad | Noticed | Bug | Answered | Failed | Died | Unreachable
"""Of a worker."""
