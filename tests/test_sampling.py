"""Which frames are sampled, and how often, by when they go off display."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from longvu_cli import sampling as sampling_module
from longvu_cli.config import SamplingOptions
from longvu_cli.sampling import Sampler, thinned


def test_a_frame_is_sampled_for_each_moment_that_it_is_on_display() -> None:
    sampler = Sampler(SamplingOptions(fps=2.0))
    assert [sampler.take(end_s) for end_s in (0.4, 0.5, 0.6, 2.1)] == [1, 0, 1, 3]


def test_a_frame_that_is_late_by_rounding_counts_as_on_display() -> None:
    sampler = Sampler(SamplingOptions())
    assert [sampler.take(end_s) for end_s in (1.0015, 2.0)] == [1, 1]


def test_the_range_ends_before_its_end() -> None:
    sampler = Sampler(SamplingOptions(start_s=1.0, end_s=3.0))
    assert [sampler.take(end_s) for end_s in (0.5, 2.5, 3.5)] == [0, 2, 0]
    assert sampler.finished and sampler.take(9.0) == 0


def test_the_last_frame_is_sampled_if_no_other_was() -> None:
    assert Sampler(SamplingOptions()).take_last(0.001) == 1
    assert Sampler(SamplingOptions(start_s=5.0)).take_last(4.0) == 0


def test_a_copy_goes_its_own_way() -> None:
    sampler = Sampler(SamplingOptions())
    sampler.take(1.5)
    copy = sampler.copy()
    assert sampler.take(3.5) == copy.take(3.5) == 2


def test_the_distance_grows_after_many_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling_module, "MAX_FRAMES", 4)
    sampler = Sampler(SamplingOptions())
    assert [sampler.take(float(second + 1)) for second in range(9)] == [1, 1, 1, 1, 1, 0, 1, 0, 1]
    assert sampler.capped


def test_a_long_hold_is_cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling_module, "MAX_REPEATS", 3)
    sampler = Sampler(SamplingOptions())
    assert sampler.take(10.0) == 3 and sampler.capped
    assert sampler.take(11.0) == 1


@pytest.mark.parametrize(
    ("frames", "every"), [(999, 1), (1000, 1), (1001, 1), (1999, 1), (2000, 2), (2999, 2), (5500, 5), (None, 1)]
)
def test_many_frames_are_thinned_as_by_the_reference(frames: int | None, every: int) -> None:
    asked = SamplingOptions(fps=0.5, start_s=3.0, thin_above=1000)
    thin = thinned(asked, frames)
    assert thin == replace(asked, fps=0.5 / every)
    left = None if frames is None else math.ceil(frames / every)
    assert thinned(thin, left) == thin, "what is thin is not thinned again"


def test_nothing_is_thinned_unasked() -> None:
    assert thinned(SamplingOptions(), 10**6) == SamplingOptions()
