"""Which frames keep full resolution for this question (paper §3.2)."""

from __future__ import annotations

import torch


def relevance(low_resolution: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    """How well each frame answers to the question (paper, eq. 1).

    The mean over a frame's tokens of the mean dot product with the text's embeddings, computed as the dot product of
    the two means.

    Args:
        low_resolution: [T, n, h], each frame's low-resolution tokens in the language model's space, newlines included.
        text: [m, h], embeddings of all prompt ids after the video.

    Returns:
        [T] float32.
    """
    return low_resolution.mean(dim=1, dtype=torch.float32) @ text.mean(dim=0, dtype=torch.float32)


def full_resolution_frames(scores: torch.Tensor, count: int) -> torch.Tensor:
    """The ``count`` frames with the highest relevance, in temporal order.

    Args:
        scores: [T].

    Returns:
        Sorted indices [count], int64.
    """
    return scores.topk(count).indices.sort().values


def spread_frames(kept: int, count: int) -> torch.Tensor:
    """``count`` of the kept frames, evenly spread: the middle of each of ``count`` equal parts.

    What :func:`full_resolution_frames` is compared with: it costs as many tokens, and does not know the question.

    Args:
        kept: T.

    Returns:
        Sorted indices [count], int64.
    """
    return (2 * torch.arange(count) + 1) * kept // (2 * max(1, count))
