"""Frames as the towers see them, in whole windows that have enough different pictures."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import torch

from longvu_cli.frames import Frame
from longvu_cli.gpu_squares import GpuSquares, Squares
from longvu_cli.preprocess import TowerInput, square_pixels
from longvu_cli.timing import Stopwatch


@dataclass(frozen=True)
class Inputs:
    """What both towers want to see, and where they are."""

    siglip: TowerInput
    dinov2: TowerInput
    device: torch.device


@dataclass(frozen=True)
class SquareFrame:
    """A frame as the towers see it: uint8 squares, keyed by tower.

    Attributes:
        picture: how many different pictures came before; that of the frame before where it is the same picture.
    """

    time_s: float
    size: tuple[int, int]
    picture: int
    siglip: np.ndarray
    dinov2: np.ndarray


def square_frames(frames: Iterator[Frame], inputs: Inputs, watch: Stopwatch) -> Iterator[SquareFrame]:
    """Preprocess a few frames at a time, in order; one that shares its pixels with the last, not again."""
    on_gpu = inputs.device.type == "cuda"
    return squared_on_gpu(frames, inputs, watch) if on_gpu else squared_side_by_side(frames, inputs, watch)


def squared_on_gpu(frames: Iterator[Frame], inputs: Inputs, watch: Stopwatch) -> Iterator[SquareFrame]:
    """Preprocess on the GPU: cores that resize are missing where frames are decoded, and hold up what feeds the GPU."""
    before: SquareFrame | None = None
    with closing(GpuSquares((inputs.siglip, inputs.dinov2), inputs.device)) as squares:
        for first in frames:
            some = [first, *islice(frames, squares.together(first.pixels) - 1)]
            with watch.stage("preprocess", on_device=False):
                pairs = squares.of([frame.pixels for frame in some])
            for frame, pair in zip(some, pairs, strict=True):
                before = _numbered(_square_frame(frame, pair), before)
                yield before


def squared_side_by_side(frames: Iterator[Frame], inputs: Inputs, watch: Stopwatch) -> Iterator[SquareFrame]:
    """Preprocess in as many threads as there are cores."""

    def square(pixels: np.ndarray) -> Squares:
        return square_pixels(pixels, inputs.siglip), square_pixels(pixels, inputs.dinov2)

    workers = os.cpu_count() or 1
    last: tuple[np.ndarray, Future[Squares]] | None = None
    before: SquareFrame | None = None

    def done(frame: Frame, squares: Future[Squares]) -> SquareFrame:
        with watch.stage("preprocess", on_device=False):
            pair = squares.result()
        return _numbered(_square_frame(frame, pair), before)

    with ThreadPoolExecutor(workers) as pool:
        pending: deque[tuple[Frame, Future[Squares]]] = deque()
        for frame in frames:
            if last is None or frame.pixels is not last[0]:
                last = frame.pixels, pool.submit(square, frame.pixels)
            pending.append((frame, last[1]))
            if len(pending) > workers:
                before = done(*pending.popleft())
                yield before
        while pending:
            before = done(*pending.popleft())
            yield before


def _square_frame(frame: Frame, squares: Squares) -> SquareFrame:
    """The frame, not numbered yet, with the squares for SigLIP and DINOv2."""
    height, width = frame.pixels.shape[:2]
    return SquareFrame(frame.time_s, (width, height), 0, *squares)


def _numbered(frame: SquareFrame, before: SquareFrame | None) -> SquareFrame:
    """The frame with the number of its picture."""
    if before is None:
        return frame
    if _shows_the_same(frame, before):
        # The older arrays, so that those of a picture that stays are held once.
        return replace(before, time_s=frame.time_s)
    return replace(frame, picture=before.picture + 1)


def _shows_the_same(frame: SquareFrame, before: SquareFrame) -> bool:
    """Whether the towers would see no difference."""
    if frame.siglip is before.siglip and frame.dinov2 is before.dinov2:
        return True
    return np.array_equal(frame.siglip, before.siglip) and np.array_equal(frame.dinov2, before.dinov2)


def pictures_of(frames: list[SquareFrame]) -> list[int]:
    """The number of each frame's picture."""
    return [frame.picture for frame in frames]


def different_pictures(frames: list[SquareFrame]) -> int:
    """How many different pictures they show."""
    return len(set(pictures_of(frames)))


def growing_batches(
    frames: Iterator[SquareFrame], *, window: int, least: int, most: int, most_frames: int
) -> Iterator[list[SquareFrame]]:
    """Whole windows together, in the order of their frames.

    Args:
        window: frames.
        least: different pictures of the first batch, at most; the next has twice as many, up to ``most``: the towers do
            not wait for the first long.
        most_frames: of a batch, however few pictures they show.
    """
    size = least
    batch: list[SquareFrame] = []
    while some := list(islice(frames, window)):
        if batch and (different_pictures(batch + some) > size or len(batch + some) > most_frames):
            yield batch
            size, batch = min(2 * size, most), []
        batch += some
        if different_pictures(batch) >= size:
            yield batch
            size, batch = min(2 * size, most), []
    if batch:
        yield batch
