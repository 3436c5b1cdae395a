"""Many questions about many videos: each is answered once, however often the work is cut off or shared.

What is to be done is in ``owed.py``, who does it in ``engines/``; here it is kept, and counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace

from longvu_cli.engines.engine import Answered, Engine, Failed, Outcome
from longvu_cli.errors import LongVUError
from longvu_cli.identity import video_digest
from longvu_cli.manifest import Manifest, Misfit
from longvu_cli.owed import Owed
from longvu_cli.records import error_record
from longvu_cli.result_stream import Entry, Results
from longvu_cli.row_keys import misfit_key, row_key, row_place


@dataclass(frozen=True)
class Tally:
    """How far it is.

    Attributes:
        total: rows.
        found: rows whose results were there before.
        answered, failed: rows that this process has done.
        elsewhere: rows that other processes have done meanwhile.
        repeated: rows that are the same as an earlier one, whose result is theirs.
        failures: results that are errors, whoever had them and when.
        seconds: since the first row.
    """

    total: int
    found: int = 0
    answered: int = 0
    failed: int = 0
    elsewhere: int = 0
    repeated: int = 0
    failures: int = 0
    seconds: float = 0.0

    @property
    def done(self) -> int:
        """Rows that need nothing more."""
        return self.found + self.answered + self.failed + self.elsewhere + self.repeated

    @property
    def seconds_left(self) -> float | None:
        """At the speed so far, of all processes together; None: nothing was answered yet."""
        worked = self.answered + self.elsewhere
        return self.seconds * (self.total - self.done) / worked if worked else None


def _unheard(*_: object) -> None:
    """The default of every callback."""


class Batch:
    """The rows of a manifest, to be worked off once.

    Args:
        engine: answers them.
        on_progress: called at the beginning, and after each row.
        on_failure: called with the number of a row and what was wrong with it.
    """

    def __init__(
        self,
        manifest: Manifest,
        results: Results,
        *,
        engine: Engine,
        on_progress: Callable[[Tally], None] = _unheard,
        on_failure: Callable[[int, LongVUError], None] = _unheard,
    ) -> None:
        self._manifest = manifest
        self._results = results
        self._engine = engine
        self._on_progress = on_progress
        self._on_failure = on_failure
        self._tally = Tally(total=len(manifest.rows) + len(manifest.misfits))
        self._settled: set[str] = set()
        self._found: frozenset[str] = frozenset()
        self._begun = 0.0

    def run(self, *, retry_failed: bool = False) -> Tally:
        """Work off the rows that have no result yet.

        An error is a result, too. It goes when its row changes (a line of the manifest that was mended, a video that
        was missing or has other content now), or:

        Args:
            retry_failed: drop all earlier errors.

        Raises:
            OSError: a result cannot be written.
            UsageError: the results are damaged.
            LongVUError: the engine can answer nothing any more.
        """
        is_stale = self._staleness()
        self._results.drop(lambda entry: entry.failed and (retry_failed or is_stale(entry)))
        self._results.refresh()
        self._found = frozenset(self._results.entries)
        self._begun = time.monotonic()
        self._on_progress(self._tally)
        for misfit in self._manifest.misfits:
            self._settle_misfit(misfit)
        owed = Owed(
            self._manifest.rows,
            self._results,
            self._engine.identity,
            on_settled=self._note_result_of_others,
            largest_first=self._engine.lanes > 1,
        )
        try:
            with closing(self._engine.answers(owed)) as outcomes:
                for outcome in outcomes:
                    self._keep(outcome, owed.key(outcome.row))
                    owed.done(outcome.row)
                    del outcome  # its error has a traceback, which has the tensors of a video that did not fit
        finally:
            owed.let_go()
        return self._tally

    def _keep(self, outcome: Outcome, key: str) -> None:
        row = outcome.row
        added = {"row": row.number, "id": row.id, "key": key}
        match outcome:
            case Answered(record=record):
                self._results.append({**record, **added})
                self._count(key, answered=1)
            case Failed(error=error):
                place = row_place(row, self._engine.identity)
                record = {**error_record(error, path=row.video), "question": row.question, **added, "place": place}
                self._results.append(record)
                self._on_failure(row.number, error)
                self._count(key, failed=1)

    def _settle_misfit(self, misfit: Misfit) -> None:
        key = misfit_key(misfit, self._manifest.name)
        if key in self._results.entries:
            self._note_result_of_others(key)
            return
        record = error_record(misfit.error, path=misfit.video)
        added = {"row": misfit.number, "id": misfit.id, "key": key, "manifest": self._manifest.name}
        self._results.append({**record, **added})
        self._on_failure(misfit.number, misfit.error)
        self._count(key, failed=1)

    def _note_result_of_others(self, key: str) -> None:
        if key in self._settled:
            self._count(key, repeated=1)
        elif key in self._found:
            self._count(key, found=1)
        else:
            self._count(key, elsewhere=1)

    def _count(self, key: str, **more: int) -> None:
        counts = {name: vars(self._tally)[name] + number for name, number in more.items()}
        if key not in self._settled and self._results.entries[key].failed:
            counts["failures"] = self._tally.failures + 1
        self._settled.add(key)
        self._tally = replace(self._tally, **counts, seconds=time.monotonic() - self._begun)
        self._on_progress(self._tally)

    def _staleness(self) -> Callable[[Entry], bool]:
        """What tells whether an error is about something that is no longer so."""
        identity = self._engine.identity
        misfits = {misfit_key(misfit, self._manifest.name) for misfit in self._manifest.misfits}
        rows = {row_place(row, identity): row for row in self._manifest.rows}

        def is_stale(failure: Entry) -> bool:
            if failure.manifest is not None:
                return failure.manifest == self._manifest.name and failure.key not in misfits
            row = None if failure.place is None else rows.get(failure.place)
            return row is not None and failure.key != row_key(row, video_digest(row.video), identity)

        return is_stale
