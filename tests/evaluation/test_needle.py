"""needle.py: the grid, its run with a model that knows what it is told to know, and sums by hand."""

from __future__ import annotations

import csv
import io
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from needles import FakeHaystack, FakeModel

from longvu_cli.config import CompressionOptions, GenerationOptions, RecipeName, TemporalReduction
from longvu_cli.errors import UsageError
from longvu_cli.evaluation.needle import (
    SAMPLING,
    Method,
    NeedleOptions,
    NeedleReport,
    NeedleTest,
    plan,
    read_outcomes,
    report_csv,
    report_record,
    write_report,
)

SMALL = NeedleOptions(frames=(10, 40), depths=3, trials=2, long_from=20)
# The default finds all; without STC the last third of long videos is lost; uniform frames find the middle only.
QUESTIONS = 2 * 3 * 2 * 4


def knows(method: Method, frames: int, at: int) -> bool:
    if method is Method.WITHOUT_STC:
        return frames == 10 or at < 27
    return method is not Method.UNIFORM or 0 < at < frames - 1


def ran(
    model: FakeModel, tmp_path: Path, options: NeedleOptions = SMALL, progress: list[Any] | None = None
) -> NeedleReport:
    scratch = tmp_path / "scratch"
    scratch.mkdir(exist_ok=True)
    test = NeedleTest(
        options,
        model,
        FakeHaystack,
        results=tmp_path / "needle.jsonl",
        folder=scratch,
        on_progress=lambda *step: None if progress is None else progress.append(step),
    )
    try:
        return test.run()
    finally:
        assert list(scratch.iterdir()) == []


def lines(tmp_path: Path) -> list[Any]:
    return [json.loads(line) for line in (tmp_path / "needle.jsonl").read_text().splitlines()]


# --- plan -----------------------------------------------------------------------------------------------------------


def test_the_grid_is_gone_through_once_before_anything_is_tried_again() -> None:
    spots = plan(replace(SMALL, frames=(40, 10)))
    grid = [(frames, depth) for frames in (10, 40) for depth in (0.0, 0.5, 1.0)]
    assert [(spot.frames, spot.depth) for spot in spots] == grid * 2
    assert [spot.trial for spot in spots] == [0] * 6 + [1] * 6


def test_uniform_sampling_looks_at_as_many_frames_as_are_ever_kept() -> None:
    assert Method.UNIFORM.sampling(400) == SAMPLING
    assert Method.UNIFORM.sampling(3600).fps == 400 / 3600
    assert {method.sampling(3600) for method in Method if method is not Method.UNIFORM} == {SAMPLING}


def test_each_video_has_a_seed_of_its_own_that_stays() -> None:
    usual = plan(NeedleOptions())
    assert len({spot.seed for spot in usual}) == len(usual) == 6 * 10 * 3
    assert set(plan(NeedleOptions(frames=(400, 100), trials=2))) < set(usual)
    assert not {spot.seed for spot in plan(NeedleOptions(seed=1))} & {spot.seed for spot in usual}


@pytest.mark.parametrize(("depths", "values"), [(1, (0.5,)), (2, (0.0, 1.0)), (5, (0.0, 0.25, 0.5, 0.75, 1.0))])
def test_depths_are_even_from_the_first_frame_to_the_last(depths: int, values: tuple[float, ...]) -> None:
    assert NeedleOptions(depths=depths).depth_values == values


@pytest.mark.parametrize(
    ("frames", "long_from", "long"),
    [((100, 3600, 1600), 1000, (1600, 3600)), ((100, 200), 1000, (200,)), ((100, 200), 1, (100, 200))],
)
def test_the_longest_are_long_where_none_is(frames: tuple[int, ...], long_from: int, long: tuple[int, ...]) -> None:
    assert NeedleOptions(frames=frames, long_from=long_from).long_frames == long


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": ()}, "--frames needs lengths of 2 or more"),
        ({"frames": (1, 10)}, "--frames needs lengths of 2 or more"),
        ({"frames": (10, 10)}, "--frames has a value twice"),
        ({"methods": ()}, "--methods names none"),
        ({"methods": (Method.UNIFORM, Method.UNIFORM)}, "--methods has a value twice"),
        ({"depths": 0}, "--depths 0 is no positive number"),
        ({"trials": -1}, "--trials -1 is no positive number"),
        ({"compression": CompressionOptions(query_guided=False)}, "leaves out steps"),
        ({"compression": CompressionOptions(spatial_compression=False)}, "leaves out steps"),
    ],
)
def test_impossible_grids_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        NeedleOptions(**changes)
    assert error.value.hint


def test_a_method_changes_one_thing() -> None:
    base = CompressionOptions(recipe=RecipeName.PAPER, context_length=900)
    assert Method.DEFAULT.applied(base) == base
    assert Method.WITHOUT_STC.applied(base) == replace(base, spatial_compression=False)
    assert Method.WITHOUT_QUERY.applied(base) == replace(base, query_guided=False)
    assert Method.UNIFORM.applied(base) == replace(base, temporal_reduction=TemporalReduction.UNIFORM)


