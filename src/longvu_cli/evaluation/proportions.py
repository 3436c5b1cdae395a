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
        standard_error: None for fewer than two questions (of a group, where it is a mean over groups).
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


def mean_of_differences(groups: Sequence[PairedDifference]) -> PairedDifference:
    """The mean of the differences of several groups, each counting the same; their errors are independent.

    Raises:
        ValueError: there are no groups.
    """
    if not groups:
        raise ValueError("there are no groups")
    errors = [group.standard_error for group in groups if group.standard_error is not None]
    return PairedDifference(
        pairs=sum(group.pairs for group in groups),
        difference=sum(group.difference for group in groups) / len(groups),
        standard_error=math.hypot(*errors) / len(groups) if len(errors) == len(groups) else None,
    )


def mean_of_shares(counts: Sequence[tuple[int, int]]) -> tuple[float, Interval]:
    """The mean of the shares of several groups, each counting the same, with its 95 % interval.

    The interval combines Wilson's of the groups (Newcombe): the distances of their ends
    from the shares add up as those of independent errors do.

    Args:
        counts: (right, trials) of each group.

    Raises:
        ValueError: there are no groups, or one has no trials.
    """
    if not counts or any(not trials for _, trials in counts):
        raise ValueError("there is a group without trials, or none at all")
    shares = [right / trials for right, trials in counts]
    intervals = [wilson(right, trials) for right, trials in counts]
    mean = sum(shares) / len(shares)
    below = math.hypot(*(share - interval.low for share, interval in zip(shares, intervals, strict=True)))
    above = math.hypot(*(interval.high - share for share, interval in zip(shares, intervals, strict=True)))
    return mean, Interval(mean - below / len(shares), mean + above / len(shares))
