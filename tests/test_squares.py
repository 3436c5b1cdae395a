"""squares.py: the squares of each frame, each picture's once, in order; the same where a file is decoded elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from media import steady, write_video

from longvu_cli import squares as squares_module
from longvu_cli.config import DecodingOptions, SamplingOptions
from longvu_cli.frames import Frame, Pixels, SquareFrame
from longvu_cli.preprocess import TowerInput, square_pixels
from longvu_cli.squares import squared
from longvu_cli.timing import Stopwatch
from longvu_cli.video import Video

TOWERS = (TowerInput(30, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)), TowerInput(28, (0.485, 0.456, 0.406), (1.0, 1.0, 1.0)))


def watch() -> Stopwatch:
    return Stopwatch(lambda: None)


def picture(seed: int) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (36, 64, 3), np.uint8)


def frames(pictures: list[Pixels]) -> Iterator[Frame]:
    return (Frame(index, index / 2, pixels) for index, pixels in enumerate(pictures))


def check(found: SquareFrame, pixels: Pixels) -> None:
    assert found.size == (64, 36)
    for square, expected in zip(found.squares, square_pixels(pixels, TOWERS), strict=True):
        np.testing.assert_array_equal(square, expected)


def test_each_frame_has_a_square_per_tower_in_order() -> None:
    pictures = [picture(seed) for seed in range(40)]
    found = list(squared(frames(pictures), TOWERS, watch()))
    assert [(one.index, one.time_s, one.picture) for one in found] == [(i, i / 2, i) for i in range(40)]
    for one, pixels in zip(found, pictures, strict=True):
        check(one, pixels)


@pytest.mark.parametrize("shared", [True, False])
def test_a_picture_that_stays_is_resized_once_and_held_once(monkeypatch: pytest.MonkeyPatch, shared: bool) -> None:
    resized: list[Pixels] = []

    def square(pixels: Pixels, towers: Sequence[TowerInput]) -> tuple[Pixels, ...]:
        resized.append(pixels)
        return square_pixels(pixels, towers)

    monkeypatch.setattr(squares_module, "square_pixels", square)
    one, other = picture(1), picture(2)
    shown = [one, one, one, other, one, one]
    found = list(squared(frames(shown if shared else [each.copy() for each in shown]), TOWERS, watch()))
    assert [each.picture for each in found] == [0, 0, 0, 1, 2, 2]
    assert found[0].squares is found[2].squares and found[4].squares is found[5].squares
    assert len(resized) == (3 if shared else 6)


def test_large_frames_are_resized_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(squares_module, "cores", lambda: 8)
    taken = 0

    def counted() -> Iterator[Frame]:
        nonlocal taken
        for frame in frames([picture(seed) for seed in range(20)]):
            taken += 1
            yield frame

    # A frame and its canvas take 23 kB; an eighth of the memory is for them.
    for memory_bytes, ahead in ((8 * 23_300, 1), (8 * 3 * 23_300, 3), (1_000_000_000, 8)):
        taken = 0
        next(squared(counted(), TOWERS, watch(), memory_bytes=memory_bytes))
        assert taken == ahead + 1


def test_every_frame_is_a_sign_of_life_and_its_seconds_are_counted() -> None:
    beats: list[None] = []
    watched = watch()
    list(squared(frames([picture(0)] * 5), TOWERS, watched, beat=lambda: beats.append(None)))
    assert len(beats) == 5
    assert watched.seconds("preprocess") > 0 and watched.seconds("decode") > 0


def test_an_error_of_the_frames_comes_after_those_before_it() -> None:
    def broken() -> Iterator[Frame]:
        yield Frame(0, 0.0, picture(0))
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        list(squared(broken(), TOWERS, watch()))


def test_they_are_the_same_from_a_process_of_their_own(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mp4", steady(85))
    sampling = SamplingOptions(fps=20.0, start_s=2.0, end_s=5.0)
    ours_watch, theirs_watch = watch(), watch()
    with Video(clip, sampling) as video, Video(clip, sampling, DecodingOptions(isolated=False)) as other:
        ours, theirs = list(video.squares(TOWERS, ours_watch)), list(other.squares(TOWERS, theirs_watch))
        assert video.info == other.info
    assert len({one.picture for one in ours}) < len(ours)
    for one, another in zip(ours, theirs, strict=True):
        assert (one.index, one.time_s, one.size, one.picture) == (
            another.index,
            another.time_s,
            another.size,
            another.picture,
        )
        for square, expected in zip(one.squares, another.squares, strict=True):
            np.testing.assert_array_equal(square, expected)
    for stage in ("decode", "preprocess"):
        assert ours_watch.seconds(stage) > 0 and theirs_watch.seconds(stage) > 0
