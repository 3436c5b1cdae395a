"""evaluation/mlvu.py: which files are read, and what of them is asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from longvu_cli.errors import BadBenchmark
from longvu_cli.evaluation.benchmark import Group
from longvu_cli.evaluation.mlvu import read

# File and task, as they are published.
TASKS = {
    "1_plotQA": "plotQA",
    "2_needle": "needle",
    "3_ego": "ego",
    "4_count": "count",
    "5_order": "order",
    "6_anomaly_reco": "anomaly_reco",
    "7_topic_reasoning": "topic_reasoning",
}


def written(home: Path, **more: list[dict[str, Any]]) -> None:
    (home / "json").mkdir(parents=True)
    for stem, task in TASKS.items():
        row = {
            "video": f"{task}_1.mp4",
            "duration": 480.0,
            "question": f"What of {task}?",
            "candidates": ["0", "1", "2", "3"],
            "answer": "2",
            "question_type": task,
        }
        (home / "json" / f"{stem}.json").write_text(json.dumps([row]), encoding="utf-8")
    for stem, rows in more.items():
        (home / "json" / f"{stem}.json").write_text(json.dumps(rows), encoding="utf-8")


@pytest.mark.parametrize("inside", ["", "MLVU"])
def test_each_task_has_its_file_and_its_videos(tmp_path: Path, inside: str) -> None:
    written(tmp_path / inside)
    questions = read(tmp_path).questions
    assert [question.groups for question in questions] == [(Group("task", task),) for task in TASKS.values()]
    videos = [tmp_path / inside / "video" / stem / f"{task}_1.mp4" for stem, task in TASKS.items()]
    assert [question.video for question in questions] == videos
    assert [question.answer for question in questions] == ["C"] * 7
    assert questions[0].id == "plotQA/0"
    assert questions[0].put.startswith("Question: What of plotQA?\nOptions:\n(A) 0\n(B) 1\n(C) 2\n(D) 3\nRespond with")


def test_numbers_are_options_and_answers_too(tmp_path: Path) -> None:
    row = {"video": "a.mp4", "question": "How many?", "candidates": [1, 2, 3], "answer": 3}
    written(tmp_path, **{"4_count": [row]})
    (counted,) = (question for question in read(tmp_path).questions if question.groups[0].name == "count")
    assert (counted.choices, counted.answer) == (("1", "2", "3"), "C")


def test_tasks_without_options_are_left_out_and_counted(tmp_path: Path) -> None:
    told = {"video": "a.mp4", "question": "Tell me.", "answer": "Much."}
    written(tmp_path, **{"8_sub_scene": [told], "9_summary": [told] * 2})
    reading = read(tmp_path)
    assert len(reading.questions) == 7
    assert [sentence.rpartition(": ")[2] for sentence in reading.left_out] == [
        "1 of sub-scene captioning",
        "2 of video summary",
    ]


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    written(tmp_path)
    (tmp_path / "json" / "5_order.json").unlink()
    with pytest.raises(BadBenchmark, match=r"there is no .*5_order\.json"):
        read(tmp_path)
