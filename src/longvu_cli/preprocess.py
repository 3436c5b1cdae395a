"""Frames → square pixels per tower (model facts, "from file to encoder features"; paper §3.1).

Only Pillow's resize is Pillow's resize: the released towers were fed with it. On the host Pillow itself does it; on a GPU
the same integer arithmetic is done by matrix products, to the last bit, at a fraction of the time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

# Pillow's fixed-point precision for 8-bit channels: 32 bits less 8 for the pixel and 2 for the sum's overshoot.
_PRECISION_BITS = 22
# Weights are split in two so that float32 sums of their products with pixels stay exact integers.
_LOW_BITS = 11
# Pillow's bicubic kernel reaches two pixels to each side and has a = -0.5.
_BICUBIC_REACH = 2.0
_BICUBIC_A = -0.5


@dataclass(frozen=True)
class TowerInput:
    """What one tower wants to see.

    Attributes:
        side: pixels per side.
        mean, std: per channel, for pixels between 0 and 1.
    """

    side: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def fill(self) -> tuple[int, int, int]:
        """Colour of the padding: the mean, cut to whole levels."""
        red, green, blue = (int(255 * value) for value in self.mean)
        return red, green, blue


def square_pixels(pixels: np.ndarray, tower: TowerInput) -> np.ndarray:
    """Centre a frame on a square canvas of the tower's fill colour and resize it, bicubic with antialiasing.

    Pillow resizes columns before rows, so bars above and below need not be there while the columns are resized: they
    stay what they are.

    Args:
        pixels: [height, width, 3] uint8, RGB.

    Returns:
        [side, side, 3] uint8.
    """
    height, width = pixels.shape[:2]
    image = Image.fromarray(pixels)
    if width < height:
        image = _on_canvas(image, (height, height), tower)
    elif width != tower.side:
        image = image.resize((tower.side, height), Image.Resampling.BICUBIC)
    if height < width:
        image = _on_canvas(image, (image.width, width), tower)
    return np.asarray(image.resize((tower.side, tower.side), Image.Resampling.BICUBIC))


def _on_canvas(image: Image.Image, size: tuple[int, int], tower: TowerInput) -> Image.Image:
    canvas = Image.new("RGB", size, tower.fill)
    canvas.paste(image, ((size[0] - image.width) // 2, (size[1] - image.height) // 2))
    return canvas


class DeviceSquares:
    """:func:`square_pixels` for frames of one size, on a GPU: the same numbers, bit by bit.

    Args:
        height, width: of the frames.
    """

    def __init__(self, height: int, width: int, tower: TowerInput, device: torch.device) -> None:
        long_side = max(height, width)
        weights = pillow_bicubic_weights(long_side, tower.side)
        self._columns = _Pass(weights, width, tower, device)
        self._rows = _Pass(weights, height, tower, device)

    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        """Resize.

        Args:
            frames: [n, height, width, 3] uint8, on the device.

        Returns:
            [n, side, side, 3] uint8.
        """
        wide = self._columns(frames.permute(0, 1, 3, 2))  # [n, height, 3, side]
        return self._rows(wide.permute(0, 3, 2, 1)).permute(0, 3, 1, 2).contiguous()


class _Pass:
    """One pass of Pillow's resize along the last axis, of pixels that lie centred between bars of the fill colour."""

    def __init__(self, weights: np.ndarray, length: int, tower: TowerInput, device: torch.device) -> None:
        start = (weights.shape[1] - length) // 2
        shown = weights[:, start : start + length]
        bars = weights.sum(axis=1) - shown.sum(axis=1)
        high = (shown + (1 << _LOW_BITS - 1)) >> _LOW_BITS
        low = shown - (high << _LOW_BITS)
        self._high = torch.from_numpy(high.T.astype(np.float32)).to(device)
        self._low = torch.from_numpy(low.T.astype(np.float32)).to(device)
        constant = np.outer(tower.fill, bars) + (1 << _PRECISION_BITS - 1)
        self._constant = torch.from_numpy(constant.astype(np.int32)).to(device)

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """[…, 3, length] uint8 → […, 3, side] uint8."""
        values = pixels.float()
        total = ((values @ self._high).int() << _LOW_BITS) + (values @ self._low).int() + self._constant
        return (total >> _PRECISION_BITS).clamp_(0, 255).to(torch.uint8)


def pillow_bicubic_weights(old: int, new: int) -> np.ndarray:
    """The integer weights by which Pillow's bicubic resize sums up pixels.

    Args:
        old, new: lengths before and after.

    Returns:
        [new, old] int64, in units of 2^-22.
    """
    scale = old / new
    filter_scale = max(scale, 1.0)
    reach = _BICUBIC_REACH * filter_scale
    weights = np.zeros((new, old), dtype=np.int64)
    for index in range(new):
        centre = (index + 0.5) * scale
        first = max(0, int(centre - reach + 0.5))
        last = min(old, int(centre + reach + 0.5))
        kernel = [_bicubic((place - centre + 0.5) * (1.0 / filter_scale)) for place in range(first, last)]
        total = sum(kernel)
        for place, value in enumerate(kernel, start=first):
            weights[index, place] = _rounded(value / total * (1 << _PRECISION_BITS))
    return weights


def _bicubic(x: float) -> float:
    a, x = _BICUBIC_A, abs(x)
    if x < 1.0:
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * a if x < _BICUBIC_REACH else 0.0


def _rounded(value: float) -> int:
    return math.trunc(value + math.copysign(0.5, value))


def normalise(pixels: torch.Tensor, tower: TowerInput, dtype: torch.dtype) -> torch.Tensor:
    """Scale to 0…1 and normalise, in float32 before the tower's type.

    Args:
        pixels: [frames, side, side, 3] uint8, on the tower's device.

    Returns:
        [frames, 3, side, side].
    """
    mean = torch.tensor(tower.mean, device=pixels.device)
    std = torch.tensor(tower.std, device=pixels.device)
    return ((pixels.float() / 255 - mean) / std).permute(0, 3, 1, 2).to(dtype).contiguous()
