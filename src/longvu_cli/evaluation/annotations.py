"""The annotation files of benchmarks, as they are published, and what readers of them have in common."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longvu_cli.config import MOST_CHOICES
from longvu_cli.errors import BadBenchmark

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
# Endings of videos, in the order in which the reference's scripts look for them, and that of many on the web.
VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm")


@dataclass(frozen=True)
class Entry:
    """An entry of an annotation file: its values, and where it is, for errors."""

    place: str
    values: Mapping[str, Any]

    def text(self, key: str) -> str:
        """A text that is not empty.

        Raises:
            BadBenchmark: there is none.
        """
        value = self.values.get(key)
        if not isinstance(value, str) or not value.strip():
            raise BadBenchmark(f"{self.place} has no {key!r}", hint="look whether the file is that of the benchmark")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """Two or more texts, of which none is empty.

        Raises:
            BadBenchmark: they are something else.
        """
        value = self.values.get(key)
        texts = tuple(str(one) for one in value) if isinstance(value, Sequence) and not isinstance(value, str) else ()
        if not 2 <= len(texts) <= MOST_CHOICES or any(not text.strip() for text in texts):
            raise BadBenchmark(
                f"{self.place} has no list of 2 to {MOST_CHOICES} options as {key!r}",
                hint="look whether the file is that of the benchmark",
            )
        return texts

    def seconds(self, key: str) -> float:
        """A time in seconds.

        Raises:
            BadBenchmark: there is none.
        """
        value = self.values.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise BadBenchmark(f"{self.place} has no time as {key!r}")
        return float(value)


def read_json(path: Path) -> Any:
    """The content of a file.

    Raises:
        BadBenchmark: it is not there, or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise BadBenchmark(
            f"there is no {path}", hint="name the folder that holds the benchmark as it is published"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise BadBenchmark(f"{path} cannot be read: {reason}", hint="get the file again") from error


def read_entries(path: Path) -> tuple[Entry, ...]:
    """The objects of a file that is a list of them.

    Raises:
        BadBenchmark: it is not there, or something else.
    """
    values = read_json(path)
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise BadBenchmark(f"{path} is no list of questions", hint="look whether the file is that of the benchmark")
    return tuple(Entry(f"question {number} of {path}", value) for number, value in enumerate(values, 1))


def require_own_names(names: Sequence[str], path: Path, *, hint: str) -> None:
    """Find that each question of a file has a name of its own.

    Raises:
        BadBenchmark: two share one.
    """
    counts = Counter(names)
    twice = next((name for name in names if counts[name] > 1), None)
    if twice is not None:
        raise BadBenchmark(f"{path} has the id {twice!r} twice", hint=hint)


def letter_of(answer: str, choices: Sequence[str], place: str) -> str:
    """The letter of the option that is the answer, or of the first of several that are.

    Raises:
        BadBenchmark: none is.
    """
    right = [letter for letter, choice in zip(LETTERS, choices, strict=False) if choice == answer]
    if not right:
        raise BadBenchmark(f"{place} has an answer that is none of its options")
    return right[0]


def with_letters(question: str, choices: Sequence[str], order: str) -> str:
    """The question with its options as the reference puts it for most benchmarks: ``(A) …``, and then the order."""
    options = "".join(f"({letter}) {choice}\n" for letter, choice in zip(LETTERS, choices, strict=False))
    return f"Question: {question}\nOptions:\n{options}{order}"


def existing(folder: Path, stem: str) -> Path:
    """The video of a name, whatever its ending; where there is none, the path at which it should be."""
    candidates = [folder / f"{stem}{ending}" for suffix in VIDEO_SUFFIXES for ending in (suffix, suffix.upper())]
    return next((path for path in candidates if path.is_file()), candidates[0])


def within(folder: Path, marker: str, *subfolders: str) -> Path:
    """The folder itself, or a subfolder, whichever holds the file or folder that marks the benchmark.

    Raises:
        BadBenchmark: none does.
    """
    for candidate in (folder, *(folder / name for name in subfolders)):
        if (candidate / marker).exists():
            return candidate
    raise BadBenchmark(
        f"there is no {marker} in {folder}", hint="name the folder that holds the benchmark as it is published"
    )
