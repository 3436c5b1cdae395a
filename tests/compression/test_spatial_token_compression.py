"""spatial_token_compression.py: exact masks, against loops over tokens."""

from __future__ import annotations

import math
import random

import pytest
import torch
from recipes import PAPER, RELEASED, paper, released

from longvu_cli.compression.spatial_token_compression import anchor_frame, cut, fit, keep_tokens
from longvu_cli.config import Anchor, Recipe, RecipeName


def at_angles(frames: list[list[float]]) -> torch.Tensor:
    """[T, n, 2]: unit vectors of which only the directions, in degrees, matter."""
    return torch.tensor([[[math.cos(math.radians(d)), math.sin(math.radians(d))] for d in frame] for frame in frames])


def naive_keep(tokens: torch.Tensor, recipe: Recipe) -> list[list[bool]]:
    keep: list[list[bool]] = []
    for begin in range(0, len(tokens), 8):
        window = tokens[begin : begin + 8].double()
        anchor = naive_anchor(window, recipe.anchor)
        for i, frame in enumerate(window):
            row = []
            for place, token in enumerate(frame):
                other = window[anchor][place]
                similarity = float(token @ other / (token.norm() * other.norm()))
                is_paper = recipe.name is RecipeName.PAPER
                stays = similarity <= recipe.stc_threshold if is_paper else similarity < recipe.stc_threshold
                row.append(i == anchor or stays)
            keep.append(row)
    return keep


def naive_anchor(window: torch.Tensor, anchor: Anchor) -> int:
    if anchor is Anchor.FIRST:
        return 0
    if anchor is Anchor.MIDDLE:
        return len(window) // 2
    means = []
    for i in range(len(window)):
        cosines = []
        for j in (i - 1, i + 1):
            if 0 <= j < len(window):
                pairs = zip(window[i], window[j], strict=True)
                each = [float(a @ b / (a.norm() * b.norm())) for a, b in pairs]
                cosines.append(sum(each) / len(each))
        means.append(sum(cosines) / len(cosines) if cosines else 0.0)
    return means.index(min(means))


@pytest.mark.parametrize("anchor", Anchor)
@pytest.mark.parametrize("name", RecipeName)
@pytest.mark.parametrize("frames", [1, 2, 7, 8, 9, 16, 21])
def test_random_tokens_stay_where_a_loop_keeps_them(frames: int, name: RecipeName, anchor: Anchor) -> None:
    generator = torch.Generator().manual_seed(frames)
    tokens = torch.randn(frames, 10, 6, generator=generator) + 0.7
    recipe = released(name=name, anchor=anchor, stc_threshold=0.4)
    kept = keep_tokens(tokens, recipe)
    assert kept.dtype is torch.bool
    assert kept.tolist() == naive_keep(tokens, recipe)


def test_equal_similarity_drops_in_the_released_recipe_and_stays_in_the_papers() -> None:
    tokens = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]], [[1.0, 0.0]], [[-1.0, 0.0]]])
    assert keep_tokens(tokens, released(stc_threshold=0.0)).flatten().tolist() == [True, False, False, True]
    assert keep_tokens(tokens, paper(stc_threshold=0.0)).flatten().tolist() == [True, True, False, True]


def test_each_window_of_eight_has_an_anchor_that_keeps_everything() -> None:
    alike = torch.ones(20, 5, 4)
    kept = keep_tokens(alike, RELEASED)
    assert kept.sum(dim=1).tolist() == [5, *[0] * 7, 5, *[0] * 7, 5, *[0] * 3]


@pytest.mark.parametrize("recipe", [RELEASED, PAPER])
def test_newline_tokens_drop(recipe: Recipe) -> None:
    tokens = at_angles([[0, 10, 45], [90, 80, 45], [180, 200, 45]])
    assert keep_tokens(tokens, recipe).tolist() == [[True, True, True], [True, True, False], [True, True, False]]


def test_similarity_does_not_depend_on_length() -> None:
    tokens = torch.tensor([[[1.0, 1.0]], [[100.0, 100.0]], [[1e-3, 1e-3]], [[5.0, -5.0]]])
    assert keep_tokens(tokens, RELEASED).flatten().tolist() == [True, False, False, True]


def test_the_middle_anchor_is_the_frame_at_half_the_length() -> None:
    for count in range(1, 9):
        assert anchor_frame(torch.ones(count, 2, 3), Anchor.MIDDLE) == count // 2
    # 30° and 150° are far from 90°, 80° and 100° are near.
    tokens = at_angles([[30], [80], [90], [100], [150]])
    kept = keep_tokens(tokens, released(anchor=Anchor.MIDDLE))
    assert kept.flatten().tolist() == [True, False, True, False, True]


