"""charts.py: numbers → geometry."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from longvu_cli.reporting.charts import MOST_CELLS, MOST_POINTS, Scale, line, strip, thinned, waterfall
from longvu_cli.statistics import (
    CompressionStatistics,
    FrameCounts,
    FrameStatistics,
    Regime,
    Resolution,
    TokenCounts,
)

HIGH, LOW = Resolution.HIGH, Resolution.LOW
ACROSS = Scale(0, 10)


def points_of(path: str) -> list[list[tuple[float, float]]]:
    """The points of each piece of a path."""
    return [
        [(float(x), float(y)) for x, y in re.findall(r"(-?[\d.]+) (-?[\d.]+)", piece)]
        for piece in path.split("M")
        if piece
    ]


def test_a_scale_goes_from_0_to_100() -> None:
    assert [Scale(2, 6)(value) for value in (2, 3, 6)] == [0, 25, 100]
    assert Scale(2, 2)(2) == 50


def test_a_line_is_high_where_its_value_is() -> None:
    made = line([0, 5, 10], [1, 3, 2], ACROSS)
    assert made is not None
    assert points_of(made.path) == [[(0, 94), (50, 6), (100, 50)]]
    assert (made.low, made.high, made.level) == (1, 3, None)


def test_a_missing_value_is_a_gap_and_a_lone_one_a_dot() -> None:
    made = line([0, 1, 2, 3, 4], [1, 2, None, 3, None], ACROSS)
    assert made is not None
    pieces = points_of(made.path)
    assert [len(piece) for piece in pieces] == [2, 1]
    assert made.path.endswith("h0.01")


def test_a_level_is_always_in_the_chart() -> None:
    above = line([0, 10], [0.2, 0.4], ACROSS, level=0.8)
    assert above is not None and above.level == 6
    within = line([0, 10], [0, 1], ACROSS, level=0.25)
    assert within is not None and within.level == pytest.approx(94 - 88 / 4)


def test_no_known_value_is_no_line() -> None:
    assert line([0, 1], [None, None], ACROSS) is None
    assert line([], [], ACROSS) is None


def test_a_thinned_line_keeps_its_peaks() -> None:
    points = [(float(number), 9.0 if number == 4567 else number % 7 / 7) for number in range(10_000)]
    kept = thinned(points, 100)
    assert len(kept) <= 100
    assert (4567.0, 9.0) in kept
    assert kept == sorted(kept)
    assert thinned(points[:100], 100) == points[:100]


def test_a_line_does_not_grow_with_its_video() -> None:
    made = line(range(40_000), [number % 13 / 13 for number in range(40_000)], Scale(0, 40_000))
    assert made is not None and len(points_of(made.path)[0]) <= MOST_POINTS


STATISTICS = CompressionStatistics(
    regime=Regime.MIXED,
    spatial_compression=False,
    text_tokens=10,
    visual_budget=300,
    frames=FrameCounts(10, 4, 1),
    tokens=TokenCounts(1000, 400, 250, 200),
    truncated_tokens=0,
    per_frame=tuple(
        FrameStatistics(index, float(index), kind, 0.5, 0.5, 10, 0)
        for index, kind in ((0, HIGH), (1, LOW), (5, LOW), (9, LOW))
    ),
)


def test_a_waterfall_says_what_is_left_and_what_went() -> None:
    bars = waterfall(STATISTICS)
    assert [bar.tokens for bar in bars] == [1000, 400, 250, 200]
    assert [bar.left for bar in bars] == [100, 40, 25, 20]
    assert [bar.removed for bar in bars] == [0, 60, 15, 5]


def test_a_waterfall_of_nothing() -> None:
    assert [bar.left for bar in waterfall(replace(STATISTICS, tokens=TokenCounts(0, 0, 0, 0)))] == [0, 0, 0, 0]


def test_a_strip_has_a_cell_per_frame_of_a_short_video() -> None:
    cells = strip(STATISTICS)
    assert [cell.high for cell in cells] == [100, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    assert [cell.low for cell in cells] == [0, 100, 0, 0, 0, 100, 0, 0, 0, 100]
    assert [cell.x for cell in cells] == pytest.approx(range(0, 100, 10))


def test_a_strip_of_a_long_video_has_shares() -> None:
    sampled = MOST_CELLS * 4
    frames = tuple(FrameStatistics(index, float(index), HIGH, 0.5, 0.5, 10, 0) for index in (0, 1, 4))
    cells = strip(replace(STATISTICS, frames=FrameCounts(sampled, 3, 3), per_frame=frames))
    assert len(cells) == MOST_CELLS
    assert [cell.high for cell in cells[:3]] == [50, 25, 0]
    assert sum(cell.width for cell in cells) == pytest.approx(100)
