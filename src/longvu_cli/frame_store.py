"""Fused grids of frames, in memory up to a limit and beyond it in a temporary file."""

from __future__ import annotations

import os
from typing import IO, Self

import numpy as np
import torch

from longvu_cli.scratch import scratch_errors, scratch_file, write_all

# 400 frames of the largest model fit; a file is only needed for videos that keep more before they are thinned.
MEMORY_BYTES = 160 * 2**20


class FrameStore:
    """A growing list of equally shaped grids; a context manager.

    Args:
        memory_bytes: how much is held in memory.
    """

    def __init__(self, memory_bytes: int = MEMORY_BYTES) -> None:
        self._memory_bytes = memory_bytes
        self._held: list[torch.Tensor] = []
        self._like: torch.Tensor | None = None
        self._spilled = 0
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def __len__(self) -> int:
        return len(self._held) + self._spilled

    def append(self, grids: torch.Tensor) -> None:
        """Add grids at the end.

        Args:
            grids: [n, Q, v], all of one type.

        Raises:
            NoScratchSpace: the file cannot be written.
        """
        for grid in grids.cpu():
            self._like = grid if self._like is None else self._like
            if self._file is None and (len(self._held) + 1) * grid.nbytes <= self._memory_bytes:
                self._held.append(grid.clone())
            else:
                self._spill(grid)

    def take(self, rows: torch.Tensor) -> torch.Tensor:
        """The grids of these rows, [len(rows), Q, v].

        Raises:
            NoScratchSpace: the file cannot be read.
        """
        return torch.stack([self._read(row) for row in rows.tolist()])

    def _spill(self, grid: torch.Tensor) -> None:
        if self._file is None:
            self._file = scratch_file()
        with scratch_errors():
            self._file.seek(0, os.SEEK_END)
        write_all(self._file, grid.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        self._spilled += 1

    def _read(self, row: int) -> torch.Tensor:
        if row < len(self._held):
            return self._held[row]
        like = self._like
        if self._file is None or like is None or row - len(self._held) >= self._spilled:
            raise IndexError(f"row {row} of {len(self)}")
        with scratch_errors():
            self._file.seek((row - len(self._held)) * like.nbytes)
            data = np.frombuffer(self._file.read(like.nbytes), dtype=np.uint8).copy()
        return torch.from_numpy(data).view(like.dtype).reshape(like.shape)
