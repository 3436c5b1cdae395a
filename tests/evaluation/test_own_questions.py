"""evaluation/own_questions.py: a file of questions with options."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from longvu_cli.errors import BadBenchmark
from longvu_cli.evaluation.benchmark import Group, Question
from longvu_cli.evaluation.own_questions import read

LINE = {"video": "a.mp4", "question": "Which?", "choices": ["red", "blue"], "answer": "B"}


def written(folder: Path, *lines: object) -> Path:
    path = folder / "own.jsonl"
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return path


def one(folder: Path, **more: Any) -> Question:
    (question,) = read(written(folder, {**LINE, **more})).questions
    return question


def test_a_question(tmp_path: Path) -> None:
    more = {"id": 7, "start": "0:05", "end": 9, "subtitles": "a.srt", "groups": {"task": "colour"}}
    assert one(tmp_path, **more) == Question(
        id="7",
        video=tmp_path / "a.mp4",
        text="Which?",
        choices=("red", "blue"),
        put="Question: Which?\nOptions:\n(A) red\n(B) blue\n"
        "Answer with the option's letter from the given choices directly and only give the best option.",
        answer="B",
        groups=(Group("task", "colour"),),
        start_s=5.0,
        end_s=9.0,
        subtitles=tmp_path / "a.srt",
    )
    assert one(tmp_path).id == "1"


@pytest.mark.parametrize(("answer", "letter"), [("B", "B"), (1, "B"), ("blue", "B"), ("red", "A"), (None, None)])
def test_an_answer_is_a_letter_a_number_or_a_text(answer: object, letter: str | None, tmp_path: Path) -> None:
    assert one(tmp_path, answer=answer).answer == letter


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 1 of .* is no JSON"),
        ([1], "is no JSON object"),
        ({**LINE, "answer": "C"}, "has an answer that is none of its options"),
        ({**LINE, "answer": 2}, "has an answer that is none of its options"),
        ({**LINE, "choices": ["red"]}, "has no list of 2 to 26 options"),
        ({**LINE, "choices": ["red", "red"]}, "has an option twice"),
        ({**LINE, "question": " "}, "has no 'question'"),
        ({**LINE, "start": "x"}, "start = 'x' is no time"),
        ({**LINE, "groups": {"task": 1}}, "has groups that are no object of texts"),
        ({**LINE, "colour": "red"}, "has 'colour', which is not known"),
    ],
)
def test_a_wrong_line_is_named(line: object, said: str, tmp_path: Path) -> None:
    with pytest.raises(BadBenchmark, match=said):
        read(written(tmp_path, line))


def test_ids_are_there_once(tmp_path: Path) -> None:
    with pytest.raises(BadBenchmark, match="has the id 'x' twice"):
        read(written(tmp_path, {**LINE, "id": "x"}, {**LINE, "id": "x"}))
