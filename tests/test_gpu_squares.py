"""gpu_squares.py: equal, pixel by pixel, to what the CPU makes; its arithmetic is the same on any device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest
import torch

from longvu_cli import gpu_squares
from longvu_cli.gpu_squares import GpuSquares
from longvu_cli.preprocess import TowerInput, square_pixels

SIGLIP = TowerInput(side=384, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
DINOV2 = TowerInput(side=378, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
SMALL = TowerInput(side=50, mean=(0.3, 0.2, 0.9), std=(0.5, 0.5, 0.5))
TOWERS = (SIGLIP, DINOV2, SMALL)


@pytest.fixture
def squares() -> Iterator[GpuSquares]:
    with closing(GpuSquares(TOWERS, torch.device("cpu"))) as made:
        yield made


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def check(squares: GpuSquares, frames: list[np.ndarray]) -> None:
    for pixels, found in zip(frames, squares.of(frames), strict=True):
        for tower, square in zip(TOWERS, found, strict=True):
            assert square.shape == (tower.side, tower.side, 3)
            assert square.dtype == np.uint8
            assert np.array_equal(square, square_pixels(pixels, tower)), (pixels.shape, tower.side)


@pytest.mark.parametrize(
    ("height", "width"),
    # Wide and high, shrunk and enlarged, odd bars, of a tower's own side, and pictures that some bands do not touch.
    [(360, 640), (641, 361), (50, 50), (300, 384), (378, 200), (101, 56), (1, 1), (1, 9), (9, 1), (3, 900), (900, 2)],
)
def test_the_pixels_are_those_of_the_cpu(squares: GpuSquares, height: int, width: int) -> None:
    # Steps between black and white overshoot: what leaves a byte is cut on both sides.
    steps = np.where(noise(height, width) > 127, 255, 0).astype(np.uint8)
    check(squares, [noise(height, width), steps])


def test_frames_of_another_size_may_follow(squares: GpuSquares) -> None:
    check(squares, [noise(30, 40)])
    check(squares, [noise(40, 30), noise(40, 30, 1)])


def test_a_picture_that_stays_is_resized_once(squares: GpuSquares, monkeypatch: pytest.MonkeyPatch) -> None:
    resized: list[int] = []
    made = GpuSquares._made

    def counted(self: GpuSquares, frames: list[np.ndarray]) -> object:
        resized.append(len(frames))
        return made(self, frames)

    monkeypatch.setattr(GpuSquares, "_made", counted)
    one, other = noise(20, 30), noise(20, 30, 1)
    check(squares, [one, one, other, other])
    check(squares, [other, other])
    check(squares, [other, one])
    assert resized == [2, 0, 1]


def test_without_room_on_the_device_the_cpu_makes_the_same(
    squares: GpuSquares, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[int] = []

    def full(*_: object) -> object:
        tries.append(1)
        raise torch.OutOfMemoryError

    monkeypatch.setattr(GpuSquares, "_on_device", full)
    check(squares, [noise(20, 30), noise(20, 30, 1)])
    check(squares, [noise(20, 30, 2)])
    assert tries == [1], "once it is full, it is not tried again"


def test_other_errors_are_not_hidden(squares: GpuSquares, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> object:
        raise RuntimeError("an illegal memory access")

    monkeypatch.setattr(GpuSquares, "_on_device", broken)
    with pytest.raises(RuntimeError, match="illegal"):
        squares.of([noise(20, 30)])


def test_the_largest_frames_are_for_the_cpu(squares: GpuSquares, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> object:
        raise AssertionError("it is too large")

    monkeypatch.setattr(GpuSquares, "_on_device", never)
    check(squares, [noise(2, gpu_squares._LONGEST_SIDE + 1)])


def test_large_frames_go_together_in_smaller_numbers(squares: GpuSquares) -> None:
    assert squares.together(np.empty((720, 1280, 3), np.uint8)) == 8
    assert squares.together(np.empty((2160, 3840, 3), np.uint8)) == 1
    assert squares.together(np.empty((5000, 8000, 3), np.uint8)) == 1
