"""What all engines have in common."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Protocol

from longvu_cli.errors import LongVUError
from longvu_cli.manifest import Row
from longvu_cli.owed import Owed
from longvu_cli.records import Record


@dataclass(frozen=True)
class Answered:
    """A row with the record of its answer."""

    row: Row
    record: Record


@dataclass(frozen=True)
class Failed:
    """A row that has no answer, and why."""

    row: Row
    error: LongVUError


Outcome = Answered | Failed


class Engine(Protocol):
    """Answers rows."""

    @property
    def identity(self) -> str:
        """Tells its model's answers from another's."""

    @property
    def context_length(self) -> int:
        """The model's own, in tokens."""

    @property
    def lanes(self) -> int:
        """How many rows it answers at a time."""

    def answers(self, owed: Owed) -> Generator[Outcome, None, None]:
        """Take rows until there are none left, and tell what came of each, in any order.

        Raises:
            LongVUError: no row can be answered any more.
        """
