"""Answers about one video → one HTML file that needs nothing else: no network, no script, no font.

Everything that files, models and users wrote is escaped by the template; the page allows itself no more than its own
styles and the pictures that it carries.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from longvu_cli import __version__
from longvu_cli.config import FrameResolution, Recipe
from longvu_cli.evidence import DroppedSpan, Evidence, Moment, TruncatedSpan
from longvu_cli.moments import USUAL_MOMENTS, clock
from longvu_cli.reporting.charts import Bar, Cell, Line, Scale, line, strip, waterfall
from longvu_cli.reporting.own_file import require_own_file, unwritable
from longvu_cli.results import Answer, Compression
from longvu_cli.statistics import Fate, FrameStatistics, Resolution
from longvu_cli.video_file import printable
from longvu_cli.whole_file import whole_file

_TEMPLATE = "report.html.jinja"
# Stands in every page, so that one may be written over and nothing else is.
_MARK = '<meta name="generator" content="longvu report"'
# Of what was not seen, how many stretches are listed, the longest first.
MOST_SPANS = 12
# Characters that reorder text.
_REORDERING = frozenset({"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"})


@dataclass(frozen=True)
class Reading:
    """A kept frame for one question.

    Attributes:
        question: counts from 1; 0 where none was asked.
        frame: None where this question dropped it.
        level: its relevance among that of the others, in hundredths.
    """

    question: int
    frame: FrameStatistics | None
    level: float


@dataclass(frozen=True)
class Shown:
    """A frame of the contact sheet.

    Attributes:
        picture: a data URI.
    """

    index: int
    time_s: float
    similarity: float | None
    picture: str
    readings: tuple[Reading, ...]

    @property
    def close(self) -> bool:
        """Whether it is read at full resolution for any question."""
        return any(
            reading.frame is not None and reading.frame.resolution is Resolution.HIGH for reading in self.readings
        )


@dataclass(frozen=True)
class Band:
    """Where a moment lies on the time line, in hundredths."""

    rank: int
    x: float
    width: float


@dataclass(frozen=True)
class Section:
    """A question with its answer, or a video that nothing was asked about."""

    number: int
    question: str | None
    answer: str | None
    cut_short: bool
    compression: Compression
    evidence: Evidence
    relevance: Line | None
    bands: tuple[Band, ...]
    strip: tuple[Cell, ...]


@dataclass(frozen=True)
class Budget:
    """A waterfall, and the questions that it holds for."""

    questions: tuple[int, ...]
    bars: tuple[Bar, ...]
    compression: Compression


def pictures_wanted(compressions: Sequence[Compression], count: int = USUAL_MOMENTS) -> tuple[list[int], set[int]]:
    """Which frames were kept for any question, in order, and those of them at the peaks of moments."""
    kept = sorted({index for compression in compressions for index in compression.kept})
    peaks = {moment.peak_frame for compression in compressions for moment in compression.evidence(count).moments}
    return kept, peaks


def page(
    results: Sequence[Answer | Compression],
    pictures: Mapping[int, str],
    *,
    made: str,
    moments: int = USUAL_MOMENTS,
) -> str:
    """The report as HTML.

    Args:
        results: answers about one video, or the one compression of it that nothing was asked about.
        pictures: of kept frames, by number among the sampled ones, as data URIs (see ``thumbnails.py``).
        made: when, in words.
        moments: for each question at most.
    """
    compressions = [_compression(result) for result in results]
    first = compressions[0]
    times = first.timeline.times
    across = Scale(times[0], times[-1])
    sections = [_section(number, result, across, moments) for number, result in enumerate(results, 1)]
    kept, _ = pictures_wanted(compressions)
    environment = Environment(
        loader=PackageLoader("longvu_cli.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: legible(value) if isinstance(value, str) and not hasattr(value, "__html__") else value,
    )
    environment.filters |= {"clock": clock, "number": _number}
    return environment.get_template(_TEMPLATE).render(
        title=printable(Path(first.video.path).name),
        first=first,
        asked=first.question is not None,
        sections=sections,
        budgets=_budgets(compressions),
        similarity=line(times, first.timeline.similarity, across, level=first.recipe.dino_threshold),
        shown=_contact_sheet(compressions, kept, pictures),
        kept=len(kept),
        dropped=_longest(sections[0].evidence.dropped),
        dropped_left_out=_left_out(sections[0].evidence.dropped),
        why={Fate.SIMILAR: "too similar", Fate.CAPPED: "over the cap of frames", Fate.SPACED: "evenly spaced frames"},
        start_s=times[0],
        end_s=times[-1],
        longest=_longest,
        left_out=_left_out,
        pictures=pictures,
        warnings=[*first.video.warnings, *first.model.notices, *first.notices],
        settings=_settings(first, results[0]),
        timing=_timings(compressions),
        made=made,
        version=__version__,
    )


def require_own_page(target: Path) -> None:
    """Notice early that a report cannot be written, or would take the place of something else.

    Raises:
        UsageError: its folder is missing, or there is a file that is no report.
    """
    shown = printable(str(target))
    require_own_file(target, shown, kind="report", is_own=lambda beginning: _MARK.encode() in beginning)


def write_page(html: str, target: Path) -> None:
    """Write a report, whole or not at all.

    Raises:
        UsageError: it cannot be written.
    """
    try:
        with whole_file(target) as aside:
            aside.write_text(html, encoding="utf-8")
    except OSError as error:
        raise unwritable(printable(str(target)), error) from error


def legible(text: str) -> str:
    """Text whose controls and reordering characters, which could disguise it, are written as escapes."""
    return "".join(character if _is_plain(character) else _escaped(character) for character in text)


def _is_plain(character: str) -> bool:
    if character in "\n\t":
        return True
    hidden = unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
    return not hidden and unicodedata.bidirectional(character) not in _REORDERING


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def _compression(result: Answer | Compression) -> Compression:
    return result.compression if isinstance(result, Answer) else result


def _section(number: int, result: Answer | Compression, across: Scale, count: int) -> Section:
    compression = _compression(result)
    found = compression.evidence(count)
    frames = compression.statistics.per_frame
    return Section(
        number=number,
        question=compression.question,
        answer=result.text if isinstance(result, Answer) else None,
        cut_short=isinstance(result, Answer) and result.finish_reason.value == "length",
        compression=compression,
        evidence=found,
        relevance=line([frame.time_s for frame in frames], [frame.relevance for frame in frames], across),
        bands=tuple(_band(rank, moment, across) for rank, moment in enumerate(found.moments, 1)),
        strip=strip(compression.statistics),
    )


def _band(rank: int, moment: Moment, across: Scale) -> Band:
    if across.high <= across.low:
        return Band(rank, 0.0, 100.0)
    start, end = across(moment.start_s), min(100.0, across(moment.end_s))
    return Band(rank, start, max(0.4, end - start))


def _budgets(compressions: Sequence[Compression]) -> list[Budget]:
    """A waterfall for all questions that came to the same numbers."""
    budgets: list[Budget] = []
    for number, compression in enumerate(compressions, 1):
        bars = waterfall(compression.statistics)
        same = next((budget for budget in budgets if budget.bars == bars), None)
        if same is None:
            budgets.append(Budget((number,), bars, compression))
        else:
            budgets[budgets.index(same)] = Budget((*same.questions, number), bars, same.compression)
    return budgets


def _contact_sheet(
    compressions: Sequence[Compression], kept: Sequence[int], pictures: Mapping[int, str]
) -> list[Shown]:
    by_index = [{frame.index: frame for frame in one.statistics.per_frame} for one in compressions]
    levels = [_levels(one) for one in compressions]
    timeline = compressions[0].timeline
    return [
        Shown(
            index=index,
            time_s=timeline.times[index],
            similarity=timeline.similarity[index],
            picture=pictures[index],
            readings=tuple(
                Reading(number, own.get(index), scale(_relevance(own.get(index))))
                for number, (own, scale) in enumerate(zip(by_index, levels, strict=True), 1)
            ),
        )
        for index in kept
        if index in pictures
    ]


def _levels(compression: Compression) -> Scale:
    scores = [frame.relevance for frame in compression.statistics.per_frame if frame.relevance is not None]
    return Scale(min(scores), max(scores)) if scores else Scale(0.0, 0.0)


def _relevance(frame: FrameStatistics | None) -> float:
    return 0.0 if frame is None or frame.relevance is None else frame.relevance


def _longest(spans: Sequence[DroppedSpan | TruncatedSpan]) -> list[DroppedSpan | TruncatedSpan]:
    """The longest, in order of time."""
    longest = sorted(spans, key=lambda span: (-span.frames, span.start_s))[:MOST_SPANS]
    return sorted(longest, key=lambda span: span.start_s)


def _left_out(spans: Sequence[DroppedSpan | TruncatedSpan]) -> tuple[int, int]:
    """How many stretches are not listed, and their frames."""
    listed = _longest(spans)
    return len(spans) - len(listed), sum(span.frames for span in spans) - sum(span.frames for span in listed)


def _resolution(recipe: Recipe) -> str:
    if recipe.resolution is not FrameResolution.AUTO:
        return f"off: {recipe.resolution} for all"
    return "on" if recipe.query_guided else "off: evenly spread"


def _settings(compression: Compression, result: Answer | Compression) -> list[tuple[str, str]]:
    recipe, sampling, model = compression.recipe, compression.sampling, compression.model
    end = "the end" if sampling.end_s is None else clock(sampling.end_s)
    rows = [
        ("model", model.name),
        ("from", model.source + (f" at {model.revision}" if model.revision else "")),
        ("number format", model.dtype + ("" if model.quantization == "none" else f", {model.quantization}")),
        ("device", model.device),
        ("sampling", f"{sampling.fps:g} per second, from {clock(sampling.start_s)} to {end}"),
        ("recipe", recipe.name.value),
        ("orientation", recipe.orientation.value),
        ("context", f"{recipe.context_length:,} tokens"),
        ("temporal reduction", f"{recipe.temporal_reduction.value}, threshold {recipe.dino_threshold:g}"),
        ("query-guided resolution", _resolution(recipe)),
        (
            "spatial token compression",
            f"threshold {recipe.stc_threshold:g}, anchor {recipe.anchor.value}"
            if recipe.spatial_compression
            else "off",
        ),
    ]
    if isinstance(result, Answer):
        options = result.generation
        how = f"temperature {options.temperature:g}, top-p {options.top_p:g}" if options.temperature else "greedy"
        rows.append(("answers", f"{how}, at most {options.max_new_tokens} tokens"))
    return rows


def _timings(compressions: Sequence[Compression]) -> list[tuple[str, list[float]]]:
    """Stage → its seconds for each question; without stages that took no time."""
    stages = vars(compressions[0].timing).keys()
    rows = [
        (stage.replace("_", " "), [float(vars(one.timing)[stage]) for one in compressions])
        for stage in stages
        if stage != "load"
    ]
    return [(stage, seconds) for stage, seconds in rows if max(seconds) >= 0.05]


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"
