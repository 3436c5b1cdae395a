"""``longvu eval world``, with the tiny checkpoint of the tests, which knows nothing of the world."""

from __future__ import annotations

import json
from pathlib import Path

from cli.conftest import Longvu
from cli.running import QWEN

SMALL = ("--films=2", "--seconds=4,6", "--questions=2", "--max-new-tokens=2", f"--model={QWEN}", "--context-length=900")


def test_the_tables_are_printed_and_a_second_run_asks_nothing(longvu: Longvu, tmp_path: Path, loads: list[str]) -> None:
    folder = tmp_path / "world"
    ran = longvu("eval", "world", folder, *SMALL, "--ablate=table3,table5,table8")
    assert (ran.code, loads) == (0, [str(QWEN)])
    lines = ran.out.splitlines()
    for name in ("Uniform", "SigLIP", "DINO + Query", "DINO + Query + STC + FPE", "frame with high changes"):
        assert any(line.startswith(name) for line in lines)
    heads = [line for line in lines if "context" in line and "95 %" in line]
    assert len([line for line in lines if "kept" in line and "reduction" in line]) == 3
    assert len(heads) == 3
    assert "4 s" in heads[1] and "6 s" in heads[1] and "4 s" not in heads[0]
    first = next(line for line in lines if line.startswith("Uniform"))
    assert first.split()[1:3] == ["1,800", "full"]
    results = (folder / "results.jsonl").read_text()
    assert len(results.splitlines()) == 4 * (8 + 2 + 3)
    again = longvu("eval", "world", folder, *SMALL, "--ablate=table3,table5,table8", "--json")
    assert (folder / "results.jsonl").read_text() == results
    record = json.loads(again.out)
    assert record == json.loads((folder / "world.json").read_text())
    assert [row["questions"] for row in record["tables"]["table3"]] == [4] * 8
    assert [row["compression"]["context_length"] for row in record["tables"]["table3"]][:3] == [1800, 1800, 900]


def test_without_a_table_it_tells_each_kind(longvu: Longvu, tmp_path: Path) -> None:
    ran = longvu("eval", "world", tmp_path / "world", *SMALL)
    assert ran.code == 0
    head, *rows = ran.out.splitlines()
    assert head.split()[:3] == ["kind", "questions", "right"]
    assert rows[-1].split()[:2] == ["all", "4"]


def test_what_cannot_be_run_is_told_before_anything_is_made(longvu: Longvu, tmp_path: Path) -> None:
    for flags, told in (
        (("--ablate=table7",), "--ablate has 'table7', which is none"),
        (("--ablate=table3", "--no-query-guided"), "--ablate itself decides on query guided"),
        (("--seconds=4,x",), "--seconds has 'x', which is no whole number"),
        (("--films=0",), "--films 0 is no positive number"),
    ):
        ran = longvu("eval", "world", tmp_path / "world", *SMALL, *flags)
        assert ran.code == 2
        assert told in ran.err
    assert not (tmp_path / "world").exists()
