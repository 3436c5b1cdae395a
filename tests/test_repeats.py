"""repeats.py: the result of each picture, whoever computed it, and no more work than there are pictures."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import torch

from longvu_cli.repeats import OncePerPicture


class Squares:
    """Computes squares and remembers of which pictures."""

    def __init__(self) -> None:
        self.once = OncePerPicture()
        self.computed: list[int] = []

    def of(self, pictures: Sequence[int]) -> list[float]:
        def compute(rows: list[int]) -> torch.Tensor:
            self.computed += [pictures[row] for row in rows]
            return torch.tensor([[float(pictures[row] ** 2)] for row in rows])

        squares = self.once.of(pictures, compute)
        assert len(squares) == len(pictures)
        assert len(squares.results) == len(set(pictures))
        found = squares.of_frames(slice(None)).flatten().tolist()
        some = torch.tensor([len(pictures) - 1, 0])
        assert squares.of_frames(some).flatten().tolist() == [found[-1], found[0]]
        return found


def test_each_picture_is_computed_once() -> None:
    squares = Squares()
    assert squares.of([1, 1, 2, 2, 2, 3]) == [1, 1, 4, 4, 4, 9]
    assert squares.of([3, 3, 4]) == [9, 9, 16]
    assert squares.of([4, 4]) == [16, 16]
    assert squares.of([5, 6]) == [25, 36]
    assert squares.computed == [1, 2, 3, 4, 5, 6]


def test_only_the_last_picture_is_remembered() -> None:
    squares = Squares()
    assert squares.of([1, 2]) == [1, 4]
    assert squares.of([1, 2]) == [1, 4]
    assert squares.computed == [1, 2, 1, 2]
    assert squares.once._result is not None and squares.once._result.untyped_storage().nbytes() == 4


@pytest.mark.parametrize("seed", range(5))
def test_calls_may_be_of_any_length(seed: int) -> None:
    dice = random.Random(seed)
    pictures = sorted(dice.choices(range(20), k=60))
    squares, found, at = Squares(), [], 0
    while at < len(pictures):
        size = dice.randint(1, 7)
        found += squares.of(pictures[at : at + size])
        at += size
    assert found == [picture**2 for picture in pictures]
    assert squares.computed == sorted(set(pictures))


def test_nothing_cannot_be_computed() -> None:
    with pytest.raises(ValueError, match="no pictures"):
        Squares().of([])
