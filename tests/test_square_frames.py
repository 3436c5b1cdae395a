"""square_frames.py: each frame with the number of its picture, and batches of whole windows."""

from __future__ import annotations

import numpy as np
import torch

from longvu_cli.frames import Frame
from longvu_cli.preprocess import TowerInput
from longvu_cli.square_frames import (
    Inputs,
    SquareFrame,
    growing_batches,
    pictures_of,
    squared_on_gpu,
    squared_side_by_side,
)
from longvu_cli.timing import Stopwatch

INPUTS = Inputs(
    TowerInput(28, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    TowerInput(42, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    torch.device("cpu"),
)


def batches(pictures: list[int], *, least: int, most: int, most_frames: int = 1000) -> list[list[int]]:
    """The pictures of each batch, with windows of four frames."""
    nothing = np.zeros((1, 1, 3), np.uint8)
    frames = (SquareFrame(0.0, (1, 1), picture, nothing, nothing) for picture in pictures)
    grown = growing_batches(frames, window=4, least=least, most=most, most_frames=most_frames)
    return [pictures_of(batch) for batch in grown]


def test_batches_grow() -> None:
    sizes = [len(batch) for batch in batches(list(range(70)), least=8, most=24)]
    assert sizes == [8, 16, 24, 22]


def test_windows_stay_whole() -> None:
    # Seven pictures in the first two windows: with the third there would be nine.
    shown = [0, 1, 2, 2, 3, 4, 5, 6, 6, 6, 7, 8, 9]
    assert batches(shown, least=8, most=8) == [shown[:8], shown[8:]]


def test_a_window_may_have_more_pictures_than_a_batch() -> None:
    assert batches([0, 1, 2, 3, 4], least=2, most=2) == [[0, 1, 2, 3], [4]]


def test_frames_of_one_picture_are_not_held_without_end() -> None:
    assert [len(batch) for batch in batches([0] * 20, least=8, most=8, most_frames=9)] == [8, 8, 4]


def test_no_frames_are_no_batch() -> None:
    assert batches([], least=8, most=8) == []


def test_a_gpu_makes_the_squares_of_the_cpu_and_numbers_them_alike() -> None:
    pictures = [np.random.default_rng(seed).integers(0, 256, (36, 64, 3), np.uint8) for seed in range(4)]
    shown = [pictures[0], pictures[0], pictures[0].copy(), *pictures[1:], pictures[1]]
    frames = [Frame(number, float(number), pixels) for number, pixels in enumerate(shown)]
    cpu, gpu = (
        list(squared(iter(frames), INPUTS, Stopwatch(lambda: None)))
        for squared in (squared_side_by_side, squared_on_gpu)
    )
    assert [frame.picture for frame in cpu] == [0, 0, 0, 1, 2, 3, 4]
    for one, other in zip(cpu, gpu, strict=True):
        assert (one.time_s, one.size, one.picture) == (other.time_s, other.size, other.picture)
        assert np.array_equal(one.siglip, other.siglip)
        assert np.array_equal(one.dinov2, other.dinov2)
