"""Questions of one's own: JSON lines in a file, for what is none of the known benchmarks.

Each line is an object. ``video`` (a relative path is relative to the file), ``question`` and ``choices`` have to be
there; ``answer`` is a letter, the number of an option from 0, or its text. ``id``, ``start``, ``end``, ``subtitles``
and ``groups`` (an object: kind → name) may be there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from longvu_cli.choices import with_choices
from longvu_cli.errors import BadBenchmark
from longvu_cli.evaluation.annotations import LETTERS, Entry, letter_of, require_own_names
from longvu_cli.evaluation.benchmark import Benchmark, Group, Preset, Question, Reading
from longvu_cli.moments import seconds_of

_KEYS = ("video", "question", "choices", "answer", "id", "start", "end", "subtitles", "groups")
_FORM = (
    'one JSON object a line: {"video": "movie.mp4", "question": "What is red?", "choices": ["x", "y"], "answer": "B"}'
)


def read(file: Path) -> Reading:
    """The questions of a file.

    Raises:
        BadBenchmark: it cannot be read, or a line of it is wrong.
    """
    questions = tuple(_question(entry, file.parent) for entry in _entries(file))
    if not questions:
        raise BadBenchmark(f"{file} has no questions", hint=_FORM)
    require_own_names([question.id for question in questions], file, hint="give each question its own, or none")
    return Reading(questions)


def _entries(file: Path) -> Iterator[Entry]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise BadBenchmark(f"the questions {file} cannot be read: {reason}", hint="check the path") from error
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        place = f"line {number} of {file}"
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise BadBenchmark(f"{place} is no JSON: {error}", hint=_FORM) from error
        if not isinstance(values, dict):
            raise BadBenchmark(f"{place} is no JSON object", hint=_FORM)
        unknown = [key for key in values if key not in _KEYS]
        if unknown:
            raise BadBenchmark(f"{place} has {unknown[0]!r}, which is not known", hint=f"known are {', '.join(_KEYS)}")
        yield Entry(place, {"id": str(number), **values})


def _question(entry: Entry, folder: Path) -> Question:
    text, choices = entry.text("question"), entry.texts("choices")
    if len(set(choices)) < len(choices):
        raise BadBenchmark(f"{entry.place} has an option twice", hint="give each its own text")
    subtitles = entry.text("subtitles") if entry.values.get("subtitles") is not None else None
    end = entry.values.get("end")
    return Question(
        id=str(entry.values["id"]),
        video=folder / entry.text("video"),
        text=text,
        choices=choices,
        put=with_choices(text, choices),
        answer=_answer(entry, choices),
        groups=_groups(entry),
        start_s=_time(entry, "start") if entry.values.get("start") is not None else 0.0,
        end_s=None if end is None else _time(entry, "end"),
        subtitles=None if subtitles is None else folder / subtitles,
    )


def _answer(entry: Entry, choices: tuple[str, ...]) -> str | None:
    answer: Any = entry.values.get("answer")
    letters = LETTERS[: len(choices)]
    if answer is None:
        return None
    if isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(choices):
        return letters[answer]
    if isinstance(answer, str) and len(answer.strip()) == 1 and answer.strip() in letters and answer not in choices:
        return answer.strip()
    return letter_of(str(answer), choices, entry.place)


def _groups(entry: Entry) -> tuple[Group, ...]:
    groups = entry.values.get("groups", {})
    if not isinstance(groups, dict) or not all(isinstance(name, str) for name in groups.values()):
        raise BadBenchmark(f"{entry.place} has groups that are no object of texts", hint='as {"task": "counting"}')
    return tuple(Group(kind, name) for kind, name in groups.items())


def _time(entry: Entry, key: str) -> float:
    value = entry.values[key]
    if not isinstance(value, str):
        return entry.seconds(key)
    try:
        return seconds_of(value)
    except ValueError as error:
        raise BadBenchmark(f"{entry.place}: {key} = {value!r} is {error}") from None


OWN_QUESTIONS = Benchmark(name="jsonl", title="questions of one's own", preset=Preset(fps=1.0), read=read)
