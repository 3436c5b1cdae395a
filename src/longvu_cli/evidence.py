"""What an answer rests on, and what it cannot rest on: moments of high relevance, and what the model did not see."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, median, pstdev

from longvu_cli.config import Recipe
from longvu_cli.statistics import CompressionStatistics, Fate, FrameStatistics, Resolution, Timeline

# A moment reaches as far as its frames score at least this share of the way from the video's usual score to its peak.
_SHARE_OF_PEAK = 0.5
# … and further, where no more than this many sampled frames in a row score less.
_LONGEST_DIP = 2


@dataclass(frozen=True)
class Moment:
    """Neighbouring kept frames that answer to the question.

    Attributes:
        start_s, end_s: from the display of its first frame to that of the sampled frame after its last.
        peak_s: when its frame with the highest relevance is shown.
        first_frame, last_frame, peak_frame: numbers among the sampled frames.
        frames: kept frames in it.
        high_resolution: how many of them are read at full resolution.
        resolution: of the frame at the peak.
        relevance: score of the frame at the peak (paper, eq. 1).
        deviations: standard deviations by which that is above the mean of all kept frames; None where all score alike.
        tokens: visual tokens that the language model reads of it.
        token_share: their share of all visual tokens.
    """

    start_s: float
    end_s: float
    peak_s: float
    first_frame: int
    last_frame: int
    peak_frame: int
    frames: int
    high_resolution: int
    resolution: Resolution
    relevance: float
    deviations: float | None
    tokens: int
    token_share: float


@dataclass(frozen=True)
class DroppedSpan:
    """Neighbouring sampled frames that temporal reduction dropped.

    Attributes:
        start_s, end_s: from the display of its first frame to that of the sampled frame after its last.
        frames: how many.
        fate: why.
        similarity: their mean similarity with their windows; None where it was not computed.
        resembles_s: for frames that are too similar, when the kept frames are shown that stand for them: each time the
            nearest one of the same window.
    """

    start_s: float
    end_s: float
    frames: int
    fate: Fate
    similarity: float | None
    resembles_s: tuple[float, ...]


@dataclass(frozen=True)
class TruncatedSpan:
    """Neighbouring kept frames of which tokens were cut only because the budget was full.

    Attributes:
        start_s, end_s: from the display of its first frame to that of the sampled frame after its last.
        frames: how many.
        tokens: how many of their tokens were cut.
    """

    start_s: float
    end_s: float
    frames: int
    tokens: int


@dataclass(frozen=True)
class Evidence:
    """What an answer rests on.

    Attributes:
        steers: whether the relevance decided which frames are read at full resolution; else it is a diagnostic.
        moments: those with the highest relevance, the best first; none without a question.
        dropped, truncated: what the model did not see, in order of time.
    """

    steers: bool
    moments: tuple[Moment, ...]
    dropped: tuple[DroppedSpan, ...]
    truncated: tuple[TruncatedSpan, ...]


def find_evidence(
    compressed: CompressionStatistics, timeline: Timeline, recipe: Recipe, *, step_s: float, count: int
) -> Evidence:
    """The evidence in what was kept of a video.

    Args:
        recipe: that it was compressed with.
        step_s: seconds between sampled frames.
        count: moments at most.
    """
    ends = _ends(timeline, step_s)
    return Evidence(
        steers=recipe.query_guided and 0 < compressed.frames.high_resolution < compressed.frames.kept,
        moments=moments(compressed.per_frame, ends, count=count, reach=recipe.temporal_window),
        dropped=dropped_spans(timeline, ends, window=recipe.temporal_window),
        truncated=truncated_spans(compressed.per_frame, ends),
    )


def moments(frames: Sequence[FrameStatistics], ends: Sequence[float], *, count: int, reach: int) -> tuple[Moment, ...]:
    """The moments with the highest relevance, the best first.

    A peak is a frame that scores no less than its kept neighbours, and more than the median frame. A moment is a
    peak with the frames around it, as far as they score at least half-way from the median to the peak; a dip of two
    frames does not end it. Frames that are further apart than ``reach`` belong to different moments: what lies between
    them was not seen.

    Args:
        frames: the kept frames, in order.
        ends: by number among the sampled frames, when it goes off display.
        count: moments at most; there may be fewer.
        reach: sampled frames.
    """
    scores = [frame.relevance for frame in frames if frame.relevance is not None]
    if not scores or len(scores) < len(frames):
        return ()
    usual, mean, spread = median(scores), fmean(scores), pstdev(scores)
    all_tokens = sum(frame.tokens or 0 for frame in frames)
    free = [True] * len(frames)
    found: list[Moment] = []
    for peak in sorted(range(len(frames)), key=lambda position: -scores[position]):
        if len(found) == count or (found and scores[peak] <= usual):
            break
        if not free[peak] or not _is_peak(peak, scores, frames, reach):
            continue
        level = usual + _SHARE_OF_PEAK * (scores[peak] - usual)
        first, last = (_grown(peak, step, level, scores, frames, free, reach) for step in (-1, 1))
        free[first : last + 1] = [False] * (last + 1 - first)
        found.append(
            _moment(
                frames[first : last + 1],
                frames[peak],
                ends,
                deviations=(scores[peak] - mean) / spread if spread > 0 else None,
                all_tokens=all_tokens,
            )
        )
    return tuple(found)


def _is_peak(position: int, scores: Sequence[float], frames: Sequence[FrameStatistics], reach: int) -> bool:
    """Whether no frame beside it, or beside those beside it that score the same, scores more."""
    for step in (-1, 1):
        here = position
        while 0 <= (other := here + step) < len(frames) and abs(frames[other].index - frames[here].index) <= reach:
            if scores[other] != scores[position]:
                break
            here = other
        else:
            continue
        if scores[other] > scores[position]:
            return False
    return True


def _grown(
    peak: int,
    step: int,
    level: float,
    scores: Sequence[float],
    frames: Sequence[FrameStatistics],
    free: Sequence[bool],
    reach: int,
) -> int:
    """How far a moment goes from its peak in one direction."""
    reached = other = peak
    while 0 <= (other := other + step) < len(frames) and free[other]:
        in_dip = abs(other - reached) > 1
        if abs(frames[other].index - frames[reached].index) > (1 + _LONGEST_DIP if in_dip else reach):
            break
        if scores[other] >= level:
            reached = other
    return reached


def _moment(
    own: Sequence[FrameStatistics],
    peak: FrameStatistics,
    ends: Sequence[float],
    *,
    deviations: float | None,
    all_tokens: int,
) -> Moment:
    assert peak.relevance is not None and peak.resolution is not None, "with a question everything is decided"
    tokens = sum(frame.tokens or 0 for frame in own)
    return Moment(
        start_s=own[0].time_s,
        end_s=ends[own[-1].index],
        peak_s=peak.time_s,
        first_frame=own[0].index,
        last_frame=own[-1].index,
        peak_frame=peak.index,
        frames=len(own),
        high_resolution=sum(frame.resolution is Resolution.HIGH for frame in own),
        resolution=peak.resolution,
        relevance=peak.relevance,
        deviations=deviations,
        tokens=tokens,
        token_share=tokens / all_tokens if all_tokens else 0.0,
    )


def dropped_spans(timeline: Timeline, ends: Sequence[float], *, window: int) -> tuple[DroppedSpan, ...]:
    """What temporal reduction dropped: neighbouring frames with one fate.

    Args:
        ends: by number among the sampled frames, when it goes off display.
        window: sampled frames that are compared with each other.
    """
    return tuple(_dropped(run, timeline, ends, window) for run in _runs(timeline.fates))


def _runs(fates: Sequence[Fate]) -> Iterator[range]:
    """Stretches of one fate other than being kept."""
    start = 0
    for index in range(1, len(fates) + 1):
        if index == len(fates) or fates[index] is not fates[start]:
            if fates[start] is not Fate.KEPT:
                yield range(start, index)
            start = index


def _dropped(run: range, timeline: Timeline, ends: Sequence[float], window: int) -> DroppedSpan:
    similarities = [value for value in timeline.similarity[run.start : run.stop] if value is not None]
    fate = timeline.fates[run.start]
    similar = fate is Fate.SIMILAR
    standing = {kept for index in run for kept in _nearest_kept(index, timeline.fates, window)} if similar else set()
    return DroppedSpan(
        start_s=timeline.times[run.start],
        end_s=ends[run.stop - 1],
        frames=len(run),
        fate=fate,
        similarity=fmean(similarities) if similarities else None,
        resembles_s=tuple(timeline.times[index] for index in sorted(standing)),
    )


def _nearest_kept(index: int, fates: Sequence[Fate], window: int) -> list[int]:
    """The nearest kept frame of the same window; none where a cap left none."""
    begin = index - index % window
    kept = [other for other in range(begin, min(begin + window, len(fates))) if fates[other] is Fate.KEPT]
    return sorted(kept, key=lambda other: abs(other - index))[:1]


def truncated_spans(frames: Sequence[FrameStatistics], ends: Sequence[float]) -> tuple[TruncatedSpan, ...]:
    """Of which stretches of the kept frames tokens were cut.

    Args:
        frames: the kept frames, in order.
        ends: by number among the sampled frames, when it goes off display.
    """
    spans: list[TruncatedSpan] = []
    own: list[FrameStatistics] = []
    for frame in (*frames, None):
        if frame is not None and frame.truncated_tokens:
            own.append(frame)
        elif own:
            cut = sum(one.truncated_tokens or 0 for one in own)
            spans.append(TruncatedSpan(own[0].time_s, ends[own[-1].index], len(own), cut))
            own = []
    return tuple(spans)


def _ends(timeline: Timeline, step_s: float) -> tuple[float, ...]:
    """By number among the sampled frames, when it goes off display; one that was sampled repeatedly does so once."""
    times = timeline.times
    ends: list[float] = []
    for index in reversed(range(len(times))):
        if index + 1 == len(times):
            ends.append(times[index] + step_s * times.count(times[index]))
        else:
            ends.append(times[index + 1] if times[index + 1] > times[index] else ends[-1])
    return tuple(reversed(ends))
