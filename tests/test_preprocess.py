"""preprocess.py: equal, pixel by pixel, to what Pillow makes of a padded picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from longvu_cli.preprocess import TowerInput, normalise, square_pixels

SIGLIP = TowerInput(side=384, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
DINOV2 = TowerInput(side=378, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), np.uint8)


def test_the_fill_colours_are_the_means_cut_to_whole_levels() -> None:
    assert SIGLIP.fill == (127, 127, 127)
    assert DINOV2.fill == (123, 116, 103)


@pytest.mark.parametrize("tower", [SIGLIP, DINOV2], ids=["siglip", "dinov2"])
@pytest.mark.parametrize(
    ("height", "width"), [(36, 64), (64, 36), (57, 101), (101, 56), (48, 48), (1, 1), (1, 9), (720, 1280)]
)
def test_it_equals_padding_in_numpy_and_resizing_in_pillow(tower: TowerInput, height: int, width: int) -> None:
    pixels = noise(height, width)
    side = max(height, width)
    canvas = np.empty((side, side, 3), np.uint8)
    canvas[:] = tower.fill
    top, left = (side - height) // 2, (side - width) // 2
    canvas[top : top + height, left : left + width] = pixels
    wanted = np.asarray(Image.fromarray(canvas).resize((tower.side, tower.side), Image.Resampling.BICUBIC))
    found = square_pixels(pixels, tower)
    assert found.shape == (tower.side, tower.side, 3)
    assert found.dtype == np.uint8
    assert np.array_equal(found, wanted)


def test_an_odd_padding_is_one_pixel_shorter_before_the_picture() -> None:
    identity = TowerInput(side=6, mean=SIGLIP.mean, std=SIGLIP.std)
    square = square_pixels(np.zeros((3, 6, 3), np.uint8), identity)
    assert (square == 127).all(axis=(1, 2)).tolist() == [True, False, False, False, True, True]
    square = square_pixels(np.zeros((6, 1, 3), np.uint8), identity)
    assert (square == 127).all(axis=(0, 2)).tolist() == [True, True, False, True, True, True]


def test_the_channels_keep_their_order() -> None:
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 0] = 255
    assert square_pixels(red, DINOV2)[100, 100].tolist() == [255, 0, 0]


@pytest.mark.parametrize("tower", [SIGLIP, DINOV2], ids=["siglip", "dinov2"])
def test_normalising_scales_and_subtracts_per_channel(tower: TowerInput) -> None:
    pixels = torch.from_numpy(noise(5, 5)).unsqueeze(0)
    found = normalise(pixels, tower, torch.float32)
    assert found.shape == (1, 3, 5, 5)
    assert found.is_contiguous()
    for channel in range(3):
        for row, column in ((0, 0), (4, 1), (2, 3)):
            level = int(pixels[0, row, column, channel])
            wanted = (level / 255 - tower.mean[channel]) / tower.std[channel]
            assert float(found[0, channel, row, column]) == pytest.approx(wanted, abs=1e-6)


def test_normalising_is_done_in_float32_before_the_towers_type() -> None:
    pixels = torch.from_numpy(noise(9, 9)).unsqueeze(0)
    found = normalise(pixels, DINOV2, torch.bfloat16)
    assert found.dtype is torch.bfloat16
    assert torch.equal(found, normalise(pixels, DINOV2, torch.float32).bfloat16())


@pytest.mark.parametrize(("height", "width"), [(1_000_000, 3), (3, 1_000_000), (20_000, 200)])
def test_extremely_long_frames_need_no_square_of_their_length(
    height: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    canvases: list[int] = []
    original = Image.new

    def new(mode: str, size: tuple[int, int], color: tuple[int, int, int] = (0, 0, 0)) -> Image.Image:
        canvases.append(size[0] * size[1])
        assert canvases[-1] < 70_000_000
        return original(mode, size, color)

    monkeypatch.setattr(Image, "new", new)
    square = square_pixels(np.zeros((height, width, 3), np.uint8), SIGLIP)
    assert square.shape == (384, 384, 3) and canvases
    assert tuple(square[0, 0]) == SIGLIP.fill


def test_a_frame_that_is_shrunk_first_looks_like_one_that_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    tall = np.repeat(np.repeat(np.arange(240, dtype=np.uint8).reshape(24, 10, 1), 50, 0), 20, 1).repeat(3, 2)
    frames = (tall, np.ascontiguousarray(tall.swapaxes(0, 1)))
    exact = [square_pixels(frame, SIGLIP).astype(int) for frame in frames]
    monkeypatch.setattr("longvu_cli.preprocess._TALLEST", 600)
    monkeypatch.setattr("longvu_cli.preprocess._WIDEST", 600)
    for frame, wanted in zip(frames, exact, strict=True):
        assert 0 < np.abs(square_pixels(frame, SIGLIP).astype(int) - wanted).mean() < 2
