"""Decoded frames → upright RGB pixels."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
from av.sidedata.sidedata import SideData, SideDataContainer
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter

from longvu_cli.frames import Pixels

# The same without interleaved colour planes.
_PLANAR: Mapping[str, str] = {"nv12": "yuv420p", "p010le": "yuv420p10le"}


@dataclass(frozen=True)
class Orientation:
    """How decoded pixels are turned upright: rows and columns swapped first, then either axis reversed."""

    transposed: bool = False
    reverse_rows: bool = False
    reverse_columns: bool = False

    @classmethod
    def of_frame(cls, frame: VideoFrame) -> Orientation | None:
        """From the display matrix, whether it is the container's or the frame's own; None: the frame carries none."""
        # ``frame.side_data`` is the same, but is kept by the frame in a cycle that holds the picture's memory until the
        # garbage collector comes by: hundreds of pictures.
        side_data = SideDataContainer(frame)  # type: ignore[call-arg]
        data = cast("Mapping[str, SideData]", side_data).get("DISPLAYMATRIX")
        if data is None:
            return None
        # Nine numbers in rows; (x, y) is shown at (a x + c y, b x + d y). Tilted pictures take the nearest right angle.
        a, b, _, c, d, *_ = struct.unpack("=9i", bytes(data))
        if abs(b) + abs(c) > abs(a) + abs(d):
            return cls(transposed=True, reverse_rows=b < 0, reverse_columns=c < 0)
        return cls(reverse_rows=d < 0, reverse_columns=a < 0)

    @property
    def rotation(self) -> int:
        """Clockwise degrees, not counting a mirror."""
        if self.transposed:
            return 270 if self.reverse_rows else 90
        return 180 if self.reverse_rows else 0

    def shown_size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) as shown of a picture as decoded, and the other way round."""
        return (height, width) if self.transposed else (width, height)

    def upright(self, pixels: Pixels) -> Pixels:
        """[H, W, 3] as decoded → as shown."""
        turned = pixels.swapaxes(0, 1) if self.transposed else pixels
        rows, columns = -1 if self.reverse_rows else 1, -1 if self.reverse_columns else 1
        return np.ascontiguousarray(turned[::rows, ::columns])


def rgb(frame: VideoFrame, width: int, height: int, reformatter: VideoReformatter) -> Pixels:
    """[height, width, 3]; an alpha channel is left out, as by other video readers.

    Args:
        reformatter: of this thread and for frames of this kind: setting one up takes longer than a conversion.
    """
    # What the GPU's decoder gives interleaves the colour planes; apart, they are what other decoders give.
    planar = _PLANAR.get(frame.format.name)
    apart = frame if planar is None else frame.reformat(format=planar)
    # Several threads for one frame would wait for each other longer than they work.
    return cast(Pixels, reformatter.reformat(apart, width, height, format="rgb24", threads=1).to_ndarray())


def fit(frame: VideoFrame, orientation: Orientation, size: tuple[int, int]) -> Pixels:
    """The frame, upright, scaled to fit and centred on a black canvas of (width, height)."""
    width, height = size
    shown_width, shown_height = orientation.shown_size(frame.width, frame.height)
    scale = min(width / shown_width, height / shown_height)
    fitted = max(1, round(shown_width * scale)), max(1, round(shown_height * scale))
    pixels = orientation.upright(rgb(frame, *orientation.shown_size(*fitted), VideoReformatter()))
    canvas = np.zeros((height, width, 3), np.uint8)
    top, left = (height - fitted[1]) // 2, (width - fitted[0]) // 2
    canvas[top : top + fitted[1], left : left + fitted[0]] = pixels
    return canvas
