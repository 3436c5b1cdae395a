"""One model, in this process."""

from __future__ import annotations

from collections.abc import Callable, Generator

from longvu_cli.engines.engine import Answered, Failed, Outcome
from longvu_cli.errors import LongVUError
from longvu_cli.manifest import Row
from longvu_cli.owed import Owed
from longvu_cli.records import Record


class Plain:
    """Answers one row after the other, in their order.

    Args:
        identity: tells its model's answers from another's.
        context_length: the model's own, in tokens.
        answer: a row → the record of its answer; its ``LongVUError`` is what came of the row.
    """

    lanes = 1

    def __init__(self, identity: str, context_length: int, answer: Callable[[Row], Record]) -> None:
        self.identity = identity
        self.context_length = context_length
        self._answer = answer

    def answers(self, owed: Owed) -> Generator[Outcome, None, None]:
        """See :class:`~longvu_cli.engines.engine.Engine`."""
        while (row := owed.take(wait=True)) is not None:
            yield self._outcome(row)

    def _outcome(self, row: Row) -> Outcome:
        try:
            return Answered(row, self._answer(row))
        except LongVUError as error:
            return Failed(row, error)
