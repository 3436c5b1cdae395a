"""Many questions about many videos: each is answered once, however often the work is cut off or shared.

A row is the same work as another when the content of the video, the question, the model and the settings are the same:
its key is a digest of them. Rows of one video are done together, so that its features are computed once.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from pathlib import Path
from typing import Any, Protocol

from longvu_cli.errors import LongVUError
from longvu_cli.identity import video_digest
from longvu_cli.manifest import Manifest, Misfit, Row
from longvu_cli.records import Record, error_record
from longvu_cli.result_file import Entry
from longvu_cli.subtitles import AUTO, sidecar

# Raised when the same row gets another key in a new version of this package.
_FORMAT = 1


class Results(Protocol):
    """Where results go: ``ResultFile``, or :class:`ResultStream`."""

    @property
    def entries(self) -> Mapping[str, Entry]:
        """What is there, by key."""

    def refresh(self) -> None:
        """Look at what others have written since."""

    def claim(self, key: str, *, wait: bool = False) -> bool:
        """Reserve a row, and refresh; False: another process has it."""

    def release(self, key: str) -> None:
        """Let go of a claim."""

    def append(self, record: Mapping[str, Any]) -> None:
        """Add a line."""

    def drop(self, stale: Callable[[Entry], bool]) -> int:
        """Take lines out; says how many."""


class ResultStream:
    """Results that go where nobody can look them up again, such as a pipe.

    Args:
        write: takes a line without its end.
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._entries: dict[str, Entry] = {}

    @property
    def entries(self) -> Mapping[str, Entry]:
        """What was written, by key."""
        return self._entries

    def refresh(self) -> None:
        """Nobody else writes."""

    def claim(self, key: str, *, wait: bool = False) -> bool:
        """Nobody else works."""
        return True

    def release(self, key: str) -> None:
        """See :meth:`claim`."""

    def append(self, record: Mapping[str, Any]) -> None:
        """Write a line."""
        self._write(json.dumps(record, allow_nan=False))
        self._entries[record["key"]] = Entry(record["key"], failed="error" in record, place=None, manifest=None)

    def drop(self, stale: Callable[[Entry], bool]) -> int:
        """What is written is written."""
        return 0


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


class _Manner(Enum):
    """What to do about a row that another process is working on."""

    LEAVE_ITS_VIDEO = auto()  # whose features that process is computing
    SKIP = auto()
    WAIT = auto()


def _unheard(*_: object) -> None:
    """The default of every callback."""


class Batch:
    """The rows of a manifest, to be worked off once.

    Args:
        model_identity: tells one model's answers from another's.
        answer: a row → the record of its answer; its ``LongVUError`` becomes the row's result.
        on_progress: called at the beginning, and after each row.
        on_failure: called with the number of a row and what was wrong with it.
    """

    def __init__(
        self,
        manifest: Manifest,
        results: Results,
        *,
        model_identity: str,
        answer: Callable[[Row], Record],
        on_progress: Callable[[Tally], None] = _unheard,
        on_failure: Callable[[int, LongVUError], None] = _unheard,
    ) -> None:
        self._manifest = manifest
        self._results = results
        self._model_identity = model_identity
        self._answer = answer
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
        """
        is_stale = self._staleness()
        self._results.drop(lambda entry: entry.failed and (retry_failed or is_stale(entry)))
        self._results.refresh()
        self._found = frozenset(self._results.entries)
        self._begun = time.monotonic()
        self._on_progress(self._tally)
        for misfit in self._manifest.misfits:
            self._settle_misfit(misfit)
        left = _by_video(self._manifest.rows)
        for manner in _Manner:
            left = [rest for rows in left if (rest := self._work_off(rows, manner))]
        return self._tally

    def _work_off(self, rows: Sequence[Row], manner: _Manner) -> Sequence[Row]:
        """Settle the rows of a video; returns those that other processes are working on."""
        content = video_digest(rows[0].video)
        left: list[Row] = []
        for number, row in enumerate(rows):
            if self._settle(row, row_key(row, content, self._model_identity), wait=manner is _Manner.WAIT):
                continue
            if manner is _Manner.LEAVE_ITS_VIDEO:
                return rows[number:]
            left.append(row)
        return left

    def _settle(self, row: Row, key: str, *, wait: bool) -> bool:
        """See to it that a row has a result; False: another process is working on it."""
        if key in self._results.entries:
            self._note_result_of_others(key)
            return True
        if not self._results.claim(key, wait=wait):
            return False
        try:
            if key in self._results.entries:  # since the claim, nobody else can add it
                self._note_result_of_others(key)
            else:
                self._do(row, key)
        finally:
            self._results.release(key)
        return True

    def _do(self, row: Row, key: str) -> None:
        added = {"row": row.number, "id": row.id, "key": key}
        try:
            record = {**self._answer(row), **added}
        except LongVUError as error:
            place = _row_place(row, self._model_identity)
            record = {**error_record(error, path=row.video), "question": row.question, **added, "place": place}
            self._results.append(record)
            self._on_failure(row.number, error)
            self._count(key, failed=1)
        else:
            self._results.append(record)
            self._count(key, answered=1)

    def _settle_misfit(self, misfit: Misfit) -> None:
        key = self._misfit_key(misfit)
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
        misfits = {self._misfit_key(misfit) for misfit in self._manifest.misfits}
        rows = {_row_place(row, self._model_identity): row for row in self._manifest.rows}

        def is_stale(failure: Entry) -> bool:
            if failure.manifest is not None:
                return failure.manifest == self._manifest.name and failure.key not in misfits
            row = None if failure.place is None else rows.get(failure.place)
            return row is not None and failure.key != row_key(row, video_digest(row.video), self._model_identity)

        return is_stale

    def _misfit_key(self, misfit: Misfit) -> str:
        return _digest({"manifest": self._manifest.name, "row": misfit.number, "text": misfit.digest})


def row_key(row: Row, content: str | None, model_identity: str) -> str:
    """The identity of a row; a video that cannot be read is identified by its path.

    Args:
        content: digest of the video, if it can be read.
    """
    return _digest(_facts(row, content, model_identity) | _subtitles(row))


def _row_place(row: Row, model_identity: str) -> str:
    """What remains of a row's identity when the content of its video, or of its subtitles, changes."""
    return _digest({"place": _digest(_facts(row, None, model_identity))})


def _facts(row: Row, content: str | None, model_identity: str) -> dict[str, object]:
    return {
        "format": _FORMAT,
        "video": {"path": os.path.abspath(row.video)} if content is None else content,
        "question": row.question,
        "model": model_identity,
        "settings": row.settings.changed(),
    }


def _subtitles(row: Row) -> dict[str, object]:
    """The content of the file of subtitles; those within the video are part of its own."""
    named = row.settings.prompting.subtitles
    if named is None:
        return {}
    file = sidecar(Path(row.video)) if named == AUTO else Path(named)
    return {"subtitles": None if file is None else video_digest(str(file))}


def _digest(facts: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _by_video(rows: Sequence[Row]) -> list[Sequence[Row]]:
    """The rows of each video, in the order in which the videos come first."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(os.path.abspath(row.video), []).append(row)
    return list(groups.values())
