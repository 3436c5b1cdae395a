"""Video-MME: 900 videos of up to an hour, in three lengths, with subtitles for most of them.

::

    videomme/test-00000-of-00001.parquet   a row per question (or the file itself beside data/)
    data/<videoID>.mp4
    subtitle/<videoID>.srt

In place of the parquet file, ``test.json`` or ``test.jsonl`` may hold the same rows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from longvu_cli.errors import BadBenchmark
from longvu_cli.evaluation.annotations import LETTERS, Entry, existing, read_entries, require_own_names
from longvu_cli.evaluation.benchmark import Benchmark, Group, Preset, Question, Reading
from longvu_cli.extras import require_pyarrow

_STEMS = ("test-00000-of-00001", "test")
_SUFFIXES = (".parquet", ".json", ".jsonl")
_ORDER = "Respond with only the letter (A, B, C, or D) of the correct option.\n"
_COLUMNS = ("videoID", "question_id", "duration", "task_type", "question", "options", "answer")


def read(folder: Path) -> Reading:
    """The questions; a video that has a file of subtitles is given it.

    Raises:
        BadBenchmark: a file is missing or says something else.
        ExtraNotInstalled: what reads parquet is not there.
    """
    table = _annotations(folder)
    questions = tuple(_question(entry, folder) for entry in _entries(table))
    require_own_names([question.id for question in questions], table, hint="get the file again")
    return Reading(questions)


def _annotations(folder: Path) -> Path:
    candidates = [
        place / f"{stem}{suffix}" for suffix in _SUFFIXES for place in (folder, folder / "videomme") for stem in _STEMS
    ]
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        raise BadBenchmark(
            f"there is no {_STEMS[0]}.parquet in {folder}",
            hint="name the folder that holds the benchmark as it is published",
        )
    return found


def _entries(path: Path) -> Sequence[Entry]:
    if path.suffix == ".json":
        return read_entries(path)
    rows = _parquet_rows(path) if path.suffix == ".parquet" else _lines(path)
    return [Entry(f"question {number} of {path}", row) for number, row in enumerate(rows, 1)]


def _parquet_rows(path: Path) -> list[dict[str, Any]]:
    require_pyarrow(f"reading {path.name}")
    import pyarrow
    from pyarrow import parquet

    try:
        rows: list[dict[str, Any]] = parquet.read_table(path, columns=list(_COLUMNS)).to_pylist()
    except (OSError, KeyError, pyarrow.ArrowException) as error:
        raise BadBenchmark(f"{path} cannot be read as the benchmark's table: {error}", hint="get it again") from error
    return rows


def _lines(path: Path) -> list[dict[str, Any]]:
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
    except (OSError, ValueError, RecursionError) as error:
        raise BadBenchmark(f"{path} cannot be read: {error}", hint="get the file again") from error
    if not all(isinstance(row, dict) for row in rows):
        raise BadBenchmark(f"{path} has lines that are no JSON objects")
    return rows


def _question(entry: Entry, folder: Path) -> Question:
    name, text, options = entry.text("videoID"), entry.text("question"), entry.texts("options")
    answer = entry.text("answer").strip()
    if len(answer) != 1 or answer not in LETTERS[: len(options)]:
        raise BadBenchmark(f"{entry.place} has an answer that is no letter of its options")
    subtitles = folder / "subtitle" / f"{name}.srt"
    lines = "".join(f"{option}\n" for option in options)
    return Question(
        id=entry.text("question_id"),
        video=existing(folder / "data", name),
        text=text,
        choices=tuple(re.sub(r"^[A-Z][.)]\s*", "", option) for option in options),
        put=f"Question: {text}\nOptions:\n{lines}{_ORDER}",
        answer=answer,
        groups=(Group("duration", entry.text("duration")), Group("task", entry.text("task_type"))),
        subtitles=subtitles if subtitles.is_file() else None,
    )


VIDEOMME = Benchmark(
    name="videomme",
    title="Video-MME",
    preset=Preset(fps=0.5, stc_threshold=0.65, subtitles=True),
    read=read,
)
