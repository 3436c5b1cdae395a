"""Frames → square pixels per tower (model facts, "from file to encoder features"; paper §3.1).

Only Pillow's resize is Pillow's resize: the released towers were fed with it, so it is what is used here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

# Longer frames are shrunk before they get their bars: a square around one takes gigabytes. 8k fits in portrait, too.
_TALLEST, _WIDEST = 8_192, 65_536


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
    stay what they are. Frames of more than 8,192 rows that are higher than wide, and of more than 65,536 columns, are
    shrunk to that first.

    Args:
        pixels: [height, width, 3] uint8, RGB.

    Returns:
        [side, side, 3] uint8.
    """
    image = _within(Image.fromarray(pixels))
    width, height = image.size
    if width < height:
        image = _on_canvas(image, (height, height), tower)
    elif width != tower.side:
        image = image.resize((tower.side, height), Image.Resampling.BICUBIC)
    if height < width:
        image = _on_canvas(image, (image.width, width), tower)
    return np.asarray(image.resize((tower.side, tower.side), Image.Resampling.BICUBIC))


def _within(image: Image.Image) -> Image.Image:
    width, height = image.size
    scale = _TALLEST / height if width < height else _WIDEST / width
    if scale >= 1:
        return image
    return image.resize((max(1, round(width * scale)), max(1, round(height * scale))), Image.Resampling.BICUBIC)


def _on_canvas(image: Image.Image, size: tuple[int, int], tower: TowerInput) -> Image.Image:
    canvas = Image.new("RGB", size, tower.fill)
    canvas.paste(image, ((size[0] - image.width) // 2, (size[1] - image.height) // 2))
    return canvas


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
