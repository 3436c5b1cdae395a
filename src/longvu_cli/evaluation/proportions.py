"""How sure a share of right answers is, and a difference of two such shares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

# The standard normal distribution has 95 % of its mass between −z and z.
_Z = 1.959963984540054


@dataclass(frozen=True)
class Interval:
    """From where to where a share may reasonably lie."""

    low: float
    high: float


@dataclass(frozen=True)
class PairedDifference:
    """The mean difference of two methods that were tried on the same questions.

    Attributes:
        pairs: questions.
        standard_error: None for fewer than two questions.
    """

    pairs: int
    difference: float
    standard_error: float | None


def wilson(right: int, trials: int) -> Interval:
    """The 95 % interval of Wilson for a share of ``trials``; it stays within 0 and 1 and is never empty."""
    if not 0 <= right <= trials:
        raise ValueError(f"{right} of {trials} is no share")
    if trials == 0:
        return Interval(0.0, 1.0)
    share, spread = right / trials, _Z**2 / trials
    middle = (share + spread / 2) / (1 + spread)
    half = _Z / (1 + spread) * math.sqrt(share * (1 - share) / trials + spread / (4 * trials))
    # With none or all right one end is exact, but for rounding.
    return Interval(0.0 if right == 0 else middle - half, 1.0 if right == trials else middle + half)


def paired_difference(pairs: Sequence[tuple[bool, bool]]) -> PairedDifference:
    """The mean of one minus the other over the questions, with its standard error.

    Raises:
        ValueError: there are no questions.
    """
    if not pairs:
        raise ValueError("there are no pairs")
    differences = [int(one) - int(other) for one, other in pairs]
    count = len(differences)
    mean = sum(differences) / count
    if count < 2:
        return PairedDifference(count, mean, None)
    variance = sum((difference - mean) ** 2 for difference in differences) / (count - 1)
    return PairedDifference(count, mean, math.sqrt(variance / count))