# --- run ------------------------------------------------------------------------------------------------------------


def test_every_method_is_asked_about_every_video(tmp_path: Path) -> None:
    model, progress = FakeModel(knows), list[Any]()
    ran(model, tmp_path, progress=progress)
    videos = [(frames, at) for frames in (10, 40) for at in (0, round(0.5 * (frames - 1)), frames - 1)] * 2
    assert model.asked == [(method, *video) for video in videos for method in Method]
    counts = [done for stage, done, total in progress if (stage, total) == ("questions", QUESTIONS)]
    assert (counts[0], counts[-1]) == (0, QUESTIONS)
    assert sorted(set(counts)) == list(range(QUESTIONS + 1))


def test_an_outcome_has_what_it_rests_on(tmp_path: Path) -> None:
    ran(FakeModel(knows), tmp_path)
    records = lines(tmp_path)
    assert len(records) == QUESTIONS
    first, lost = records[0], records[3]  # the default and uniform frames, needle in the first of ten frames
    assert (first["schema_version"], first["command"]) == (1, "eval needle")
    assert (first["method"], first["frames"], first["depth"], first["trial"]) == ("default", 10, 0.0, 0)
    assert (first["question"], first["answer"], first["right"]) == ("What colour is the card?", first["expected"], True)
    assert (first["sampled"], first["kept"], first["regime"], first["visual_tokens"]) == (10, 5, "mixed", 320)
    assert (first["truncated_tokens"], first["needle_tokens"], first["seconds"]) == (3, 64, 9.75)
    assert (lost["method"], lost["right"], lost["needle_tokens"], lost["kept"]) == ("uniform", False, 0, 4)


def test_chance_is_how_often_another_needles_answer_is_right(tmp_path: Path) -> None:
    made = ran(FakeModel(knows), tmp_path)
    shares = {record["expected"]: record["chance"] for record in lines(tmp_path)}
    assert len(shares) > 1
    for share in shares.values():
        assert share * 64 == int(share * 64)
        assert 0.05 < share < 0.6  # four answers, about equally frequent
    assert made.chance == pytest.approx(sum(record["chance"] for record in lines(tmp_path)) / QUESTIONS)


@pytest.mark.parametrize("answered", [0, 1, 5, QUESTIONS - 1])
def test_a_run_that_was_cut_off_goes_on_where_it_was(tmp_path: Path, answered: int) -> None:
    (tmp_path / "whole").mkdir()
    whole = ran(FakeModel(knows), tmp_path / "whole")
    stopped, second, third = FakeModel(knows, stop_after=answered), FakeModel(knows), FakeModel(knows)
    with pytest.raises(KeyboardInterrupt):
        ran(stopped, tmp_path)
    if answered:
        with (tmp_path / "needle.jsonl").open("a") as file:
            file.write('{"schema_version": 1, "comm')  # killed while it wrote
    assert ran(second, tmp_path) == whole
    assert len(stopped.asked) == answered
    assert sorted(stopped.asked + second.asked) == sorted(written(tmp_path))
    assert len(lines(tmp_path)) == QUESTIONS
    assert (ran(third, tmp_path), third.asked) == (whole, [])


def written(tmp_path: Path) -> list[tuple[Method, int, int]]:
    return [(Method(r["method"]), r["frames"], round(r["depth"] * (r["frames"] - 1))) for r in lines(tmp_path)]


def test_a_larger_grid_asks_only_what_is_new(tmp_path: Path) -> None:
    ran(FakeModel(knows), tmp_path, replace(SMALL, methods=(Method.DEFAULT,), trials=1))
    model = FakeModel(knows)
    ran(model, tmp_path)
    assert len(model.asked) == QUESTIONS - 6


@pytest.mark.parametrize(
    ("identity", "changes"),
    [
        ("two", {}),
        ("one", {"compression": CompressionOptions(context_length=900)}),
        ("one", {"generation": GenerationOptions(max_new_tokens=3)}),
        ("one", {"seed": 1}),
    ],
)
def test_other_models_and_settings_are_other_questions(tmp_path: Path, identity: str, changes: dict[str, Any]) -> None:
    before = ran(FakeModel(lambda *_: False), tmp_path)
    model = FakeModel(lambda *_: True, identity=identity)
    after = ran(model, tmp_path, replace(SMALL, **changes))
    assert len(model.asked) == QUESTIONS
    assert {score.accuracy for score in before.overall} == {0.0}
    assert {score.accuracy for score in after.overall} == {1.0}
    assert ran(FakeModel(knows), tmp_path) == before


@pytest.mark.parametrize(
    "content",
    [
        "something else\n",
        '{"schema_version": 1, "key": "%s"}\n' % ("a" * 64),
        '{"schema_version": 1, "key": "%s", "method": "none"}\n' % ("a" * 64),
    ],
)
def test_a_file_that_holds_something_else_is_refused_at_once(tmp_path: Path, content: str) -> None:
    (tmp_path / "needle.jsonl").write_text(content)
    model = FakeModel(knows)
    with pytest.raises(UsageError, match=r"something else|is no outcome"):
        ran(model, tmp_path)
    assert (model.asked, (tmp_path / "needle.jsonl").read_text()) == ([], content)


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    class Full(FakeHaystack):
        def film(self, path: Path) -> None:
            raise OSError(28, "No space left on device")

    test = NeedleTest(SMALL, FakeModel(knows), Full, results=tmp_path / "needle.jsonl", folder=tmp_path)
    with pytest.raises(UsageError, match=r"videos cannot be written to .*: No space left") as error:
        test.run()
    assert "TMPDIR" in error.value.hint


