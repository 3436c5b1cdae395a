"""A few films of the drawn world, where and how lmms-eval's own tasks look for their data.

    python tests/harness/miniature.py FOLDER

The harness, started in FOLDER with ``HF_HOME=FOLDER/home``, takes ``FOLDER/OpenGVLab/MVBench`` and so on for what it
would else download: its tasks are used as they are. The task ``drawn_world`` beside this file has open questions.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from longvu_cli.world.film import pictures, write_film
from longvu_cli.world.questions import questions
from longvu_cli.world.story import Split, Story, story

_SECONDS = 12
_FILMS = 3
LETTERS = "ABCD"
# Of the open questions, those whose answers are short.
_KINDS = ("place", "colour", "needle", "yes_no")


@dataclass(frozen=True)
class Asked:
    """A question of multiple choice: the right one of its options has this number."""

    film: str
    question: str
    options: tuple[str, ...]
    right: int

    @property
    def letter(self) -> str:
        return LETTERS[self.right]

    @property
    def answer(self) -> str:
        return self.options[self.right]


def make(folder: Path) -> list[Asked]:
    """Write everything; returns what is asked in each of the tasks."""
    told = [(f"film{number}", story(Split.VALIDATION.seed(number), _SECONDS)) for number in range(_FILMS)]
    asked = [asked_about(name, tale, number) for number, (name, tale) in enumerate(told)]
    home = folder / "home"
    for name, tale in told:
        film = home / "videomme" / "data" / f"{name}.mp4"
        film.parent.mkdir(parents=True, exist_ok=True)
        write_film(tale, film, fps=2)
        for place in ("egoschema/videos", "mlvu", "mvbench_video/perception/videos"):
            copy = home / place / film.name
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(film.read_bytes())
        frames = home / "mvbench_video" / "tvqa" / "video_fps3_hq_segment" / name
        frames.mkdir(parents=True)
        for number, pixels in enumerate(pictures(tale, fps=1)):
            Image.fromarray(pixels.numpy()).save(frames / f"{number:05}.jpg")
    open_questions = [
        {"video": f"home/mlvu/{name}.mp4", "question": each.text, "answer": each.answer}
        for name, tale in told
        for each in questions(tale)
        if each.kind in _KINDS
    ]
    (folder / "drawn_world.json").write_text(json.dumps(open_questions), encoding="utf-8")
    _mvbench(folder / "OpenGVLab" / "MVBench", asked)
    _egoschema(folder / "lmms-eval" / "egoschema", asked)
    _videomme(folder / "lmms-eval" / "Video-MME", asked)
    _mlvu(folder / "sy1998" / "MLVU_dev", asked)
    return asked


def asked_about(film: str, tale: Story, right: int) -> Asked:
    """What is on the card that the film shows for a second, with three things that are not."""
    needle = next(question for question in questions(tale) if question.kind == "needle")
    others = [
        option for option in ("A red hat.", "A blue key.", "A green shoe.", "A white lamp.") if option != needle.answer
    ]
    options = [*others[:3]]
    options.insert(right, needle.answer)
    return Asked(film, needle.text, tuple(options), right)


def _mvbench(folder: Path, asked: Sequence[Asked]) -> None:
    def rows(suffix: str) -> list[dict[str, Any]]:
        return [
            {
                "video": f"{each.film}{suffix}",
                "question": each.question,
                "candidates": list(each.options),
                "answer": each.answer,
            }
            for each in asked
        ]

    _write(folder, "train", {"state_change": rows(".mp4"), "episodic_reasoning": rows("")})


def _egoschema(folder: Path, asked: Sequence[Asked]) -> None:
    rows = [
        {
            "video_idx": each.film,
            "question": each.question,
            "option": [
                f"{letter}. {option}" for letter, option in zip("ABCDE", (*each.options, "None of them."), strict=True)
            ],
            "answer": str(each.right),
        }
        for each in asked
    ]
    _write(folder, "test", {"Subset": rows})


def _videomme(folder: Path, asked: Sequence[Asked]) -> None:
    rows = [
        {
            "videoID": each.film,
            "question_id": f"{number:03}-1",
            "duration": "short",
            "domain": "Knowledge",
            "sub_category": "Technology",
            "task_type": "Object Recognition",
            "question": each.question,
            "options": [f"{letter}. {option}" for letter, option in zip(LETTERS, each.options, strict=True)],
            "answer": each.letter,
        }
        for number, each in enumerate(asked)
    ]
    _write(folder, "test", {"videomme": rows})


def _mlvu(folder: Path, asked: Sequence[Asked]) -> None:
    rows = [
        {
            "video_name": f"{each.film}.mp4",
            "task_type": "needle",
            "question": "\n".join(
                [each.question, *(f"({letter}) {option}" for letter, option in zip(LETTERS, each.options, strict=True))]
            ),
            "answer": each.letter,
        }
        for each in asked
    ]
    _write(folder, "test", {"default": rows})


def _write(folder: Path, split: str, configurations: dict[str, list[dict[str, Any]]]) -> None:
    folder.mkdir(parents=True)
    lines = ["---", "configs:"]
    for name, rows in configurations.items():
        (folder / f"{name}.json").write_text(json.dumps(rows), encoding="utf-8")
        lines += [f"- config_name: {name}", "  data_files:", f"  - split: {split}", f"    path: {name}.json"]
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]), encoding="utf-8")


if __name__ == "__main__":
    make(Path(sys.argv[1]))
