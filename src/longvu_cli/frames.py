"""Sampled frames, and what is known of the file that they come from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

Pixels: TypeAlias = npt.NDArray[np.uint8]

# 8k video has 33 megapixels; a frame of more is refused before it is decoded.
MAX_PIXELS = 40_000_000


@dataclass(frozen=True)
class VideoInfo:
    """What a file says of itself and, once its frames were read, what was found.

    Attributes:
        path: the path as it was given.
        duration_s: seconds; what the header says until all frames were read, then as measured; None: unknown, or a
            still.
        width, height: pixels of a frame as shown, after rotation.
        fps: mean rate of the stream in frames per second; None: unknown, or a still.
        rotation: clockwise degrees that were applied: 0, 90, 180 or 270.
        codec: the codec's name, such as ``h264``.
        is_still: whether the file is a single picture.
        warnings: sentences about what was wrong; complete once all frames were read.
        title: what the container's metadata call it; None: nothing, or a still.
    """

    path: str
    duration_s: float | None
    width: int
    height: int
    fps: float | None
    rotation: int
    codec: str
    is_still: bool
    warnings: tuple[str, ...]
    title: str | None = None


@dataclass(frozen=True)
class Frame:
    """A sampled frame.

    Attributes:
        index: number among the sampled frames, from 0.
        time_s: presentation time in seconds, minus that of the first frame of the file.
        pixels: [H, W, 3] uint8 RGB, upright. A frame that is sampled repeatedly shares one array.
    """

    index: int
    time_s: float
    pixels: Pixels


class Source(Protocol):
    """What gives the sampled frames of one file."""

    def frames(self) -> Iterator[Frame]:
        """The sampled frames, once."""

    def info(self, path: str) -> VideoInfo:
        """What is known of the file by now, under the path as it was given."""

    def expected_frames(self) -> int | None:
        """About how many frames will be sampled; None: unknown."""

    def close(self) -> None:
        """Let go of the file."""
