"""A first look at nothing, while weights are still being read.

The first pass of a fresh process over the towers takes half a second longer than the others: the GPU's libraries are
loaded and kernels are chosen.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch

from longvu_cli.compression.temporal_reduction import window_similarity
from longvu_cli.pipeline import BATCH, Vision
from longvu_cli.towers import Tower


@contextmanager
def warming_up(vision: Vision) -> Iterator[None]:
    """Within the block, towers and connector on a GPU look at black pictures in a thread of their own."""
    if vision.device.type != "cuda":
        yield
        return
    thread = threading.Thread(target=look_at_nothing, args=(vision,), name="longvu-warm-up", daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def look_at_nothing(vision: Vision) -> None:
    """Pass black pictures through what sees. What is wrong with it is for the first real pass to say."""

    def black(tower: Tower) -> torch.Tensor:
        side = tower.input.side
        return torch.zeros((BATCH, side, side, 3), dtype=torch.uint8, device=vision.device)

    with suppress(RuntimeError), torch.inference_mode():
        dinov2, siglip = (tower(black(tower)) for tower in (vision.dinov2, vision.siglip))
        window_similarity(dinov2, include_self=True)
        vision.connector.aggregate(siglip, dinov2, None)
