"""What a worker does, wherever it lives: load the model, then answer row after row."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable

from longvu_cli.engines.answering import Answering
from longvu_cli.engines.assignment import Assignment
from longvu_cli.engines.engine import Answered, Failed
from longvu_cli.engines.events import Bug, CannotLoad, Chosen, Comparing, Event, Loaded, Noticed
from longvu_cli.errors import LongVUError, UnexpectedError
from longvu_cli.feature_cache import FeatureCache
from longvu_cli.longvu import LongVU
from longvu_cli.manifest import Row
from longvu_cli.pipeline import Progress


def _unseen(stage: str, done: int, total: int | None) -> None:
    """Of several videos at a time nobody wants to see how far each is."""


def work(
    assignment: Assignment, rows: Iterable[Row], tell: Callable[[Event], None], *, on_progress: Progress = _unseen
) -> None:
    """Answer rows until there are no more.

    Args:
        tell: hears how it goes: :class:`Loaded` or :class:`CannotLoad`, then what came of each row.
        on_progress: hears how far it is with a video.
    """
    try:
        model = _load(assignment, tell)
        tell(Loaded(model.info, model.identity, model.context_length))
    except LongVUError as error:
        tell(CannotLoad(error))
        return
    except Exception as error:  # noqa: BLE001  whoever started it has to hear of a bug
        tell(Bug(traceback.format_exc()))
        tell(CannotLoad(UnexpectedError.of(error)))
        return
    answer = Answering(
        model,
        assignment.command,
        on_progress=on_progress,
        on_notice=lambda text: tell(Noticed(text)),
        on_bug=lambda trace: tell(Bug(trace)),
    )
    for row in rows:
        tell(_outcome(row, answer))


def _load(assignment: Assignment, tell: Callable[[Event], None]) -> LongVU:
    return LongVU.from_pretrained(
        assignment.model.model,
        options=assignment.model,
        cache=FeatureCache.default() if assignment.cached else None,
        decoding=assignment.decoding,
        on_chosen=lambda variant: tell(Chosen(variant.name)),
        on_download=tell,
        on_check=lambda repo, size: tell(Comparing(repo, size)),
    )


def _outcome(row: Row, answer: Answering) -> Answered | Failed:
    try:
        return Answered(row, answer(row))
    except LongVUError as error:
        return Failed(row, error)
