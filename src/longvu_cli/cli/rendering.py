"""The compression statistics as people like to read them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from longvu_cli.config import FrameResolution, Recipe, RecipeName, TemporalReduction
from longvu_cli.evidence import DroppedSpan, Evidence, Moment, TruncatedSpan
from longvu_cli.moments import clock
from longvu_cli.results import Compression, Timing
from longvu_cli.statistics import Fate, FrameCounts, FrameStatistics, Regime, Resolution, TokenCounts

STRIP_WIDTH = 64
_LEVELS = " ▁▂▃▄▅▆▇█"

_REGIMES = {
    Regime.ALL_HIGH: "few enough frames: all at full resolution",
    Regime.MIXED: "full resolution where the question needs it, low elsewhere",
    Regime.SPATIAL: "too many frames: tokens that repeat are dropped",
}


def summary(compression: Compression) -> Text:
    """Three lines after an answer: frames, tokens, seconds."""
    statistics = compression.statistics
    return summary_of(statistics.frames, statistics.tokens, statistics.truncated_tokens, compression.timing)


def summary_of(frames: FrameCounts, tokens: TokenCounts, truncated_tokens: int, timing: Timing) -> Text:
    """The same, of its numbers."""
    lines = [
        f"frames  {frames.sampled:,} sampled → {frames.kept:,} kept → {frames.high_resolution:,} at full resolution",
        f"tokens  {tokens.dense:,} dense → {tokens.visual:,} read ({_share(tokens.visual, tokens.dense)})"
        + (f", {truncated_tokens:,} cut for lack of room" if truncated_tokens else ""),
        f"seconds {_seconds(timing)}",
    ]
    return Text("\n".join(lines), style="dim")


def moments_line(moments: Sequence[Moment]) -> Text:
    """The moments of the video that matter most for a question: a line below its answer."""
    return Text(f"    looked closest at {', '.join(map(_stretch, moments))}", style="dim")


def _stretch(span: Moment | DroppedSpan | TruncatedSpan) -> str:
    return f"{clock(span.start_s)} – {clock(span.end_s)}"


def stats(compression: Compression, *, strip_width: int = STRIP_WIDTH) -> Group:
    """The table of steps, the strip along the time line, and the settings."""
    parts: list[RenderableType] = [_heading(compression), Text(), _steps(compression), Text()]
    if not compression.video.is_still:  # a picture has no time line
        parts += [_strip(compression, strip_width), Text()]
    return Group(*parts, _settings(compression))


def _heading(compression: Compression) -> Text:
    video = compression.video
    facts = [f"{video.width}×{video.height}", video.codec]
    if not video.is_still:
        facts.insert(0, clock(video.duration_s) if video.duration_s is not None else "unknown length")
        facts += [f"{video.fps:g} frames/s"] if video.fps else []
    if video.rotation:
        facts.append(f"rotated by {video.rotation}°")
    return Text(" · ".join(facts))


def _steps(compression: Compression) -> Table:
    """One row per step: what it left of frames and tokens."""
    statistics = compression.statistics
    frames, tokens = statistics.frames, statistics.tokens
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column("step")
    for heading in ("frames", "tokens", "of dense"):
        table.add_column(heading, justify="right")
    low = frames.kept - frames.high_resolution
    rows = (
        (_sampled_name(compression), f"{frames.sampled:,}", tokens.dense),
        (_temporal_name(compression), f"{frames.kept:,}", tokens.after_temporal),
        (
            _resolution_name(compression.recipe),
            f"{frames.high_resolution:,} full + {low:,} low",
            tokens.after_query,
        ),
        (
            _spatial_name(compression),
            "",
            tokens.visual,
        ),
    )
    for name, frame_text, count in rows:
        table.add_row(name, frame_text, f"{count:,}", _share(count, tokens.dense))
    if statistics.truncated_tokens:
        table.add_row("besides, cut for lack of room", "", f"{statistics.truncated_tokens:,}", "")
    table.add_row(Text("read by the language model", style="bold"), "", f"{tokens.visual:,}", "")
    table.add_row("room for the video", "", f"{statistics.visual_budget:,}", "")
    return table


def _sampled_name(compression: Compression) -> str:
    if compression.video.is_still:
        return "the picture"
    return f"sampled at {compression.sampling.fps:g} per second"


def _temporal_name(compression: Compression) -> str:
    kept_all = compression.statistics.frames.kept == compression.statistics.frames.sampled
    method = compression.recipe.temporal_reduction
    if method is TemporalReduction.NONE:
        return "temporal reduction (off)"
    return f"temporal reduction by {method.value}" + (" (kept all)" if kept_all else "")


def _resolution_name(recipe: Recipe) -> str:
    if recipe.resolution is not FrameResolution.AUTO:
        return f"{recipe.resolution} resolution for all"
    return "query-guided resolution" if recipe.query_guided else "full resolution, evenly spread"


def _spatial_name(compression: Compression) -> str:
    if not compression.recipe.spatial_compression:
        return "spatial token compression (off)"
    return "spatial token compression" + ("" if compression.statistics.spatial_compression else " (not needed)")


def _strip(compression: Compression, width: int) -> Group:
    """Three rows along the time line: how much of each moment was kept at full resolution, kept low, or dropped.

    Without a question, the kept frames of the mixed regime have no resolution yet: they make one row, "kept".
    """
    sampled = compression.statistics.frames.sampled
    cells = min(width, sampled)
    kept = {frame.index: frame for frame in compression.statistics.per_frame}
    undecided = any(frame.resolution is None for frame in kept.values())
    rows = [("full", "green"), ("low", "yellow"), ("dropped", "red")]
    if undecided:
        rows = [("kept", "green"), ("dropped", "red")]
    counts: dict[str, list[int]] = {name: [0] * cells for name, _ in rows}
    per_cell = [0] * cells
    for index in range(sampled):
        cell = index * cells // sampled
        per_cell[cell] += 1
        counts[_fate(kept.get(index))][cell] += 1
    lines = [
        Text.assemble(f"{name:<8}", (_bars(counts[name], per_cell), style), f"  {sum(counts[name]):,}")
        for name, style in rows
    ]
    return Group(*lines, _time_axis(compression, cells))


def _fate(frame: FrameStatistics | None) -> str:
    if frame is None:
        return "dropped"
    if frame.resolution is None:
        return "kept"
    return "full" if frame.resolution is Resolution.HIGH else "low"


def _bars(counts: list[int], totals: list[int]) -> str:
    """A bar per cell; whatever is there at all can be seen."""
    steps = len(_LEVELS) - 1
    return "".join(_LEVELS[-(-count * steps // total)] for count, total in zip(counts, totals, strict=True))


def _time_axis(compression: Compression, cells: int) -> Text:
    begin = compression.sampling.start_s
    end = begin + compression.statistics.frames.sampled / compression.sampling.fps
    left, right = clock(begin), clock(end)
    return Text(" " * 8 + left + " " * max(1, cells - len(left) - len(right)) + right, style="dim")


def _settings(compression: Compression) -> Text:
    recipe, statistics = compression.recipe, compression.statistics
    mark = ">" if recipe.name is RecipeName.PAPER else "≥"
    meaning = _meaning(compression)
    lines = [f"regime    {statistics.regime.value}: {meaning}"]
    if any(frame.resolution is None for frame in statistics.per_frame):
        lines.append("          which frames get full resolution depends on the question")
    lines += [
        f"recipe    {recipe.name.value}, orientation {recipe.orientation.value}, context {recipe.context_length:,}",
        f"dropped   frames with similarity {mark} {recipe.dino_threshold:g}, tokens {mark} {recipe.stc_threshold:g}",
        f"seconds   {_seconds(compression.timing)}",
    ]
    return Text("\n".join(lines), style="dim")


def _meaning(compression: Compression) -> str:
    recipe, regime = compression.recipe, compression.statistics.regime
    if compression.video.is_still:
        return "a still: read at one resolution"
    if recipe.resolution is not FrameResolution.AUTO and regime is not Regime.SPATIAL:
        return f"{recipe.resolution} resolution for all was asked for"
    if regime is Regime.MIXED and not recipe.query_guided:
        return "full resolution evenly spread, low elsewhere"
    if regime is Regime.SPATIAL and not recipe.spatial_compression:
        return "too many frames: the end of the video is cut"
    return _REGIMES[regime]


def _seconds(timing: Timing) -> str:
    """The stages that took long enough to matter, the total, and beside it the load, which it does not count."""
    apart = ("load", "total", "first_token")
    stages = [f"{name} {value:.1f}" for name, value in vars(timing).items() if name not in apart and value >= 0.05]
    first = f", first token after {timing.first_token:.1f}" if timing.first_token else ""
    return " · ".join([*stages, f"total {timing.total:.1f}"]) + f" (load {timing.load:.1f} before{first})"


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}"


# --- evidence -------------------------------------------------------------------------------------------------------

# Of what was dropped or cut, how many stretches are told one by one, the longest first.
_SPANS = 5
_DIAGNOSTIC = {
    Regime.ALL_HIGH: "every frame is read at full resolution",
    Regime.MIXED: "every frame is read at the same resolution",
    Regime.SPATIAL: "every frame is read at the same resolution",
}
_WHY_DROPPED = {
    Fate.SIMILAR: "too similar",
    Fate.CAPPED: "only so many frames may stay",
    Fate.SPACED: "evenly spaced frames were asked for",
}


def evidence_told(compression: Compression, found: Evidence) -> Group:
    """The moments with the highest relevance, and what was not seen."""
    return Group(*_moments_told(compression, found), Text(), *_unseen_told(compression, found))


def _moments_told(compression: Compression, found: Evidence) -> Iterator[RenderableType]:
    yield Text("moments with the highest relevance for the question", style="bold")
    if not found.steers:
        yield Text(f"(a diagnostic: it decided nothing, {_why_diagnostic(compression)})", style="dim")
    if not found.moments:
        return
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), show_header=True, header_style="dim")
    table.add_column("")
    table.add_column("time")
    for heading in ("peak", "score", "above mean", "frames", "read at", "tokens", "of all"):
        table.add_column(heading, justify="right")
    for rank, moment in enumerate(found.moments, 1):
        table.add_row(
            f"{rank}",
            _stretch(moment),
            clock(moment.peak_s),
            f"{moment.relevance:.4g}",
            "" if moment.deviations is None else f"{moment.deviations:+.1f} σ",
            _numbers(moment.first_frame, moment.last_frame),
            _read_at(moment),
            f"{moment.tokens:,}",
            f"{moment.token_share:.1%}",
        )
    yield table


def _why_diagnostic(compression: Compression) -> str:
    if compression.recipe.resolution is not FrameResolution.AUTO:
        return f"{compression.recipe.resolution} resolution for all was asked for"
    if not compression.recipe.query_guided:
        return "full resolution is evenly spread"
    return _DIAGNOSTIC[compression.statistics.regime]


def _numbers(first: int, last: int) -> str:
    return f"{first}" if first == last else f"{first}–{last}"


def _read_at(moment: Moment) -> str:
    if moment.high_resolution in (0, moment.frames):
        return "full" if moment.resolution is Resolution.HIGH else "low"
    return f"{moment.high_resolution} of {moment.frames} full"


def _unseen_told(compression: Compression, found: Evidence) -> Iterator[RenderableType]:
    yield Text("not seen", style="bold")
    frames = compression.statistics.frames
    if not found.dropped and not found.truncated:
        yield Text("nothing: every sampled frame was kept, and no token cut for lack of room")
    if found.dropped:
        yield Text(f"{frames.sampled - frames.kept:,} of {frames.sampled:,} sampled frames, {_listed(found.dropped)}")
        yield Text("\n".join(f"  {_dropped(span)}" for span in _longest(found.dropped)))
    if found.truncated:
        cut = compression.statistics.truncated_tokens
        yield Text(f"{cut:,} tokens, cut for lack of room, {_listed(found.truncated)}")
        yield Text("\n".join(f"  {_truncated(span)}" for span in _longest(found.truncated)))


def _listed(spans: Sequence[DroppedSpan] | Sequence[TruncatedSpan]) -> str:
    stretches = "1 stretch" if len(spans) == 1 else f"{len(spans):,} stretches"
    return f"in {stretches}" + (f", the {_SPANS} longest:" if len(spans) > _SPANS else ":")


Span = TypeVar("Span", "DroppedSpan", "TruncatedSpan")


def _longest(spans: Sequence[Span]) -> list[Span]:
    """The longest, in order of time."""
    longest = sorted(spans, key=lambda span: (-span.frames, span.start_s))[:_SPANS]
    return sorted(longest, key=lambda span: span.start_s)


def _dropped(span: DroppedSpan) -> str:
    why = _WHY_DROPPED[span.fate]
    if span.resembles_s:
        times = ", ".join(clock(time) for time in span.resembles_s)
        why = f"like {times}" + (f" (similarity {span.similarity:.2f})" if span.similarity is not None else "")
    return f"{_stretch(span)}  {_count(span.frames)}, {why}"


def _truncated(span: TruncatedSpan) -> str:
    return f"{_stretch(span)}  {span.tokens:,} tokens of {_count(span.frames)}"


def _count(frames: int) -> str:
    return "1 frame" if frames == 1 else f"{frames:,} frames"
