"""interpolation.py: against the bilinear formula, pixel by pixel."""

from __future__ import annotations

import math

import pytest
import torch

from longvu_cli.interpolation import resize_grid


def naive_resize(grid: list[list[float]], side: int) -> list[list[float]]:
    """Half-pixel centres, no antialiasing, edges repeated."""
    old = len(grid)

    def weights(place: int) -> tuple[int, int, float]:
        centre = max(0.0, (place + 0.5) * old / side - 0.5)
        low = min(math.floor(centre), old - 1)
        return low, min(low + 1, old - 1), centre - low

    resized = []
    for row in range(side):
        top, bottom, down = weights(row)
        line = []
        for column in range(side):
            left, right, across = weights(column)
            above = grid[top][left] * (1 - across) + grid[top][right] * across
            below = grid[bottom][left] * (1 - across) + grid[bottom][right] * across
            line.append(above * (1 - down) + below * down)
        resized.append(line)
    return resized


@pytest.mark.parametrize(("old", "side"), [(27, 24), (12, 8), (24, 8), (3, 5), (5, 1), (1, 4)])
def test_it_is_bilinear_without_antialiasing(old: int, side: int) -> None:
    tokens = torch.randn(2, old * old, 3, generator=torch.Generator().manual_seed(old))
    found = resize_grid(tokens, side)
    assert found.shape == (2, side * side, 3)
    for frame in range(2):
        for channel in range(3):
            grid = tokens[frame, :, channel].double().reshape(old, old).tolist()
            wanted = torch.tensor(naive_resize(grid, side)).flatten()
            assert torch.allclose(found[frame, :, channel], wanted, atol=1e-5)


def test_the_grid_is_read_row_by_row() -> None:
    tokens = torch.tensor([[[0.0], [0.0], [10.0], [10.0]]])
    assert resize_grid(tokens, 4)[0, :, 0].tolist() == [0] * 4 + [2.5] * 4 + [7.5] * 4 + [10] * 4


def test_the_same_side_changes_nothing() -> None:
    tokens = torch.randn(1, 576, 4).bfloat16()
    assert resize_grid(tokens, 24) is tokens


def test_small_number_formats_are_computed_in_float32_and_kept() -> None:
    tokens = torch.randn(1, 729, 4, generator=torch.Generator().manual_seed(0)).bfloat16()
    found = resize_grid(tokens, 24)
    assert found.dtype is torch.bfloat16
    assert torch.equal(found, resize_grid(tokens.float(), 24).bfloat16())


def test_tokens_that_form_no_square_are_refused() -> None:
    with pytest.raises(ValueError, match="730 tokens form no square grid"):
        resize_grid(torch.zeros(1, 730, 4), 24)