def test_the_change_anchor_is_the_frame_least_like_its_neighbours() -> None:
    assert anchor_frame(at_angles([[0], [5], [90], [10], [15]]), Anchor.CHANGE) == 2
    assert anchor_frame(at_angles([[0], [5], [10], [15], [100]]), Anchor.CHANGE) == 4
    assert anchor_frame(at_angles([[100], [5], [10], [15], [20]]), Anchor.CHANGE) == 0
    assert anchor_frame(at_angles([[0]]), Anchor.CHANGE) == 0


def test_the_change_anchor_compares_places() -> None:
    # The second frame has the same tokens as the first, swapped.
    window = at_angles([[0, 90], [90, 0], [90, 0], [90, 0]])
    assert anchor_frame(window, Anchor.CHANGE) == 0
    assert anchor_frame(at_angles([[0, 90], [0, 90], [90, 0], [0, 90], [0, 90]]), Anchor.CHANGE) == 2


def test_an_anchor_change_moves_what_stays() -> None:
    tokens = at_angles([[0], [5], [90], [10], [15]])
    assert keep_tokens(tokens, released(anchor=Anchor.CHANGE)).flatten().tolist() == [True] * 5
    assert keep_tokens(tokens, RELEASED).flatten().tolist() == [True, False, True, False, False]


def naive_fit(keep: list[list[bool]], budget: int) -> list[list[bool]]:
    """Lists of kept places: the last ``cut`` of each chunk go, then the tail of everything."""
    places = [
        [(i, j) for i in range(begin, min(begin + 8, len(keep))) for j, stays in enumerate(keep[i]) if stays]
        for begin in range(0, len(keep), 8)
    ]
    total = sum(len(chunk) for chunk in places)
    if total > budget:
        cut = math.ceil((total - budget) / len(places))
        places = [chunk[: max(0, len(chunk) - cut)] for chunk in places]
    stays = set([place for chunk in places for place in chunk][:budget])
    return [[(i, j) in stays for j in range(len(row))] for i, row in enumerate(keep)]


def test_what_fits_is_left_alone() -> None:
    keep = torch.rand(20, 10, generator=torch.Generator().manual_seed(0)) < 0.5
    total = int(keep.sum())
    assert torch.equal(fit(keep, total), keep)
    assert torch.equal(fit(keep, total + 1), keep)
    assert not torch.equal(fit(keep, total - 1), keep)


def test_the_excess_is_cut_from_the_end_of_every_window() -> None:
    keep = torch.ones(20, 10, dtype=torch.bool)  # windows of 80, 80 and 40 tokens
    kept = fit(keep, 193)  # 7 too many: ceil(7 / 3) = 3 from each
    assert kept.sum(dim=1).tolist() == [*[10] * 7, 7, *[10] * 7, 7, *[10] * 3, 7]
    assert kept[7].tolist() == [True] * 7 + [False] * 3
    assert int(kept.sum()) == 191


def test_only_kept_tokens_count_as_the_last() -> None:
    keep = torch.tensor([[True, False, True, True, False]])
    assert fit(keep, 2).tolist() == [[True, False, True, False, False]]


def test_a_window_shorter_than_the_cut_loses_everything_and_the_rest_is_truncated() -> None:
    keep = torch.zeros(9, 10, dtype=torch.bool)
    keep[0] = True
    keep[8, :2] = True  # windows of 10 and 2 tokens
    kept = fit(keep, 4)  # 8 too many: 4 from each leaves 6 and none; then the first 4 stay
    assert kept.sum(dim=1).tolist() == [4, *[0] * 8]
    assert kept[0].tolist() == [True] * 4 + [False] * 6


def test_random_masks_fit_as_a_loop_fits_them() -> None:
    generator = random.Random(3)
    for _ in range(300):
        frames, tokens = generator.randint(1, 30), generator.randint(1, 12)
        density = generator.random()
        keep = torch.tensor([[generator.random() < density for _ in range(tokens)] for _ in range(frames)])
        budget = generator.randint(1, frames * tokens + 2)
        kept = fit(keep, budget)
        assert kept.tolist() == naive_fit(keep.tolist(), budget)
        assert int(kept.sum()) <= budget
        assert not (kept & ~keep).any()


def test_a_cut_keeps_the_beginning() -> None:
    keep = torch.ones(5, 4, dtype=torch.bool)
    assert cut(keep, 10).sum(dim=1).tolist() == [4, 4, 2, 0, 0]
    assert cut(keep, 10)[2].tolist() == [True, True, False, False]
    assert torch.equal(cut(keep, 20), keep)
    assert torch.equal(cut(keep, 99), keep)
