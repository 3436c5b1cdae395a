"""Frames → square pixels per tower (model facts, "from file to encoder features"; paper §3.1).

Only Pillow's resize is Pillow's resize: the released towers were fed with it, so it is what is used here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image


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


def square_pixels(pixels: np.ndarray, towers: Sequence[TowerInput]) -> tuple[np.ndarray, ...]:
    """Centre a frame on a square canvas of each tower's fill colour and resize it, bicubic with antialiasing.

    Args:
        pixels: [height, width, 3] uint8, RGB.

    Returns:
        [side, side, 3] uint8 for each tower.
    """
    # Once for all towers: taking the pixels over holds Python's lock, which resizing does not.
    image = Image.fromarray(pixels)
    return tuple(_square(image, tower) for tower in towers)


def _square(image: Image.Image, tower: TowerInput) -> np.ndarray:
    """Pillow resizes columns before rows, so bars above and below need not be there while the columns are resized: they
    stay what they are.
    """
    width, height = image.size
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
