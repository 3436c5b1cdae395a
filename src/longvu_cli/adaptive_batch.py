"""Batches that shrink when the device runs out of memory."""

from __future__ import annotations

from collections.abc import Callable

import torch

from longvu_cli.device import is_out_of_memory

# Times a batch is halved before the error is let through.
TRIES = 3


class AdaptiveBatch:
    """How many frames go through a module together.

    Attributes:
        size: frames.
        reduced: how often it was halved.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.reduced = 0

    def run(self, module: Callable[[torch.Tensor], torch.Tensor], frames: torch.Tensor) -> torch.Tensor:
        """Apply a module to frames, part by part; after an out-of-memory error in smaller parts.

        Args:
            frames: [n, …].

        Returns:
            [n, …].

        Raises:
            RuntimeError, MemoryError: the module's own; out of memory only if even smaller batches do not fit.
        """
        while True:
            try:
                return torch.cat([module(part) for part in frames.split(self.size)])
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or self.size == 1 or self.reduced == TRIES:
                    raise
            self.size, self.reduced = self.size // 2, self.reduced + 1
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
