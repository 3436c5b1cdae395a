"""proportions.py: against numbers from tables and by hand."""

from __future__ import annotations

import math

import pytest

from longvu_cli.evaluation.proportions import (
    Interval,
    PairedDifference,
    mean_of_differences,
    mean_of_shares,
    paired_difference,
    wilson,
)


@pytest.mark.parametrize(
    ("right", "trials", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),
        (5, 10, 0.2366, 0.7634),
        (10, 10, 0.7225, 1.0),
        (1, 1, 0.2065, 1.0),
        (81, 263, 0.2553, 0.3662),
    ],
)
def test_wilson(right: int, trials: int, low: float, high: float) -> None:
    interval = wilson(right, trials)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=5e-5)


def test_the_interval_holds_the_share_and_stays_within_bounds() -> None:
    for trials in range(1, 40):
        for right in range(trials + 1):
            interval = wilson(right, trials)
            assert 0 <= interval.low <= right / trials <= interval.high <= 1
            assert interval.low < interval.high


def test_nothing_is_known_without_trials() -> None:
    assert wilson(0, 0) == Interval(0.0, 1.0)
    with pytest.raises(ValueError, match="3 of 2"):
        wilson(3, 2)


def test_a_paired_difference() -> None:
    # Differences 1, 1, 0, -1, 0, 1: mean 1/3, squared deviations 3·4/9 + 2·1/9 + 16/9 = 30/9.
    pairs = [(True, False), (True, False), (True, True), (False, True), (False, False), (True, False)]
    paired = paired_difference(pairs)
    assert (paired.pairs, paired.difference) == (6, pytest.approx(1 / 3))
    assert paired.standard_error == pytest.approx(math.sqrt(30 / 9 / 5 / 6))


def test_equal_methods_differ_by_nothing() -> None:
    paired = paired_difference([(True, True), (False, False)])
    assert (paired.difference, paired.standard_error) == (0.0, 0.0)


def test_one_pair_has_no_error() -> None:
    assert paired_difference([(True, False)]).standard_error is None
    with pytest.raises(ValueError, match="no pairs"):
        paired_difference([])


def test_the_mean_of_differences_counts_each_group_the_same() -> None:
    one, other = PairedDifference(10, 0.3, 0.03), PairedDifference(2, 0.1, 0.04)
    assert mean_of_differences([one]) == one
    mean = mean_of_differences([one, other])
    assert (mean.pairs, mean.difference, mean.standard_error) == (12, pytest.approx(0.2), pytest.approx(0.025))
    assert mean_of_differences([one, PairedDifference(1, 1.0, None)]).standard_error is None
    with pytest.raises(ValueError, match="no groups"):
        mean_of_differences([])


def test_the_mean_of_shares_counts_each_group_the_same() -> None:
    mean, interval = mean_of_shares([(1, 4), (2, 2)])
    assert mean == 0.625
    # Wilson: 1 of 4 lies in [0.0456, 0.6994], 2 of 2 in [0.3424, 1]; by hand √(0.2044² + 0.6576²) / 2 and 0.4494 / 2.
    assert (interval.low, interval.high) == pytest.approx((0.625 - 0.3443, 0.625 + 0.2247), abs=2e-4)
    assert mean_of_shares([(3, 6)]) == (0.5, wilson(3, 6))
    with pytest.raises(ValueError, match="without trials"):
        mean_of_shares([(0, 0)])
