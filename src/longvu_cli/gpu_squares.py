"""Square pixels on a GPU, bit by bit those of :func:`~longvu_cli.preprocess.square_pixels`.

Pillow resizes columns before rows, in whole numbers: an output pixel is a sum of input pixels times coefficients of 22
binary places, rounded to a byte. Sums of that size are exact in float64, so each direction is a product with a matrix.
Few input pixels reach an output pixel: the matrix is cut into bands.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch

from longvu_cli.device import is_out_of_memory
from longvu_cli.preprocess import TowerInput, square_pixels

Squares: TypeAlias = tuple[np.ndarray, ...]

# Binary places of Pillow's coefficients for pictures of 8 bits, and the reach of its bicubic filter, in pixels.
_PLACES, _REACH = 22, 2.0
# Output pixels of a band: for a picture of 1280 columns it reads a seventh of them.
_BAND = 48
# Bytes of frames that are resized together; the working memory on the device is about six times as much.
_BYTES_TOGETHER = 24_000_000
# Larger frames are for the CPU: `square_pixels` shrinks the largest first.
_LONGEST_SIDE = 8_192


@dataclass(frozen=True)
class _Band:
    """Neighbouring output pixels and the input pixels that reach them.

    Attributes:
        weights: [inputs, outputs] whole numbers, float64.
        constant: [3, 1, outputs], what the bars beside the picture add, and a half.
    """

    outputs: slice
    inputs: slice
    weights: torch.Tensor
    constant: torch.Tensor


class GpuSquares:
    """Makes the squares of some towers, on a stream of its own; where the GPU has no room for it, on the CPU.

    Args:
        device: a GPU; any device gives the same pixels.
    """

    def __init__(self, towers: Sequence[TowerInput], device: torch.device) -> None:
        self._towers = tuple(towers)
        self._device = device
        # Before what the towers do, which fills the GPU for long.
        self._stream = torch.cuda.Stream(device, priority=-1) if device.type == "cuda" else None
        self._resizer: _Resizer | None = None
        self._is_full = False
        self._last: tuple[np.ndarray, Squares] | None = None
        self._pool = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="longvu-squares")

    def together(self, pixels: np.ndarray) -> int:
        """How many frames of this size are best made into squares together."""
        return max(1, _BYTES_TOGETHER // pixels.nbytes)

    def of(self, frames: Sequence[np.ndarray]) -> list[Squares]:
        """The squares of some frames of one size.

        Args:
            frames: n of [height, width, 3] uint8. What is the same array as the one before it, here or in the last
                call, is not resized again.

        Returns:
            n tuples with a square per tower, [side, side, 3] uint8.
        """
        last, before = self._last, None if self._last is None else self._last[0]
        made = iter(
            self._made(
                [pixels for pixels, earlier in zip(frames, [before, *frames], strict=False) if pixels is not earlier]
            )
        )
        squares = []
        for pixels in frames:
            if last is None or pixels is not last[0]:
                last = pixels, next(made)
            squares.append(last[1])
        self._last = last
        return squares

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()

    def _made(self, frames: Sequence[np.ndarray]) -> list[Squares]:
        if frames and not self._is_full and max(frames[0].shape) <= _LONGEST_SIDE:
            try:
                return self._on_device(frames)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                self._is_full = True
        return list(self._pool.map(self._on_cpu, frames))

    def _on_cpu(self, pixels: np.ndarray) -> Squares:
        return tuple(square_pixels(pixels, tower) for tower in self._towers)

    def _on_device(self, frames: Sequence[np.ndarray]) -> list[Squares]:
        height, width, _ = frames[0].shape
        with torch.inference_mode(), torch.cuda.stream(self._stream):
            if self._resizer is None or self._resizer.size != (height, width):
                self._resizer = _Resizer(self._towers, height, width, self.together(frames[0]), self._device)
            squares = self._resizer(frames)
        return list(zip(*squares, strict=True))


class _Resizer:
    """Frames of one size → squares.

    Args:
        most: frames at a time.
    """

    def __init__(self, towers: Sequence[TowerInput], height: int, width: int, most: int, device: torch.device) -> None:
        self.size = height, width
        self._device = device
        side = max(height, width)
        self._columns = [(tower.side, list(_bands(side, width, tower, device))) for tower in towers]
        self._rows = [(tower.side, list(_bands(side, height, tower, device))) for tower in towers]
        # From memory that stays where it is, a GPU reads by itself.
        self._frames = torch.empty((most, height, width, 3), dtype=torch.uint8, pin_memory=device.type == "cuda")

    def __call__(self, frames: Sequence[np.ndarray]) -> list[np.ndarray]:
        """[n, side, side, 3] for each tower."""
        for place, pixels in zip(self._frames.numpy(), frames, strict=False):
            np.copyto(place, pixels)
        there = self._frames[: len(frames)].to(self._device, non_blocking=True)
        planes = there.permute(0, 3, 1, 2).contiguous()
        squares = []
        for columns, rows in zip(self._columns, self._rows, strict=True):
            narrow = _resized(planes, *columns)
            square = _resized(narrow.transpose(2, 3), *rows)
            # Waits for the device, so that the memory of the frames is free again.
            squares.append(square.permute(0, 3, 2, 1).contiguous().cpu().numpy())
        return squares


def _resized(planes: torch.Tensor, side: int, bands: Sequence[_Band]) -> torch.Tensor:
    """[n, 3, lines, length] → [n, 3, lines, side] uint8."""
    resized = planes.new_empty((*planes.shape[:3], side))
    for band in bands:
        sums = planes[..., band.inputs].to(torch.float64) @ band.weights
        resized[..., band.outputs] = sums.add_(band.constant).mul_(2.0**-_PLACES).floor_().clamp_(0, 255)
    return resized


def _bands(length: int, shown: int, tower: TowerInput, device: torch.device) -> Iterator[_Band]:
    """What resizes one direction of a canvas to the side of the tower.

    Args:
        length: of the canvas.
        shown: of the picture in its middle.
    """
    first, coefficients = _coefficients(length, tower.side)
    begin = (length - shown) // 2
    for start in range(0, tower.side, _BAND):
        outputs = slice(start, min(start + _BAND, tower.side))
        low, high = int(first[outputs].min()), int(first[outputs].max()) + coefficients.shape[1]
        weights = np.zeros((high - low, outputs.stop - start))
        for output in range(start, outputs.stop):
            at = first[output] - low
            weights[at : at + coefficients.shape[1], output - start] = coefficients[output]
        inside = slice(*(min(max(0, edge - begin), shown) for edge in (low, high)))
        of_picture = weights[inside.start + begin - low : inside.stop + begin - low]
        bars = np.asarray(tower.fill, dtype=np.float64)[:, None, None] * (weights.sum(0) - of_picture.sum(0))
        yield _Band(
            outputs,
            inside,
            torch.from_numpy(of_picture).to(device),
            torch.from_numpy(bars + 2.0 ** (_PLACES - 1)).to(device),
        )


def _coefficients(length: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Pillow's coefficients (``precompute_coeffs`` and ``normalize_coeffs_8bpc`` of its Resample.c), in its order.

    Returns:
        [side] the first input pixel that reaches each output pixel, and [side, k] whole numbers in float64, 0 where
        less than k input pixels do.
    """
    scale = length / side
    stretch = max(scale, 1.0)
    reach = _REACH * stretch
    centres = (np.arange(side) + 0.5) * scale
    first = np.maximum(np.trunc(centres - reach + 0.5), 0.0)
    end = np.minimum(np.trunc(centres + reach + 0.5), length)
    places = np.arange(math.ceil(reach) * 2 + 1)
    weights = _bicubic((places + first[:, None] - centres[:, None] + 0.5) * (1.0 / stretch))
    weights[places >= (end - first)[:, None]] = 0.0
    # One after the other, as Pillow adds them: another order rounds in another way.
    totals = np.cumsum(weights, axis=1)[:, -1:]
    scaled = weights / totals * 2.0**_PLACES
    return first.astype(int), np.trunc(np.where(scaled < 0, scaled - 0.5, scaled + 0.5))


def _bicubic(x: np.ndarray) -> np.ndarray:
    a, x = -0.5, np.abs(x)
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    far = (((x - 5.0) * x + 8.0) * x - 4.0) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))
