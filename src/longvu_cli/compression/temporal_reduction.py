"""Which frames stay (paper §3.1)."""

from __future__ import annotations

import torch
from torch.nn import functional

from longvu_cli.config import RELEASED_FRAME_CAP, Recipe, RecipeName, TemporalReduction


def window_similarity(features: torch.Tensor, *, include_self: bool) -> torch.Tensor:
    """Mean cosine similarity of each frame with the frames of its window.

    Args:
        features: [n, P, C], the tower's features of one window; each frame is compared as one flat vector.
        include_self: whether a frame counts itself (released) or only the others (paper).

    Returns:
        [n] float32. A frame alone in a window of the paper's recipe has no others: −1.
    """
    count = features.shape[0]
    flat = functional.normalize(features.flatten(1).float(), dim=1)
    similarity = flat @ flat.T
    if include_self:
        return similarity.mean(dim=1)
    if count == 1:
        return similarity.new_full((1,), -1.0)
    return (similarity.sum(dim=1) - similarity.diagonal()) / (count - 1)


def keep_in_window(similarity: torch.Tensor, recipe: Recipe) -> torch.Tensor:
    """Which frames of one window stay.

    *released*: those with a mean similarity below the threshold, and always the one at ``n // 2``.
    *paper*: all but those above the threshold; where all are, the one least like the others.

    Args:
        similarity: [n], from :func:`window_similarity`.

    Returns:
        [n] bool.
    """
    if recipe.name is RecipeName.PAPER:
        keep = similarity <= recipe.dino_threshold
        if not keep.any():
            keep[similarity.argmin()] = True
        return keep
    keep = similarity < recipe.dino_threshold
    keep[len(similarity) // 2] = True
    return keep


def stand_out(similarity: torch.Tensor, recipe: Recipe) -> torch.Tensor:
    """Which frames stay window by window, before there are too many of them: [N] → [N] bool."""
    return torch.cat([keep_in_window(window, recipe) for window in similarity.split(recipe.temporal_window)])


def keep_frames(similarity: torch.Tensor, recipe: Recipe, *, limit: int) -> torch.Tensor:
    """Which of all sampled frames stay.

    *released*: all of them when there are fewer than ``limit``; else window by window, thinned to 400.
    *paper*: window by window, without a cap.

    ``uniform`` keeps ``limit`` frames, evenly spaced; ``none`` keeps all.

    Args:
        similarity: [N], mean similarities of the tower that decides; not read by ``uniform`` and ``none``.
        limit: frames that fit (``frame_limit`` of ``budget.py``).

    Returns:
        Sorted indices, int64.
    """
    count = len(similarity)
    if recipe.temporal_reduction is TemporalReduction.NONE:
        return torch.arange(count)
    if recipe.temporal_reduction is TemporalReduction.UNIFORM:
        return evenly_spaced(count, limit)
    if recipe.name is RecipeName.RELEASED and count < limit:
        return torch.arange(count)
    kept = stand_out(similarity, recipe).nonzero().squeeze(1)
    if recipe.name is RecipeName.RELEASED:
        return kept[evenly_spaced(len(kept), RELEASED_FRAME_CAP)]
    return kept


def may_be_kept(similarity: torch.Tensor, recipe: Recipe, *, first: int, limit: int) -> torch.Tensor:
    """Which frames of a batch :func:`keep_frames` could still keep while the video's length is not known.

    Args:
        similarity: [n], the batch's mean similarities; whole windows but for the last batch.
        first: index of the batch's first frame among the sampled ones.

    Returns:
        [n] bool, true at least where ``keep_frames`` will keep.
    """
    if recipe.temporal_reduction in (TemporalReduction.NONE, TemporalReduction.UNIFORM):
        return torch.ones(len(similarity), dtype=torch.bool)
    kept = stand_out(similarity, recipe)
    if recipe.name is RecipeName.RELEASED:
        kept |= first + torch.arange(len(similarity)) < limit
    return kept


def is_thinned(standing: int, recipe: Recipe, *, first: int, limit: int) -> bool:
    """Whether so many frames stand out already that any further one means that they will be thinned to 400.

    Args:
        standing: frames before ``first`` that stay window by window.
        first: index of the next frame among the sampled ones.
    """
    decides = recipe.temporal_reduction in (TemporalReduction.DINOV2, TemporalReduction.SIGLIP)
    return decides and recipe.name is RecipeName.RELEASED and first >= limit and standing >= RELEASED_FRAME_CAP


def evenly_spaced(count: int, limit: int) -> torch.Tensor:
    """``int(i · count / limit)`` for i < limit; every index when there are no more than ``limit``."""
    return torch.arange(count) if count <= limit else torch.arange(limit) * count // limit
