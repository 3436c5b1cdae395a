"""A very long video, asked piece by piece: what no single question would see of it.

A question about a whole video sees 400 frames of it at most (released recipe), and where even those are too many
tokens, not its end. Here the video is cut into segments in which no frame has to go for lack of room; a segment of
which tokens were cut all the same is halved. Every segment is asked the same question.

The answers are merged by a rule, not by a model: a question has the answer of the segment whose best frame is most
relevant for it (paper, eq. 1: the scores of one question are comparable), and descriptions are put one after another.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from longvu_cli.config import (
    RELEASED_FRAME_CAP,
    CompressionOptions,
    GenerationOptions,
    PromptOptions,
    SamplingOptions,
)
from longvu_cli.errors import LongVUError, NoFrames
from longvu_cli.moments import clock
from longvu_cli.pipeline import Progress
from longvu_cli.results import Answer
from longvu_cli.statistics import FrameStatistics
from longvu_cli.video import Video

if TYPE_CHECKING:
    from longvu_cli.longvu import LongVU

# Sampled frames of a segment: as many as are ever kept.
_MOST_FRAMES = RELEASED_FRAME_CAP
# A segment of fewer sampled frames is not halved, whatever was cut of it.
_FEWEST_FRAMES = 32


class Merge(StrEnum):
    """How the answers of the segments become one."""

    RELEVANCE = "relevance"
    """That of the segment with the most relevant frame."""
    ORDER = "order"
    """All, one after another."""


@dataclass(frozen=True)
class Segment:
    """A part of a video, with what was answered about it.

    Attributes:
        start_s, end_s: from when to when, in seconds after the first frame of the file; None: to its end.
        answer: None where it failed.
        error: why it failed.
        number, total: it is the n-th of as many, as far as is known by now.
    """

    start_s: float
    end_s: float | None
    answer: Answer | None
    error: LongVUError | None
    number: int
    total: int

    @property
    def best(self) -> FrameStatistics | None:
        """The frame that is most relevant for the question; None: nothing was scored."""
        frames = () if self.answer is None else self.answer.compression.statistics.per_frame
        scored = [frame for frame in frames if frame.relevance is not None]
        return max(scored, key=lambda frame: frame.relevance or 0.0, default=None)

    @property
    def span(self) -> str:
        """``6:40–13:20``, or ``6:40–end``."""
        return f"{clock(int(self.start_s))}–{'end' if self.end_s is None else clock(int(self.end_s))}"


@dataclass(frozen=True)
class Covered:
    """The answers of all segments, merged.

    Attributes:
        segments: in order of time.
        chosen: the segment whose answer it is; the first that has one where all are put one after another.
        text: the merged answer.
    """

    segments: tuple[Segment, ...]
    merge: Merge
    chosen: Segment
    text: str

    @property
    def told(self) -> tuple[Segment, ...]:
        """The segments whose answers are part of the merged one."""
        if self.merge is Merge.RELEVANCE:
            return (self.chosen,)
        return tuple(segment for segment in self.segments if segment.answer is not None)

    @property
    def is_complete(self) -> bool:
        """Whether no frame or token had to go for lack of room in any of the segments."""
        answers = [segment.answer for segment in self.segments]
        return all(
            answer is not None
            and not answer.compression.statistics.truncated_tokens
            and answer.compression.statistics.frames.sampled <= _MOST_FRAMES
            for answer in answers
        )

    @property
    def answer(self) -> Answer:
        """The answer of the chosen segment."""
        assert self.chosen.answer is not None, "a segment that failed is not chosen"
        return self.chosen.answer


def ask_segments(
    model: LongVU,
    video: str | Path,
    question: str,
    *,
    sampling: SamplingOptions,
    compression: CompressionOptions,
    prompting: PromptOptions,
    generation: GenerationOptions,
    on_progress: Progress,
) -> Generator[Segment, None, None]:
    """Ask the question of each part of a video, in order of time, as they are answered.

    A video that fits as it is, or whose length is not known, is one segment. What fails in one does not touch the
    others.

    Raises:
        VideoError: the video cannot be opened.
    """
    with Video(video, sampling) as opened:
        duration_s, sampling = opened.info.duration_s, opened.sampling
    left = _cut(sampling, duration_s)
    done = 0
    while left:
        now = left.pop(0)
        try:
            answer = model.answer(
                video,
                question,
                sampling=now,
                compression=compression,
                prompting=prompting,
                generation=generation,
                on_progress=on_progress,
            )
        except NoFrames:
            if not done:
                raise
            return  # the header promised more than there is
        except LongVUError as error:
            failed: LongVUError | None = error
            answered: Answer | None = None
        else:
            halves = _halves(now, answer)
            if halves:
                left[:0] = halves
                continue
            failed, answered = None, answer
        done += 1
        yield Segment(now.start_s, now.end_s, answered, failed, number=done, total=done + len(left))


def merged(segments: Sequence[Segment], merge: Merge) -> Covered:
    """One answer of many.

    Raises:
        LongVUError: that of the first segment, when all have failed.
    """
    answered = [segment for segment in segments if segment.answer is not None]
    if not answered:
        raise next(segment.error for segment in segments if segment.error is not None)
    if merge is Merge.ORDER:
        parts = [(segment.span, segment.answer.text) for segment in answered if segment.answer is not None]
        text = parts[0][1] if len(segments) == 1 else "\n".join(f"[{span}] {said}" for span, said in parts)
        return Covered(tuple(segments), merge, answered[0], text)
    chosen = max(answered, key=_relevance)  # of equals, the first
    assert chosen.answer is not None
    return Covered(tuple(segments), merge, chosen, chosen.answer.text)


def _relevance(segment: Segment) -> float:
    best = segment.best
    return -math.inf if best is None or best.relevance is None else best.relevance


def _cut(sampling: SamplingOptions, duration_s: float | None) -> list[SamplingOptions]:
    """Equal parts of at most as many sampled frames as are ever kept; their borders are sampled moments."""
    if duration_s is None:
        return [sampling]
    end_s = duration_s if sampling.end_s is None else min(duration_s, sampling.end_s)
    frames = math.ceil((end_s - sampling.start_s) * sampling.fps)
    parts = max(1, math.ceil(frames / _MOST_FRAMES))
    borders = [sampling.start_s + (part * frames // parts) / sampling.fps for part in range(parts)]
    # The last one has no end of its own: the header may promise too little.
    return [
        replace(sampling, start_s=start, end_s=end)
        for start, end in zip(borders, [*borders[1:], sampling.end_s], strict=True)
    ]


def _halves(whole: SamplingOptions, answer: Answer) -> list[SamplingOptions]:
    """The two parts of a segment of which tokens were cut, where it is long enough."""
    statistics = answer.compression.statistics
    if not statistics.truncated_tokens or statistics.frames.sampled < _FEWEST_FRAMES:
        return []
    middle_s = whole.start_s + (statistics.frames.sampled // 2) / whole.fps
    return [replace(whole, end_s=middle_s), replace(whole, start_s=middle_s)]
