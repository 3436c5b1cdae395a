"""Frames → squares for the towers, some frames side by side, in the process that decodes them.

There they take nothing of the time of the thread that feeds the towers, and what is handed on is small.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from longvu_cli.frames import Frame, Pixels, SquareFrame
from longvu_cli.preprocess import TowerInput, square_pixels
from longvu_cli.side_by_side import cores
from longvu_cli.timing import Stopwatch

# What frames that are being resized may take of the memory, and where it is not limited.
_MEMORY_SHARE, _USUAL_MEMORY_BYTES = 8, 2_000_000_000

Squares = tuple[Pixels, ...]


def squared(
    frames: Iterator[Frame],
    towers: Sequence[TowerInput],
    watch: Stopwatch,
    *,
    memory_bytes: int | None = None,
    beat: Callable[[], None] = lambda: None,
) -> Iterator[SquareFrame]:
    """Resize frames for each tower (see :func:`~longvu_cli.preprocess.square_pixels`), in order.

    A frame that shares its pixels with the one before is not resized again.

    Args:
        frames: all of one size.
        watch: counts the seconds that are waited for frames (``decode``) and for squares (``preprocess``).
        memory_bytes: what there is, for everything; None: 2 GB.
        beat: called whenever a frame is done.
    """

    def square(pixels: Pixels) -> Squares:
        return square_pixels(pixels, towers)

    before: SquareFrame | None = None

    def done(frame: Frame, squares: Future[Squares]) -> SquareFrame:
        with watch.stage("preprocess", on_device=False):
            made = _after(before, frame, squares.result())
        beat()
        return made

    with ThreadPoolExecutor(cores()) as pool:
        pending: deque[tuple[Frame, Future[Squares]]] = deque()
        last: tuple[Pixels, Future[Squares]] | None = None
        for frame in watch.over("decode", frames):
            if last is None or frame.pixels is not last[0]:
                last = frame.pixels, pool.submit(square, frame.pixels)
            pending.append((frame, last[1]))
            if len(pending) > _side_by_side(frame.pixels, memory_bytes or _USUAL_MEMORY_BYTES):
                before = done(*pending.popleft())
                yield before
        while pending:
            before = done(*pending.popleft())
            yield before


def _side_by_side(pixels: Pixels, memory_bytes: int) -> int:
    """How many frames are resized at a time: one per core, if there is room for the canvas of each."""
    height, width, _ = pixels.shape
    frame_bytes: int = 3 * height * width + 4 * max(height, width) ** 2
    return max(1, min(cores(), memory_bytes // _MEMORY_SHARE // frame_bytes))


def _after(before: SquareFrame | None, frame: Frame, squares: Squares) -> SquareFrame:
    """The frame with its squares, or with the older ones where the towers would see no difference."""
    if before is not None and _are_the_same(squares, before.squares):
        return replace(before, index=frame.index, time_s=frame.time_s)
    height, width, _ = frame.pixels.shape
    picture = 0 if before is None else before.picture + 1
    return SquareFrame(frame.index, frame.time_s, (width, height), picture, squares)


def _are_the_same(some: Squares, others: Squares) -> bool:
    return all(a is b or np.array_equal(a, b) for a, b in zip(some, others, strict=True))
