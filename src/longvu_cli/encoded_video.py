"""A video as far as it can be understood without a question: what the feature cache keeps."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class EncodedVideo:
    """The fused features of a video, and what the choice of frames rests on.

    Attributes:
        times: [N] presentation time of each sampled frame, in seconds.
        similarity: [N] mean similarity within the window; NaN where no tower was asked.
        indices: [M] sampled frames whose fused grids are here, sorted.
        fused: [M, Q, v] output of the Spatial Vision Aggregator, on the host.
        size: (width, height) of the frames in pixels.
        image: whether it is a picture that is given as an image.
    """

    times: tuple[float, ...]
    similarity: torch.Tensor
    indices: torch.Tensor
    fused: torch.Tensor
    size: tuple[int, int]
    image: bool

    def holds(self, kept: torch.Tensor) -> bool:
        """Whether the fused grids of all these frames are here."""
        return bool(torch.isin(kept, self.indices).all())

    def rows(self, kept: torch.Tensor) -> torch.Tensor:
        """Where in :attr:`fused` the grids of these frames are."""
        return torch.searchsorted(self.indices, kept)
