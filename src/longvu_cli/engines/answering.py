"""A row → the record of its answer, by a loaded model."""

from __future__ import annotations

import traceback
from collections.abc import Callable

from longvu_cli.coverage import Merge, ask_segments, merged
from longvu_cli.errors import LongVUError, UnexpectedError
from longvu_cli.longvu import LongVU
from longvu_cli.manifest import Row
from longvu_cli.pipeline import Progress
from longvu_cli.records import Record, answer_record, coverage_record
from longvu_cli.results import Answer


class Answering:
    """Asks a model.

    Args:
        command: as the records have it.
        on_progress: hears how far it is with a video.
        on_notice: hears what may make an answer less than it seems.
        on_bug: hears where an unexpected error came from.
    """

    def __init__(
        self,
        model: LongVU,
        command: str,
        *,
        on_progress: Progress,
        on_notice: Callable[[str], None],
        on_bug: Callable[[str], None],
    ) -> None:
        self._model = model
        self._command = command
        self._on_progress = on_progress
        self._on_notice = on_notice
        self._on_bug = on_bug

    def __call__(self, row: Row) -> Record:
        """The record of a row's answer.

        Raises:
            LongVUError: there is none, and why.
        """
        try:
            return self._covered(row) if row.settings.covering.coverage else self._answered(row)
        except (LongVUError, BrokenPipeError):
            raise
        except Exception as error:  # a bug that one row meets must not cost the others their answers
            self._on_bug(traceback.format_exc())
            raise UnexpectedError.of(error) from error

    def _answered(self, row: Row) -> Record:
        settings = row.settings
        answer = self._model.answer(
            row.video,
            row.question,
            sampling=settings.sampling,
            compression=settings.compression,
            prompting=settings.prompting,
            generation=settings.generation,
            on_progress=self._on_progress,
        )
        self._notice(answer)
        return answer_record(self._command, answer)

    def _covered(self, row: Row) -> Record:
        """A row that is asked piece by piece has one result; what fails in a piece is part of it."""
        settings = row.settings
        segments = ask_segments(
            self._model,
            row.video,
            row.question,
            sampling=settings.sampling,
            compression=settings.compression,
            prompting=settings.prompting,
            generation=settings.generation,
            on_progress=self._on_progress,
        )
        covered = merged(list(segments), Merge.RELEVANCE)
        self._notice(covered.answer)
        return coverage_record(self._command, covered)

    def _notice(self, answer: Answer) -> None:
        for notice in answer.compression.notices:
            self._on_notice(notice)
