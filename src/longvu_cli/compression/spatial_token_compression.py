"""Which tokens stay (paper §3.3, eq. 2; anchors of Table 5).

Legend: T frames, n tokens per frame, h hidden size, K frames per window.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from longvu_cli.config import STC_WINDOW, Anchor, Recipe, RecipeName


def keep_tokens(tokens: torch.Tensor, recipe: Recipe) -> torch.Tensor:
    """Drop the tokens that look like the anchor frame's token at the same place.

    Windows of 8 consecutive kept frames; the anchor frame of a window keeps everything. A token of another frame stays
    when its cosine similarity is below the threshold (*released*) or not above it (*paper*). Newline tokens are all
    equal, so they drop.

    Args:
        tokens: [T, n, h], after the projector, newlines included.

    Returns:
        [T, n] bool.
    """
    return torch.cat([_keep_in_window(window, recipe) for window in tokens.split(STC_WINDOW)])


def fit(keep: torch.Tensor, budget: int) -> torch.Tensor:
    """Cut what still exceeds the budget: the same number of tokens from the end of each window, then the tail.

    Args:
        keep: [T, n] bool.
        budget: tokens that fit.

    Returns:
        [T, n] bool, at most ``budget`` of them true.
    """
    excess = int(keep.sum()) - budget
    if excess <= 0:
        return keep
    windows = keep.split(STC_WINDOW)
    cut = -(-excess // len(windows))
    shortened = torch.cat([_without_last(window, cut) for window in windows])
    return _first(shortened, budget)


def cut(keep: torch.Tensor, budget: int) -> torch.Tensor:
    """Cut what exceeds the budget from the end, as the released code cuts a sequence that is too long.

    Args:
        keep: [T, n] bool.
        budget: tokens that fit.

    Returns:
        [T, n] bool, at most ``budget`` of them true.
    """
    return _first(keep, budget)


def anchor_frame(window: torch.Tensor, anchor: Anchor) -> int:
    """The frame of a window that the others are compared with (paper, Table 5).

    ``change`` is the frame that differs most from its neighbours within the window: the lowest mean cosine similarity
    of its tokens with the same places one frame earlier and later.

    Args:
        window: [K, n, h].
    """
    count = window.shape[0]
    if anchor is Anchor.FIRST or count == 1:
        return 0
    if anchor is Anchor.MIDDLE:
        return count // 2
    steps = functional.cosine_similarity(window[1:].float(), window[:-1].float(), dim=-1).mean(dim=1)
    before, after = steps[:1], steps[-1:]  # the first and the last frame have one neighbour: it counts twice
    neighbours = (torch.cat((before, steps)) + torch.cat((steps, after))) / 2
    return int(neighbours.argmin())


def _keep_in_window(window: torch.Tensor, recipe: Recipe) -> torch.Tensor:
    anchor = anchor_frame(window, recipe.anchor)
    similarity = functional.cosine_similarity(window.float(), window[anchor].float(), dim=-1)
    paper = recipe.name is RecipeName.PAPER
    keep = similarity <= recipe.stc_threshold if paper else similarity < recipe.stc_threshold
    keep[anchor] = True
    return keep


def _without_last(keep: torch.Tensor, cut: int) -> torch.Tensor:
    """Clear the last ``cut`` true entries, in reading order."""
    return _first(keep, int(keep.sum()) - cut)


def _first(keep: torch.Tensor, count: int) -> torch.Tensor:
    """Keep the first ``count`` true entries, in reading order."""
    flat = keep.flatten()
    return (flat & (flat.cumsum(0) <= max(0, count))).view_as(keep)
