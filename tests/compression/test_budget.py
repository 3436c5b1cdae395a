"""budget.py: every number follows from counts alone, so every number is exact."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from recipes import PAPER, RELEASED, paper, released

from longvu_cli.compression.budget import Budget, Plan, budget, frame_limit, plan, still_plan
from longvu_cli.config import FrameResolution, Recipe
from longvu_cli.errors import QuestionTooLong
from longvu_cli.statistics import Regime, Resolution

# Tokens per frame of a 16:9 video in the released orientation: 12 × (6 + 1) and 8 × (4 + 1).
HIGH, LOW = 84, 40
# A square picture: 12 × 13 and 8 × 9.
SQUARE_HIGH, SQUARE_LOW = 156, 72


def test_the_room_that_a_prompt_leaves() -> None:
    # 8192 − 16 − 75 = 8101; (8192 − 76 − 16) = 8100: // 64 = 126, // 144 = 56.
    assert budget(RELEASED, 76) == Budget(visual_budget=8101, low_cap=126, high_cap=56)


@pytest.mark.parametrize(
    ("context_length", "prompt_length", "low_cap", "high_cap"),
    [
        (16 + 76 + 64 * 10, 76, 10, 4),
        (16 + 76 + 64 * 10 - 1, 76, 9, 4),
        (16 + 76 + 144 * 3, 76, 6, 3),
        (16 + 76 + 144 * 3 - 1, 76, 6, 2),
        (16 + 76 + 5, 76, 1, 1),
        (10000, 100, 154, 68),
    ],
)
def test_the_caps_are_rounded_down_and_at_least_one(
    context_length: int, prompt_length: int, low_cap: int, high_cap: int
) -> None:
    room = budget(released(context_length=context_length), prompt_length)
    assert (room.low_cap, room.high_cap) == (low_cap, high_cap)
    assert room.visual_budget == context_length - 16 - prompt_length + 1


def test_the_reply_is_kept_free() -> None:
    assert budget(released(reply_tokens=100), 76) == Budget(visual_budget=8017, low_cap=125, high_cap=55)


def test_the_caps_follow_the_grids() -> None:
    single_resolution = released(low_side=12)
    assert budget(single_resolution, 76).low_cap == budget(single_resolution, 76).high_cap == 56
    image_checkpoint = released(high_side=24, low_side=24)
    assert budget(image_checkpoint, 76).high_cap == 8100 // 576


def test_a_prompt_that_leaves_one_token_is_accepted_and_one_more_refused() -> None:
    assert budget(released(context_length=100), 84) == Budget(visual_budget=1, low_cap=1, high_cap=1)
    with pytest.raises(QuestionTooLong, match=r"takes 84 tokens .* context of 100") as error:
        budget(released(context_length=100), 85)
    assert "--context-length" in error.value.hint


ROOM = Budget(visual_budget=8101, low_cap=126, high_cap=56)


@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        (1, Plan(Regime.ALL_HIGH, Resolution.HIGH, 0, False)),
        (55, Plan(Regime.ALL_HIGH, Resolution.HIGH, 0, False)),
        # 8101 − 56 · 40 = 5861; // 44 = 133, of which 56 are needed.
        (56, Plan(Regime.MIXED, Resolution.LOW, 56, False)),
        # 8101 − 110 · 40 = 3701; // 44 = 84.
        (110, Plan(Regime.MIXED, Resolution.LOW, 84, False)),
        # 8101 − 126 · 40 = 3061; // 44 = 69.
        (126, Plan(Regime.MIXED, Resolution.LOW, 69, False)),
        # 127 · 84 = 10668 > 8101.
        (127, Plan(Regime.SPATIAL, Resolution.HIGH, 0, True)),
        (400, Plan(Regime.SPATIAL, Resolution.HIGH, 0, True)),
    ],
)
def test_the_released_regimes_at_their_boundaries(kept: int, expected: Plan) -> None:
    assert plan(RELEASED, ROOM, kept=kept, high_tokens=HIGH, low_tokens=LOW) == expected


def test_newlines_can_overflow_the_budget_in_every_regime() -> None:
    square = {"high_tokens": SQUARE_HIGH, "low_tokens": SQUARE_LOW}
    # 51 · 156 = 7956 fits, 52 · 156 = 8112 does not.
    assert not plan(RELEASED, ROOM, kept=51, **square).spatial_compression
    assert plan(RELEASED, ROOM, kept=52, **square) == Plan(Regime.ALL_HIGH, Resolution.HIGH, 0, True)
    # 112 · 72 = 8064: 37 tokens are free, too few for a frame. 113 · 72 = 8136 is too much.
    assert plan(RELEASED, ROOM, kept=112, **square) == Plan(Regime.MIXED, Resolution.LOW, 0, False)
    assert plan(RELEASED, ROOM, kept=113, **square) == Plan(Regime.MIXED, Resolution.LOW, 0, True)


@pytest.mark.parametrize("recipe", [RELEASED, PAPER])
def test_a_video_that_fills_the_budget_exactly_is_not_compressed(recipe: object) -> None:
    room = Budget(visual_budget=10 * SQUARE_HIGH, low_cap=30, high_cap=11)
    assert not plan(recipe, room, kept=10, high_tokens=SQUARE_HIGH, low_tokens=SQUARE_LOW).spatial_compression
    tighter = Budget(visual_budget=10 * SQUARE_HIGH - 1, low_cap=30, high_cap=11)
    compressed = plan(recipe, tighter, kept=10, high_tokens=SQUARE_HIGH, low_tokens=SQUARE_LOW)
    assert compressed.spatial_compression == (recipe is RELEASED)


def test_low_resolution_that_fills_the_budget_exactly_restores_nothing_and_is_not_compressed() -> None:
    room = Budget(visual_budget=60 * LOW, low_cap=60, high_cap=10)
    assert plan(RELEASED, room, kept=60, high_tokens=HIGH, low_tokens=LOW) == Plan(
        Regime.MIXED, Resolution.LOW, 0, False
    )


def test_one_more_frame_is_restored_when_its_last_token_fits() -> None:
    for extra, restored in ((43, 0), (44, 1), (87, 1), (88, 2)):
        room = Budget(visual_budget=60 * LOW + extra, low_cap=60, high_cap=10)
        assert plan(RELEASED, room, kept=60, high_tokens=HIGH, low_tokens=LOW).restored == restored


def test_equal_resolutions_restore_nothing() -> None:
    assert plan(RELEASED, ROOM, kept=60, high_tokens=50, low_tokens=50).restored == 0
    assert plan(paper(), Budget(3000, 100, 10), kept=60, high_tokens=50, low_tokens=50).restored == 0


@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        (96, Plan(Regime.ALL_HIGH, Resolution.HIGH, 0, False)),  # 96 · 84 = 8064
        (97, Plan(Regime.MIXED, Resolution.LOW, 95, False)),  # (8101 − 3880) // 44 = 95
        (201, Plan(Regime.MIXED, Resolution.LOW, 1, False)),  # (8101 − 8040) // 44
        (202, Plan(Regime.MIXED, Resolution.LOW, 0, False)),  # 21 free
        (203, Plan(Regime.SPATIAL, Resolution.LOW, 0, True)),  # 203 · 40 = 8120
    ],
)
def test_the_papers_regimes_at_their_boundaries(kept: int, expected: Plan) -> None:
    assert plan(PAPER, ROOM, kept=kept, high_tokens=HIGH, low_tokens=LOW) == expected


@pytest.mark.parametrize("recipe", [RELEASED, PAPER])
def test_what_fits_is_counted_at_the_one_resolution_that_frames_have(recipe: Recipe) -> None:
    square = {"high_tokens": SQUARE_HIGH, "low_tokens": SQUARE_LOW}
    assert frame_limit(recipe, ROOM, **square) == 126
    full, low = (replace(recipe, resolution=name) for name in (FrameResolution.FULL, FrameResolution.LOW))
    # 8101 // 156 = 51, 8101 // 72 = 112.
    assert (frame_limit(full, ROOM, **square), frame_limit(low, ROOM, **square)) == (51, 112)
    assert frame_limit(full, Budget(SQUARE_HIGH - 1, 1, 1), **square) == 1


@pytest.mark.parametrize("recipe", [RELEASED, PAPER])
def test_one_resolution_for_all_frames(recipe: Recipe) -> None:
    square = {"high_tokens": SQUARE_HIGH, "low_tokens": SQUARE_LOW}
    full, low = (replace(recipe, resolution=name) for name in (FrameResolution.FULL, FrameResolution.LOW))
    assert plan(full, ROOM, kept=51, **square) == Plan(Regime.ALL_HIGH, Resolution.HIGH, 0, False)
    assert plan(full, ROOM, kept=52, **square) == Plan(Regime.SPATIAL, Resolution.HIGH, 0, True)
    assert plan(low, ROOM, kept=1, **square) == Plan(Regime.MIXED, Resolution.LOW, 0, False)
    assert plan(low, ROOM, kept=112, **square) == Plan(Regime.MIXED, Resolution.LOW, 0, False)
    assert plan(low, ROOM, kept=113, **square) == Plan(Regime.SPATIAL, Resolution.LOW, 0, True)


def test_a_still_has_full_resolution_where_that_is_asked_for() -> None:
    full = released(resolution=FrameResolution.FULL)
    assert still_plan(full, ROOM, high_tokens=HIGH, low_tokens=LOW) == Plan(Regime.ALL_HIGH, Resolution.HIGH, 0, False)


def test_random_plans_keep_what_the_rules_say() -> None:
    generator = random.Random(0)
    for _ in range(3000):
        low = generator.randint(8, 72)
        high = low + generator.randint(1, 90)
        kept = generator.randint(1, 500)
        room = Budget(generator.randint(1, 9000), generator.randint(1, 140), generator.randint(1, 60))
        made = plan(RELEASED, room, kept=kept, high_tokens=high, low_tokens=low)
        assert made == naive_plan(room, kept, high, low)
        if not made.spatial_compression:
            each = high if made.base is Resolution.HIGH else low
            assert kept * each + made.restored * (high - low) <= room.visual_budget


def naive_plan(room: Budget, kept: int, high: int, low: int) -> Plan:
    """Section by section from the description of the released code."""
    if kept < room.high_cap or kept > room.low_cap:
        regime = Regime.ALL_HIGH if kept < room.high_cap else Regime.SPATIAL
        return Plan(regime, Resolution.HIGH, 0, kept * high > room.visual_budget)
    tokens, restored = kept * low, 0
    while tokens < room.visual_budget and restored < kept and tokens + high - low <= room.visual_budget:
        tokens += high - low
        restored += 1
    return Plan(Regime.MIXED, Resolution.LOW, restored, restored == 0 and tokens > room.visual_budget)


def test_a_still_is_read_at_its_low_resolution_by_a_video_checkpoint() -> None:
    assert still_plan(RELEASED, ROOM, high_tokens=HIGH, low_tokens=LOW) == Plan(Regime.MIXED, Resolution.LOW, 0, False)
    assert still_plan(RELEASED, Budget(39, 1, 1), high_tokens=HIGH, low_tokens=LOW).spatial_compression


def test_a_still_is_read_at_its_only_resolution_by_an_image_checkpoint() -> None:
    recipe = released(image_checkpoint=True, high_side=24, low_side=24)
    assert still_plan(recipe, ROOM, high_tokens=600, low_tokens=600) == Plan(Regime.ALL_HIGH, Resolution.HIGH, 0, False)
    assert still_plan(recipe, Budget(599, 1, 1), high_tokens=600, low_tokens=600).spatial_compression
