"""evidence.py: moments, what was dropped, and what was cut, from hand-written scores; and the whole on real answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from compression.recipes import paper, released

from longvu_cli.config import CompressionOptions, ModelOptions, SamplingOptions, TemporalReduction
from longvu_cli.evidence import DroppedSpan, TruncatedSpan, dropped_spans, find_evidence, moments, truncated_spans
from longvu_cli.feature_cache import FeatureCache
from longvu_cli.longvu import LongVU
from longvu_cli.statistics import (
    CompressionStatistics,
    Fate,
    FrameCounts,
    FrameStatistics,
    Regime,
    Resolution,
    Timeline,
    TokenCounts,
)
from longvu_cli.weights import Part, tiny_folder
from longvu_cli.world.film import write_film
from longvu_cli.world.questions import Spans, questions
from longvu_cli.world.story import Split, story

HIGH, LOW = Resolution.HIGH, Resolution.LOW
KEPT, SIMILAR, CAPPED, SPACED = Fate.KEPT, Fate.SIMILAR, Fate.CAPPED, Fate.SPACED


def frames(scores: Sequence[float | None], indices: Sequence[int] | None = None) -> tuple[FrameStatistics, ...]:
    """Kept frames, one per second, that score like this."""
    numbers = range(len(scores)) if indices is None else indices
    return tuple(
        FrameStatistics(index, float(index), LOW, score, 0.2, 10, 0)
        for index, score in zip(numbers, scores, strict=True)
    )


def spans(scores: Sequence[float | None], count: int = 3, reach: int = 16) -> list[tuple[float, float, float]]:
    """Start, end and peak of each moment, in seconds; each frame stays on display for one."""
    ends = tuple(float(number + 1) for number in range(len(scores)))
    found = moments(frames(scores), ends, count=count, reach=reach)
    return [(moment.start_s, moment.end_s, moment.peak_s) for moment in found]


# --- moments --------------------------------------------------------------------------------------------------------


def test_a_frame_that_stands_out_is_a_moment() -> None:
    assert spans([0, 0, 0, 9, 0, 0, 0]) == [(3, 4, 3)]


def test_neighbours_with_high_scores_are_one_moment() -> None:
    assert spans([0, 0, 0, 0, 6, 9, 7, 0, 0, 0]) == [(4, 7, 5)]


def test_a_moment_ends_half_way_down() -> None:
    # The median is 0, the peak 8: 4 belongs to it, 3.9 does not, and is no moment of its own beside a higher frame.
    assert spans([0, 0, 0, 0, 0, 3.9, 4, 8, 4, 3.9, 0, 0, 0]) == [(6, 9, 7)]


def test_a_short_dip_does_not_end_a_moment_and_a_long_one_does() -> None:
    assert spans([0] * 9 + [8, 1, 1, 7] + [0] * 9) == [(9, 13, 9)]
    assert spans([0] * 9 + [8, 1, 1, 1, 7] + [0] * 9) == [(9, 10, 9), (13, 14, 13)]


def test_a_dip_among_frames_far_apart_ends_a_moment() -> None:
    kept = frames([0, 0, 0, 9, 1, 8, 0, 0, 0], [0, 8, 16, 24, 32, 40, 48, 56, 64])
    found = moments(kept, tuple(range(1, 66)), count=2, reach=16)
    assert [(moment.first_frame, moment.last_frame) for moment in found] == [(24, 24), (40, 40)]


def test_a_dip_at_its_end_does_not_belong_to_a_moment() -> None:
    assert spans([0] * 9 + [8, 7, 1, 1] + [0] * 9)[0] == (9, 11, 9)


def test_the_best_moment_comes_first_and_no_more_than_asked_for() -> None:
    scores = [0, 0, 5, 0, 0, 0, 9, 0, 0, 0, 7, 0, 0]
    assert spans(scores) == [(6, 7, 6), (10, 11, 10), (2, 3, 2)]
    assert spans(scores, count=2) == [(6, 7, 6), (10, 11, 10)]


def test_what_is_no_more_relevant_than_usual_is_no_moment() -> None:
    assert spans([1, 9, 1, 1, 1, 1]) == [(1, 2, 1)]
    # 2 is more than its neighbours, and less than the median.
    assert spans([5, 5, 9, 5, 5, 1, 2, 1, 5, 5]) == [(2, 3, 2)]


def test_where_all_score_alike_the_whole_is_one_moment() -> None:
    assert spans([2, 2, 2, 2]) == [(0, 4, 0)]
    assert spans([2]) == [(0, 1, 0)]


def test_scores_may_be_negative() -> None:
    assert spans([-9, -9, -2, -3, -9, -9]) == [(2, 4, 2)]


def test_the_same_scores_give_the_earlier_moment_first() -> None:
    assert spans([0, 9, 0, 0, 0, 9, 0]) == [(1, 2, 1), (5, 6, 5)]


def test_moments_do_not_overlap() -> None:
    scores = [0.0, 9.0, 3.0, 1.0, 1.0, 1.0, 8.0, 5.0, 6.0, 0.0, 2.0, 0.0, 0.0, 0.5, 0.0, 0.0, 0.0]
    found = sorted(spans(scores, count=17))
    assert all(end <= start for (_, end, _), (start, _, _) in pairwise(found))


def test_frames_far_apart_belong_to_different_moments() -> None:
    kept = frames([0, 9, 8, 0, 0, 0], [0, 10, 26, 30, 31, 32])
    ends = tuple(float(number + 1) for number in range(33))
    near = moments(kept, ends, count=3, reach=16)
    assert [(moment.first_frame, moment.last_frame) for moment in near] == [(10, 26)]
    far = moments(kept, ends, count=3, reach=15)
    assert [(moment.first_frame, moment.last_frame) for moment in far] == [(10, 10), (26, 26)]


def test_a_moment_reaches_over_dropped_frames_and_ends_with_the_next_sampled_one() -> None:
    kept = frames([0, 9, 9, 0, 0], [0, 8, 12, 13, 20])
    ends = tuple(0.5 * (number + 1) for number in range(21))
    (found,) = moments(kept, ends, count=1, reach=16)
    assert (found.first_frame, found.last_frame, found.frames, found.end_s) == (8, 12, 2, 6.5)


def test_a_moment_counts_what_is_read_of_it() -> None:
    own = list(frames([0, 0, 0, 6, 8, 7, 0, 0]))
    own[4] = replace(own[4], resolution=HIGH, tokens=30)
    (found,) = moments(own, tuple(range(1, 9)), count=1, reach=16)
    assert (found.frames, found.high_resolution, found.resolution, found.relevance) == (3, 1, HIGH, 8)
    assert (found.tokens, found.token_share) == (50, pytest.approx(50 / 100))
    # Mean 2.625, and the standard deviation of the eight scores.
    assert found.deviations == pytest.approx((8 - 2.625) / 3.4256, abs=1e-3)


def test_where_all_score_alike_nothing_stands_out() -> None:
    assert moments(frames([2, 2]), (1, 2), count=1, reach=16)[0].deviations is None


def test_without_a_question_there_are_no_moments() -> None:
    assert spans([None, None]) == []
    assert spans([]) == []


# --- what was dropped -----------------------------------------------------------------------------------------------


def timeline(fates: Sequence[Fate], similarity: Sequence[float | None] | None = None) -> Timeline:
    values = [0.9] * len(fates) if similarity is None else similarity
    return Timeline(tuple(map(float, range(len(fates)))), tuple(values), tuple(fates))


def dropped(line: Timeline, window: int = 4) -> tuple[DroppedSpan, ...]:
    return dropped_spans(line, (*line.times[1:], line.times[-1] + 1), window=window)


def test_neighbours_that_were_dropped_are_one_span_with_the_frames_that_stand_for_them() -> None:
    # Windows of four: 0–3 is stood for by 1, 4–7 by 6.
    line = timeline([SIMILAR, KEPT, SIMILAR, SIMILAR, SIMILAR, SIMILAR, KEPT, KEPT], [0.8, 0, 0.9, 0.9, 0.7, 0.5, 0, 0])
    first, second = dropped(line)
    assert first == DroppedSpan(0.0, 1.0, 1, SIMILAR, 0.8, (1.0,))
    assert second == DroppedSpan(2.0, 6.0, 4, SIMILAR, pytest.approx(0.75), (1.0, 6.0))


def test_the_nearest_kept_frame_of_the_window_stands_for_a_dropped_one() -> None:
    (span,) = dropped(timeline([KEPT, SIMILAR, KEPT, KEPT]))
    assert span.resembles_s == (0.0,)
    (span,) = dropped(timeline([KEPT, KEPT, KEPT, SIMILAR]))
    assert span.resembles_s == (2.0,)


def test_a_frame_of_another_window_stands_for_nothing() -> None:
    # A cap took the only frame that the second window had kept.
    spans = dropped(timeline([KEPT, KEPT, KEPT, KEPT, SIMILAR, CAPPED, SIMILAR, SIMILAR, KEPT]))
    assert [(span.fate, span.frames, span.resembles_s) for span in spans] == [
        (SIMILAR, 1, ()),
        (CAPPED, 1, ()),
        (SIMILAR, 2, ()),
    ]


def test_what_was_left_out_for_even_spaces_resembles_nothing_known() -> None:
    (span,) = dropped(timeline([KEPT, SPACED, SPACED, KEPT], [None] * 4))
    assert span == DroppedSpan(1.0, 3.0, 2, SPACED, None, ())


def test_the_last_frames_may_be_dropped_and_nothing_may_be() -> None:
    assert [span.end_s for span in dropped(timeline([KEPT, SIMILAR]))] == [2.0]
    assert dropped(timeline([KEPT, KEPT])) == ()


# --- what was cut ---------------------------------------------------------------------------------------------------


def test_neighbours_that_were_cut_are_one_span() -> None:
    kept = [
        replace(frame, truncated_tokens=cut)
        for frame, cut in zip(frames([None] * 5, [0, 4, 8, 9, 12]), (3, 0, 2, 5, 1), strict=True)
    ]
    ends = tuple(float(number + 1) for number in range(13))
    assert truncated_spans(kept, ends) == (TruncatedSpan(0, 1, 1, 3), TruncatedSpan(8, 13, 3, 8))
    assert truncated_spans(frames([None] * 3), ends) == ()


# --- whether the score steers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("high", "recipe", "steers"),
    [
        (2, released(), True),
        (2, paper(), True),
        (0, released(), False),
        (4, released(), False),
        (2, released(query_guided=False), False),
    ],
)
def test_the_score_steers_where_some_frames_are_read_at_full_resolution_for_the_question(
    high: int, recipe: object, steers: bool
) -> None:
    statistics = CompressionStatistics(
        regime=Regime.MIXED,
        spatial_compression=False,
        text_tokens=1,
        visual_budget=100,
        frames=FrameCounts(4, 4, high),
        tokens=TokenCounts(40, 40, 40, 40),
        truncated_tokens=0,
        per_frame=frames([1, 2, 3, 4]),
    )
    found = find_evidence(statistics, timeline([KEPT] * 4), recipe, step_s=1.0, count=1)  # type: ignore[arg-type]
    assert found.steers is steers
    assert found.moments[0].end_s == 4.0


# --- of real videos -------------------------------------------------------------------------------------------------


def test_the_evidence_of_a_compression_adds_up(qwen: LongVU, parity: Path) -> None:
    compression = qwen.compress(
        parity / "tiny_context.mkv",
        "Where is the cup?",
        compression=CompressionOptions(context_length=1600, dino_threshold=0.6),
    )
    found = compression.evidence(1000)
    counts = compression.statistics.frames
    assert sum(span.frames for span in found.dropped) == counts.sampled - counts.kept > 0
    assert {span.fate for span in found.dropped} == {SIMILAR}
    kept_times = {frame.time_s for frame in compression.statistics.per_frame}
    for span in found.dropped:
        assert span.resembles_s and set(span.resembles_s) <= kept_times
        assert span.similarity is not None and span.similarity >= 0.6
    best = max(compression.statistics.per_frame, key=lambda frame: frame.relevance or 0.0)
    assert found.moments[0].peak_frame == best.index
    assert sum(moment.tokens for moment in found.moments) <= compression.statistics.tokens.visual
    assert len(compression.evidence(2).moments) <= 2


def test_what_was_cut_is_told_by_time(qwen: LongVU, parity: Path) -> None:
    """The end of the video is cut where spatial token compression is switched off."""
    compression = qwen.compress(
        parity / "tiny_context.mkv",
        "Where is the cup?",
        compression=CompressionOptions(
            temporal_reduction=TemporalReduction.NONE, context_length=900, spatial_compression=False
        ),
    )
    (cut,) = compression.evidence().truncated
    assert cut.tokens == compression.statistics.truncated_tokens > 0
    assert cut.end_s == pytest.approx(30, abs=0.1)
    assert cut.frames == sum(1 for frame in compression.statistics.per_frame if frame.truncated_tokens)


def test_a_frame_that_is_sampled_repeatedly_is_on_display_all_the_while(qwen: LongVU, parity: Path) -> None:
    compression = qwen.compress(parity / "one_frame.mkv", "Where is the cup?", sampling=SamplingOptions(fps=4))
    assert compression.statistics.frames.sampled == 4
    (moment,) = compression.evidence().moments
    assert (moment.start_s, moment.end_s, moment.frames) == (0.0, 1.0, 4)


# --- of the world that the tiny model knows -------------------------------------------------------------------------

# Kinds of question about one thing.
KINDS = ("colour", "place", "direction", "when", "often", "needle", "yes_no")


@pytest.mark.skipif(not (tiny_folder() / "model.safetensors").is_file(), reason="the tiny model is not installed")
def test_the_first_moment_shows_what_was_asked_for(tmp_path: Path) -> None:
    """Whether the relevance steers or not. Few films here; bench/evidence.py measures it on many."""
    tiny = LongVU.from_pretrained(
        "tiny", part=Part.QUESTION, options=ModelOptions(device="cpu"), cache=FeatureCache(tmp_path / "features")
    )
    right: list[bool] = []
    for number, seconds in ((20_001, 14), (20_002, 18)):
        told = story(Split.TEST.seed(number), seconds)
        film = tmp_path / f"{number}.mp4"
        write_film(told, film, fps=2)
        for question in [one for one in questions(told) if one.kind in KINDS and one.evidence][:6]:
            for steers, context_length in ((False, 4096), (True, 420)):
                compression = tiny.compress(
                    film, question.text, compression=CompressionOptions(context_length=context_length)
                )
                found = compression.evidence(1)
                assert found.steers is steers
                right.append(shows(question.evidence, found.moments[0].peak_s))
    assert len(right) == 24
    assert sum(right) >= 23


def shows(evidence: Spans, moment_s: float) -> bool:
    return any(start <= moment_s < end for start, end in evidence)
