"""``longvu eval egoschema|mvbench|videomme|mlvu|jsonl`` on the benchmarks in small, each in its public layout."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import TRAINED
from pyarrow import parquet

from cli.conftest import Longvu
from cli.running import TOWERS
from longvu_cli.longvu import LongVU
from longvu_cli.results import Answer

# What is answered about each film, whose right options are A, B and C: right, wrong, and no option.
SAID = {"film0": "(A) A blue apple.", "film1": "A", "film2": "A or C"}


def source(mini: Path, benchmark: str) -> Path:
    return mini / ("own.jsonl" if benchmark == "jsonl" else benchmark)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """The model sees the videos, and says what is in the script; how often each film was asked about."""
    real, asked = LongVU.answer, Counter[str]()

    def answer(self: LongVU, video: Any, *arguments: Any, **settings: Any) -> Answer:
        film = Path(video).stem.partition("-")[0]
        made = replace(real(self, video, *arguments, **settings), text=SAID[film])
        asked[film] += 1
        return made

    monkeypatch.setattr(LongVU, "answer", answer)
    return asked


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def shares(summary: dict[str, Any]) -> dict[str, float]:
    return {score["group"]: round(score["accuracy"], 4) for score in summary["groups"]}


# By hand: film0 is right, film1 and film2 are not. MLVU asks three tasks about two films and four about one, so that
# its mean over tasks is (3 · 1/2 + 4 · 1) / 7.
EXPECTED = {
    "egoschema": ({"subset": 0.5}, 0.5, 2),
    "mvbench": ({"action_sequence": 0.3333, "state_change": 0.3333, "episodic_reasoning": 0.3333}, 0.3333, 9),
    "videomme": ({"short": 1.0, "medium": 0.0, "long": 0.0, "Object Recognition": 0.3333}, 0.3333, 3),
    "mlvu": (
        {
            **dict.fromkeys(("plotQA", "ego", "order", "topic_reasoning"), 1.0),
            **dict.fromkeys(("needle", "count", "anomaly_reco"), 0.5),
        },
        0.7857,
        10,
    ),
    "jsonl": ({"blue": 1.0, "purple": 0.0, "white": 0.0}, 0.3333, 3),
}


@pytest.mark.parametrize("benchmark", EXPECTED)
def test_accuracy_is_that_computed_by_hand(
    benchmark: str, longvu: Longvu, mini: Path, tmp_path: Path, scripted: Counter[str]
) -> None:
    ran = longvu("eval", benchmark, source(mini, benchmark), "-o", tmp_path / "out", "--json")
    assert ran.code == 0, ran.err
    summary = json.loads(ran.out)
    groups, overall, questions = EXPECTED[benchmark]
    assert shares(summary) == groups
    (whole,) = summary["overall"]
    assert (round(whole["accuracy"], 4), whole["questions"], whole["errors"]) == (overall, questions, 0)
    assert (summary["missing"], summary["command"]) == (0, f"eval {benchmark}")
    for answer in lines(tmp_path / "out" / "answers.jsonl"):
        film = Path(answer["video"]).stem.partition("-")[0]
        assert (answer["answer"], answer["choice"]) == (SAID[film], {"film0": "A", "film1": "A", "film2": None}[film])
        assert answer["seconds"] > 0


def test_each_is_answered_with_the_preset_of_the_reference(
    longvu: Longvu, mini: Path, tmp_path: Path, scripted: Counter[str]
) -> None:
    keys = ("fps", "dino_threshold", "stc_threshold", "thin_above", "max_new_tokens", "temperature")
    own = 0.83  # the checkpoint's
    presets = {
        "egoschema": (0.5, own, 0.8, 1000, 5, 0.0),
        "mvbench": (2.0, own, 0.8, 0, 5, 0.0),
        "videomme": (0.5, own, 0.65, 0, 5, 0.0),
        "mlvu": (0.5, 0.82, 0.77, 1000, 5, 0.0),
    }
    for benchmark, preset in presets.items():
        out = tmp_path / benchmark
        assert longvu("eval", benchmark, mini / benchmark, "-o", out, "--limit=1", "-q").code == 0
        (record,) = lines(out / "results.jsonl")
        assert tuple(record["settings"][key] for key in keys) == preset, benchmark
    out = tmp_path / "flags"
    flags = ("--fps=1", "--stc-threshold=0.5", "--thin-above=0", "--max-new-tokens=2", "--limit=1")
    ran = longvu("eval", "mlvu", mini / "mlvu", "-o", out, *flags)
    assert ran.code == 0
    others = "fps 1.0, thin above 0, stc threshold 0.5, max new tokens 2"
    assert f"settings that are not those of the reference's script: {others}" in ran.err
    (record,) = lines(out / "results.jsonl")
    assert tuple(record["settings"][key] for key in keys) == (1.0, 0.82, 0.5, 0, 2, 0.0)


def test_questions_are_put_as_the_reference_puts_them(
    longvu: Longvu, mini: Path, tmp_path: Path, scripted: Counter[str]
) -> None:
    asked = "What is shown only briefly?"
    bracketed = "(A) A blue apple.\n(B) A red hat.\n(C) A blue key.\n(D) A green shoe.\n"
    lettered = bracketed.replace("(", "").replace(")", ".")
    put = {
        "egoschema": f"{bracketed}(E) None of them.\n"
        "Respond with only the letter (A, B, C, D or E) of the correct option.",
        "mvbench": f"{bracketed}Answer with the option's letter from the given choices directly and only give the best "
        "option.",
        "videomme": f"{lettered}Respond with only the letter (A, B, C, or D) of the correct option.\n",
        "mlvu": f"{bracketed}Respond with only the letter (A, B, C or D) of the correct option.",
    }
    for benchmark, options in put.items():
        out = tmp_path / benchmark
        assert longvu("eval", benchmark, mini / benchmark, "-o", out, "--limit=1", "-q").code == 0
        (record,) = lines(out / "results.jsonl")
        assert record["question"] == f"Question: {asked}\nOptions:\n{options}", benchmark


def test_with_and_without_subtitles(longvu: Longvu, mini: Path, tmp_path: Path, scripted: Counter[str]) -> None:
    out = tmp_path / "out"
    ran = longvu("eval", "videomme", mini / "videomme", "-o", out, "--subtitles=both")
    assert ran.code == 0
    assert "without subtitles" in ran.out and "with subtitles" in ran.out
    assert "59.5 (Table 1)" in ran.out and "47.2 (Table 2)" in ran.out, "no model of the paper: all its numbers"
    used = {record["id"]: record["prompt"]["subtitles"] for record in lines(out / "results.jsonl")}
    assert used["without subtitles: 001-1"] is None
    assert used["with subtitles: 001-1"]["read"] == 1
    assert scripted == {"film0": 2, "film1": 2, "film2": 1}, "where there are none, both ways are one"
    assert [score["questions"] for score in json.loads((out / "summary.json").read_text())["overall"]] == [3, 3]


def test_egoschemas_answers_are_written_for_its_server(
    longvu: Longvu, mini: Path, tmp_path: Path, scripted: Counter[str]
) -> None:
    ran = longvu("eval", "egoschema", mini / "egoschema", "-o", tmp_path / "out")
    assert "1 answers are not scored" in ran.err
    assert (tmp_path / "out" / "submission.csv").read_text() == "q_uid,answer\nfilm0,0\nfilm1,0\nfilm2,-1\n"


def test_a_narrow_terminal_has_every_name_and_number(
    longvu: Longvu, mini: Path, tmp_path: Path, scripted: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    wide = longvu("eval", "mvbench", mini / "mvbench", "-o", out).out
    monkeypatch.setattr("longvu_cli.cli.console.WIDTH_WITHOUT_TERMINAL", 80)
    narrow = longvu("eval", "mvbench", mini / "mvbench", "-o", out, "--rescore").out
    assert max(map(len, narrow.splitlines())) <= 80
    # The note under the table has the counts of errors and of answers that name no option.
    for line in ("episodic_reasoning 3 1 33.3% 6.1% … 79.2%", "all 9 3 33.3% 12.1% … 64.6% 66.9 60.9"):
        assert line in [" ".join(told.split()) for told in narrow.splitlines()]
    assert "all 9 3 33.3% 12.1% … 64.6% 0 3 66.9 (Table 1) 60.9 (Table 2)" in " ".join(wide.split())


@pytest.mark.parametrize(
    ("benchmark", "file", "name"), [("egoschema", "questions.json", "film0"), ("videomme", "test.json", "001-1")]
)
def test_an_id_that_is_there_twice_is_refused(
    benchmark: str, file: str, name: str, longvu: Longvu, mini: Path, tmp_path: Path
) -> None:
    if benchmark == "videomme":
        rows = parquet.read_table(mini / "videomme" / "videomme" / "test-00000-of-00001.parquet").to_pylist()
    else:
        rows = json.loads((mini / "egoschema" / file).read_text(encoding="utf-8"))
    (tmp_path / file).write_text(json.dumps([*rows, rows[0]]), encoding="utf-8")
    ran = longvu("eval", benchmark, tmp_path, "-o", tmp_path / "out")
    assert (ran.code, f"{tmp_path / file} has the id {name!r} twice" in ran.err) == (2, True), ran.err


def test_part_of_a_video_and_a_folder_of_pictures(
    longvu: Longvu, mini: Path, tmp_path: Path, scripted: Counter[str]
) -> None:
    out = tmp_path / "out"
    assert longvu("eval", "mvbench", mini / "mvbench", "-o", out, "-q").code == 0
    found = {record["id"]: record for record in lines(out / "results.jsonl")}
    for task in ("action_sequence", "episodic_reasoning"):
        record = found[f"{task}/0"]
        assert (record["settings"]["start_s"], record["settings"]["end_s"]) == (2.0, 9.0)
        assert record["compression"]["frames"]["sampled"] == 14, "seven seconds, two a second"
    assert found["state_change/0"]["compression"]["frames"]["sampled"] == 24
    made = found["episodic_reasoning/0"]["video"]
    assert (made["fps"], made["codec"], round(made["duration_s"])) == (3.0, "mjpeg", 12)
    assert len(list((out / "films").iterdir())) == 3


def test_it_goes_on_and_is_scored_again_without_a_model(
    longvu: Longvu, mini: Path, tmp_path: Path, scripted: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    own, out = tmp_path / "own.jsonl", tmp_path / "out"
    shutil.copytree(mini / "films", tmp_path / "films")
    shutil.copy(mini / "own.jsonl", own)
    first = longvu("eval", "jsonl", own, "-o", out, "--shard=1/3", "--json")
    assert json.loads(first.out)["answers"] == 1
    whole = longvu("eval", "jsonl", own, "-o", out, "--json")
    assert (json.loads(whole.out)["answers"], scripted.total()) == (3, 3)
    # The right answer of the second was wrong in the file.
    rows = lines(own)
    rows[1]["answer"] = "A"
    own.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    monkeypatch.setattr("longvu_cli.cli.benchmarks.open_engine", None)
    again = longvu("eval", "jsonl", own, "-o", out, "--rescore", "--json")
    assert json.loads(again.out)["overall"][0]["right"] == 2
    assert (out / "results.jsonl").read_text().count("\n") == 3


def test_a_part_knows_what_another_has_answered_for_it(
    longvu: Longvu, mini: Path, tmp_path: Path, scripted: Counter[str]
) -> None:
    """A video that is there twice is looked at once, whichever part it is in."""
    own, out = tmp_path / "own.jsonl", tmp_path / "out"
    for name in ("film0", "film0-again"):
        shutil.copy(mini / "films" / "film0.mp4", tmp_path / f"{name}.mp4")
    row = lines(mini / "own.jsonl")[0]
    rows = [{**row, "id": name, "video": f"{name}.mp4"} for name in ("film0", "film0-again")]
    own.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    for shard in ("1/2", "2/2"):
        ran = longvu("eval", "jsonl", own, "-o", out, f"--shard={shard}", "--json")
        summary = json.loads(ran.out)
        assert (ran.code, summary["answers"], summary["missing"]) == (0, 1, 0), ran.err
    assert scripted.total() == 1
    (answer,) = lines(out / "answers.jsonl")
    assert (answer["id"], answer["right"]) == ("film0-again", True)


def test_parts_of_different_folders_become_one(
    longvu: Longvu, mini: Path, tmp_path: Path, scripted: Counter[str]
) -> None:
    own, folders = mini / "own.jsonl", [tmp_path / "one", tmp_path / "two"]
    for number, folder in enumerate(folders, 1):
        assert longvu("eval", "jsonl", own, "-o", folder, f"--shard={number}/2", "-q").code == 0
    with (folders[0] / "results.jsonl").open("a") as first:
        first.write((folders[1] / "results.jsonl").read_text())
    merged = json.loads(longvu("eval", "jsonl", own, "-o", folders[0], "--rescore", "--json").out)
    whole = json.loads(longvu("eval", "jsonl", own, "-o", tmp_path / "whole", "--json").out)
    assert (merged["overall"], merged["groups"], merged["missing"]) == (whole["overall"], whole["groups"], 0)


def test_a_missing_video_is_an_error_of_its_question(
    longvu: Longvu, mini: Path, tmp_path: Path, scripted: Counter[str]
) -> None:
    own, out = tmp_path / "own.jsonl", tmp_path / "out"
    shutil.copytree(mini / "films", tmp_path / "films")
    shutil.copy(mini / "own.jsonl", own)
    (tmp_path / "films" / "film0.mp4").unlink()
    ran = longvu("eval", "jsonl", own, "-o", out)
    assert ran.code == 6
    assert f"1 of 3 videos are not there; the first is {tmp_path / 'films' / 'film0.mp4'}" in ran.err
    assert "1 of 3 questions ended in an error, and count as wrong" in ran.err
    assert json.loads((out / "summary.json").read_text())["overall"][0]["right"] == 0
    shutil.copy(mini / "films" / "film0.mp4", tmp_path / "films")
    assert longvu("eval", "jsonl", own, "-o", out, "-q").code == 0, "it is there now"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("egoschema", "{mini}/films"), "there is no {mini}/films/questions.json"),
        (("mvbench", "{mini}/films"), "there is no {mini}/films/json/action_sequence.json"),
        (("videomme", "{mini}/films"), "there is no test-00000-of-00001.parquet in {mini}/films"),
        (("mlvu", "{mini}/films"), "there is no json in {mini}/films"),
        (("jsonl", "{mini}/none.jsonl"), "the questions {mini}/none.jsonl cannot be read: No such file"),
        (("mlvu", "{mini}/mlvu", "--shard=5/4"), "--shard 5/4 is no part"),
        (("mlvu", "{mini}/mlvu", "--shard=half"), "--shard half is no part"),
        (("mlvu", "{mini}/mlvu", "--rescore"), "holds no evaluation"),
    ],
)
def test_what_cannot_begin_is_one_sentence(
    arguments: tuple[str, ...], said: str, longvu: Longvu, mini: Path, tmp_path: Path
) -> None:
    ran = longvu("eval", *(word.format(mini=mini) for word in arguments), "-o", tmp_path / "out")
    assert ran.code == 2
    assert said.format(mini=mini) in ran.err
    assert "Traceback" not in ran.err


def test_a_folder_holds_one_evaluation(longvu: Longvu, mini: Path, tmp_path: Path, scripted: Counter[str]) -> None:
    own, out = mini / "own.jsonl", tmp_path / "out"
    assert longvu("eval", "jsonl", own, "-o", out, "-q").code == 0
    other = longvu("eval", "jsonl", own, "-o", out, "--fps=2")
    assert (other.code, "not the same settings" in other.err) == (2, True)
    model = longvu("eval", "jsonl", own, "-o", out, "--dtype=bfloat16")
    assert (model.code, "not the same model" in model.err) == (2, True), model.err
    assert (out / "results.jsonl").read_text().count("\n") == 3
    (tmp_path / "batch").mkdir()
    shutil.copy(out / "results.jsonl", tmp_path / "batch")
    foreign = longvu("eval", "jsonl", own, "-o", tmp_path / "batch")
    assert (foreign.code, "not of an evaluation" in foreign.err) == (2, True)


@pytest.mark.skipif(not TRAINED, reason="the tiny model is not part of this installation")
@pytest.mark.parametrize("benchmark", EXPECTED)
def test_the_tiny_model_answers_each(
    benchmark: str, longvu: Longvu, mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in TOWERS:
        monkeypatch.delenv(variable)
    arguments = ("-o", tmp_path / "out", "--json", "-m", "tiny", "--limit=3")
    ran = longvu("eval", benchmark, source(mini, benchmark), *arguments)
    assert ran.code == 0, ran.err
    summary = json.loads(ran.out)
    answers = lines(tmp_path / "out" / "answers.jsonl")
    assert (len(answers), summary["missing"], summary["model"]["name"]) == (3, 0, "tiny")
    assert sum(score["right"] for score in summary["overall"]) == sum(answer["right"] is True for answer in answers)
    assert all(isinstance(answer["answer"], str) for answer in answers)
