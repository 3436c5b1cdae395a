"""EgoSchema: five options about three minutes of somebody's day.

::

    questions.json        [{"q_uid", "question", "option 0" … "option 4"}, …]
    subset_answers.json   {"<q_uid>": 0 … 4}: of 500 questions; the others are scored by the authors' server
    good_clips_git/       <q_uid>.mp4 (or videos/)
"""

from __future__ import annotations

from pathlib import Path

from longvu_cli.errors import BadBenchmark
from longvu_cli.evaluation.annotations import (
    LETTERS,
    existing,
    read_entries,
    read_json,
    require_own_names,
    with_letters,
)
from longvu_cli.evaluation.benchmark import Benchmark, Group, Preset, Question, Reading

_QUESTIONS, _ANSWERS = "questions.json", "subset_answers.json"
_OPTIONS = 5
_ORDER = "Respond with only the letter (A, B, C, D or E) of the correct option."
_VIDEOS = ("good_clips_git", "videos")


def read(folder: Path) -> Reading:
    """The questions, with the answers of the subset if its file is there.

    Raises:
        BadBenchmark: a file is missing or says something else.
    """
    videos = next((folder / name for name in _VIDEOS if (folder / name).is_dir()), folder / _VIDEOS[0])
    answers = _answers(folder / _ANSWERS)
    questions = []
    for entry in read_entries(folder / _QUESTIONS):
        name, text = entry.text("q_uid"), entry.text("question")
        choices = tuple(entry.text(f"option {number}") for number in range(_OPTIONS))
        questions.append(
            Question(
                id=name,
                video=existing(videos, name),
                text=text,
                choices=choices,
                put=with_letters(text, choices, _ORDER),
                answer=answers.get(name),
                groups=(Group("set", "subset"),) if name in answers else (),
            )
        )
    require_own_names([question.id for question in questions], folder / _QUESTIONS, hint="get the file again")
    unknown = sum(question.answer is None for question in questions)
    told = f"{unknown} of {len(questions)} questions have no answer in {_ANSWERS}: they are asked for the submission"
    return Reading(tuple(questions), (told,) if unknown else ())


def _answers(path: Path) -> dict[str, str]:
    """Question → letter."""
    if not path.exists():
        return {}
    values = read_json(path)
    if not isinstance(values, dict) or not all(
        str(value).isdecimal() and int(value) < _OPTIONS for value in values.values()
    ):
        raise BadBenchmark(f"{path} is no list of answers from 0 to {_OPTIONS - 1}")
    return {name: LETTERS[int(value)] for name, value in values.items()}


EGOSCHEMA = Benchmark(
    name="egoschema",
    title="EgoSchema",
    preset=Preset(fps=0.5, stc_threshold=0.8, thin_above=1000),
    read=read,
    submitted=True,
)
