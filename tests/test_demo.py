"""demo.py and demo_story.py: the clip's story, and the questions about it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from longvu_cli import weights
from longvu_cli.demo import QUESTIONS, DemoQuestion, demo_clip
from longvu_cli.demo_story import demo_story
from longvu_cli.errors import WeightsNotFound
from longvu_cli.video import Video
from longvu_cli.world.questions import questions
from longvu_cli.world.story import Split

SIDE = 336
RIGHT = {
    "Where is the cup?": "On the shelf in the kitchen.",
    "What colour is the cup?": "White.",
    "What colour is the car?": "Red.",
    "What is shown only briefly?": "A blue key.",
}


@pytest.mark.parametrize("asked", QUESTIONS, ids=lambda asked: asked.kind)
def test_each_question_has_one_right_answer(asked: DemoQuestion) -> None:
    fitting = [
        question for question in questions(demo_story()) if question.kind == asked.kind and asked.about in question.text
    ]
    assert len(fitting) == 1
    assert RIGHT.get(asked.text, fitting[0].answer) == fitting[0].answer


def test_the_cup_is_put_there_early_and_not_seen_again() -> None:
    story = demo_story()
    place, cup = next(
        (index, placed)
        for index, place in enumerate(story.places)
        for placed in place.things
        if placed.thing.kind == "cup"
    )
    assert 0 < cup.since_s < 15
    spans = story.seen(place, cup.since_s)
    assert len(spans) == 1 and spans[0][1] <= story.seconds / 6


def test_the_story_keeps_the_rules_of_the_world() -> None:
    story = demo_story()
    assert [shot.start_s for shot in story.shots[1:]] == [shot.end_s for shot in story.shots[:-1]]
    assert (story.shots[0].start_s, story.shots[-1].end_s) == (0, story.seconds)
    assert all(9 <= shot.seconds <= 36 for shot in story.shots)
    assert all(one.place != other.place for one, other in zip(story.shots, story.shots[1:], strict=False))
    # A kind is in one place only, or once anywhere.
    homes = Counter(kind for place in story.places for kind in {placed.thing.kind for placed in place.things})
    shown = [card.thing.kind for card in story.cards] + ([story.motion.thing.kind] if story.motion else [])
    assert max((homes + Counter(shown)).values()) == 1
    for place in story.places:
        spots = [(placed.stand, placed.x) for placed in place.things]
        assert len(set(spots)) == len(spots)
    # Something that changes is seen before and after.
    for index, place in enumerate(story.places):
        for moment in [m for placed in place.things for m in (placed.since_s, placed.until_s) if 0 < m < 1e9]:
            shot = story.shots[story.shot_at(moment)]
            assert shot.place == index and shot.start_s + 3 <= moment <= shot.end_s - 6
    assert story.motion is not None
    crossing = story.shots[story.motion.shot]
    assert crossing.start_s <= story.motion.start_s and story.motion.end_s <= crossing.end_s


def test_no_split_has_its_seed() -> None:
    seed = demo_story().seed
    assert all(not split.seed(0) <= seed <= split.seed(2**40 - 1) for split in Split)


def test_the_bundled_clip_is_the_story() -> None:
    story = demo_story()
    with Video(demo_clip()) as video:
        info = video.info
    assert info.title == f"longvu world, seed {story.seed}"
    assert (info.width, info.height, info.codec) == (SIDE, SIDE, "h264")
    assert info.duration_s == pytest.approx(story.seconds)


def test_an_installation_without_the_clip_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "_TINY_FOLDER", tmp_path)
    with pytest.raises(WeightsNotFound, match="not part of this installation"):
        demo_clip()
