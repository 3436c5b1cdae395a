"""The paper's benchmarks in small: films of the drawn world, in the layouts in which their files are published.

python -c 'from miniature_benchmarks import make; make("FOLDER")'
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
from harness.miniature import LETTERS, Asked, asked_about
from PIL import Image
from pyarrow import parquet

from longvu_cli.evaluation.mlvu import _TASKS as MLVU_TASKS
from longvu_cli.evaluation.mvbench import _TASKS as MVBENCH_TASKS
from longvu_cli.world.film import pictures, write_film
from longvu_cli.world.story import Split, story

SECONDS = 12
DURATIONS = ("short", "medium", "long")
# Of the tasks of MVBench, those that are asked about: a plain one, one about a part, and one with folders of pictures.
MVBENCH_ASKED = ("state_change", "action_sequence", "episodic_reasoning")


def make(folder: Path) -> list[Asked]:
    """Write a folder for each benchmark; returns what is asked, three questions about three films."""
    tales = [story(Split.VALIDATION.seed(number), SECONDS) for number in range(3)]
    asked = [asked_about(f"film{number}", tale, number) for number, tale in enumerate(tales)]
    films = folder / "films"
    films.mkdir(parents=True)
    for one, tale in zip(asked, tales, strict=True):
        write_film(tale, films / f"{one.film}.mp4", fps=2)
    _egoschema(folder / "egoschema", asked, films)
    _mvbench(folder / "mvbench", asked, films)
    _picture_folders(folder / "mvbench" / "video" / "tvqa" / "frames_fps3_hq", asked, films, tales)
    _videomme(folder / "videomme", asked, films)
    _mlvu(folder / "mlvu", asked, films)
    _own(folder / "own.jsonl", asked)
    return asked


def _egoschema(folder: Path, asked: Sequence[Asked], films: Path) -> None:
    rows = [
        {
            "q_uid": one.film,
            "google_drive_id": f"drive-{one.film}",
            "question": one.question,
            **{f"option {number}": text for number, text in enumerate((*one.options, "None of them."))},
        }
        for one in asked
    ]
    _write(folder / "questions.json", rows)
    # The last one's answer is the authors' own.
    _write(folder / "subset_answers.json", {one.film: one.right for one in asked[:-1]})
    _copy(asked, films, folder / "good_clips_git")


def _mvbench(folder: Path, asked: Sequence[Asked], films: Path) -> None:
    for task in MVBENCH_TASKS:
        rows = [
            {
                "video": one.film if task.picture_rate else f"{one.film}.mp4",
                "question": one.question,
                "candidates": list(one.options),
                "answer": one.answer,
                **({"start": 2.0, "end": 9.0} if task.bounded else {}),
            }
            for one in asked
            if task.name in MVBENCH_ASKED
        ]
        _write(folder / "json" / f"{task.name}.json", rows)
        if task.name in MVBENCH_ASKED and not task.picture_rate:
            _copy(asked, films, folder / "video" / task.folder)


def _picture_folders(folder: Path, asked: Sequence[Asked], films: Path, tales: Sequence[Any]) -> None:
    for one, tale in zip(asked, tales, strict=True):
        (folder / one.film).mkdir(parents=True)
        for number, pixels in enumerate(pictures(tale, fps=3), 1):
            Image.fromarray(pixels.numpy()).save(folder / one.film / f"{number:05}.jpg")


def _videomme(folder: Path, asked: Sequence[Asked], films: Path) -> None:
    rows = [
        {
            "video_id": f"{number:03}",
            "duration": DURATIONS[number - 1],
            "domain": "Knowledge",
            "sub_category": "Technology",
            "url": f"https://www.youtube.com/watch?v={one.film}",
            "videoID": one.film,
            "question_id": f"{number:03}-1",
            "task_type": "Object Recognition",
            "question": one.question,
            "options": [f"{letter}. {option}" for letter, option in zip(LETTERS, one.options, strict=True)],
            "answer": one.letter,
        }
        for number, one in enumerate(asked, 1)
    ]
    table = folder / "videomme" / "test-00000-of-00001.parquet"
    table.parent.mkdir(parents=True)
    parquet.write_table(pyarrow.Table.from_pylist(rows), table)
    _copy(asked, films, folder / "data")
    # The last film has no subtitles.
    for one in asked[:-1]:
        file = folder / "subtitle" / f"{one.film}.srt"
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"1\n00:00:01,000 --> 00:00:04,000\nThis is {one.film}.\n", encoding="utf-8")


def _mlvu(folder: Path, asked: Sequence[Asked], films: Path) -> None:
    home = folder / "MLVU"
    for number, (stem, task) in enumerate(MLVU_TASKS):
        rows = [
            {
                "video": f"{one.film}.mp4",
                "duration": float(SECONDS),
                "question": one.question,
                "candidates": list(one.options),
                "answer": one.answer,
                "question_type": task,
            }
            for one in asked[: 1 + number % 2]
        ]
        _write(home / "json" / f"{stem}.json", rows)
        _copy(asked, films, home / "video" / stem)
    told = [{"video": "film0.mp4", "duration": 12.0, "question": "What happens?", "answer": "Much."}]
    _write(home / "json" / "8_sub_scene.json", told)
    _write(home / "json" / "9_summary.json", told * 2)


def _own(file: Path, asked: Sequence[Asked]) -> None:
    lines = [
        {
            "id": f"card of {one.film}",
            "video": f"films/{one.film}.mp4",
            "question": one.question,
            "choices": list(one.options),
            "answer": one.letter,
            "groups": {"colour": one.answer.split()[-2]},
        }
        for one in asked
    ]
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")


def _copy(asked: Sequence[Asked], films: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for one in asked:
        (folder / f"{one.film}.mp4").write_bytes((films / f"{one.film}.mp4").read_bytes())


def _write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
