"""reduction.py: the numbers of a record, each in its place."""

from __future__ import annotations

from longvu_cli.evaluation.reduction import Reduction, reduction_of


def test_it_is_read_from_the_record() -> None:
    record = {
        "compression": {
            "frames": {"sampled": 40, "kept": 10, "high_resolution": 2},
            "tokens": {"dense": 1600, "after_temporal": 400, "after_query": 120, "visual": 90},
            "truncated_tokens": 5,
        }
    }
    assert reduction_of(record) == Reduction(sampled=40, kept=10, before=120, after=90, cut=5)
