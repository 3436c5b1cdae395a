"""``longvu demo``, with a short clip in place of the bundled one."""

from __future__ import annotations

import json
import re
from functools import partialmethod
from pathlib import Path

import pytest

from cli.conftest import Longvu
from longvu_cli import weights
from longvu_cli.config import GenerationOptions
from longvu_cli.demo import QUESTIONS
from longvu_cli.longvu import LongVU
from longvu_cli.tiny_world import FOREIGN
from longvu_cli.video import Video

CLOCK = r"\d+:\d\d(\.\d)?"


@pytest.fixture(autouse=True)
def opened(tiny_installed: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The videos that are decoded. The user's cache folder is none that could be written to."""
    nowhere = tmp_path / "file"
    nowhere.touch()
    monkeypatch.setenv("LONGVU_CACHE_DIR", str(nowhere / "cache"))
    decoded: list[str] = []
    frames = Video.frames

    def counted(self: Video) -> object:
        decoded.append(self.info.path)
        return frames(self)

    monkeypatch.setattr(Video, "frames", counted)
    # What an untrained model says goes on until it is stopped.
    monkeypatch.setattr(LongVU, "stream", partialmethod(LongVU.stream, generation=GenerationOptions(max_new_tokens=3)))
    return decoded


def test_people_see_questions_answers_moments_and_what_to_type_next(
    longvu: Longvu, opened: list[str], loads: list[str], tiny_installed: Path
) -> None:
    ran = longvu("demo")
    assert ran.code == 0
    asked = [f"> {question.text}\n" for question in QUESTIONS]
    assert ran.out.startswith(asked[0]) and all(f"\n\n{question}" in ran.out for question in asked[1:])
    assert [line for line in ran.out.splitlines(keepends=True) if line in asked] == asked
    assert ran.out.endswith("\n")
    lines = ran.err.splitlines()
    told = [line for line in lines if "looked closest at" in line]
    assert len(told) == len(QUESTIONS)
    stretch = rf"{CLOCK} – {CLOCK}"
    assert all(re.fullmatch(rf" +looked closest at {stretch}(, {stretch}){{0,2}}", line) for line in told)
    assert sum(line.startswith("frames ") for line in lines) == 1
    assert 'longvu ask movie.mp4 "Where is the cup?"' in ran.err and lines[-1].endswith("longvu demo --help")
    # Loaded once, watched once, and nothing is said against the clip.
    assert loads == ["tiny"]
    assert opened == [str(tiny_installed / "demo.mp4")]
    assert "warning" not in ran.err


def test_scripts_get_an_object_per_question_and_nothing_else(longvu: Longvu, opened: list[str]) -> None:
    ran = longvu("demo", "--json", "--device", "cpu", "-q")
    records = [json.loads(line) for line in ran.out.splitlines()]
    assert (ran.code, ran.err, len(opened)) == (0, "", 1)
    assert [record["question"] for record in records] == [question.text for question in QUESTIONS]
    assert {record["command"] for record in records} == {"demo"}
    assert [record["cache"]["features"] for record in records] == ["miss"] + ["hit"] * (len(QUESTIONS) - 1)
    assert all(record["model"]["name"] == "tiny" and record["notices"] == [] for record in records)
    assert all(record["video"]["title"].startswith("longvu world") for record in records)


def test_no_stats_leaves_questions_and_answers(longvu: Longvu) -> None:
    ran = longvu("demo", "--no-stats")
    assert ran.code == 0
    assert "looked closest" not in ran.err and "frames " not in ran.err and "longvu ask" in ran.err


def test_an_installation_without_the_model_says_so(
    longvu: Longvu, tiny_installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "_TINY_FOLDER", tmp_path)
    ran = longvu("demo")
    assert (ran.code, ran.out) == (4, "")
    assert "not part of this installation" in ran.err
    (tmp_path / "demo.mp4").write_bytes((tiny_installed / "demo.mp4").read_bytes())
    ran = longvu("demo")
    assert (ran.code, ran.out) == (4, "")
    assert "the tiny model is not part of this installation" in ran.err


# --- the tiny model, shown something else ---------------------------------------------------------------------------


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> str:
    """``--model=tiny`` with the towers that belong to it."""
    monkeypatch.delenv("LONGVU_DINOV2")
    monkeypatch.delenv("LONGVU_SIGLIP")
    return "--model=tiny"


@pytest.mark.parametrize("command", ["ask", "describe", "stats"])
def test_commands_say_when_the_tiny_model_cannot_know(
    longvu: Longvu, clip: Path, tiny_installed: Path, tiny: str, command: str
) -> None:
    words = ("Where is the cup?",) if command == "ask" else ()
    short = () if command == "stats" else ("--max-new-tokens=2",)
    told = f"longvu: warning: {FOREIGN}\n"
    ran = longvu(command, clip, *words, tiny, *short)
    assert (ran.code, ran.err.count(told)) == (0, 1)
    ran = longvu(command, tiny_installed / "demo.mp4", *words, tiny, *short)
    assert (ran.code, ran.err.count(told)) == (0, 0)


def test_batch_says_it_once_and_in_each_record(
    longvu: Longvu, clip: Path, tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LONGVU_CACHE_DIR", str(tmp_path / "cache"))
    manifest = tmp_path / "manifest.jsonl"
    rows = [{"video": str(clip), "question": text, "max_new_tokens": 2} for text in ("Where?", "When?")]
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    ran = longvu("batch", manifest, tiny)
    assert (ran.code, ran.err.count(FOREIGN)) == (0, 1)
    assert [json.loads(line)["notices"] for line in ran.out.splitlines()] == [[FOREIGN]] * 2
