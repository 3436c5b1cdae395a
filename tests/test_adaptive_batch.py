"""adaptive_batch.py: batches that shrink when the device runs out of memory."""

from __future__ import annotations

import pytest
import torch

from longvu_cli.adaptive_batch import AdaptiveBatch


class Module:
    """Doubles its input, and runs out of memory for more than so many frames."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.batches: list[int] = []

    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(frames))
        if len(frames) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return frames * 2


def test_a_batch_that_fits_is_left_alone() -> None:
    batch, module = AdaptiveBatch(4), Module(most=4)
    assert batch.run(module, torch.arange(10)).tolist() == list(range(0, 20, 2))
    assert module.batches == [4, 4, 2]
    assert (batch.size, batch.reduced) == (4, 0)


def test_it_is_halved_until_it_fits_and_stays_so() -> None:
    batch, module = AdaptiveBatch(16), Module(most=5)
    assert batch.run(module, torch.arange(10)).tolist() == list(range(0, 20, 2))
    assert (batch.size, batch.reduced) == (4, 2)
    module.batches.clear()
    batch.run(module, torch.arange(8))
    assert module.batches == [4, 4]


def test_after_three_tries_the_error_is_let_through() -> None:
    batch, module = AdaptiveBatch(64), Module(most=1)
    with pytest.raises(torch.OutOfMemoryError):
        batch.run(module, torch.arange(64))
    assert batch.size == 8


def test_a_single_frame_cannot_be_halved() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        AdaptiveBatch(1).run(Module(most=0), torch.arange(3))


def test_other_errors_are_not_swallowed() -> None:
    def broken(frames: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        AdaptiveBatch(4).run(broken, torch.arange(4))
