"""evaluation/egoschema.py: the questions, and the answers of the subset."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from longvu_cli.errors import BadBenchmark
from longvu_cli.evaluation.benchmark import Group
from longvu_cli.evaluation.egoschema import read

NAMES = ("00aa", "11bb", "22cc")


def written(folder: Path, answers: dict[str, Any] | None) -> Path:
    rows = [
        {"q_uid": name, "google_drive_id": "x", "question": "Why?", **{f"option {at}": f"for {at}" for at in range(5)}}
        for name in NAMES
    ]
    (folder / "questions.json").write_text(json.dumps(rows), encoding="utf-8")
    if answers is not None:
        (folder / "subset_answers.json").write_text(json.dumps(answers), encoding="utf-8")
    return folder


def test_the_answers_of_the_subset_are_known(tmp_path: Path) -> None:
    reading = read(written(tmp_path, {"11bb": 4, "22cc": "0"}))
    assert [question.answer for question in reading.questions] == [None, "E", "A"]
    assert [question.groups for question in reading.questions] == [(), *[(Group("set", "subset"),)] * 2]
    assert reading.questions[0].choices == ("for 0", "for 1", "for 2", "for 3", "for 4")
    (told,) = reading.left_out
    assert told.startswith("1 of 3 questions have no answer")


def test_without_their_file_no_answer_is_known(tmp_path: Path) -> None:
    assert {question.answer for question in read(written(tmp_path, None)).questions} == {None}


@pytest.mark.parametrize("answer", [5, -1, "A", None, True, 1.0, "²"])
def test_an_answer_is_the_number_of_an_option(tmp_path: Path, answer: object) -> None:
    with pytest.raises(BadBenchmark, match="no list of answers from 0 to 4"):
        read(written(tmp_path, {"11bb": answer}))


def test_videos_are_where_the_authors_scripts_or_the_references_put_them(tmp_path: Path) -> None:
    written(tmp_path, None)
    assert read(tmp_path).questions[0].video == tmp_path / "good_clips_git" / "00aa.mp4"
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "11bb.mkv").touch()
    assert read(tmp_path).questions[0].video == tmp_path / "videos" / "00aa.mp4"
    assert read(tmp_path).questions[1].video == tmp_path / "videos" / "11bb.mkv"
    (tmp_path / "good_clips_git").mkdir()
    assert read(tmp_path).questions[0].video == tmp_path / "good_clips_git" / "00aa.mp4"
