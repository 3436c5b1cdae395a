"""world/story.py: what happens is decided by the seed, and nothing in it contradicts the rest."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import pytest

from longvu_cli.world.questions import questions
from longvu_cli.world.story import (
    LONGEST_S,
    PLACES,
    STYLES,
    Direction,
    Motion,
    Split,
    Story,
    Thing,
    needle_story,
    story,
)
from longvu_cli.world.things import COLOURS, THINGS

LENGTHS = (1, 2, 3, 5, 9, 10, 11, 17, 20, 21, 60, 61, 120, 121, 400, 401, 3600)
# Seeds of the TEST split of several lengths. Another story of the same seed would not be the one that was measured.
PINNED = ((7, 1), (7, 12), (7, 60), (8, 120), (9, 400), (10, 600), (11, 900), (12, 3600))
STORIES_DIGEST = "58b7238bd491d8d1ff3a6a35c68932d5161834c5598e0416b0bf4371e1323733"
QUESTIONS_DIGEST = "d6291b15b8d8c951b9c4a8efe413150cb767f542a428917836568dc897d220e1"


def digest(value: object) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()


def stories(count: int = 12) -> list[Story]:
    return [story(seed, seconds) for seconds in LENGTHS for seed in range(count)]


def test_a_seed_always_tells_the_same() -> None:
    told = [story(Split.TEST.seed(number), seconds) for number, seconds in PINNED]
    assert told == [story(Split.TEST.seed(number), seconds) for number, seconds in PINNED]
    assert digest(told) == STORIES_DIGEST


def test_the_same_is_always_asked() -> None:
    asked = [questions(story(Split.TEST.seed(number), seconds)) for number, seconds in PINNED]
    assert digest(asked) == QUESTIONS_DIGEST


def test_other_seeds_and_lengths_tell_something_else() -> None:
    told = [story(seed, seconds) for seed in range(20) for seconds in (30, 31)]
    assert len({one.places for one in told}) == len(told)


def test_splits_have_no_seed_in_common() -> None:
    ends = [(split.seed(0), split.seed(2**40 - 1)) for split in Split]
    assert all(last < first for (_, last), (first, _) in pairwise(ends))
    for number in (-1, 2**40):
        with pytest.raises(ValueError, match="is not a number"):
            Split.TRAIN.seed(number)


@pytest.mark.parametrize("seconds", [*LENGTHS, LONGEST_S])
def test_shots_tile_the_whole_length_and_every_place_is_seen(seconds: int) -> None:
    for seed in range(2 if seconds == LONGEST_S else 25):
        told = story(seed, seconds)
        assert told.seconds == seconds
        assert (told.shots[0].start_s, told.shots[-1].end_s) == (0, seconds)
        assert all(a.end_s == b.start_s and a.place != b.place for a, b in pairwise(told.shots))
        assert all(shot.seconds > 0 for shot in told.shots)
        assert {shot.place for shot in told.shots} == set(range(len(told.places)))
        assert all(told.seen(index) for index in range(len(told.places)))
        assert [told.shot_at(t) for t in (0, seconds - 0.01)] == [0, len(told.shots) - 1]


def test_seen_is_what_is_on_screen() -> None:
    for told in [story(seed, seconds) for seed in range(10) for seconds in (12, 60, 150)]:
        for index, place in enumerate(told.places):
            spans = told.seen(index, 3.0, told.seconds - 2.0)
            for t in range(told.seconds):
                on_screen = told.scene_at(t).style == place.name and 3 <= t < told.seconds - 2
                assert any(start <= t < end for start, end in spans) == on_screen


def test_each_thing_is_of_a_kind_of_its_own_but_for_several_in_one_place() -> None:
    for told in stories():
        kinds = [{placed.thing.kind for placed in place.things} for place in told.places]
        others = [{card.thing.kind} for card in {card.style: card for card in told.cards}.values()]
        others += [{told.motion.thing.kind}] if told.motion else []
        together = [*kinds, *others]
        assert sum(map(len, together)) == len(set().union(*together))
        assert {thing.kind for thing in told.things} == set().union(*together) <= set(THINGS)
        assert {thing.colour for thing in told.things} <= set(COLOURS)
        assert len({place.name for place in told.places}) == len(told.places)
        assert {place.name for place in told.places} <= set(PLACES)


def test_things_stand_apart_and_within_the_picture() -> None:
    for told in stories():
        for place in told.places:
            things = place.things
            for placed in things:
                assert placed.size / 2 < placed.x < 1 - placed.size / 2
                assert placed.size / 2 < placed.y < 1 - placed.size / 2
            apart = [max(abs(a.x - b.x), abs(a.y - b.y)) for a in things for b in things if a is not b]
            assert min(apart, default=1) > 0.15


def test_cards_do_not_touch_each_other_or_what_changes() -> None:
    with_cards = [told for told in stories() if told.cards]
    assert len(with_cards) > 30
    for told in with_cards:
        assert told.cards[0].start_s >= 2
        assert told.cards[-1].end_s < told.seconds
        assert all(a.end_s < b.start_s for a, b in pairwise(told.cards))
        for card in told.cards:
            assert told.card_at(card.start_s) == card == told.card_at(card.end_s - 0.01)
            assert told.card_at(card.end_s) is None
            scene = told.scene_at(card.start_s)
            assert scene.style == card.style
            assert [(item.name, item.colour) for item in scene.items] == [(card.thing.kind, card.thing.colour)]
            if told.motion:
                assert card.end_s <= told.motion.start_s or card.start_s >= told.motion.end_s
    assert {card.style for told in with_cards for card in told.cards} == set(STYLES) - set(PLACES)


def test_what_changes_is_seen_before_and_after() -> None:
    changes = 0
    for told in [story(seed, seconds) for seed in range(40) for seconds in (30, 120)]:
        for place in told.places:
            for placed in place.things:
                for moment, there in ((placed.since_s, (False, True)), (placed.until_s, (True, False))):
                    if not 0 < moment < told.seconds:
                        continue
                    changes += 1
                    seen = []
                    for t in (moment - 1, moment + 4):
                        scene = told.scene_at(t)
                        assert scene.style == place.name
                        seen.append(placed.thing.kind in {item.name for item in scene.items})
                    assert tuple(seen) == there
    assert changes > 40


@pytest.mark.parametrize(
    ("direction", "axis", "sign"),
    [(Direction.LEFT, 0, -1), (Direction.RIGHT, 0, 1), (Direction.UP, 1, -1), (Direction.DOWN, 1, 1)],
)
def test_a_thing_crosses_the_picture(direction: Direction, axis: int, sign: int) -> None:
    motion = Motion(Thing("cup", "red"), 0, 2, 6, direction, 0.2)
    way = [motion.at(2 + 0.5 * step) for step in range(9)]
    assert all(sign * (b[axis] - a[axis]) > 0 for a, b in pairwise(way))
    assert {point[1 - axis] for point in way} <= {0.5, 0.51}
    assert all(0.1 < value < 0.9 for point in way for value in point)


def test_the_camera_moves_slowly_and_the_light_wavers() -> None:
    for told in stories(3):
        for t in range(min(told.seconds, 60)):
            camera = told.camera_at(t)
            assert max(map(abs, camera.shift)) < 0.04
            assert 0.7 < camera.gain < 1.25
            shot = told.shots[told.shot_at(t)]
            if t + 0.2 < shot.end_s and not told.card_at(t) and not told.card_at(t + 0.2):
                near = told.camera_at(t + 0.2)
                assert max(abs(a - b) for a, b in zip(camera.shift, near.shift, strict=True)) < 0.001


@pytest.mark.parametrize(("depth", "at_s"), [(0, 0), (0.25, 150), (0.5, 300), (1, 599)])
def test_a_needle_is_one_second_at_its_depth(depth: float, at_s: int) -> None:
    told = needle_story(Split.TEST.seed(1), 600, depth)
    assert [t for t in range(600) if told.scene_at(t).style == "card"] == [at_s]
    (card,) = told.cards
    assert (card.end_s - card.start_s, told.motion) == (1, None)
    assert told.places == needle_story(Split.TEST.seed(1), 600, 0.1).places
    # Nothing else changes, so that the same place always looks the same.
    assert len({told.scene_at(t) for t in range(600)}) == len(told.places) + 1


def test_four_things_of_different_kinds_and_colours_stand_within_one_field_of_nine() -> None:
    assert needle_story(Split.TEST.seed(1), 60, 0.5).cards[0].crowd == ()
    for number in range(0, 60, 2):
        told = needle_story(Split.TEST.seed(number), 60, 0.5)
        (card,) = told.cards
        things = card.things
        assert len({thing.kind for thing in things}) == len({thing.colour for thing in things}) == 4
        elsewhere = {placed.thing.kind for place in told.places for placed in place.things}
        assert not elsewhere & {thing.kind for thing in things}
        assert set(things) <= set(told.things)
        fields = {(int(3 * item.x), int(3 * item.y)) for item in card.items}
        quarters = {(int(6 * item.x), int(6 * item.y)) for item in card.items}
        assert (len(fields), len(quarters)) == (1, 4)


@pytest.mark.parametrize("seconds", [0, -1, LONGEST_S + 1])
def test_lengths_out_of_range_are_refused(seconds: int) -> None:
    with pytest.raises(ValueError, match="length"):
        story(0, seconds)
    with pytest.raises(ValueError, match="length"):
        needle_story(0, seconds, 0.5)


@pytest.mark.parametrize("depth", [-0.1, 1.1])
def test_depths_out_of_range_are_refused(depth: float) -> None:
    with pytest.raises(ValueError, match="depth"):
        needle_story(0, 60, depth)
