"""Bilinear resizing of square token grids, the one way the released models do it."""

from __future__ import annotations

import math

import torch
from torch.nn import functional


def resize_grid(tokens: torch.Tensor, side: int) -> torch.Tensor:
    """Resize square grids of tokens to ``side`` × ``side``.

    Bilinear, ``align_corners=False``, no antialiasing, computed in float32 whatever the input's type.

    Args:
        tokens: [frames, g·g, channels], row-major.
        side: side of the new grid.

    Returns:
        [frames, side·side, channels], in the input's type.
    """
    frames, count, channels = tokens.shape
    old = math.isqrt(count)
    if old * old != count:
        raise ValueError(f"{count} tokens form no square grid")
    if old == side:
        return tokens
    # Channel by channel: the kernel for interleaved channels is many times slower on a GPU.
    grid = tokens.float().transpose(1, 2).reshape(frames, channels, old, old).contiguous()
    resized = functional.interpolate(grid, size=(side, side), mode="bilinear", align_corners=False)
    return resized.flatten(2).transpose(1, 2).to(tokens.dtype)
