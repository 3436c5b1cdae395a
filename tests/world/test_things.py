"""world/things.py: drawings that differ, and furniture to put them on."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from longvu_cli.world.things import COLOURS, FURNITURE, FURNITURE_FACTS, SIDE, THINGS, drawings

NAMES = (*THINGS, *FURNITURE)


def test_there_is_a_drawing_for_each() -> None:
    maps = drawings()
    assert maps.shape == (len(NAMES), 4, SIDE, SIDE)
    assert maps.dtype == np.float32
    assert maps.min() == 0 and maps.max() == 1
    assert drawings() is maps
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_there_is_nothing_where_there_is_no_ink(name: str) -> None:
    ink, light, line, white = drawings()[NAMES.index(name)]
    assert 0.05 < ink.mean() < 0.8
    # Rounding of the scaled maps: each is off by half a level at most.
    assert (np.stack((light, line, white)) <= ink + 1 / 255).all()
    assert (line + white <= ink + 1 / 255).all()


@pytest.mark.parametrize("name", THINGS)
def test_most_of_a_thing_takes_its_colour(name: str) -> None:
    ink, _, line, white = drawings()[THINGS.index(name)]
    assert (ink - line - white).sum() > 0.5 * ink.sum()


def test_no_two_things_look_alike() -> None:
    for a, b in combinations(range(len(THINGS)), 2):
        ink = drawings()[[a, b], 0]
        assert np.minimum(*ink).sum() < 0.9 * np.maximum(*ink).sum(), (THINGS[a], THINGS[b])


@pytest.mark.parametrize("name", FURNITURE)
def test_furniture_begins_at_the_top_and_carries_things(name: str) -> None:
    ink = drawings()[NAMES.index(name), 0]
    assert ink[0].max() > 0.5
    assert ink[SIDE // 2 :].max() == 0
    facts = FURNITURE_FACTS[name]
    assert 1 <= len(facts.slots) <= 2
    assert 0 <= facts.depth < 0.1
    for slot in facts.slots:
        # In drawings 0.43 frame sides wide, give or take.
        assert ink[: SIDE // 4, round(SIDE * (0.5 + slot / 0.43))].max() > 0.5


def test_furniture_hangs_and_stands() -> None:
    assert tuple(FURNITURE_FACTS) == FURNITURE
    assert {facts.wall for facts in FURNITURE_FACTS.values()} == {True, False}


def test_colours_can_be_told_apart() -> None:
    for (a, first), (b, second) in combinations(COLOURS.items(), 2):
        assert np.linalg.norm(np.subtract(first, second)) > 60, (a, b)
