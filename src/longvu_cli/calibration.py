"""How fast this machine is, measured in about a second: what the forecast of times rests on."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from longvu_cli.config import DecodingOptions, SamplingOptions
from longvu_cli.device import synchronize
from longvu_cli.frames import Frame, VideoInfo
from longvu_cli.preprocess import TowerInput, square_pixels
from longvu_cli.video import Video

_MATRIX_S, _READ_S, _DECODE_S = 0.3, 0.2, 0.7
_MOST_FRAMES = 64
# Large enough to reach the device's rate, small enough that one product takes little of the time.
_SIDE = {"cpu": 1024, "cuda": 8192, "mps": 4096}
_READ_BYTES = {"cpu": 64 << 20, "cuda": 1 << 30, "mps": 1 << 28}
# What the released towers are shown (their normalisation does not matter for the time).
_INPUTS = tuple(TowerInput(side, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)) for side in (384, 378))


@dataclass(frozen=True)
class Speed:
    """What a device can do at the moment.

    Attributes:
        matrix: floating-point operations per second of a large matrix product in the number format of the model.
        read: bytes per second that a product of a matrix and a vector reads.
    """

    matrix: float
    read: float


@dataclass(frozen=True)
class DecodingSpeed:
    """What is known of a video before any model is loaded.

    Attributes:
        frames: about how many will be sampled; None: the header does not say.
        seconds_per_frame: for decoding one sampled frame, and preprocessing it where the CPU does that; None: there was
            one frame only.
    """

    info: VideoInfo
    frames: int | None
    seconds_per_frame: float | None


def measure_speed(device: torch.device, dtype: torch.dtype) -> Speed:
    """Multiply matrices for half a second."""
    side = _SIDE[device.type]
    # Of ones alone, a GPU takes a product in less time.
    matrix = torch.randn(side, side, device=device, dtype=dtype)
    products = _repeated(lambda: matrix @ matrix, device, _MATRIX_S)
    wide = torch.ones(_READ_BYTES[device.type] // 4096 // dtype.itemsize, 4096, device=device, dtype=dtype)
    vector = torch.ones(4096, device=device, dtype=dtype)
    reads = _repeated(lambda: wide @ vector, device, _READ_S)
    return Speed(matrix=2 * side**3 * products, read=wide.nbytes * reads)


def measure_decoding(
    path: str | Path, sampling: SamplingOptions, decoding: DecodingOptions, *, device: str
) -> DecodingSpeed:
    """Decode the beginning of what will be looked at, for most of a second.

    Args:
        device: kind of the model's; a CUDA GPU preprocesses beside the towers.

    Raises:
        VideoError: the video cannot be read.
    """
    with Video(path, sampling, decoding) as video:
        expected, frames = video.expected_frames, video.frames()
        # The first takes longer: the process that decodes gets ready for it.
        first = next(frames)
        squares = 0.0 if device == "cuda" else _square_seconds(first)
        began, count = time.perf_counter(), 0
        for _ in frames:
            count += 1
            if time.perf_counter() - began > _DECODE_S or count == _MOST_FRAMES:
                break
        elapsed = time.perf_counter() - began
        per_frame = elapsed / count + squares / (os.cpu_count() or 1) if count else None
        return DecodingSpeed(video.info, expected, per_frame)


def _square_seconds(frame: Frame) -> float:
    began = time.perf_counter()
    for tower in _INPUTS:
        square_pixels(frame.pixels, tower)
    return time.perf_counter() - began


def _repeated(work: Callable[[], object], device: torch.device, seconds: float) -> float:
    """How often per second it can be done."""
    work()
    synchronize(device)
    began, count = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - began) < seconds:
        work()
        synchronize(device)
        count += 1
    return count / elapsed
