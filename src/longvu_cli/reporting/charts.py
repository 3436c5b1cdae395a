"""Numbers → the geometry of small charts, in units of a square with sides of 100; y grows downwards, as in SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from longvu_cli.statistics import CompressionStatistics, Resolution

# A line has no more points than this, and a strip no more cells: a page does not grow with its video.
MOST_POINTS, MOST_CELLS = 1_200, 240
# Left free above and below a line, in hundredths of the height.
_MARGIN = 6.0

Point = tuple[float, float]


@dataclass(frozen=True)
class Scale:
    """Numbers → from 0 (``low``) to 100 (``high``)."""

    low: float
    high: float

    def __call__(self, value: float) -> float:
        """Where a number lies; the middle where all are the same."""
        if self.high <= self.low:
            return 50.0
        return 100.0 * (value - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class Line:
    """A curve.

    Attributes:
        path: SVG path data; a gap wherever a value is missing.
        low, high: the least and the greatest value drawn.
        level: how far down a given value lies, such as a threshold; None: outside the chart, or not asked for.
    """

    path: str
    low: float
    high: float
    level: float | None


@dataclass(frozen=True)
class Bar:
    """A step of a waterfall, in hundredths of the largest.

    Attributes:
        tokens: that are left after the step.
        left, removed: their share of the first step, and that of those that the step took away.
    """

    name: str
    tokens: int
    left: float
    removed: float


@dataclass(frozen=True)
class Cell:
    """A piece of the time line.

    Attributes:
        x, width: where it lies.
        high, low: share of its sampled frames that are read at full resolution, and at low (or that were kept, where
            the resolution waits for a question), in hundredths.
    """

    x: float
    width: float
    high: float
    low: float


def line(
    times: Sequence[float], values: Sequence[float | None], across: Scale, *, level: float | None = None
) -> Line | None:
    """A curve over time; None where no value is known.

    Args:
        across: of the time.
        level: a value to be marked; the chart is made to show it.
    """
    known = [value for value in values if value is not None]
    if not known:
        return None
    low, high = min(known), max(known)
    shown = [*known, *([] if level is None else [level])]
    up = Scale(min(shown), max(shown))

    def down(value: float) -> float:
        return _MARGIN + (100 - 2 * _MARGIN) * (1 - up(value) / 100)

    pieces: list[str] = []
    for run in _runs(times, values):
        points = [(across(time), down(value)) for time, value in thinned(run, MOST_POINTS)]
        pieces.append(f"M{_pair(points[0])}" + "".join(f"L{_pair(point)}" for point in points[1:]))
        if len(points) == 1:
            pieces.append("h0.01")
    return Line("".join(pieces), low, high, None if level is None else down(level))


def _runs(times: Sequence[float], values: Sequence[float | None]) -> list[list[Point]]:
    """Stretches without a missing value."""
    runs: list[list[Point]] = []
    before: float | None = None
    for time, value in zip(times, values, strict=True):
        if value is not None:
            if before is None:
                runs.append([])
            runs[-1].append((time, value))
        before = value
    return runs


def thinned(points: Sequence[Point], most: int) -> list[Point]:
    """No more than about ``most`` points: of each stretch the lowest and the highest, so that no peak is lost."""
    if len(points) <= most:
        return list(points)
    stretches = most // 2
    kept: list[Point] = []
    for number in range(stretches):
        own = points[number * len(points) // stretches : (number + 1) * len(points) // stretches]
        extremes = {min(own, key=lambda point: point[1]), max(own, key=lambda point: point[1])}
        kept += sorted(extremes)
    return kept


def _pair(point: Point) -> str:
    return f"{point[0]:.2f} {point[1]:.2f}"


def waterfall(statistics: CompressionStatistics) -> tuple[Bar, ...]:
    """What each step left of the dense tokens."""
    tokens = statistics.tokens
    steps = (
        ("sampled, at full resolution", tokens.dense),
        ("after temporal reduction", tokens.after_temporal),
        ("after query-guided resolution", tokens.after_query),
        ("read by the language model", tokens.visual),
    )
    most = max(1, max(count for _, count in steps))
    bars: list[Bar] = []
    before = tokens.dense
    for name, count in steps:
        bars.append(Bar(name, count, 100 * count / most, 100 * max(0, before - count) / most))
        before = count
    return tuple(bars)


def strip(statistics: CompressionStatistics) -> tuple[Cell, ...]:
    """The time line in pieces: how much of each is read, and how."""
    sampled = statistics.frames.sampled
    cells = min(MOST_CELLS, sampled)
    totals, highs, lows = [0] * cells, [0] * cells, [0] * cells
    for index in range(sampled):
        totals[index * cells // sampled] += 1
    for frame in statistics.per_frame:
        own = highs if frame.resolution is Resolution.HIGH else lows
        own[frame.index * cells // sampled] += 1
    width = 100 / cells if cells else 100.0
    return tuple(
        Cell(number * width, width, 100 * high / total, 100 * low / total)
        for number, (total, high, low) in enumerate(zip(totals, highs, lows, strict=True))
    )
