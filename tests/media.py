"""Small media whose frames carry their own number and their own orientation.

A picture has four coloured corners (top left red, top right green, bottom left blue, bottom right yellow) on grey and,
across the middle, a band of 12 black or white blocks: the frame's number in binary, most significant bit left.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]

BITS = 12
CORNERS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220), "yellow": (220, 220, 30)}


def picture(number: int, width: int = 128, height: int = 72) -> Pixels:
    """[height, width, 3]: the picture of a frame."""
    pixels = np.full((height, width, 3), 140, np.uint8)
    tall, wide = height // 4, width // 4
    pixels[:tall, :wide], pixels[:tall, -wide:] = CORNERS["red"], CORNERS["green"]
    pixels[-tall:, :wide], pixels[-tall:, -wide:] = CORNERS["blue"], CORNERS["yellow"]
    edges = [round(block * width / BITS) for block in range(BITS + 1)]
    top, bottom = height // 2 - height // 10, height // 2 + height // 10
    for block in range(BITS):
        bit = number >> (BITS - 1 - block) & 1
        pixels[top:bottom, edges[block] : edges[block + 1]] = 235 if bit else 20
    return pixels


def number_of(pixels: Pixels) -> int:
    """The number that a picture carries."""
    height, width, _ = pixels.shape
    row = pixels[height // 2 - 1 : height // 2 + 2].mean(axis=(0, 2))
    centres = [int((block + 0.5) * width / BITS) for block in range(BITS)]
    return sum(int(row[centre] > 128) << (BITS - 1 - block) for block, centre in enumerate(centres))


def corners_of(pixels: Pixels) -> tuple[str, ...]:
    """The names of the corners' colours: top left, top right, bottom left, bottom right."""
    height, width, _ = pixels.shape
    y, x = max(height // 16, 1), max(width // 16, 1)
    points = (pixels[y, x], pixels[y, -1 - x], pixels[-1 - y, x], pixels[-1 - y, -1 - x])
    return tuple(min(CORNERS, key=lambda name: np.abs(point - np.array(CORNERS[name])).sum()) for point in points)


UPRIGHT = ("red", "green", "blue", "yellow")


def write_video(
    path: Path,
    times: Sequence[float],
    *,
    pictures: Iterable[Pixels] | None = None,
    codec: str = "libx264",
    container: str | None = None,
    pixel_format: str = "yuv420p",
    rate: int = 10,
    keyframes_every: int = 10,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    display: tuple[int, bool] | None = None,
    ticks: int = 30_000,
) -> Path:
    """Write a video whose frame i is shown from ``times[i]`` seconds on.

    Args:
        pictures: by default :func:`picture` of 0, 1, 2 ...
        display: counter-clockwise degrees and whether to mirror, for the container's display matrix.
    """
    shown = iter(pictures if pictures is not None else (picture(number) for number in range(len(times))))
    with av.open(str(path), "w", format=container, options=container_options or {}) as output:
        stream = None
        for time_s, pixels in zip(times, shown, strict=True):
            if stream is None:
                stream = output.add_stream(codec, rate=rate, options=options or {})
                stream.height, stream.width = pixels.shape[:2]
                stream.pix_fmt = pixel_format
                stream.codec_context.gop_size = keyframes_every
                stream.codec_context.time_base = Fraction(1, ticks)
                if display is not None:
                    stream.set_display_rotation(display[0], hflip=display[1])
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24" if pixels.shape[2] == 3 else "rgba")
            frame.pts, frame.time_base = round(time_s * ticks), Fraction(1, ticks)
            for packet in stream.encode(frame):
                output.mux(packet)
        if stream is not None:
            for packet in stream.encode():
                output.mux(packet)
    return path


def steady(frames: int, rate: float = 10) -> list[float]:
    """Times of frames at a steady rate."""
    return [number / rate for number in range(frames)]
