"""Optional sinusoidal encoding of the frames' times (paper, appendix B, eq. 3)."""

from __future__ import annotations

import torch


def frame_position_encoding(times: torch.Tensor, width: int) -> torch.Tensor:
    """PE(t, 2i) = sin(t / 10000^(2i/d)), PE(t, 2i+1) = cos(t / 10000^(2i/d)).

    Args:
        times: [n], each token's absolute timestep: its frame's number among the sampled frames.
        width: d, the hidden size; even.

    Returns:
        [n, d] float32.
    """
    if width % 2:
        raise ValueError(f"a width of {width} is odd")
    exponents = torch.arange(0, width, 2, device=times.device, dtype=torch.float32) / width
    angles = times.float()[:, None] / 10000.0**exponents
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)