def test_no_file_has_no_outcomes(tmp_path: Path) -> None:
    assert read_outcomes(tmp_path / "needle.jsonl") == {}


# --- sums -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def made(tmp_path: Path) -> NeedleReport:
    return ran(FakeModel(knows), tmp_path)


def test_scores_by_hand(made: NeedleReport) -> None:
    assert [(score.method.value, score.right, score.trials) for score in made.overall] == [
        ("default", 12, 12),
        ("without-stc", 10, 12),
        ("without-query", 12, 12),
        ("uniform", 4, 12),
    ]
    by_frames = {(score.method, score.frames): (score.right, score.trials, score.seen) for score in made.by_frames}
    assert by_frames[Method.WITHOUT_STC, 10] == (6, 6, 6)
    assert by_frames[Method.WITHOUT_STC, 40] == (4, 6, 4)
    assert by_frames[Method.UNIFORM, 40] == (2, 6, 2)
    cells = {(cell.method, cell.frames, cell.depth): (cell.right, cell.trials) for cell in made.cells}
    assert len(cells) == 4 * 2 * 3
    assert cells[Method.WITHOUT_STC, 40, 1.0] == (0, 2)
    assert cells[Method.UNIFORM, 10, 0.5] == (2, 2)


def test_differences_by_hand(made: NeedleReport) -> None:
    # On the six videos of 40 frames: two, none and four right answers fewer than the default's six.
    differences = {one.method: (one.frames, one.paired.pairs, one.paired.difference) for one in made.comparisons}
    assert differences == {
        Method.WITHOUT_STC: ((40,), 6, pytest.approx(2 / 6)),
        Method.WITHOUT_QUERY: ((40,), 6, 0.0),
        Method.UNIFORM: ((40,), 6, pytest.approx(4 / 6)),
    }
    # Twice 1 and four times 0: variance (2·(2/3)² + 4·(1/3)²) / 5 = 4/15.
    assert made.comparisons[0].paired.standard_error == pytest.approx((4 / 15 / 6) ** 0.5)


def test_without_the_default_nothing_is_compared(tmp_path: Path) -> None:
    options = replace(SMALL, methods=(Method.UNIFORM, Method.WITHOUT_STC))
    assert ran(FakeModel(knows), tmp_path, options).comparisons == ()


def test_the_record(made: NeedleReport) -> None:
    record = report_record(made)
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert (record["schema_version"], record["command"], record["model"]["name"]) == (1, "eval needle", "fake")
    assert record["settings"]["depths"] == [0.0, 0.5, 1.0]
    assert record["settings"]["compression"]["recipe"] == "released"
    assert record["methods"][3] | {"interval": None} == {
        "method": "uniform",
        "right": 4,
        "trials": 12,
        "seen": 4,
        "accuracy": 4 / 12,
        "interval": None,
    }
    assert [(cell["frames"], cell["depth"]) for cell in record["cells"][:3]] == [(10, 0.0), (10, 0.5), (10, 1.0)]
    assert record["differences"][1] == {
        "method": "without-query",
        "frames": [40],
        "pairs": 6,
        "difference": 0.0,
        "standard_error": 0.0,
    }


def test_the_csv_has_a_line_per_cell(made: NeedleReport) -> None:
    rows = list(csv.DictReader(io.StringIO(report_csv(made))))
    assert len(rows) == 4 * 2 * 3
    assert rows[-1] == {
        "method": "uniform",
        "frames": "40",
        "depth": "1.0000",
        "trials": "2",
        "right": "0",
        "seen": "0",
        "accuracy": "0.0000",
        "low": "0.0000",
        "high": "0.6576",
    }


def test_the_report_is_written_whole(made: NeedleReport, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "needle.json").write_text("old")
    write_report(made, folder)
    assert sorted(path.name for path in folder.iterdir()) == ["needle.csv", "needle.json"]
    assert json.loads((folder / "needle.json").read_text()) == report_record(made)
    assert (folder / "needle.csv").read_text() == report_csv(made)


def test_two_processes_that_end_together_both_write_the_report(
    made: NeedleReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    replace_file, others = os.replace, [lambda: write_report(made, folder)]

    def late(source: Path, target: Path) -> None:
        if others:
            others.pop()()  # the other process writes all of its report between writing and replacing
        replace_file(source, target)

    monkeypatch.setattr(os, "replace", late)
    write_report(made, folder)
    assert not others
    assert sorted(path.name for path in folder.iterdir()) == ["needle.csv", "needle.json"]
    assert json.loads((folder / "needle.json").read_text()) == report_record(made)
