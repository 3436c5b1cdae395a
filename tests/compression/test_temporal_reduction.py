"""temporal_reduction.py: against loops over plain numbers, and at the boundaries."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
import torch
from recipes import PAPER, RELEASED, paper, released

from longvu_cli.compression.temporal_reduction import (
    evenly_spaced,
    is_thinned,
    keep_frames,
    keep_in_window,
    may_be_kept,
    window_similarity,
)
from longvu_cli.config import Recipe, RecipeName, TemporalReduction


def naive_similarity(features: torch.Tensor, *, include_self: bool) -> list[float]:
    frames = [frame.flatten().double() for frame in features]
    means = []
    for i, one in enumerate(frames):
        cosines = [
            float(one @ other / (one.norm() * other.norm())) for j, other in enumerate(frames) if include_self or i != j
        ]
        means.append(sum(cosines) / len(cosines))
    return means


def naive_keep(similarity: list[float], recipe: Recipe, limit: int) -> list[int]:
    """The description of the released code, and section 3.1 of the paper, frame by frame."""
    is_paper = recipe.name is RecipeName.PAPER
    if not is_paper and len(similarity) < limit:
        return list(range(len(similarity)))
    length = 8 if is_paper else 16
    kept: list[int] = []
    for begin in range(0, len(similarity), length):
        window = similarity[begin : begin + length]
        if is_paper:
            stays = [i for i, value in enumerate(window) if not value > recipe.dino_threshold]
            if not stays:
                stays = [window.index(min(window))]
        else:
            stays = [i for i, value in enumerate(window) if value < recipe.dino_threshold or i == len(window) // 2]
        kept += [begin + i for i in stays]
    if not is_paper and len(kept) > 400:
        kept = [kept[int(i * len(kept) / 400)] for i in range(400)]
    return kept


@pytest.mark.parametrize("count", [2, 5, 8, 16])
@pytest.mark.parametrize("include_self", [True, False])
def test_similarity_is_the_mean_cosine_of_whole_frames(count: int, include_self: bool) -> None:
    features = torch.randn(count, 9, 4, generator=torch.Generator().manual_seed(count)) + 0.5
    found = window_similarity(features, include_self=include_self)
    assert found.dtype is torch.float32
    assert found.tolist() == pytest.approx(naive_similarity(features, include_self=include_self), abs=1e-6)


def test_similarity_of_simple_frames() -> None:
    features = torch.tensor([[[1.0, 0.0]], [[2.0, 0.0]], [[0.0, 3.0]], [[0.0, -1.0]]])
    # Cosines with itself, with the other three: (1, 1, 0, 0), (1, 1, 0, 0), (0, 0, 1, −1), (0, 0, −1, 1).
    assert window_similarity(features, include_self=True).tolist() == [0.5, 0.5, 0.0, 0.0]
    assert window_similarity(features, include_self=False).tolist() == pytest.approx([1 / 3, 1 / 3, -1 / 3, -1 / 3])


def test_similarity_of_a_frame_alone() -> None:
    alone = torch.ones(1, 4, 3)
    assert window_similarity(alone, include_self=True).tolist() == pytest.approx([1.0])
    assert window_similarity(alone, include_self=False).tolist() == [-1.0]


def test_similarity_is_computed_in_float32_whatever_the_features_are() -> None:
    features = torch.randn(16, 50, 8, generator=torch.Generator().manual_seed(1)).bfloat16()
    found = window_similarity(features, include_self=True)
    assert found.dtype is torch.float32
    assert found.tolist() == pytest.approx(naive_similarity(features, include_self=True), abs=1e-6)


def test_released_keeps_what_is_below_the_threshold_and_drops_what_is_at_it() -> None:
    similarity = torch.tensor([0.5, 0.25, 0.75, 0.9, 0.1])
    kept = keep_in_window(similarity, released(dino_threshold=0.5))
    assert kept.tolist() == [False, True, True, False, True]  # the third is the middle one


def test_paper_keeps_what_is_at_the_threshold_and_drops_what_is_above() -> None:
    similarity = torch.tensor([0.5, 0.25, 0.75, 0.9, 0.1])
    kept = keep_in_window(similarity, paper(dino_threshold=0.5))
    assert kept.tolist() == [True, True, False, False, True]


@pytest.mark.parametrize("count", range(1, 17))
def test_released_always_keeps_the_middle(count: int) -> None:
    kept = keep_in_window(torch.full((count,), 0.99), RELEASED)
    assert kept.nonzero().flatten().tolist() == [count // 2]


def test_paper_never_empties_a_window() -> None:
    kept = keep_in_window(torch.tensor([0.99, 0.95, 0.97, 0.96]), PAPER)
    assert kept.tolist() == [False, True, False, False]


def test_released_keeps_all_frames_below_limit_only() -> None:
    alike = torch.full((40,), 0.99)
    assert keep_frames(alike, RELEASED, limit=41).tolist() == list(range(40))
    assert keep_frames(alike, RELEASED, limit=40).tolist() == [8, 24, 36]  # windows of 16, 16 and 8


def test_paper_reduces_short_videos_too() -> None:
    assert keep_frames(torch.full((12,), 0.99), PAPER, limit=126).tolist() == [0, 8]


def test_windows_are_of_sixteen_frames_or_of_eight() -> None:
    alike = torch.full((35,), 0.99)
    assert keep_frames(alike, RELEASED, limit=1).tolist() == [8, 24, 33]  # 16, 16, 3
    assert keep_frames(alike, PAPER, limit=1).tolist() == [0, 8, 16, 24, 32]


def test_more_than_four_hundred_frames_are_thinned_evenly() -> None:
    different = torch.zeros(620)
    kept = keep_frames(different, RELEASED, limit=126)
    assert kept.tolist() == [int(i * 620 / 400) for i in range(400)]
    assert keep_frames(torch.zeros(400), RELEASED, limit=126).tolist() == list(range(400))
    assert keep_frames(torch.zeros(401), RELEASED, limit=126).tolist() == list(range(400))


def test_the_cap_selects_among_the_kept_frames() -> None:
    similarity = torch.zeros(900)
    similarity[::3] = 0.99
    kept = keep_frames(similarity, RELEASED, limit=126)
    assert kept.tolist() == naive_keep(similarity.tolist(), RELEASED, 126)
    assert len(kept) == 400


def test_the_paper_has_no_cap() -> None:
    assert len(keep_frames(torch.zeros(620), PAPER, limit=126)) == 620


@pytest.mark.parametrize("name", RecipeName)
def test_random_videos_keep_what_a_loop_keeps(name: RecipeName) -> None:
    generator = random.Random(7)
    for _ in range(300):
        count = generator.choice([1, 2, 7, 8, 9, 15, 16, 17, 33, 126, 127, 500, 700])
        spread = generator.choice([0.01, 0.2, 1.0])
        similarity = [round(1 - spread * generator.random(), 3) for _ in range(count)]
        # A threshold that some of the frames meet exactly.
        threshold = float(torch.tensor(generator.choice(similarity)))
        recipe = released(name=name, dino_threshold=threshold)
        limit = generator.choice([1, 10, count, count + 1, 126])
        values = torch.tensor(similarity, dtype=torch.float64)
        exact = [float(value) for value in values.float()]
        found = keep_frames(values.float(), recipe, limit=limit).tolist()
        assert found == naive_keep(exact, recipe, limit)
        assert found == sorted(set(found))


@pytest.mark.parametrize("name", RecipeName)
def test_uniform_keeps_what_fits_at_low_resolution(name: RecipeName) -> None:
    recipe = released(name=name, temporal_reduction=TemporalReduction.UNIFORM)
    unknown = torch.full((300,), torch.nan)
    assert keep_frames(unknown, recipe, limit=126).tolist() == [int(i * 300 / 126) for i in range(126)]
    assert keep_frames(unknown[:126], recipe, limit=126).tolist() == list(range(126))
    assert keep_frames(unknown[:127], recipe, limit=126).tolist() == list(range(126))


@pytest.mark.parametrize("name", RecipeName)
def test_none_keeps_everything(name: RecipeName) -> None:
    recipe = released(name=name, temporal_reduction=TemporalReduction.NONE)
    assert keep_frames(torch.full((620,), torch.nan), recipe, limit=1).tolist() == list(range(620))


def test_evenly_spaced_is_exact_for_every_length() -> None:
    for count in range(1, 1500, 7):
        for limit in (1, 3, 126, 400):
            wanted = list(range(count)) if count <= limit else [int(i * count / limit) for i in range(limit)]
            assert evenly_spaced(count, limit).tolist() == wanted


@pytest.mark.parametrize("reduction", TemporalReduction)
@pytest.mark.parametrize("name", RecipeName)
def test_what_may_be_kept_includes_what_is_kept(name: RecipeName, reduction: TemporalReduction) -> None:
    generator = random.Random(11)
    for _ in range(150):
        count = generator.choice([1, 5, 16, 31, 64, 65, 130, 450, 700])
        similarity = torch.tensor([generator.random() for _ in range(count)])
        recipe = released(name=name, temporal_reduction=reduction, dino_threshold=generator.random())
        limit = generator.choice([1, 16, 20, 64, count, count + 1, 1000])
        batch = generator.choice([16, 32, 64])
        possible: list[int] = []
        for first in range(0, count, batch):
            stays = may_be_kept(similarity[first : first + batch], recipe, first=first, limit=limit)
            assert stays.dtype is torch.bool
            possible += [first + int(i) for i in stays.nonzero()]
        assert set(keep_frames(similarity, recipe, limit=limit).tolist()) <= set(possible)


@pytest.mark.parametrize(
    ("changes", "standing", "first", "thinned"),
    [
        ({}, 400, 1000, True),
        ({}, 399, 1000, False),
        ({}, 400, 99, False),
        ({"temporal_reduction": TemporalReduction.SIGLIP}, 400, 1000, True),
        ({"temporal_reduction": TemporalReduction.UNIFORM}, 400, 1000, False),
        ({"temporal_reduction": TemporalReduction.NONE}, 400, 1000, False),
        ({"name": RecipeName.PAPER}, 400, 1000, False),
    ],
)
def test_frames_are_thinned_where_more_stand_out_than_are_kept(
    changes: dict[str, Any], standing: int, first: int, thinned: bool
) -> None:
    assert is_thinned(standing, replace(RELEASED, **changes), first=first, limit=100) is thinned


def test_what_may_be_kept_leaves_out_what_cannot_be() -> None:
    alike = torch.full((32,), 0.99)
    assert may_be_kept(alike, RELEASED, first=128, limit=126).nonzero().flatten().tolist() == [8, 24]
    # A video that ends with frame 124 has 125 frames, fewer than limit, and keeps them all.
    across = may_be_kept(alike, RELEASED, first=112, limit=126)
    assert across[:13].all()
    assert not across[14:24].any()
    assert may_be_kept(alike, PAPER, first=0, limit=126).nonzero().flatten().tolist() == [0, 8, 16, 24]
