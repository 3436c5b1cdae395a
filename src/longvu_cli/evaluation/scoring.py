"""What a batch answered → outcomes, scores by group, and the report with its files.

Answers are kept as they were given (``results.jsonl``) and are read anew each time: when the parser changes, or the
right answers do, they are scored again without a model.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from longvu_cli.choices import chosen
from longvu_cli.errors import UsageError
from longvu_cli.evaluation.ablation import RowScores, TableName, Tried, row_record
from longvu_cli.evaluation.benchmark import Benchmark, Group, Trial, Variant
from longvu_cli.evaluation.benchmark_ablation import Ablation, kind_of, length_of
from longvu_cli.evaluation.proportions import Interval, mean_of_shares, wilson
from longvu_cli.evaluation.published import models_of_paper, published
from longvu_cli.evaluation.published_ablations import MODEL, PublishedRow, published_rows
from longvu_cli.evaluation.reduction import Reduction, reduction_of
from longvu_cli.identity import video_digest
from longvu_cli.manifest import Settings
from longvu_cli.records import SCHEMA_VERSION, Record
from longvu_cli.results import ModelInfo
from longvu_cli.whole_file import whole_file

RESULTS = "results.jsonl"
# What a submission has for an answer that is none of the options.
_NONE_CHOSEN = -1
# A question with its settings, and what tells its video from others.
_Work = tuple[tuple[str, Settings], str]


@dataclass(frozen=True)
class Outcome:
    """A trial with what came of it.

    Attributes:
        answer: as the model gave it; None: there was an error.
        choice: the letter of the option that the answer means; None: none, or more than one.
        error: what was wrong.
        seconds: that the answer took; None where there is none.
        model: that gave it.
        reduction: what its compression made of the video; None where there is no answer.
    """

    trial: Trial
    answer: str | None
    choice: str | None
    error: str | None
    seconds: float | None
    model: ModelInfo | None
    reduction: Reduction | None

    @property
    def right(self) -> bool | None:
        """Whether it is the right option; an error is not. None: nobody here knows the right one."""
        expected = self.trial.question.answer
        return None if expected is None else self.choice == expected


@dataclass(frozen=True)
class Score:
    """Right answers in one way of answering, of a group or of all questions.

    Attributes:
        group: None: all.
        questions: that were asked and whose right answer is known.
        errors: of them, those that failed: they count as wrong.
        unparsed: of them, those whose answer means no option, or several: they count as wrong.
        accuracy: share of right answers; of all, where the benchmark says so, the mean over groups.
        interval: in which it may lie with other questions: 95 %.
    """

    variant: str
    group: Group | None
    right: int
    questions: int
    errors: int
    unparsed: int
    accuracy: float
    interval: Interval


@dataclass(frozen=True)
class Report:
    """What came out.

    Attributes:
        model: that answered; None: nothing is answered.
        overall: a score per variant; none where no right answer is known.
        groups: a score per variant and group.
        outcomes: of the trials that have one.
        missing: trials that have none yet.
        unscored: outcomes of questions whose right answer is not known here.
        tables: of the paper, whose rows are the variants, with the questions that have an outcome in every way; none
            without such questions; None: they are not asked for.
    """

    benchmark: Benchmark
    model: ModelInfo | None
    variants: tuple[Variant, ...]
    overall: tuple[Score, ...]
    groups: tuple[Score, ...]
    outcomes: tuple[Outcome, ...]
    missing: int
    unscored: int
    tables: Mapping[TableName, tuple[RowScores, ...]] | None


# --- read -----------------------------------------------------------------------------------------------------------


def read_outcomes(trials: Sequence[Trial], results: Path, among: Sequence[Trial] = ()) -> tuple[Outcome, ...]:
    """The outcomes of the trials, in their order; trials without a result have none.

    Args:
        results: file of a batch. A question that was put in other words since has no result in it.
        among: all that the file may have results of, where the trials are a part: a batch answers what is the same in
            all that matters once, and that may have been in another part.

    Raises:
        UsageError: it is something else, or cannot be read.
    """
    every = (*trials, *among)
    works = _works(every)
    asking: dict[_Work, list[Trial]] = {}
    for trial, work in zip(trials, works[: len(trials)], strict=True):
        asking.setdefault(work, []).append(trial)
    wanted: dict[tuple[object, object], dict[_Work, None]] = {}
    for trial, work in zip(every, works, strict=True):
        wanted.setdefault((trial.row.id, trial.row.question), {})[work] = None
    found: dict[int, Outcome] = {}
    for record in _records(results):
        for work in wanted.get((record.get("id"), record.get("question")), ()):
            for trial in asking.get(work, ()):
                found[trial.row.number] = _outcome(trial, record)
    return tuple(found[trial.row.number] for trial in trials if trial.row.number in found)


def _works(trials: Sequence[Trial]) -> list[_Work]:
    """What matters of each trial: where it is the same, a batch has one result, with the id of one of them."""
    asked = [(trial.row.question, trial.row.settings) for trial in trials]
    videos: dict[tuple[str, Settings], set[str]] = {}
    for one, trial in zip(asked, trials, strict=True):
        videos.setdefault(one, set()).add(trial.row.video)
    contents = {one: _contents(those) for one, those in videos.items()}
    return [(one, contents[one][trial.row.video]) for one, trial in zip(asked, trials, strict=True)]


def _contents(videos: set[str]) -> dict[str, str]:
    """What tells videos apart: their paths, or their contents where files of different places are of one size."""
    sizes = {video: os.path.getsize(video) if os.path.isfile(video) else None for video in videos}
    counts = Counter(sizes.values())
    return {
        video: (video_digest(video) or video) if size is not None and counts[size] > 1 else video
        for video, size in sizes.items()
    }


def _records(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    return  # of a process that was killed, or is writing
                record = json.loads(line)
                if not isinstance(record, dict) or not {"key", "question"} <= record.keys():
                    raise UsageError(f"line {number} of {path} is no result of longvu", hint="name another folder")
                yield record
    except FileNotFoundError:
        return
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} cannot be read as results: {error}", hint="name another folder") from error


def _outcome(trial: Trial, record: Mapping[str, Any]) -> Outcome:
    if "error" in record:
        return Outcome(trial, None, None, record["error"]["message"], None, None, None)
    model = record["model"]
    return Outcome(
        trial=trial,
        answer=record["answer"],
        choice=chosen(record["answer"], trial.question.choices),
        error=None,
        seconds=record["timing_s"]["total"],
        model=ModelInfo(**{**model, "notices": tuple(model["notices"])}),
        reduction=reduction_of(record),
    )


# --- sum up ---------------------------------------------------------------------------------------------------------


def report(
    benchmark: Benchmark,
    variants: Sequence[Variant],
    trials: Sequence[Trial],
    outcomes: Sequence[Outcome],
    ablation: Ablation | None = None,
) -> Report:
    """Sum up what there is.

    Args:
        ablation: the variants are its own.
    """
    scored = [outcome for outcome in outcomes if outcome.right is not None]
    found = list(dict.fromkeys(group for outcome in scored for group in outcome.trial.question.groups))
    kinds = list(dict.fromkeys(group.kind for group in found))
    groups = sorted(found, key=lambda group: kinds.index(group.kind))
    by_group = [
        score
        for variant in variants
        for group in groups
        if (score := _score(_those(scored, variant, group), variant, group)) is not None
    ]
    overall = [
        _averaged(whole, by_group, benchmark.average_over)
        for variant in variants
        if (whole := _score(_those(scored, variant), variant)) is not None
    ]
    return Report(
        benchmark=benchmark,
        model=next((outcome.model for outcome in outcomes if outcome.model is not None), None),
        variants=tuple(variants),
        overall=tuple(overall),
        groups=tuple(by_group),
        outcomes=tuple(outcomes),
        missing=len(trials) - len(outcomes),
        unscored=len(outcomes) - len(scored),
        tables=None if ablation is None else _tables(ablation, benchmark, scored, len(variants)),
    )


def _tables(
    ablation: Ablation, benchmark: Benchmark, scored: Sequence[Outcome], ways: int
) -> Mapping[TableName, tuple[RowScores, ...]]:
    """The rows of the tables, of the questions that were asked in all ways; without one there are none."""
    counts = Counter(outcome.trial.question.id for outcome in scored)
    tried = [_tried(outcome) for outcome in scored if counts[outcome.trial.question.id] == ways]
    return ablation.rows(tried, averaged=benchmark.average_over is not None) if tried else {}


def _tried(outcome: Outcome) -> Tried:
    groups = outcome.trial.question.groups
    return Tried(
        compression=outcome.trial.variant.settings.compression,
        kind=kind_of(groups),
        length=length_of(groups),
        right=outcome.right is True,
        reduction=outcome.reduction,
    )


def _those(outcomes: Sequence[Outcome], variant: Variant, group: Group | None = None) -> list[Outcome]:
    return [
        outcome
        for outcome in outcomes
        if outcome.trial.variant == variant and (group is None or group in outcome.trial.question.groups)
    ]


def _score(outcomes: Sequence[Outcome], variant: Variant, group: Group | None = None) -> Score | None:
    if not outcomes:
        return None
    right = sum(outcome.right is True for outcome in outcomes)
    errors = sum(outcome.error is not None for outcome in outcomes)
    return Score(
        variant=variant.name,
        group=group,
        right=right,
        questions=len(outcomes),
        errors=errors,
        unparsed=sum(outcome.choice is None for outcome in outcomes) - errors,
        accuracy=right / len(outcomes),
        interval=wilson(right, len(outcomes)),
    )


def _averaged(whole: Score, groups: Sequence[Score], kind: str | None) -> Score:
    """The score of all questions, with the mean over the groups of a kind where there are some."""
    counts = [
        (score.right, score.questions)
        for score in groups
        if score.variant == whole.variant and score.group is not None and score.group.kind == kind
    ]
    if not counts:
        return whole
    accuracy, interval = mean_of_shares(counts)
    return Score(**{**vars(whole), "accuracy": accuracy, "interval": interval})


# --- files ----------------------------------------------------------------------------------------------------------


def report_record(made: Report) -> Record:
    """The report as JSON. Fields may be added, never renamed."""
    return {
        "schema_version": SCHEMA_VERSION,
        "command": f"eval {made.benchmark.name}",
        "model": None if made.model is None else {**asdict(made.model), "notices": list(made.model.notices)},
        "variants": [{"name": variant.name, "settings": variant.settings.changed()} for variant in made.variants],
        "overall": [_score_record(made, score) for score in made.overall],
        "groups": [_score_record(made, score) for score in made.groups],
        "answers": len(made.outcomes),
        "missing": made.missing,
        "unscored": made.unscored,
        "tables": {name.value: _table_record(made.benchmark, name, rows) for name, rows in (made.tables or {}).items()},
    }


def _table_record(benchmark: Benchmark, name: TableName, rows: Sequence[RowScores]) -> list[Record]:
    paper = published_rows(name, benchmark.name) or (None,) * len(rows)
    return [
        {**row_record(one), "published": None if own is None else _published_record(own)}
        for one, own in zip(rows, paper, strict=True)
    ]


def _published_record(own: PublishedRow) -> Record:
    return {"model": MODEL, "percent": own.percent, "columns": dict(own.columns), "reduction": own.reduction}


def _score_record(made: Report, score: Score) -> Record:
    group = score.group
    numbers = [
        {"model": one.model, "percent": one.percent, "table": one.table}
        for model in models_of_paper(made.model)
        for one in published(model, made.benchmark.name, None if group is None else group.name)
    ]
    return {
        "variant": score.variant,
        **({} if group is None else {"kind": group.kind, "group": group.name}),
        "right": score.right,
        "questions": score.questions,
        "errors": score.errors,
        "unparsed": score.unparsed,
        "accuracy": score.accuracy,
        "interval": [score.interval.low, score.interval.high],
        "averaged_over": made.benchmark.average_over if group is None else None,
        "published": numbers,
    }


def report_csv(made: Report) -> str:
    """The scores, a line each; the last are of all questions."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("variant", "kind", "group", "questions", "right", "errors", "unparsed", "accuracy", "low", "high"))
    for score in (*made.groups, *made.overall):
        kind, name = ("", "all") if score.group is None else (score.group.kind, score.group.name)
        shares = (f"{share:.4f}" for share in (score.accuracy, score.interval.low, score.interval.high))
        counts = (score.questions, score.right, score.errors, score.unparsed)
        table.writerow((score.variant, kind, name, *counts, *shares))
    return text.getvalue()


