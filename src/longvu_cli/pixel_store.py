"""Pixels of frames that wait, in a temporary file that is written beside the work of the towers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO, Self

import numpy as np

from longvu_cli.scratch import scratch_errors, scratch_file, write_all

Squares = tuple[np.ndarray, ...]


class PixelStore:
    """A growing list of frames, each some arrays of pixels; all frames have the same shapes. A context manager."""

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None
        self._shapes: tuple[tuple[int, ...], ...] = ()
        self._count = 0
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="longvu-pixels")
        self._writing: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.shutdown()
        if self._file is not None:
            self._file.close()

    def __len__(self) -> int:
        return self._count

    def append(self, frames: Sequence[Squares]) -> None:
        """Add frames at the end. What was added before is written first, so that only this much is held.

        Args:
            frames: uint8 arrays that nobody changes any more.

        Raises:
            NoScratchSpace: the file cannot be written.
        """
        if self._file is None:
            self._shapes = tuple(array.shape for array in frames[0])
            self._file = scratch_file()
        self._finish_writing()
        self._writing = self._writer.submit(_write, self._file, tuple(frames))
        self._count += len(frames)

    def take(self, rows: Sequence[int]) -> list[Squares]:
        """The frames of these rows.

        Raises:
            NoScratchSpace: the file cannot be written, or read.
        """
        self._finish_writing()
        return [self._read(row) for row in rows]

    def _finish_writing(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _read(self, row: int) -> Squares:
        if self._file is None or not 0 <= row < self._count:
            raise IndexError(f"row {row} of {self._count}")
        sizes = [int(np.prod(shape)) for shape in self._shapes]
        with scratch_errors():
            data = np.frombuffer(os.pread(self._file.fileno(), sum(sizes), row * sum(sizes)), dtype=np.uint8)
        parts = np.split(data, np.cumsum(sizes)[:-1])
        return tuple(part.reshape(shape) for part, shape in zip(parts, self._shapes, strict=True))


def _write(file: IO[bytes], frames: Sequence[Squares]) -> None:
    for frame in frames:
        for array in frame:
            write_all(file, np.ascontiguousarray(array).data.cast("B"))
