"""Recipes for the tests of this folder."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from longvu_cli.config import Anchor, FrameResolution, Orientation, Recipe, RecipeName, StillMode, TemporalReduction

RELEASED = Recipe(
    name=RecipeName.RELEASED,
    orientation=Orientation.RELEASED,
    temporal_reduction=TemporalReduction.DINOV2,
    anchor=Anchor.FIRST,
    frame_position_encoding=False,
    context_length=8192,
    reply_tokens=16,
    dino_threshold=0.83,
    stc_threshold=0.8,
    high_side=12,
    low_side=8,
    image_checkpoint=False,
    still=StillMode.IMAGE,
    query_guided=True,
    spatial_compression=True,
    resolution=FrameResolution.AUTO,
)
PAPER = replace(RELEASED, name=RecipeName.PAPER)


def released(**changes: Any) -> Recipe:
    return replace(RELEASED, **changes)


def paper(**changes: Any) -> Recipe:
    return replace(PAPER, **changes)
