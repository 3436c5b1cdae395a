"""evaluation/videomme.py: a row of its table → a question."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from longvu_cli.choices import chosen
from longvu_cli.errors import BadBenchmark
from longvu_cli.evaluation.benchmark import Group
from longvu_cli.evaluation.videomme import read

ROW = {
    "video_id": "001",
    "duration": "short",
    "domain": "Knowledge",
    "sub_category": "Humanity & History",
    "url": "https://www.youtube.com/watch?v=fFjv93ACGo8",
    "videoID": "fFjv93ACGo8",
    "question_id": "001-1",
    "task_type": "Counting Problem",
    "question": "Which is the second?",
    "options": ["A. Apples.", "B. Candles.", "C. Vitamin B.", "D. 3."],
    "answer": "C",
}


def written(folder: Path, **more: Any) -> Path:
    (folder / "test.json").write_text(json.dumps([{**ROW, **more}]), encoding="utf-8")
    return folder


def test_a_row_is_a_question(tmp_path: Path) -> None:
    subtitles = tmp_path / "subtitle" / "fFjv93ACGo8.srt"
    subtitles.parent.mkdir()
    subtitles.touch()
    (question,) = read(written(tmp_path)).questions
    assert (question.id, question.answer, question.text) == ("001-1", "C", "Which is the second?")
    assert (question.video, question.subtitles) == (tmp_path / "data" / "fFjv93ACGo8.mp4", subtitles)
    assert question.groups == (Group("duration", "short"), Group("task", "Counting Problem"))


def test_options_are_put_with_their_letters_and_read_without(tmp_path: Path) -> None:
    (question,) = read(written(tmp_path)).questions
    assert "\nA. Apples.\nB. Candles.\nC. Vitamin B.\nD. 3.\n" in question.put
    assert question.choices == ("Apples.", "Candles.", "Vitamin B.", "3.")
    assert chosen("Candles", question.choices) == "B"
    assert chosen("Vitamin B.", question.choices) == "C"


def test_a_video_without_subtitles_has_none(tmp_path: Path) -> None:
    other = tmp_path / "subtitle" / "another.srt"
    other.parent.mkdir()
    other.touch()
    (question,) = read(written(tmp_path)).questions
    assert question.subtitles is None


@pytest.mark.parametrize("answer", ["E", "c", "", "Vitamin B."])
def test_an_answer_is_a_letter_of_the_options(tmp_path: Path, answer: str) -> None:
    with pytest.raises(BadBenchmark, match=r"question 1 of .*test\.json has"):
        read(written(tmp_path, answer=answer))
