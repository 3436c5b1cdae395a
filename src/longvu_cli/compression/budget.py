"""The regime and the numbers, from counts alone (paper §3.2, §3.3; model facts "Budgets").

Legend: L context length, R reply tokens, t prompt ids with the video counted as one, T kept frames,
B visual budget, V visual tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

from longvu_cli.config import FrameResolution, Recipe, RecipeName
from longvu_cli.errors import QuestionTooLong
from longvu_cli.statistics import Regime, Resolution


@dataclass(frozen=True)
class Budget:
    """Room for the video.

    Attributes:
        visual_budget: B = L − R − (t − 1), visual tokens that fit.
        low_cap: frames that would fit at low resolution, newlines not counted.
        high_cap: frames that would fit at full resolution, newlines not counted.
    """

    visual_budget: int
    low_cap: int
    high_cap: int


@dataclass(frozen=True)
class Plan:
    """What is done with T kept frames.

    Attributes:
        base: resolution that every frame has at first.
        restored: frames that get full resolution back (k of the released code, N_h of the paper).
        spatial_compression: whether spatial token compression runs.
    """

    regime: Regime
    base: Resolution
    restored: int
    spatial_compression: bool


def budget(recipe: Recipe, prompt_length: int) -> Budget:
    """What the context leaves for the video.

    Args:
        prompt_length: t.

    Raises:
        QuestionTooLong: nothing is left.
    """
    visual_budget = recipe.context_length - recipe.reply_tokens - (prompt_length - 1)
    if visual_budget <= 0:
        raise QuestionTooLong(
            f"the question takes {prompt_length - 1} tokens with its template and leaves no room for the video "
            f"in a context of {recipe.context_length}",
            hint="shorten the question, or raise --context-length",
        )
    # Quirk: the caps count the video's placeholder as text, and frames without their newlines.
    room = recipe.context_length - prompt_length - recipe.reply_tokens
    return Budget(
        visual_budget=visual_budget,
        low_cap=max(1, room // recipe.low_side**2),
        high_cap=max(1, room // recipe.high_side**2),
    )


def frame_limit(recipe: Recipe, room: Budget, *, high_tokens: int, low_tokens: int) -> int:
    """Frames that fit at the lowest resolution that they may get: what temporal reduction goes by.

    Where frames have one resolution only, that counts, with its newlines.

    Args:
        high_tokens, low_tokens: tokens per frame at each resolution, newlines included.
    """
    if recipe.resolution is FrameResolution.AUTO:
        return room.low_cap
    return max(1, room.visual_budget // (high_tokens if recipe.resolution is FrameResolution.FULL else low_tokens))


def plan(recipe: Recipe, room: Budget, *, kept: int, high_tokens: int, low_tokens: int) -> Plan:
    """Choose the regime and the number of full-resolution frames.

    Args:
        kept: T.
        high_tokens, low_tokens: tokens per frame at each resolution, newlines included.
    """
    if recipe.resolution is not FrameResolution.AUTO:
        return _same_for_all(recipe.resolution, room, kept=kept, high_tokens=high_tokens, low_tokens=low_tokens)
    if recipe.name is RecipeName.PAPER:
        return _paper_plan(room, kept=kept, high_tokens=high_tokens, low_tokens=low_tokens)
    if kept < room.high_cap:
        return _dense_plan(Regime.ALL_HIGH, room, kept * high_tokens)
    if kept > room.low_cap:
        return _dense_plan(Regime.SPATIAL, room, kept * high_tokens)
    free = room.visual_budget - kept * low_tokens
    restored = _restorable(kept, free, high_tokens - low_tokens)
    return Plan(Regime.MIXED, Resolution.LOW, restored, spatial_compression=free < 0)


def still_plan(recipe: Recipe, room: Budget, *, high_tokens: int, low_tokens: int) -> Plan:
    """What is done with a picture that is given as an image.

    Quirk: a video checkpoint reads a still at its low resolution only, unless the full one is asked for; an image
    checkpoint has just that. Pinned by the parity cases ``still_image_*``.
    """
    if recipe.image_checkpoint or recipe.resolution is FrameResolution.FULL:
        return _dense_plan(Regime.ALL_HIGH, room, high_tokens)
    return Plan(Regime.MIXED, Resolution.LOW, 0, spatial_compression=low_tokens > room.visual_budget)


def _same_for_all(resolution: FrameResolution, room: Budget, *, kept: int, high_tokens: int, low_tokens: int) -> Plan:
    full = resolution is FrameResolution.FULL
    base, each = (Resolution.HIGH, high_tokens) if full else (Resolution.LOW, low_tokens)
    if kept * each > room.visual_budget:
        return Plan(Regime.SPATIAL, base, 0, spatial_compression=True)
    return Plan(Regime.ALL_HIGH if full else Regime.MIXED, base, 0, spatial_compression=False)


def _dense_plan(regime: Regime, room: Budget, tokens: int) -> Plan:
    return Plan(regime, Resolution.HIGH, 0, spatial_compression=tokens > room.visual_budget)


def _paper_plan(room: Budget, *, kept: int, high_tokens: int, low_tokens: int) -> Plan:
    """Paper, eq. 1 and §3.3, with the frames' true token counts for H·W (newlines and crop included).

    With the bare 144 and 64 the formula would overflow the context by the newlines.
    """
    if kept * high_tokens <= room.visual_budget:
        return Plan(Regime.ALL_HIGH, Resolution.HIGH, 0, spatial_compression=False)
    free = room.visual_budget - kept * low_tokens
    if free < 0:
        return Plan(Regime.SPATIAL, Resolution.LOW, 0, spatial_compression=True)
    return Plan(Regime.MIXED, Resolution.LOW, _restorable(kept, free, high_tokens - low_tokens), False)


def _restorable(kept: int, free: int, extra: int) -> int:
    """Frames that fit at full resolution into ``free`` tokens; none where both resolutions cost the same."""
    return min(kept, max(0, free) // extra) if extra > 0 else 0
