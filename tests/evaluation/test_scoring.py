"""evaluation/scoring.py: what a batch answered, counted; the numbers here are computed by hand."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from longvu_cli.config import CompressionOptions, GenerationOptions, SamplingOptions
from longvu_cli.errors import UsageError
from longvu_cli.evaluation.benchmark import Benchmark, Group, Preset, Question, Reading, Variant, plan
from longvu_cli.evaluation.scoring import (
    Report,
    read_outcomes,
    report,
    report_csv,
    report_record,
    submission,
    write_report,
)
from longvu_cli.manifest import Settings
from longvu_cli.results import ModelInfo

CHOICES = ("red", "blue", "green")
MODEL = ModelInfo("7b", "Vision-CAIR/LongVU_Qwen2_7B", None, "float32", "none", "cpu")
ONLY = Variant("", Settings(SamplingOptions(), CompressionOptions(), GenerationOptions()))


def benchmark(name: str = "mlvu", average_over: str | None = None, submitted: bool = False) -> Benchmark:
    return Benchmark(name, name, Preset(fps=1.0), lambda path: Reading(()), average_over, submitted)


def question(name: str, answer: str | None, task: str) -> Question:
    return Question(name, Path(f"{name}.mp4"), "Which?", CHOICES, f"Which, {name}?", answer, (Group("task", task),))


def answered(name: str, answer: str) -> dict[str, Any]:
    compression = {
        "frames": {"sampled": 10, "kept": 4},
        "tokens": {"dense": 840, "after_query": 336, "visual": 300},
        "truncated_tokens": 6,
    }
    return {
        "schema_version": 1,
        "key": "0" * 64,
        "id": name,
        "question": f"Which, {name}?",
        "answer": answer,
        "compression": compression,
        "timing_s": {"total": 2.5},
        "model": {**vars(MODEL), "notices": []},
    }


def failed(name: str) -> dict[str, Any]:
    error = {"type": "VideoNotFound", "message": "there is no such file", "hint": ""}
    return {"schema_version": 1, "key": "0" * 64, "id": name, "question": f"Which, {name}?", "error": error}


# Of "count", 1 of 4 is right; of "needle", both are.
QUESTIONS = (
    question("c1", "A", "count"),
    question("c2", "B", "count"),
    question("c3", "C", "count"),
    question("c4", "A", "count"),
    question("n1", "B", "needle"),
    question("n2", "C", "needle"),
)
RESULTS = (
    answered("c1", "(A) red"),
    answered("c2", "C"),
    answered("c3", "A or C"),
    failed("c4"),
    answered("n1", "B"),
    answered("n2", "green"),
)


def written(folder: Path, lines: tuple[dict[str, Any], ...] = RESULTS) -> Path:
    path = folder / "results.jsonl"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    return path


def summed(results: Path, made: Benchmark, questions: tuple[Question, ...] = QUESTIONS) -> Report:
    trials = plan(questions, [ONLY])
    return report(made, [ONLY], trials, read_outcomes(trials, results))


def test_accuracy_by_group_and_overall(tmp_path: Path) -> None:
    made = summed(written(tmp_path), benchmark())
    count, needle = made.groups
    assert (count.group, count.right, count.questions, count.errors, count.unparsed) == (
        Group("task", "count"), 1, 4, 1, 1,
    )  # fmt: skip
    assert count.accuracy == 0.25
    assert (needle.right, needle.questions, needle.accuracy) == (2, 2, 1.0)
    (overall,) = made.overall
    assert (overall.right, overall.questions, overall.accuracy) == (3, 6, 0.5)
    # Wilson's interval of 3 of 6, by hand: middle 1/2, half-width 1.96 / (1 + 3.8415/6) · √(1/24 + 3.8415/144).
    assert (overall.interval.low, overall.interval.high) == pytest.approx((0.1876, 0.8124), abs=1e-4)


def test_the_mean_over_tasks_counts_each_task_the_same(tmp_path: Path) -> None:
    (overall,) = summed(written(tmp_path), benchmark(average_over="task")).overall
    assert overall.accuracy == (0.25 + 1.0) / 2
    assert (overall.right, overall.questions) == (3, 6)
    assert 0 < overall.interval.low < overall.accuracy < overall.interval.high <= 1


def test_the_numbers_of_the_paper_stand_beside(tmp_path: Path) -> None:
    record = report_record(summed(written(tmp_path), benchmark(average_over="task")))
    assert record["overall"][0]["published"] == [{"model": "7b", "percent": 65.4, "table": 1}]
    assert record["overall"][0]["averaged_over"] == "task"
    assert record["groups"][0]["published"] == [{"model": "7b", "percent": 28.98, "table": 4}]


def test_what_is_not_answered_yet_is_missing_and_not_wrong(tmp_path: Path) -> None:
    made = summed(written(tmp_path, RESULTS[:2]), benchmark())
    assert (made.missing, made.overall[0].questions, made.overall[0].accuracy) == (4, 2, 0.5)
    nothing = summed(tmp_path / "none.jsonl", benchmark())
    assert (nothing.missing, nothing.overall, nothing.groups) == (6, (), ())


def test_a_question_without_a_known_answer_is_submitted_and_not_scored(tmp_path: Path) -> None:
    questions = (*QUESTIONS[:3], question("n1", None, "needle"))
    made = summed(written(tmp_path), benchmark(submitted=True), questions)
    assert (made.unscored, made.overall[0].questions) == (1, 3)
    assert submission(made.outcomes) == {"c1": 0, "c2": 2, "c3": -1, "n1": 1}
    write_report(made, tmp_path)
    assert (tmp_path / "submission.csv").read_text() == "q_uid,answer\nc1,0\nc2,2\nc3,-1\nn1,1\n"
    assert json.loads((tmp_path / "submission.json").read_text()) == {"c1": 0, "c2": 2, "c3": -1, "n1": 1}


def test_what_chose_nothing_is_submitted_as_that(tmp_path: Path) -> None:
    questions = (*QUESTIONS[:4], question("c5", None, "count"))
    made = summed(written(tmp_path), benchmark(submitted=True), questions)
    # c3 names two options, c4 is an error, and c5 is not answered yet.
    assert submission(made.outcomes) == {"c1": 0, "c2": 2, "c3": -1, "c4": -1}


def test_what_another_part_answered_is_answered(tmp_path: Path) -> None:
    """A batch answers a question about a video once, also where the video is there twice."""
    video = tmp_path / "a.mp4"
    video.write_bytes(b"a video")
    (tmp_path / "b.mp4").write_bytes(b"a video")
    (tmp_path / "c.mp4").write_bytes(b"b video")
    first, copy, other = (
        Question(name, tmp_path / f"{name}.mp4", "Which?", CHOICES, "Which, a?", "A") for name in "abc"
    )
    results = written(tmp_path, (answered("a", "A"),))
    part, all_of_them = plan((copy, other), [ONLY]), plan((first, copy, other), [ONLY])
    assert read_outcomes(part, results) == ()
    (outcome,) = read_outcomes(part, results, all_of_them)
    assert (outcome.trial.question, outcome.choice) == (copy, "A")


def test_a_question_that_was_put_in_other_words_has_no_answer(tmp_path: Path) -> None:
    other = {**RESULTS[0], "question": "Which one, c1?"}
    assert summed(written(tmp_path, (other, *RESULTS[1:])), benchmark()).missing == 1


def test_the_last_result_of_a_question_counts_and_a_line_that_is_not_whole_does_not(tmp_path: Path) -> None:
    path = written(tmp_path, (failed("n1"), *RESULTS))
    with path.open("a", encoding="utf-8") as file:
        file.write('{"schema_version": 1, "key": "00')
    assert summed(path, benchmark()).overall[0].right == 3


def test_ways_that_come_to_the_same_share_a_result(tmp_path: Path) -> None:
    again = Variant("again", ONLY.settings)
    trials = plan(QUESTIONS[:1], [ONLY, again])
    made = report(benchmark(), [ONLY, again], trials, read_outcomes(trials, written(tmp_path)))
    assert [(score.variant, score.right, score.questions) for score in made.overall] == [("", 1, 1), ("again", 1, 1)]
    assert made.missing == 0


def test_copies_of_a_video_share_a_result(tmp_path: Path) -> None:
    for name, content in (("here.mp4", b"film"), ("there.mp4", b"film"), ("other.mp4", b"FILM")):
        (tmp_path / name).write_bytes(content)
    asked = [
        Question(name, tmp_path / f"{name}.mp4", "Which?", CHOICES, "Which, c1?", "A")
        for name in ("here", "there", "other")
    ]
    results = written(tmp_path, ({**RESULTS[0], "id": "here"},))
    outcomes = read_outcomes(plan(asked, [ONLY]), results)
    assert [outcome.trial.question.id for outcome in outcomes] == ["here", "there"]


def test_something_else_in_the_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_text("hello\n", encoding="utf-8")
    with pytest.raises(UsageError, match="cannot be read as results"):
        summed(tmp_path / "results.jsonl", benchmark())


def test_files(tmp_path: Path) -> None:
    made = summed(written(tmp_path), benchmark())
    write_report(made, tmp_path)
    answers = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert [(one["id"], one["expected"], one["choice"], one["right"]) for one in answers] == [
        ("c1", "A", "A", True),
        ("c2", "B", "C", False),
        ("c3", "C", None, False),
        ("c4", "A", None, False),
        ("n1", "B", "B", True),
        ("n2", "C", "C", True),
    ]
    assert answers[0]["choices"] == list(CHOICES)
    assert (answers[2]["answer"], answers[2]["seconds"]) == ("A or C", 2.5)
    assert (answers[3]["answer"], answers[3]["error"]) == (None, "there is no such file")
    rows = list(csv.DictReader(io.StringIO(report_csv(made))))
    assert [(row["kind"], row["group"], row["questions"], row["accuracy"]) for row in rows] == [
        ("task", "count", "4", "0.2500"),
        ("task", "needle", "2", "1.0000"),
        ("", "all", "6", "0.5000"),
    ]
    assert json.loads((tmp_path / "summary.json").read_text()) == json.loads(json.dumps(report_record(made)))
    assert not (tmp_path / "submission.csv").exists()
