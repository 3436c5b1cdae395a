"""Unpadding and newlines: which part of a frame's token grid shows the picture, and how it becomes a sequence."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from longvu_cli.config import Orientation


@dataclass(frozen=True)
class Crop:
    """The kept rectangle of a square grid; ends are exclusive."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def rows(self) -> int:
        """Rows kept."""
        return self.bottom - self.top

    @property
    def columns(self) -> int:
        """Columns kept."""
        return self.right - self.left

    @property
    def tokens(self) -> int:
        """Tokens of the sequence: one newline after each row."""
        return self.rows * (self.columns + 1)


def size_as_read(width: int, height: int, *, orientation: Orientation, image: bool) -> tuple[int, int]:
    """The size (a, b) that the crop reads as (width, height).

    Quirk of the released models: for videos, (height, width) was handed over where (width, height) is read, in
    training and evaluation alike. A 16:9 video so keeps 12 rows × 6 columns: the letterbox bars stay and the sides of
    the picture are cut. ``upright`` crops what was meant. Still images were always handed over correctly.
    Pinned by ``tests/test_token_grid.py::test_released_orientation_swaps_a_videos_size``.
    """
    return (width, height) if image or orientation is Orientation.UPRIGHT else (height, width)


def crop(side: int, size: tuple[int, int]) -> Crop:
    """The part of a ``side`` × ``side`` grid that is not padding, for a picture of ``size`` = (a, b).

    If nothing would be left, the whole grid is kept.
    """
    a, b = size
    if a > b:
        pad = (side - b * side // a) // 2
        return Crop(pad, side - pad, 0, side) if 2 * pad < side else Crop(0, side, 0, side)
    pad = (side - a * side // b) // 2
    return Crop(0, side, pad, side - pad) if 2 * pad < side else Crop(0, side, 0, side)


def crops(
    size: tuple[int, int], *, orientation: Orientation, image: bool, high_side: int, low_side: int
) -> tuple[Crop, Crop]:
    """What is kept of both grids, full and low, for frames of ``size`` = (width, height)."""
    read = size_as_read(*size, orientation=orientation, image=image)
    low_size = low_resolution_size(read, high_side=high_side, low_side=low_side)
    return crop(high_side, read), crop(low_side, low_size)


def low_resolution_size(size: tuple[int, int], *, high_side: int, low_side: int) -> tuple[int, int]:
    """The size by which the low-resolution grid is cropped: (int(a/1.5), int(b/1.5)) for 12 and 8.

    A picture of one pixel would vanish; it keeps one.
    """
    ratio = high_side / low_side
    return max(1, int(size[0] / ratio)), max(1, int(size[1] / ratio))


def with_newlines(tokens: torch.Tensor, kept: Crop, newline: torch.Tensor) -> torch.Tensor:
    """Cut grids to their crop and end each row with the newline embedding.

    Args:
        tokens: [frames, g·g, h].
        newline: [h].

    Returns:
        [frames, kept.tokens, h].
    """
    frames, count, width = tokens.shape
    side = int(count**0.5)
    grid = tokens.reshape(frames, side, side, width)[:, kept.top : kept.bottom, kept.left : kept.right]
    ends = newline.to(tokens.dtype).expand(frames, kept.rows, 1, width)
    return torch.cat((grid, ends), dim=2).flatten(1, 2)


def key_mask(kept: Crop, side: int, query_side: int) -> torch.Tensor | None:
    """Which tower tokens each query may attend to: those inside the crop of the towers' grid.

    A query whose keys are all outside attends to all of them instead.

    Args:
        kept: crop of the towers' grid.
        side: side of the towers' grid (24).
        query_side: side of the query grid (12, or 24).

    Returns:
        [query_side², keys per query] bool, keys row-major within a query's block; None when nothing is cropped.
    """
    if kept.rows == side and kept.columns == side:
        return None
    inside = torch.zeros(side, side, dtype=torch.bool)
    inside[kept.top : kept.bottom, kept.left : kept.right] = True
    block = side // query_side
    mask = inside.reshape(query_side, block, query_side, block).permute(0, 2, 1, 3).reshape(query_side**2, block**2)
    return mask | ~mask.any(dim=1, keepdim=True)
