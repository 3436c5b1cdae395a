"""token_grid.py: which tokens show the picture, and how they become a sequence."""

from __future__ import annotations

import pytest
import torch

from longvu_cli.config import Orientation
from longvu_cli.token_grid import Crop, crop, key_mask, low_resolution_size, size_as_read, with_newlines

RELEASED, UPRIGHT = Orientation.RELEASED, Orientation.UPRIGHT


def crops_of(width: int, height: int, orientation: Orientation, *, image: bool = False) -> tuple[Crop, Crop]:
    """Of the full and the low resolution."""
    size = size_as_read(width, height, orientation=orientation, image=image)
    return crop(12, size), crop(8, low_resolution_size(size, high_side=12, low_side=8))


def test_released_orientation_swaps_a_videos_size() -> None:
    assert size_as_read(1280, 720, orientation=RELEASED, image=False) == (720, 1280)
    assert size_as_read(1280, 720, orientation=UPRIGHT, image=False) == (1280, 720)
    high, low = crops_of(1280, 720, RELEASED)
    # All rows, the letterbox bars among them; a quarter of the picture is cut at each side.
    assert high == Crop(top=0, bottom=12, left=3, right=9)
    assert (high.rows, high.columns, high.tokens) == (12, 6, 84)
    assert low == Crop(top=0, bottom=8, left=2, right=6)
    assert low.tokens == 40


def test_a_still_image_is_always_read_upright() -> None:
    for orientation in Orientation:
        assert size_as_read(1280, 720, orientation=orientation, image=True) == (1280, 720)


@pytest.mark.parametrize(
    ("width", "height", "orientation", "high", "low"),
    [
        (1280, 720, RELEASED, (12, 6, 84), (8, 4, 40)),
        (1280, 720, UPRIGHT, (6, 12, 78), (4, 8, 36)),
        (720, 1280, RELEASED, (6, 12, 78), (4, 8, 36)),
        (720, 1280, UPRIGHT, (12, 6, 84), (8, 4, 40)),
        (640, 480, RELEASED, (12, 10, 132), (8, 6, 56)),
        (640, 480, UPRIGHT, (10, 12, 130), (6, 8, 54)),
        (48, 48, RELEASED, (12, 12, 156), (8, 8, 72)),
        (96, 16, RELEASED, (12, 2, 36), (8, 2, 24)),
        (16, 96, RELEASED, (2, 12, 26), (2, 8, 18)),
    ],
)
def test_rows_columns_and_tokens_of_common_shapes(
    width: int,
    height: int,
    orientation: Orientation,
    high: tuple[int, int, int],
    low: tuple[int, int, int],
) -> None:
    found_high, found_low = crops_of(width, height, orientation)
    assert (found_high.rows, found_high.columns, found_high.tokens) == high
    assert (found_low.rows, found_low.columns, found_low.tokens) == low


def test_the_padding_is_cut_equally_at_both_ends() -> None:
    # (12 − int(9.6)) // 2 = 1 row at each end; (24 − 13) // 2 = 5 columns at each side.
    assert crop(12, (100, 80)) == Crop(1, 11, 0, 12)
    assert crop(24, (135, 240)) == Crop(0, 24, 5, 19)


def test_a_picture_that_would_vanish_keeps_the_whole_grid() -> None:
    # (12 − 0) // 2 = 6 rows at each end would leave none.
    assert crop(12, (100, 8)) == Crop(0, 12, 0, 12)
    assert crop(12, (8, 100)) == Crop(0, 12, 0, 12)
    # With one row in twelve, 5 are cut at each end.
    assert crop(12, (100, 9)) == Crop(5, 7, 0, 12)
    assert crop(24, (100, 4)) == Crop(0, 24, 0, 24)


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (1, 10_000), (10_000, 1), (3, 2)])
def test_tiny_and_extreme_sizes_keep_something(size: tuple[int, int]) -> None:
    for side in (8, 12, 24):
        kept = crop(side, low_resolution_size(size, high_side=12, low_side=8))
        assert 0 <= kept.top < kept.bottom <= side
        assert 0 <= kept.left < kept.right <= side


