"""A list of questions about videos, as JSON lines or CSV, → rows; what is wrong with a row is that row's own error."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from enum import StrEnum
from typing import Any

from longvu_cli.config import (
    Anchor,
    CompressionOptions,
    CoverageOptions,
    FrameResolution,
    GenerationOptions,
    Orientation,
    PromptOptions,
    RecipeName,
    SamplingOptions,
    StillMode,
    TemporalReduction,
)
from longvu_cli.errors import BadRow, UsageError
from longvu_cli.moments import seconds_of

Id = str | int | float | None

_FORM = "one JSON object a line, with video and question"
_COLUMNS = ("video", "question")
_FACTS = (*_COLUMNS, "id")
# Of a value that is wrong.
_LONGEST_SHOWN = 200


@dataclass(frozen=True)
class Settings:
    """How a question is answered."""

    sampling: SamplingOptions
    compression: CompressionOptions
    generation: GenerationOptions
    prompting: PromptOptions = field(default_factory=PromptOptions)
    covering: CoverageOptions = field(default_factory=CoverageOptions)

    def changed(self) -> dict[str, Any]:
        """What differs from the defaults: an option that is added one day leaves the identity of old rows alone."""
        groups = (self.sampling, self.compression, self.generation, self.prompting, self.covering)
        return {
            field.name: asdict(group)[field.name]
            for group in groups
            for field in fields(group)
            if asdict(group)[field.name] != field.default
        }


@dataclass(frozen=True)
class Row:
    """A question about a video.

    Attributes:
        number: counts rows from 1.
        id: the caller's own name for it.
    """

    number: int
    id: Id
    video: str
    question: str
    settings: Settings


@dataclass(frozen=True)
class Misfit:
    """A row that cannot be read.

    Attributes:
        digest: tells its text from that of other rows.
    """

    number: int
    id: Id
    video: str | None
    error: BadRow
    digest: str


@dataclass(frozen=True)
class Manifest:
    """Rows, in their order.

    Attributes:
        name: where they came from.
    """

    name: str
    rows: tuple[Row, ...]
    misfits: tuple[Misfit, ...]


def read_manifest(content: bytes, name: str, defaults: Settings) -> Manifest:
    """Read JSON lines or CSV with a header; the name's ending tells which, or else the first character.

    Args:
        defaults: hold for whatever a row does not say.

    Raises:
        UsageError: there are no rows, or the CSV header lacks a column or has one that is no option.
    """
    # Names of files may hold any bytes: they go through as the system's own functions write them.
    text = content.decode("utf-8-sig", errors="surrogateescape")
    if not text.strip():
        raise UsageError("the manifest has no rows", hint=_FORM)
    read = _csv_rows if _is_csv(text, name) else _json_rows
    made = [_made(number, values, defaults) for number, values in enumerate(read(text), 1)]
    if not made:
        raise UsageError("the manifest has no rows", hint=_FORM)
    return Manifest(
        name=name,
        rows=tuple(row for row in made if isinstance(row, Row)),
        misfits=tuple(row for row in made if isinstance(row, Misfit)),
    )


@dataclass(frozen=True)
class _Unread:
    """A row that is no row at all: its text, and what is wrong with it."""

    text: str
    problem: str


_Values = Mapping[str, object] | _Unread


def _is_csv(text: str, name: str) -> bool:
    if name.lower().endswith(".csv"):
        return True
    if name.lower().endswith((".jsonl", ".ndjson", ".json")):
        return False
    return not text.lstrip().startswith("{")


def _json_rows(text: str) -> Iterator[_Values]:
    for line in text.split("\n"):
        if line.strip():
            yield _json_row(line)


def _json_row(line: str) -> _Values:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        return _Unread(line, f"it is no JSON: {error}")
    if not isinstance(values, dict):
        return _Unread(line, "it is no JSON object")
    return {key.replace("-", "_"): value for key, value in values.items()}


def _csv_rows(text: str) -> Iterator[_Values]:
    """The rows after the header; an empty cell says nothing."""
    reader = csv.reader(io.StringIO(text, newline=""))
    header = _header(reader)
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield _Unread(f"line {reader.line_num}", f"it is no CSV: {error}")
            continue
        if len(cells) > len(header):
            yield _Unread(",".join(cells), f"it has {len(cells)} cells, the header {len(header)}")
        elif any(cells):
            named = zip(header, cells, strict=False)
            yield {column: _of_cell(column, cell) for column, cell in named if cell.strip()}


def _header(reader: Iterator[list[str]]) -> list[str]:
    try:
        header = next(reader, [])
    except csv.Error as error:
        raise UsageError(f"the manifest's first line is no CSV header: {error}") from error
    columns = [cell.strip().replace("-", "_") for cell in header]
    missing = [column for column in _COLUMNS if column not in columns]
    if missing:
        raise UsageError(
            f"the manifest's first line is neither a JSON object nor a CSV header with {' and '.join(_COLUMNS)}",
            hint='write {"video": "movie.mp4", "question": "Where is the cup?"}, one a line',
        )
    unknown = [column for column in columns if column not in _OPTIONS and column not in _FACTS]
    if unknown or len(set(columns)) < len(columns):
        raise UsageError(
            f"the manifest has a column {unknown[0]!r}, which is no option" if unknown else "a column is there twice",
            hint=f"columns are {', '.join((*_FACTS, *_OPTIONS))}",
        )
    return columns


def _of_cell(column: str, cell: str) -> object:
    """A cell as JSON would have it; text that is nothing else is refused where its type is known."""
    if column in (*_FACTS, *_TEXTS):
        return cell
    word = cell.strip().lower()
    if column in ("start", "end"):
        return word
    if column in _SWITCHES and word in _TRUTHS:
        return _TRUTHS[word]
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return word


_TEXTS = ("system", "prompt_template", "choices", "subtitles")
_SWITCHES = ("frame_position_encoding", "query_guided", "spatial_compression", "coverage")
_TRUTHS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def _made(number: int, values: _Values, defaults: Settings) -> Row | Misfit:
    if isinstance(values, _Unread):
        return Misfit(number, None, None, BadRow(f"row {number} cannot be read: {values.problem}"), _sha(values.text))
    try:
        return Row(
            number=number,
            id=_id(values.get("id")),
            video=_text(values, "video"),
            question=_text(values, "question"),
            settings=changed_settings({key: value for key, value in values.items() if key not in _FACTS}, defaults),
        )
    except (ValueError, UsageError) as error:
        video, name = values.get("video"), values.get("id")
        return Misfit(
            number=number,
            id=name if isinstance(name, str | int) else None,
            video=video if isinstance(video, str) else None,
            error=BadRow(f"row {number}: {error}", hint=error.hint if isinstance(error, UsageError) else ""),
            digest=_sha(json.dumps(values, sort_keys=True)),
        )


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def _id(value: object) -> Id:
    if value is None or (isinstance(value, str | int) and not isinstance(value, bool)):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise ValueError("id is neither a text nor a number")


def _text(values: Mapping[str, object], key: str) -> str:
    if key not in values:
        raise ValueError(f"{key} is missing")
    value = values[key]
    if not isinstance(value, str):
        raise ValueError(f"{key} is no text")
    if not value.strip():
        raise ValueError(f"{key} is empty")
    if key == "question":
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError("question is no valid text (UTF-8)") from None
    return value


def changed_settings(values: Mapping[str, object], defaults: Settings) -> Settings:
    """The defaults with the options that a row, or a request to a server, gives.

    Raises:
        ValueError: a name is no option, or a value is none for it.
        UsageError: a value is out of its range, or contradicts another.
    """
    groups: dict[str, dict[str, Any]] = {
        "sampling": {},
        "compression": {},
        "generation": {},
        "prompting": {},
        "covering": {},
    }
    for key, value in values.items():
        if value is None and key in _OPTIONS:
            continue
        if key not in _OPTIONS:
            raise ValueError(f"{_shown(key)} is no option")
        option = _OPTIONS[key]
        try:
            groups[option.group][option.field] = option.read(value)
        except ValueError as error:
            raise ValueError(f"{key} = {_shown(value)} is {error}") from None
    return Settings(
        sampling=replace(defaults.sampling, **groups["sampling"]),
        compression=replace(defaults.compression, **groups["compression"]),
        generation=replace(defaults.generation, **groups["generation"]),
        prompting=replace(defaults.prompting, **groups["prompting"]),
        covering=replace(defaults.covering, **groups["covering"]),
    )


def _shown(value: object) -> str:
    """As much of a value as tells which is meant."""
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


@dataclass(frozen=True)
class _Option:
    """Where a row's value goes, and what reads it; the reader's ValueError says what it is not."""

    group: str
    field: str
    read: Callable[[object], Any]


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("no number")
    try:
        return float(value)
    except OverflowError:
        raise ValueError("too large") from None


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("no whole number")
    return value


def _truth(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("neither true nor false")
    return value


def _time(value: object) -> float:
    if isinstance(value, str):
        return seconds_of(value)
    return _number(value)


def _words(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("no text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("no valid text (UTF-8)") from None
    return value


def _path(value: object) -> str:
    # Names of files may hold any bytes.
    if not isinstance(value, str):
        raise ValueError("no text")
    return value


def _texts(value: object) -> tuple[str, ...]:
    """A list of texts; in one text they are separated by ``|``."""
    if isinstance(value, str):
        value = [part.strip() for part in value.split("|")]
    if not isinstance(value, list):
        raise ValueError("no list of texts")
    return tuple(map(_words, value))


def _choice(kind: type[StrEnum]) -> Callable[[object], StrEnum]:
    def read(value: object) -> StrEnum:
        known = {member.value: member for member in kind}
        if not isinstance(value, str) or value not in known:
            raise ValueError(f"none of {', '.join(known)}")
        return known[value]

    return read


_OPTIONS: Mapping[str, _Option] = {
    "fps": _Option("sampling", "fps", _number),
    "start": _Option("sampling", "start_s", _time),
    "end": _Option("sampling", "end_s", _time),
    "thin_above": _Option("sampling", "thin_above", _whole),
    "recipe": _Option("compression", "recipe", _choice(RecipeName)),
    "orientation": _Option("compression", "orientation", _choice(Orientation)),
    "context_length": _Option("compression", "context_length", _whole),
    "dino_threshold": _Option("compression", "dino_threshold", _number),
    "stc_threshold": _Option("compression", "stc_threshold", _number),
    "temporal_reduction": _Option("compression", "temporal_reduction", _choice(TemporalReduction)),
    "anchor": _Option("compression", "anchor", _choice(Anchor)),
    "frame_position_encoding": _Option("compression", "frame_position_encoding", _truth),
    "still": _Option("compression", "still", _choice(StillMode)),
    "query_guided": _Option("compression", "query_guided", _truth),
    "spatial_compression": _Option("compression", "spatial_compression", _truth),
    "resolution": _Option("compression", "resolution", _choice(FrameResolution)),
    "max_new_tokens": _Option("generation", "max_new_tokens", _whole),
    "temperature": _Option("generation", "temperature", _number),
    "top_p": _Option("generation", "top_p", _number),
    "seed": _Option("generation", "seed", _whole),
    "system": _Option("prompting", "system", _words),
    "prompt_template": _Option("prompting", "prompt_template", _words),
    "choices": _Option("prompting", "choices", _texts),
    "subtitles": _Option("prompting", "subtitles", _path),
    "coverage": _Option("covering", "coverage", _truth),
}
