"""``longvu report``."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from cli.conftest import Longvu
from cli.running import QUESTION, QWEN
from longvu_cli.video import Video

SHORT = "--max-new-tokens=4"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The videos that are decoded."""
    decoded: list[str] = []
    frames = Video.frames

    def counted(self: Video) -> object:
        decoded.append(self.info.path)
        return frames(self)

    monkeypatch.setattr(Video, "frames", counted)
    return decoded


def test_answers_go_to_stdout_and_the_page_to_its_file(
    longvu: Longvu, busy: Path, tmp_path: Path, loads: list[str]
) -> None:
    target = tmp_path / "page.html"
    ran = longvu("report", busy, QUESTION, "Is there a dog?", SHORT, "-o", target)
    assert ran.code == 0
    first = longvu("ask", busy, QUESTION, SHORT, "-q").out
    assert ran.out.startswith(f"> {QUESTION}\n{first}\n> Is there a dog?\n")
    assert ran.err == f"longvu: report written: {target}\n"
    assert loads[0] == str(QWEN) and len(loads) == 2
    html = target.read_text(encoding="utf-8")
    assert "Is there a dog?" in html and html.count("<figure") == 12


def test_scripts_get_an_object_per_question(longvu: Longvu, busy: Path, tmp_path: Path) -> None:
    target = tmp_path / "page.html"
    ran = longvu("report", busy, QUESTION, "Is there a dog?", SHORT, "-o", target, "--json", "-q")
    records = [json.loads(line) for line in ran.out.splitlines()]
    assert (ran.code, ran.err) == (0, "")
    assert [record["question"] for record in records] == [QUESTION, "Is there a dog?"]
    assert {(record["command"], record["report"]) for record in records} == {("report", str(target))}
    assert all("answer" in record and record["evidence"]["moments"] for record in records)


def test_without_a_question_no_language_model_is_needed(
    longvu: Longvu, sharded: Path, busy: Path, tmp_path: Path
) -> None:
    (sharded / "decoder.safetensors").unlink()
    ran = longvu("report", busy, "-m", sharded, "-o", tmp_path / "page.html", "--json")
    assert ran.code == 0
    record = json.loads(ran.out)
    assert (record["command"], "answer" in record) == ("report", False)
    assert "What is kept" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_without_a_cache_the_video_is_watched_once_and_once_more_for_its_pictures(
    longvu: Longvu, busy: Path, tmp_path: Path, fresh_cache: Path, opened: list[str]
) -> None:
    words = ("report", busy, QUESTION, "Is there a dog?", SHORT, "-q")
    assert longvu(*words, "--no-cache", "-o", tmp_path / "page.html").code == 0
    assert opened == [str(busy)] * 2
    assert not fresh_cache.exists()


def test_evidence_in_the_page_is_that_of_ask(longvu: Longvu, busy: Path, tmp_path: Path) -> None:
    flags = (busy, QUESTION, SHORT, "--context-length=900")
    moments = json.loads(longvu("ask", *flags, "--json", "-q").out)["evidence"]["moments"]
    longvu("report", *flags, "-o", tmp_path / "page.html")
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    scores = re.findall(r"score (\S+)", html)
    assert scores == [f"{moment['relevance']:.3g}" for moment in moments]


@pytest.mark.parametrize("place", ["other.html", "missing/page.html"])
def test_what_cannot_be_written_is_noticed_before_the_model_is_loaded(
    longvu: Longvu, busy: Path, tmp_path: Path, loads: list[str], place: str
) -> None:
    (tmp_path / "other.html").write_text("mine")
    ran = longvu("report", busy, QUESTION, "-o", tmp_path / place)
    assert (ran.code, ran.out, loads) == (2, "", [])
    assert "error: " in ran.err
    assert (tmp_path / "other.html").read_text() == "mine"


def test_an_empty_question_is_refused(longvu: Longvu, busy: Path, tmp_path: Path, loads: list[str]) -> None:
    ran = longvu("report", busy, " ", "-o", tmp_path / "page.html")
    assert (ran.code, ran.out, loads) == (2, "", [])
    assert "a question is empty" in ran.err


def test_a_video_that_cannot_be_read_leaves_no_page(longvu: Longvu, tmp_path: Path) -> None:
    ran = longvu("report", tmp_path / "gone.mp4", QUESTION, "-o", tmp_path / "page.html")
    assert (ran.code, ran.out) == (3, "")
    assert list(tmp_path.iterdir()) == []
