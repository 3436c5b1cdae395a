"""world.py: films × questions × ways, and what was answered, judged as the world judges."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from longvu_cli.config import CompressionOptions
from longvu_cli.errors import UsageError
from longvu_cli.evaluation.ablation import TableName
from longvu_cli.evaluation.world import (
    WorldOptions,
    WorldTrial,
    films_of,
    manifest_of,
    plan,
    read_tried,
    report,
    report_record,
    write_report,
)
from longvu_cli.row_keys import row_key

OPTIONS = WorldOptions(films=2, seconds=(20, 40), questions=3)
ABLATED = replace(OPTIONS, tables=(TableName.TABLE4, TableName.TABLE5))
OWN = 4096


def write_results(path: Path, trials: tuple[WorldTrial, ...], wrong: set[int], failed: set[int]) -> None:
    lines = []
    for number, trial in enumerate(trials):
        record: dict[str, object] = {"key": row_key(trial.row, None, "model"), "id": "of another run"}
        if number in failed:
            record["error"] = {"message": "broken"}
        else:
            right = trial.asked.question.answer
            record["answer"] = "a unicorn" if number in wrong else f" {right.upper()} "
            record["compression"] = {
                "frames": {"sampled": 40, "kept": 10, "high_resolution": 0},
                "tokens": {"dense": 1600, "after_temporal": 400, "after_query": 120, "visual": 90},
                "truncated_tokens": 5,
            }
        lines.append(json.dumps(record))
    path.write_text("\n".join([*lines, '{"key": "cut of']))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"films": 0}, "--films 0"),
        ({"questions": -1}, "--questions -1"),
        ({"seconds": ()}, "--seconds needs"),
        ({"seconds": (60, 0)}, "--seconds needs"),
        ({"first": -1}, "--first -1"),
    ],
)
def test_what_cannot_be_asked_is_refused(changes: dict[str, object], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        replace(OPTIONS, **changes)  # type: ignore[arg-type]


def test_lengths_take_turns() -> None:
    films = films_of(replace(OPTIONS, films=3, first=7))
    assert [(film.number, film.seconds) for film in films] == [(7, 20), (8, 40), (9, 20)]


def test_without_a_table_there_is_one_way() -> None:
    trials = plan(OPTIONS, Path("films"), OWN)
    assert len(trials) == 6
    assert {trial.compression for trial in trials} == {CompressionOptions()}
    assert [row.number for row in manifest_of(trials).rows] == [1, 2, 3, 4, 5, 6]
    assert trials[0].row.video == str(Path("films") / films_of(OPTIONS)[0].file)


def test_the_ways_of_a_film_stand_together_in_the_context_that_is_asked_for() -> None:
    trials = plan(ABLATED, Path("films"), OWN)
    assert len(trials) == 2 * 3 * (3 + 2)
    videos = [trial.row.video for trial in trials]
    assert videos == sorted(videos)
    assert {trial.row.settings.compression.context_length for trial in trials} == {OWN}
    smaller = replace(ABLATED, compression=CompressionOptions(context_length=900))
    assert {trial.compression.context_length for trial in plan(smaller, Path("films"), OWN)} == {900}


def test_answers_are_judged_and_summed_up(tmp_path: Path) -> None:
    trials = plan(OPTIONS, tmp_path, OWN)
    write_results(tmp_path / "results.jsonl", trials, wrong={0}, failed={1})
    tried = read_tried(trials, tmp_path / "results.jsonl", "model")
    assert [one.right for one in tried] == [False, False, True, True, True, True]
    assert (tried[1].reduction, tried[0].length, tried[5].length) == (None, "20 s", "40 s")
    made = report(OPTIONS, trials, tried, OWN)
    assert made.whole is not None
    assert (made.whole.right, made.whole.questions, made.whole.errors) == (4, 6, 1)
    assert (made.whole.kept, made.whole.reduced, made.whole.cut) == (0.25, 0.25, 5)
    assert sum(own.questions for own in made.kinds.values()) == 6
    assert made.commonest.keys() == made.kinds.keys()


def test_every_row_of_the_tables_has_its_own_answers(tmp_path: Path) -> None:
    trials = plan(ABLATED, tmp_path, OWN)
    ways = list(dict.fromkeys(trial.compression for trial in trials))
    wrong = {number for number, trial in enumerate(trials) if trial.compression == ways[0]}
    write_results(tmp_path / "results.jsonl", trials, wrong, failed=set())
    made = report(ABLATED, trials, read_tried(trials, tmp_path / "results.jsonl", "model"), OWN)
    shares = {name: [one.whole.accuracy for one in rows] for name, rows in made.tables.items()}
    assert shares == {TableName.TABLE4: [0, 1, 1], TableName.TABLE5: [1, 1, 1]}
    assert list(made.tables[TableName.TABLE5][0].parts) == ["20 s", "40 s"]
    write_report(ABLATED, made, tmp_path)
    written = json.loads((tmp_path / "world.json").read_text())
    assert written == json.loads(json.dumps(report_record(ABLATED, made)))
    assert [row["accuracy"] for row in written["tables"]["table4"]] == [0, 1, 1]


def test_answers_of_another_model_or_that_are_not_there_yet_do_not_count(tmp_path: Path) -> None:
    trials = plan(OPTIONS, tmp_path, OWN)
    write_results(tmp_path / "results.jsonl", trials[:-1], wrong=set(), failed=set())
    with pytest.raises(UsageError, match="1 of 6 questions have no answer yet"):
        read_tried(trials, tmp_path / "results.jsonl", "model")
    with pytest.raises(UsageError, match="6 of 6"):
        read_tried(trials, tmp_path / "results.jsonl", "another")
