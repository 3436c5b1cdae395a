"""haystack.py: real films of the synthetic world."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np

from longvu_cli.config import SamplingOptions
from longvu_cli.evaluation.haystack import Haystack
from longvu_cli.evaluation.needle import SAMPLING
from longvu_cli.video import Video


def test_the_film_has_the_frames_that_are_looked_at_and_the_needle_in_its_place(tmp_path: Path) -> None:
    haystack, path = Haystack(3, 12, 0.5), tmp_path / "haystack.mp4"
    haystack.film(path)
    with Video(path, SAMPLING) as video:
        frames = list(video.frames())
    assert [round(frame.time_s, 3) for frame in frames] == [float(second) for second in range(12)]
    ((start, end),) = haystack.needle.evidence
    assert (start, end) == (6.0, 7.0)
    # The frame of the needle is unlike both of its neighbours.
    steps = [float(np.abs(a.pixels.astype(int) - b.pixels).mean()) for a, b in pairwise(frames)]
    assert min(steps[5], steps[6]) > 10


def test_the_ends_are_the_first_frame_and_the_last() -> None:
    assert Haystack(1, 100, 0.0).needle.evidence == ((0.0, 1.0),)
    assert Haystack(1, 100, 1.0).needle.evidence == ((99.0, 100.0),)


def test_answers_are_judged_by_the_world() -> None:
    haystack = Haystack(3, 100, 0.5)
    (card,) = haystack.story.cards
    asked = next(thing for thing in card.things if thing.kind in haystack.needle.text)
    assert haystack.needle.answer == f"{asked.colour.capitalize()}."
    assert haystack.is_right(haystack.needle.answer)
    assert haystack.is_right(f" {haystack.needle.answer.rstrip('.').upper()} ")
    others = {Haystack(seed, 100, 0.5).needle.answer for seed in range(40)}
    assert len(others) == 8
    assert sum(haystack.is_right(other) for other in others) == 1


def test_the_same_seed_makes_the_same_film() -> None:
    assert Haystack(3, 100, 0.5).story == Haystack(3, 100, 0.5).story
    assert SamplingOptions(fps=1.0) == SAMPLING
