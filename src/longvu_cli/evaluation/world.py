"""The drawn world as a benchmark: films that no training has seen, questions with one right answer each.

::

    films and questions    (drawn_films.py)
    questions × ways to compress → trials, each a row of a batch
    what the batch answered → what was tried → scores    (ablation.py)
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from longvu_cli.config import CompressionOptions, GenerationOptions, SamplingOptions
from longvu_cli.errors import UsageError
from longvu_cli.evaluation.ablation import (
    TABLES,
    RowScores,
    Score,
    TableName,
    Tried,
    row_record,
    score,
    score_record,
    scored,
    ways,
)
from longvu_cli.evaluation.drawn_films import Film, FilmQuestion, questions_about
from longvu_cli.evaluation.reduction import reduction_of
from longvu_cli.identity import video_digest
from longvu_cli.manifest import Manifest, Row, Settings
from longvu_cli.records import SCHEMA_VERSION, Record
from longvu_cli.row_keys import row_key
from longvu_cli.whole_file import whole_file
from longvu_cli.world.questions import is_right

COMMAND = "eval world"
# Films are drawn at the rate at which they are looked at.
SAMPLING = SamplingOptions(fps=1.0)
RESULTS, FILMS, SUMMARY = "results.jsonl", "films", "world.json"


@dataclass(frozen=True)
class WorldOptions:
    """What is asked.

    Attributes:
        seconds: lengths of the films, which take turns.
        questions: per film.
        first: number of the first story.
        tables: of the paper, whose rows are run; none: the settings as they are.
        compression: what the rows change.
    """

    films: int = 16
    seconds: tuple[int, ...] = (600,)
    questions: int = 8
    first: int = 0
    tables: tuple[TableName, ...] = ()
    compression: CompressionOptions = field(default_factory=CompressionOptions)
    generation: GenerationOptions = field(default_factory=GenerationOptions)

    def __post_init__(self) -> None:
        for flag, value in (("--films", self.films), ("--questions", self.questions)):
            if value < 1:
                raise UsageError(f"{flag} {value} is no positive number", hint="give 1 or more")
        if not self.seconds or min(self.seconds) < 1:
            raise UsageError("--seconds needs lengths of 1 or more", hint="give them as 60,300,600")
        if self.first < 0:
            raise UsageError(f"--first {self.first} is no number of a story", hint="give 0 or more")


@dataclass(frozen=True)
class WorldTrial:
    """A question, asked in one way; its row is what a batch works off."""

    asked: FilmQuestion
    compression: CompressionOptions
    row: Row


@dataclass(frozen=True)
class WorldReport:
    """What came out.

    Attributes:
        tables: those that were asked for, each with its rows.
        kinds: where none was, a score per kind of question.
        whole: of them all.
        commonest: kind → the share that always giving its commonest right answer would have.
    """

    tables: Mapping[TableName, tuple[RowScores, ...]]
    kinds: Mapping[str, Score]
    whole: Score | None
    commonest: Mapping[str, float]


def films_of(options: WorldOptions) -> tuple[Film, ...]:
    """The films, in order."""
    return tuple(
        Film(options.first + number, options.seconds[number % len(options.seconds)]) for number in range(options.films)
    )


def plan(options: WorldOptions, folder: Path, context_length: int) -> tuple[WorldTrial, ...]:
    """Every question in every way; those about one film are neighbours, so that its features are computed once.

    Args:
        folder: of the films.
        context_length: the model's own.
    """
    ways_ = _ways(options, context_length)
    asked = [(one, way) for one in questions_about(films_of(options), options.questions) for way in ways_]
    return tuple(
        WorldTrial(
            one,
            way,
            Row(
                number=number,
                id=f"{one.film.file} {one.question.kind}",
                video=str(folder / one.film.file),
                question=one.question.text,
                settings=Settings(SAMPLING, way, options.generation),
            ),
        )
        for number, (one, way) in enumerate(asked, 1)
    )


def _ways(options: WorldOptions, context_length: int) -> tuple[CompressionOptions, ...]:
    if not options.tables:
        return (options.compression,)
    return ways(options.tables, options.compression, options.compression.context_length or context_length)


def manifest_of(trials: Sequence[WorldTrial]) -> Manifest:
    """The trials as rows of a batch."""
    return Manifest(name=COMMAND, rows=tuple(trial.row for trial in trials), misfits=())


def read_tried(trials: Sequence[WorldTrial], results: Path, model_identity: str) -> tuple[Tried, ...]:
    """What came of each trial, in their order.

    Args:
        results: file of a batch that has worked off all rows.

    Raises:
        UsageError: a row has no result in it.
    """
    contents = {video: video_digest(video) for video in dict.fromkeys(trial.row.video for trial in trials)}
    keys = [row_key(trial.row, contents[trial.row.video], model_identity) for trial in trials]
    found = {record["key"]: record for record in _records(results)}
    missing = sum(key not in found for key in keys)
    if missing:
        raise UsageError(f"{missing} of {len(trials)} questions have no answer yet", hint="run the same command again")
    return tuple(_tried(trial, found[key]) for trial, key in zip(trials, keys, strict=True))


def _records(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):  # else another process is writing it
                yield json.loads(line)


def _tried(trial: WorldTrial, record: Mapping[str, Any]) -> Tried:
    question = trial.asked.question
    failed = "error" in record
    return Tried(
        compression=trial.compression,
        kind=question.kind,
        length=f"{trial.asked.film.seconds} s",
        right=not failed and is_right(question, record["answer"]),
        reduction=None if failed else reduction_of(record),
    )


def report(
    options: WorldOptions, trials: Sequence[WorldTrial], tried: Sequence[Tried], context_length: int
) -> WorldReport:
    """Sum up.

    Args:
        context_length: the model's own.
    """
    context = options.compression.context_length or context_length
    asked = tuple(dict.fromkeys(trial.asked for trial in trials))
    kinds = tuple(dict.fromkeys(one.question.kind for one in asked))
    return WorldReport(
        tables={name: scored(TABLES[name], tried, options.compression, context) for name in options.tables},
        kinds={} if options.tables else {kind: score([one for one in tried if one.kind == kind]) for kind in kinds},
        whole=None if options.tables else score(tried),
        commonest={kind: _commonest(asked, kind) for kind in kinds},
    )


def _commonest(asked: Sequence[FilmQuestion], kind: str) -> float:
    answers = [one.question.answer for one in asked if one.question.kind == kind]
    return Counter(answers).most_common(1)[0][1] / len(answers)


def report_record(options: WorldOptions, made: WorldReport) -> Record:
    """The report as JSON. Fields may be added, never renamed."""
    return {
        "schema_version": SCHEMA_VERSION,
        "command": COMMAND,
        "settings": {
            "films": options.films,
            "seconds": list(options.seconds),
            "questions": options.questions,
            "first": options.first,
            "max_new_tokens": options.generation.max_new_tokens,
            "compression": asdict(options.compression),
        },
        "kinds": {kind: score_record(own) for kind, own in made.kinds.items()},
        "all": None if made.whole is None else score_record(made.whole),
        "commonest": dict(made.commonest),
        "tables": {name.value: [row_record(one) for one in rows] for name, rows in made.tables.items()},
    }


def write_report(options: WorldOptions, made: WorldReport, folder: Path) -> None:
    """Write ``world.json``, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    with whole_file(folder / SUMMARY) as aside:
        aside.write_text(json.dumps(report_record(options, made), indent=1, allow_nan=False) + "\n", encoding="utf-8")
