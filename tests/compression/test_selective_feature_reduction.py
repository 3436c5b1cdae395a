"""selective_feature_reduction.py: against the sum of eq. 1, term by term."""

from __future__ import annotations

import pytest
import torch

from longvu_cli.compression.selective_feature_reduction import full_resolution_frames, relevance, spread_frames


def test_relevance_is_the_mean_of_all_dot_products() -> None:
    generator = torch.Generator().manual_seed(0)
    tokens, text = torch.randn(5, 7, 6, generator=generator), torch.randn(4, 6, generator=generator)
    wanted = []
    for frame in tokens:
        products = [float(token.double() @ word.double()) for token in frame for word in text]
        wanted.append(sum(products) / len(products))
    found = relevance(tokens, text)
    assert found.dtype is torch.float32
    assert found.tolist() == pytest.approx(wanted, abs=1e-6)


def test_relevance_is_not_normalised() -> None:
    tokens = torch.tensor([[[1.0, 0.0]], [[10.0, 0.0]]])
    assert relevance(tokens, torch.tensor([[2.0, 5.0]])).tolist() == [2.0, 20.0]


def test_relevance_is_summed_in_float32() -> None:
    tokens = torch.full((1, 3000, 2), 1.01, dtype=torch.bfloat16)
    text = torch.full((500, 2), 0.99, dtype=torch.bfloat16)
    wanted = 2 * float(tokens[0, 0, 0]) * float(text[0, 0])
    assert relevance(tokens, text).tolist() == pytest.approx([wanted], rel=1e-5)


def test_the_most_relevant_frames_come_in_temporal_order() -> None:
    scores = torch.tensor([0.3, 0.9, -1.0, 0.5, 0.8, 0.1])
    assert full_resolution_frames(scores, 3).tolist() == [1, 3, 4]
    assert full_resolution_frames(scores, 1).tolist() == [1]
    assert full_resolution_frames(scores, 6).tolist() == [0, 1, 2, 3, 4, 5]


def test_spread_frames_are_the_middles_of_equal_parts() -> None:
    assert spread_frames(12, 2).tolist() == [3, 9]
    assert spread_frames(10, 3).tolist() == [1, 5, 8]
    assert spread_frames(7, 1).tolist() == [3]
    assert spread_frames(5, 0).tolist() == []
    for kept in range(1, 30):
        assert spread_frames(kept, kept).tolist() == list(range(kept))
        for count in range(1, kept):
            spread = spread_frames(kept, count).tolist()
            assert len(set(spread)) == count
            assert (min(spread) >= 0, max(spread) < kept, spread == sorted(spread)) == (True, True, True)
