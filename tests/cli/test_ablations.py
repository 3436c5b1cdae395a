"""``longvu eval mlvu|videomme|egoschema|jsonl --ablate``, on the benchmarks in small."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cli.conftest import Longvu
from longvu_cli.config import Anchor, CompressionOptions, FrameResolution
from longvu_cli.longvu import LongVU
from longvu_cli.results import Answer

RIGHT = {"film0": "A", "film1": "B", "film2": "C"}


def knows(film: str, compression: CompressionOptions) -> bool:
    """Of film0 the rows with the query know the answer; of film1 those without, and the default; of film2 that only."""
    default = compression.spatial_compression and compression.anchor is Anchor.FIRST
    query = compression.resolution is FrameResolution.AUTO
    return {"film0": query, "film1": default or not query, "film2": default}[film]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counter[CompressionOptions]:
    """The model sees the videos, and says what it knows; how often it was asked in each way."""
    real, ways = LongVU.answer, Counter[CompressionOptions]()

    def answer(self: LongVU, video: Any, *arguments: Any, **settings: Any) -> Answer:
        way, film = settings["compression"], Path(video).stem.partition("-")[0]
        ways[way] += 1
        said = RIGHT[film] if knows(film, way) else "D"
        return replace(real(self, video, *arguments, **settings), text=said)

    monkeypatch.setattr(LongVU, "answer", answer)
    return ways


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def percents(rows: list[dict[str, Any]]) -> list[float]:
    return [round(100 * row["accuracy"], 2) for row in rows]


def test_tasks_are_columns_and_count_the_same_beside_the_papers_numbers(
    longvu: Longvu, mini: Path, tmp_path: Path, asked: Counter[CompressionOptions]
) -> None:
    arguments = ("eval", "mlvu", mini / "mlvu", "-o", tmp_path / "out", "--ablate=table4,table3")
    ran = longvu(*arguments)
    assert (ran.code, ran.err.count("option")) == (0, 2), ran.err
    tables = json.loads((tmp_path / "out" / "summary.json").read_text())["tables"]
    assert list(tables) == ["table4", "table3"]
    # Three tasks ask about film0 and film1, four about film0 only: (3 · 1/2 + 4 · 0) / 7, and (3 · 1/2 + 4 · 1) / 7.
    assert percents(tables["table4"]) == [21.43, 78.57, 100.0]
    assert [round(row["columns"]["count"]["accuracy"], 2) for row in tables["table4"]] == [0.5, 0.5, 1.0]
    assert [row["columns"]["order"]["accuracy"] for row in tables["table4"]] == [0.0, 1.0, 1.0]
    assert [round(100 * row["behind_default"]["difference"], 2) for row in tables["table4"]] == [78.57, 21.43, 0.0]
    assert percents(tables["table3"]) == [*[21.43] * 6, 78.57, 100.0]
    assert tables["table4"][0]["published"]["columns"]["count"] == 24.15
    assert [row["published"]["percent"] for row in tables["table3"]][:2] == [64.7, 64.83]
    # The rows of Table 4 are the last of Table 3: eight ways. What all tasks ask about a film is the same.
    assert (len(asked), set(asked.values())) == (8, {2})
    found = ran.out.splitlines()
    head = next(line for line in found if line.split()[:1] == ["count"])
    assert head.split() == ["count", "ego", "needle", "order", "plotQA", "reco", "reasoning", "mean"]
    at = found.index(head)
    assert [line.split()[-1] for line in found[at + 1 : at + 7]] == ["21.4", "62.54", "78.6", "65.05", "100.0", "65.44"]
    assert found[at + 2].split()[:4] == ["paper,", "7b", "24.15", "59.09"]
    uniform = [line.split() for line in found if line.startswith("Uniform")]
    assert [words[2:4] for words in uniform[:3]] == [["full", "21.4"], ["low", "21.4"], ["full", "21.4"]]


def test_rates_are_those_of_the_records(
    longvu: Longvu, mini: Path, tmp_path: Path, asked: Counter[CompressionOptions]
) -> None:
    out = tmp_path / "out"
    flags = ("--ablate=table3", "--context-length=700", "--fps=2")
    ran = longvu("eval", "jsonl", mini / "own.jsonl", "-o", out, *flags, "--json")
    assert ran.code == 0, ran.err
    rows = json.loads(ran.out)["tables"]["table3"]
    assert rows == json.loads((out / "summary.json").read_text())["tables"]["table3"]
    for row in rows:
        names = ("context_length", "temporal_reduction", "resolution", "spatial_compression", "query_guided")
        way = {name: row["compression"][name] for name in names}
        same = [one for one in lines(out / "results.jsonl") if way.items() <= one["settings"].items()]
        assert len(same) == 3
        sizes = [one["compression"] for one in same]
        sampled, kept = (sum(size["frames"][name] for size in sizes) for name in ("sampled", "kept"))
        before, after = (sum(size["tokens"][name] for size in sizes) for name in ("after_query", "visual"))
        assert row["kept"] == kept / sampled
        assert row["reduced"] == (before - after) / before
        assert row["published"] is None
    assert len({(row["kept"], row["read"], row["cut"]) for row in rows}) >= 5, "the rows do different things"


def test_durations_are_columns_and_a_folder_takes_more_tables(
    longvu: Longvu, mini: Path, tmp_path: Path, asked: Counter[CompressionOptions], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    arguments = ("eval", "videomme", mini / "videomme", "-o", out, "--json")
    first = json.loads(longvu(*arguments, "--ablate=table5").out)
    assert (asked.total(), first["answers"]) == (9, 9)
    rows = first["tables"]["table5"]
    assert percents(rows) == [100.0, 33.33, 33.33]
    assert [list(row["columns"]) for row in rows] == [["short", "medium", "long"]] * 3
    assert [row["columns"]["long"]["accuracy"] for row in rows] == [1.0, 0.0, 0.0]
    assert rows[2]["published"] == {
        "model": "7b",
        "percent": 60.4,
        "columns": {"short": 64.7, "medium": 58.2, "long": 58.3},
        "reduction": 55.62,
    }
    more = json.loads(longvu(*arguments, "--ablate=table5,table8").out)
    assert asked.total() == 9 + 3 * 3, "Table 8 says in each row whether there is frame position encoding"
    assert more["tables"]["table5"] == rows
    monkeypatch.setattr("longvu_cli.cli.benchmarks.open_engine", None)
    again = longvu(*arguments, "--ablate=table5,table8", "--rescore")
    assert json.loads(again.out)["tables"] == more["tables"], "the context is noted, and needs no model"
    shown = longvu(*arguments[:-1], "--ablate=table5", "--rescore").out
    assert "55.62%" in shown and "64.7" in shown
    other = longvu(*arguments, "--ablate=table5", "--rescore", "--context-length=900")
    assert (other.code, "not the same settings" in other.out) == (2, True)


def test_questions_without_all_their_answers_are_in_no_table(
    longvu: Longvu, mini: Path, tmp_path: Path, asked: Counter[CompressionOptions]
) -> None:
    out = tmp_path / "out"
    arguments = ("eval", "jsonl", mini / "own.jsonl", "-o", out, "--ablate=table4")
    assert longvu(*arguments, "-q").code == 0
    kept = lines(out / "results.jsonl")
    gone = next(one for one in kept if one["id"].endswith("card of film0") and "STC" in one["id"])
    rest = "".join(f"{json.dumps(one)}\n" for one in kept if one is not gone)
    (out / "results.jsonl").write_text(rest, encoding="utf-8")
    ran = longvu(*arguments, "--rescore")
    assert "1 answers are missing yet: the tables are about questions that have all of theirs" in ran.err
    rows = json.loads((out / "summary.json").read_text())["tables"]["table4"]
    assert [(row["right"], row["questions"]) for row in rows] == [(1, 2), (0, 2), (2, 2)]
    (out / "results.jsonl").write_text("", encoding="utf-8")
    nothing = longvu(*arguments, "--rescore", "--json")
    assert (nothing.code, json.loads(nothing.out)["tables"]) == (0, {})


def test_each_way_has_a_submission_to_egoschema(
    longvu: Longvu, mini: Path, tmp_path: Path, asked: Counter[CompressionOptions]
) -> None:
    ran = longvu("eval", "egoschema", mini / "egoschema", "-o", tmp_path, "--ablate=table8")
    assert ran.code == 0, ran.err
    assert "67.87" in ran.out
    made = {path.stem.removeprefix("submission-"): path.read_text() for path in tmp_path.glob("submission*.csv")}
    assert list(made) and made == {
        "dino-query-8k-low-full-without-fpe": "q_uid,answer\nfilm0,0\nfilm1,3\nfilm2,3\n",
        "dino-query-stc-8k-dynamic-without-fpe": "q_uid,answer\nfilm0,0\nfilm1,1\nfilm2,2\n",
        "dino-query-stc-fpe-8k-dynamic": "q_uid,answer\nfilm0,0\nfilm1,1\nfilm2,2\n",
    }


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--ablate=table7",), "--ablate has 'table7', which is none"),
        (("--ablate=table3", "--anchor=middle"), "--ablate itself decides on anchor"),
        (("--ablate=table3", "--subtitles=both"), "--ablate runs each row once"),
        (("--ablate=table3", "--rescore"), "holds no evaluation"),
    ],
)
def test_what_cannot_begin_is_told_before_anything_is_made(
    flags: tuple[str, ...], said: str, longvu: Longvu, mini: Path, tmp_path: Path
) -> None:
    ran = longvu("eval", "videomme", mini / "videomme", "-o", tmp_path / "out", *flags)
    assert (ran.code, said in ran.err) == (2, True), ran.err
    assert not (tmp_path / "out").exists()


def test_columns_that_do_not_fit_go_on_below(
    longvu: Longvu, mini: Path, tmp_path: Path, asked: Counter[CompressionOptions], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("longvu_cli.cli.console.WIDTH_WITHOUT_TERMINAL", 50)
    ran = longvu("eval", "mlvu", mini / "mlvu", "-o", tmp_path / "out", "--ablate=table4")
    assert max(map(len, ran.out.splitlines())) <= 50
    names = ["count", "ego", "needle", "order", "plotQA", "reco", "reasoning", "mean"]
    heads = [line.split() for line in ran.out.splitlines() if line.split() and set(line.split()) <= set(names)]
    assert [name for head in heads for name in head] == names
    assert len(heads) >= 2
    assert ran.out.count("paper, 7b") == 3 * len(heads)