def test_the_low_resolution_size_is_cut_to_whole_pixels_before_it_is_used() -> None:
    assert low_resolution_size((1280, 720), high_side=12, low_side=8) == (853, 480)
    assert low_resolution_size((101, 57), high_side=12, low_side=8) == (67, 38)
    assert low_resolution_size((1, 100), high_side=12, low_side=8) == (1, 66)
    assert low_resolution_size((101, 57), high_side=24, low_side=24) == (101, 57)


def test_every_row_ends_with_a_newline() -> None:
    grid = torch.arange(2 * 16, dtype=torch.float32).reshape(2, 16, 1)
    newline = torch.tensor([-1.0])
    whole = with_newlines(grid, Crop(0, 4, 0, 4), newline)
    assert whole.shape == (2, 20, 1)
    assert whole[0].flatten().tolist() == [0, 1, 2, 3, -1, 4, 5, 6, 7, -1, 8, 9, 10, 11, -1, 12, 13, 14, 15, -1]
    part = with_newlines(grid, Crop(1, 3, 1, 4), newline)
    assert part[1].flatten().tolist() == [21, 22, 23, -1, 25, 26, 27, -1]


def test_the_sequence_has_as_many_tokens_as_the_crop_says() -> None:
    for size in ((16, 9), (9, 16), (1, 1), (50, 3)):
        kept = crop(12, size)
        assert with_newlines(torch.zeros(3, 144, 5), kept, torch.ones(5)).shape == (3, kept.tokens, 5)


def test_a_newline_takes_the_type_of_the_tokens() -> None:
    sequence = with_newlines(torch.zeros(1, 4, 2, dtype=torch.bfloat16), Crop(0, 2, 0, 2), torch.ones(2))
    assert sequence.dtype is torch.bfloat16


def test_nothing_is_masked_without_padding() -> None:
    assert key_mask(Crop(0, 24, 0, 24), 24, 12) is None
    assert key_mask(crop(24, (48, 48)), 24, 12) is None


def naive_mask(kept: Crop, side: int, query_side: int) -> list[list[bool]]:
    block = side // query_side
    rows = []
    for query in range(query_side**2):
        top, left = query // query_side * block, query % query_side * block
        keys = []
        for key in range(block**2):
            row, column = top + key // block, left + key % block
            keys.append(kept.top <= row < kept.bottom and kept.left <= column < kept.right)
        rows.append(keys if any(keys) else [True] * len(keys))
    return rows


@pytest.mark.parametrize("size", [(16, 9), (9, 16), (4, 3), (3, 4), (100, 20), (20, 100), (57, 101)])
@pytest.mark.parametrize("query_side", [12, 24])
def test_the_mask_is_what_a_loop_over_keys_makes(size: tuple[int, int], query_side: int) -> None:
    kept = crop(24, size)
    found = key_mask(kept, 24, query_side)
    assert found is not None
    assert found.tolist() == naive_mask(kept, 24, query_side)


def test_a_query_at_the_edge_attends_to_the_keys_inside_only() -> None:
    # Rows 5 to 18 of 24 are inside: query row 2 has key rows 4 (outside) and 5 (inside).
    mask = key_mask(crop(24, (240, 135)), 24, 12)
    assert mask is not None
    assert mask.shape == (144, 4)
    assert mask[2 * 12].tolist() == [False, False, True, True]
    assert mask[3 * 12].tolist() == [True, True, True, True]
    assert mask[9 * 12].tolist() == [True, True, False, False]


def test_a_query_that_is_all_outside_attends_to_all_its_keys() -> None:
    mask = key_mask(crop(24, (240, 135)), 24, 12)
    assert mask is not None
    assert mask[0].tolist() == [True, True, True, True]
    assert mask.any(dim=1).all()