def outcome_record(outcome: Outcome) -> Record:
    """A question with its answer and how it was scored."""
    trial = outcome.trial
    question = trial.question
    return {
        "id": question.id,
        "variant": trial.variant.name,
        "video": str(question.video),
        "question": question.text,
        "choices": list(question.choices),
        "groups": {group.kind: group.name for group in question.groups},
        "expected": question.answer,
        "answer": outcome.answer,
        "choice": outcome.choice,
        "right": outcome.right,
        "error": outcome.error,
        "seconds": outcome.seconds,
    }


def submission(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """Question → number of the chosen option, from 0, as EgoSchema's server takes it.

    -1 where none was chosen, or there was an error: left out, such a question would count as not asked.
    """
    return {
        outcome.trial.question.id: _NONE_CHOSEN if outcome.choice is None else ord(outcome.choice) - ord("A")
        for outcome in outcomes
    }


def write_report(made: Report, folder: Path) -> None:
    """Write ``summary.json``, ``summary.csv``, ``answers.jsonl``, and submissions, each whole or not at all.

    Raises:
        OSError: they cannot be written.
    """
    contents = {
        "summary.json": json.dumps(report_record(made), indent=1, allow_nan=False) + "\n",
        "summary.csv": report_csv(made),
        "answers.jsonl": "".join(f"{json.dumps(outcome_record(outcome))}\n" for outcome in made.outcomes),
    }
    for variant in made.variants if made.benchmark.submitted else ():
        chosen_by = submission(_those(made.outcomes, variant))
        stem = "-".join(("submission", *re.findall(r"[a-z0-9]+", variant.name.lower())))
        contents[f"{stem}.json"] = json.dumps(chosen_by, indent=0) + "\n"
        contents[f"{stem}.csv"] = "q_uid,answer\n" + "".join(f"{name},{at}\n" for name, at in chosen_by.items())
    for name, content in contents.items():
        with whole_file(folder / name) as aside:
            aside.write_text(content, encoding="utf-8")
