"""What was kept, as numbers. Every count is a sum over the indices and masks that the compression steps returned."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Regime(StrEnum):
    """What the number of kept frames asks for (``compression/budget.py``)."""

    ALL_HIGH = "all_high"
    MIXED = "mixed"
    SPATIAL = "spatial"


class Fate(StrEnum):
    """What temporal reduction made of a sampled frame.

    Attributes:
        KEPT: it stays.
        SIMILAR: it went because it is too similar to its window (paper, §3.1).
        CAPPED: it stands out from its window, and went because only so many frames may stay.
        SPACED: it went because evenly spaced frames were asked for.
    """

    KEPT = "kept"
    SIMILAR = "similar"
    CAPPED = "capped"
    SPACED = "spaced"


class Resolution(StrEnum):
    """Which grid a kept frame is read at."""

    HIGH = "high"
    LOW = "low"


@dataclass(frozen=True)
class FrameCounts:
    """Frames that were sampled, that temporal reduction kept, and that are read at full resolution."""

    sampled: int
    kept: int
    high_resolution: int


@dataclass(frozen=True)
class TokenCounts:
    """Visual tokens, newline tokens included.

    Attributes:
        dense: every sampled frame at full resolution.
        after_temporal: every kept frame at full resolution.
        after_query: every kept frame at the resolution chosen for it.
        visual: what the language model reads.
    """

    dense: int
    after_temporal: int
    after_query: int
    visual: int


@dataclass(frozen=True)
class FrameStatistics:
    """One kept frame.

    Attributes:
        index: number among the sampled frames, from 0.
        time_s: presentation time, in seconds after the first frame of the file.
        resolution: None when it depends on a question that was not asked.
        relevance: score for the question (paper, eq. 1); None without a question.
        similarity: mean cosine similarity within the window (paper, §3.1); None where it was not computed.
        tokens: visual tokens that the language model reads of it; None as for ``resolution``.
        truncated_tokens: tokens of it that were cut only because the budget was full; None as for ``resolution``.
    """

    index: int
    time_s: float
    resolution: Resolution | None
    relevance: float | None
    similarity: float | None
    tokens: int | None
    truncated_tokens: int | None


@dataclass(frozen=True)
class CompressionStatistics:
    """What the compression did to one video.

    Attributes:
        regime: what the number of frames asked for.
        spatial_compression: whether spatial token compression ran.
        text_tokens: ids of the prompt, the video's place not counted.
        visual_budget: visual tokens there was room for (B).
        truncated_tokens: tokens cut only because the budget was full.
        per_frame: the kept frames, in order.
    """

    regime: Regime
    spatial_compression: bool
    text_tokens: int
    visual_budget: int
    frames: FrameCounts
    tokens: TokenCounts
    truncated_tokens: int
    per_frame: tuple[FrameStatistics, ...]


@dataclass(frozen=True)
class Timeline:
    """Every sampled frame, kept or not; the three have one length.

    Attributes:
        times: presentation times, in seconds after the first frame of the file.
        similarity: mean cosine similarity within the window; None where it was not computed.
        fates: what became of them.
    """

    times: tuple[float, ...]
    similarity: tuple[float | None, ...]
    fates: tuple[Fate, ...]
