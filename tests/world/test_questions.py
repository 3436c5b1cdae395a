"""world/questions.py: every answer is found again by looking at the scenes, one per second."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise

import pytest

from longvu_cli.world.questions import KINDS, NUMBERS, PARTS, TIMES, Question, every_text, is_right, questions
from longvu_cli.world.story import PLACES, Direction, Item, Scene, story
from longvu_cli.world.things import COLOURS, FURNITURE_FACTS, THINGS

SEEDS = {1: 20, 8: 30, 12: 30, 30: 30, 60: 40, 120: 30, 300: 20, 600: 15, 1800: 6}


class Watched:
    """A video as someone sees it who looks once per second and knows nothing else."""

    def __init__(self, seed: int, seconds: int) -> None:
        told = story(seed, seconds)
        self.seconds = seconds
        self.scenes = [told.scene_at(t) for t in range(seconds)]
        self.asked = questions(told)

    def of(self, kind: str) -> list[tuple[int, Item]]:
        return [(t, item) for t, scene in enumerate(self.scenes) for item in scene.items if item.name == kind]

    def first(self, kind: str) -> int:
        return self.of(kind)[0][0]

    def at_rest(self, kind: str) -> tuple[Scene, Item]:
        """Where a thing is most of the time."""
        where = Counter(item for _, item in self.of(kind))
        most = where.most_common(1)[0][0]
        return next(scene for scene in self.scenes if most in scene.items), most


@cache
def watched() -> tuple[Watched, ...]:
    return tuple(Watched(seed, seconds) for seconds, count in SEEDS.items() for seed in range(count))


def asked(kind: str) -> Iterator[tuple[Watched, Question]]:
    for video in watched():
        yield from ((video, question) for question in video.asked if question.kind == kind)


def kinds_in(text: str) -> list[str]:
    return re.findall(rf"\b({'|'.join(THINGS)})s?\b", text)


def colour_in(text: str) -> str | None:
    found = re.search(rf"\b({'|'.join(COLOURS)})\b", text)
    return None if found is None else found[1]


def named(item: Item) -> str:
    return f"{item.colour} {item.name}"


def with_article(item: Item) -> str:
    return f"{'An' if str(item.colour)[0] in 'aeiou' else 'A'} {named(item)}."


def stand_below(scene: Scene, thing: Item) -> Item:
    """The furniture under a thing."""
    (below,) = (
        item
        for item in scene.items
        if item.colour is None
        and abs(item.x - thing.x) < item.size / 2
        and abs(item.y - item.size / 2 + FURNITURE_FACTS[item.name].depth - (thing.y + 0.47 * thing.size)) < 0.02
    )
    return below


def colour(video: Watched, question: Question) -> str:
    (seen,) = {str(item.colour) for _, item in video.of(kinds_in(question.text)[0])}
    return f"{seen.capitalize()}."


def place(video: Watched, question: Question) -> str:
    scene, thing = video.at_rest(kinds_in(question.text)[0])
    return f"On the {stand_below(scene, thing).name} {PLACES[scene.style]} the {scene.style}."


def left(video: Watched, question: Question) -> str:
    scene, thing = video.at_rest(kinds_in(question.text)[0])
    stand = stand_below(scene, thing)
    (other,) = (
        item
        for item in scene.items
        if item.colour and item.x < thing.x and abs(item.x - stand.x) < stand.size / 2 and abs(item.y - thing.y) < 0.05
    )
    return with_article(other)


def count(video: Watched, question: Question) -> str:
    kind, where = kinds_in(question.text)[0], question.text.rstrip("?.").split()[-1]
    (number,) = {sum(item.name == kind for item in scene.items) for scene in video.scenes if scene.style == where}
    return f"{NUMBERS[number].capitalize()}."


def direction(video: Watched, question: Question) -> str:
    (_, before), *_, (_, after) = video.of(kinds_in(question.text)[0])
    across, down = after.x - before.x, after.y - before.y
    if abs(across) > abs(down):
        way = Direction.RIGHT if across > 0 else Direction.LEFT
    else:
        way = Direction.DOWN if down > 0 else Direction.UP
    return f"{way.value.capitalize()}."


def first(video: Watched, question: Question) -> str:
    return f"The {min(kinds_in(question.text), key=video.first)}."


def often(video: Watched, question: Question) -> str:
    kind = kinds_in(question.text)[0]
    lit = [scene.style == "spotlight" and scene.items[0].name == kind for scene in video.scenes]
    return TIMES[sum(now and not before for before, now in pairwise([False, *lit]))]


def when(video: Watched, question: Question) -> str:
    return f"In the {PARTS[3 * video.first(kinds_in(question.text)[0]) // video.seconds]} part."


def minute(video: Watched, question: Question) -> str:
    return f"In minute {video.first(kinds_in(question.text)[0]) // 60 + 1}."


def needle(video: Watched, question: Question) -> str:
    (item,) = {scene.items[0] for scene in video.scenes if scene.style == "card"}
    return with_article(item)


def yes_no(video: Watched, question: Question) -> str:
    asked_for, colour_asked_for = kinds_in(question.text)[0], colour_in(question.text)
    seen = [item for _, item in video.of(asked_for) if colour_asked_for in (None, item.colour)]
    return "Yes." if seen else "No."


def gone(video: Watched, question: Question) -> str:
    """What stood still in a place and is not there any more when the place is seen last."""
    last = {scene.style: scene for scene in video.scenes}
    resting = {
        item
        for a, b in pairwise(video.scenes)
        if a.style == b.style and a.style in PLACES
        for item in {*a.items} & {*b.items}
        if item.colour and item not in last[a.style].items
    }
    (item,) = resting
    return f"The {named(item)}."


def describe(video: Watched, question: Question) -> str:
    """Only the places are found again here; the other sentences are those of the questions above."""
    names = [f"the {name}" for name in dict.fromkeys(s.style for s in video.scenes) if name in PLACES]
    sentences = re.findall(r"[^.]+\.", question.answer)
    for sentence in sentences[1:]:
        (kind,) = kinds_in(sentence)
        assert colour_in(sentence) in {item.colour for _, item in video.of(kind)}
    places = f"First {', then '.join(names)}." if len(names) > 1 else f"{names[0].capitalize()}."
    return "".join([places, *sentences[1:]])


DERIVED: dict[str, Callable[[Watched, Question], str]] = {
    "colour": colour,
    "place": place,
    "left": left,
    "count": count,
    "direction": direction,
    "first": first,
    "often": often,
    "when": when,
    "minute": minute,
    "needle": needle,
    "yes_no": yes_no,
    "gone": gone,
    "describe": describe,
}
# Questions that rest on a place rather than on the thing that they name.
BY_PLACE = ("count", "gone")


def test_there_are_many_kinds_of_questions() -> None:
    assert len(KINDS) >= 10
    assert set(KINDS) <= set(DERIVED)


@pytest.mark.parametrize("kind", KINDS)
def test_the_answer_is_what_is_seen(kind: str) -> None:
    answers = Counter[str]()
    for video, question in asked(kind):
        answers[question.answer] += 1
        assert question.answer == DERIVED[kind](video, question), (video.seconds, question)
    assert answers.total() >= 40
    assert len(answers) >= 2


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "describe"])
def test_the_evidence_shows_what_is_asked_for(kind: str) -> None:
    for video, question in asked(kind):
        kinds = set(kinds_in(question.text) or kinds_in(question.answer))
        shown = {t for start, end in question.evidence for t in range(video.seconds) if start <= t < end}
        if kind == "yes_no" and not question.evidence:
            assert question.answer == "No."
            continue
        assert shown, question
        if kind in BY_PLACE:
            where = {video.scenes[t].style for t in shown}
            assert len(where) == 1 and where <= set(PLACES)
            assert shown == {t for t, scene in enumerate(video.scenes) if {scene.style} == where}
            continue
        seen = {t for t, scene in enumerate(video.scenes) if kinds & {item.name for item in scene.items}}
        assert shown <= seen
        # A thing that is being carried away is still seen a little longer.
        assert len(seen - shown) <= 3


def test_yes_and_no_come_equally_often() -> None:
    answers = Counter(question.answer for _, question in asked("yes_no"))
    assert 0.4 < answers["Yes."] / answers.total() < 0.6


@pytest.mark.parametrize("kind", KINDS)
def test_wordings_vary(kind: str) -> None:
    """What is left when the words that are filled in are taken out."""
    filled = rf"\b({'|'.join((*THINGS, *COLOURS))})(?=s?\b)|(in|on) the ({'|'.join(PLACES)})"
    wordings = Counter(re.sub(filled, "_", question.text) for _, question in asked(kind))
    assert len(wordings) >= 3
    assert min(wordings.values()) > 0.3 * wordings.total() / len(wordings) / (2 if kind == "yes_no" else 1)


def test_the_same_is_not_asked_twice_with_other_answers() -> None:
    for video in watched():
        answers: dict[str, set[str]] = {}
        for question in video.asked:
            answers.setdefault(question.text, set()).add(question.answer)
        assert all(len(different) == 1 for different in answers.values())


def test_a_picture_is_not_asked_about_time() -> None:
    timeless = {"colour", "place", "left", "count", "yes_no", "describe"}
    assert {question.kind for question in questions(story(3, 1))} <= timeless


def test_texts_for_the_tokenizer_hold_every_word() -> None:
    words = set(re.findall(r"\w+", " ".join(every_text())))
    assert {*THINGS, *COLOURS, *PLACES} <= words
    for video in watched()[:80]:
        for question in video.asked:
            assert set(re.findall(r"\w+", question.text)) <= words | {f"{kind}s" for kind in THINGS}


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("Red.", True),
        ("red", True),
        ("  RED. ", True),
        ("Red. Blue.", False),
        ("Dark red.", False),
        ("", False),
        ("Reddish.", False),
    ],
)
def test_an_answer_is_right_or_not(answer: str, right: bool) -> None:
    assert is_right(Question("colour", "What colour is the cup?", "Red."), answer) is right


def test_spaces_within_an_answer_do_not_count() -> None:
    assert is_right(Question("place", "", "On the rug in the library."), "on the  rug\nin the library")
