"""Questions about a story, with exact answers and the moments that they rest on."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from longvu_cli.world.story import PLACES, Card, Placed, Story, Thing
from longvu_cli.world.things import COLOURS, THINGS

Spans = tuple[tuple[float, float], ...]

NUMBERS = ("none", "one", "two", "three", "four", "five", "six")
TIMES = {1: "Once.", 2: "Twice.", 3: "Three times.", 4: "Four times."}
PARTS = ("first", "middle", "last")
# Two things are told apart in time, and a moment from the border of a part, by at least this share of the video …
_CLEAR_SHARE = 0.06
# … or this long where every second is looked at, and where only every sixteenth is.
_CLEAR_S = {False: 2, True: 24}
_QUICK_UNTIL_S = 400

_WORDINGS: dict[str, tuple[str, ...]] = {
    "colour": (
        "What colour is the {kind}?",
        "What color is the {kind}?",
        "Which colour does the {kind} have?",
        "Tell me the colour of the {kind}.",
    ),
    "place": (
        "Where is the {kind}?",
        "Where can I find the {kind}?",
        "Where was the {kind} put?",
        "I am looking for the {kind}. Where is it?",
    ),
    "left": (
        "What is left of the {kind}?",
        "What is to the left of the {kind}?",
        "Which thing stands left of the {kind}?",
        "What do you see directly left of the {kind}?",
    ),
    "count": (
        "How many {kind}s are {place}?",
        "How many {kind}s can you see {place}?",
        "Count the {kind}s {place}.",
        "What is the number of {kind}s {place}?",
    ),
    "direction": (
        "Which way does the {kind} move?",
        "In which direction does the {kind} move?",
        "Where does the {kind} move to?",
        "What is the direction of the {kind}?",
    ),
    "first": (
        "What appears first, the {kind} or the {other}?",
        "Which is seen first, the {kind} or the {other}?",
        "Which comes earlier, the {kind} or the {other}?",
        "What is shown first: the {kind} or the {other}?",
    ),
    "often": (
        "How often is the {kind} shown in the spotlight?",
        "How many times is the {kind} in the spotlight?",
        "How often does the {kind} appear in the spotlight?",
        "Count how often the {kind} is in the spotlight.",
    ),
    "when": (
        "When does the {kind} appear?",
        "In which part of the video does the {kind} appear?",
        "When is the {kind} first seen?",
        "Which part of the video shows the {kind} first?",
    ),
    "needle": (
        "What is shown only briefly?",
        "What was shown only briefly?",
        "Which thing is on the card that is shown briefly?",
        "What flashes up for a moment?",
    ),
    "yes_no": (
        "Is there a {kind} in the video?",
        "Does a {kind} appear in the video?",
        "Can you see a {kind} anywhere?",
        "Is a {kind} shown at any time?",
    ),
    "yes_no_colour": (
        "Is the {kind} {colour}?",
        "Does the video show a {colour} {kind}?",
        "Is there a {colour} {kind}?",
    ),
    "describe": (
        "Describe this video in detail.",
        "Describe the video.",
        "What happens in this video?",
        "Give a description of this video.",
    ),
}
# Wordings of one kind of question.
KINDS = tuple(kind for kind in _WORDINGS if kind != "yes_no_colour")


@dataclass(frozen=True)
class Question:
    """A question with its one right answer.

    Attributes:
        kind: one of :data:`KINDS`.
        evidence: (start, end) seconds of the moments that the answer rests on; empty where it rests on all or none.
    """

    kind: str
    text: str
    answer: str
    evidence: Spans = ()


def is_right(question: Question, answer: str) -> bool:
    """Whether an answer says what the right one says, capitals, spaces and the last full stop aside."""
    return _plain(answer) == _plain(question.answer)


def questions(story: Story) -> tuple[Question, ...]:
    """Every kind of question that has one answer, each in one wording; the same for the same story."""
    chance = random.Random(f"questions {story.seed} {story.seconds}")
    asked = list(_Asker(story, chance).ask())
    chance.shuffle(asked)
    return tuple(asked)


def every_text() -> tuple[str, ...]:
    """Words that questions and answers are made of, for a tokenizer to learn."""
    places = [f"{preposition} the {name}" for name, preposition in PLACES.items()]
    texts: list[str] = []
    for wordings in _WORDINGS.values():
        for number, wording in enumerate(wordings * len(THINGS)):
            kind, other = THINGS[number % len(THINGS)], THINGS[(number * 5 + 1) % len(THINGS)]
            colour = list(COLOURS)[number % len(COLOURS)]
            texts.append(wording.format(kind=kind, other=other, colour=colour, place=places[number % len(places)]))
    return tuple(texts)


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).rstrip(".")


@dataclass(frozen=True)
class _Known:
    """A thing that stands alone of its kind in the video, and where."""

    placed: Placed
    place: int
    seen: Spans

    @property
    def kind(self) -> str:
        return self.placed.thing.kind


class _Asker:
    def __init__(self, story: Story, chance: random.Random) -> None:
        self._story = story
        self._chance = chance
        self._counts = Counter(thing.kind for thing in self._all_things())
        self._known = [
            _Known(placed, index, story.seen(index, placed.since_s, placed.until_s))
            for index, place in enumerate(story.places)
            for placed in place.things
            if self._counts[placed.thing.kind] == 1
        ]
        self._calm = _CLEAR_S[story.seconds > _QUICK_UNTIL_S]

    def ask(self) -> Iterator[Question]:
        yield from self._about_things()
        yield from self._left()
        yield from self._counting()
        yield from self._yes_no()
        if self._story.seconds > 1:
            yield from self._about_time()
            yield from self._about_events()
        yield self._question("describe", _description(self._story), ())

    def _all_things(self) -> Iterator[Thing]:
        """Every thing, a thing on several cards once."""
        story = self._story
        for place in story.places:
            yield from (placed.thing for placed in place.things)
        yield from dict.fromkeys(thing for card in story.cards for thing in card.things)
        if story.motion:
            yield story.motion.thing

    def _question(self, what: str, answer: str, evidence: Spans, *, wording: str = "", **words: str) -> Question:
        text = self._chance.choice(_WORDINGS[wording or what]).format(**words)
        return Question(what, text, answer, evidence)

    def _about_things(self) -> Iterator[Question]:
        for known in self._known:
            thing = known.placed.thing
            yield self._question("colour", f"{thing.colour.capitalize()}.", known.seen, kind=thing.kind)
            if self._stays(known.placed):
                yield self._question("place", f"{self._where(known)}.", known.seen, kind=thing.kind)
        for card in self._first_cards():
            spans = self._shown(card)
            for thing in card.things:
                yield self._question("colour", f"{thing.colour.capitalize()}.", spans, kind=thing.kind)
        if motion := self._story.motion:
            spans = ((motion.start_s, motion.end_s),)
            yield self._question("colour", f"{motion.thing.colour.capitalize()}.", spans, kind=motion.thing.kind)

    def _where(self, known: _Known) -> str:
        place = self._story.places[known.place]
        return f"On the {place.stands[known.placed.stand].kind} {PLACES[place.name]} the {place.name}"

    def _left(self) -> Iterator[Question]:
        for known in self._known:
            place = self._story.places[known.place]
            neighbours = [
                other
                for other in place.things
                if other.stand == known.placed.stand and other.x < known.placed.x and self._always(other)
            ]
            if neighbours and self._always(known.placed):
                answer = f"{_a(neighbours[0].thing).capitalize()}."
                yield self._question("left", answer, known.seen, kind=known.kind)

    def _counting(self) -> Iterator[Question]:
        story = self._story
        for index, place in enumerate(story.places):
            if not all(self._always(placed) for placed in place.things):
                continue
            here = Counter(placed.thing.kind for placed in place.things)
            elsewhere = [kind for kind in THINGS if kind not in here]
            several = [kind for kind, count in here.items() if count > 1]
            lone = self._chance.sample(
                sorted(kind for kind, count in here.items() if count == 1), min(1, len(here) - len(several))
            )
            for kind in [*several, *lone, self._chance.choice(elsewhere)][:2]:
                if story.motion and story.motion.thing.kind == kind:
                    continue
                answer = f"{NUMBERS[here[kind]].capitalize()}."
                where = f"{PLACES[place.name]} the {place.name}"
                yield self._question("count", answer, story.seen(index), kind=kind, place=where)

    def _yes_no(self) -> Iterator[Question]:
        shown = sorted({thing.kind for thing in self._all_things()})
        absent = [kind for kind in THINGS if kind not in shown]
        there = self._chance.choice(shown)
        yield self._question("yes_no", "Yes.", self._spans_of(there), kind=there)
        if absent:
            yield self._question("yes_no", "No.", (), kind=self._chance.choice(absent))
        if self._known:
            known = self._chance.choice(self._known)
            thing = known.placed.thing
            right = self._chance.random() < 0.5
            colour = thing.colour if right else self._chance.choice([c for c in COLOURS if c != thing.colour])
            answer = "Yes." if right else "No."
            yield self._question("yes_no", answer, known.seen, wording="yes_no_colour", kind=thing.kind, colour=colour)

    def _spans_of(self, kind: str) -> Spans:
        story = self._story
        spans = [
            span
            for index, place in enumerate(story.places)
            for placed in place.things
            if placed.thing.kind == kind
            for span in story.seen(index, placed.since_s, placed.until_s)
        ]
        spans += [
            (float(card.start_s), float(card.end_s))
            for card in story.cards
            if kind in {thing.kind for thing in card.things}
        ]
        if story.motion and story.motion.thing.kind == kind:
            spans.append((story.motion.start_s, story.motion.end_s))
        return tuple(sorted(set(spans)))

    def _about_time(self) -> Iterator[Question]:
        appearances = self._appearances()
        seconds = self._story.seconds
        clear = max(self._calm, _CLEAR_SHARE * seconds)
        for kind, (start, spans) in appearances.items():
            part = int(3 * start / seconds)
            borders = (seconds / 3, 2 * seconds / 3)
            if seconds >= 8 and all(abs(start - border) >= clear / 2 for border in borders):
                yield self._question("when", f"In the {PARTS[part]} part.", spans, kind=kind)
        pairs = [
            (a, b)
            for a, (first, _) in appearances.items()
            for b, (second, _) in appearances.items()
            if a != b and abs(first - second) >= clear
        ]
        for a, b in self._chance.sample(pairs, min(2, len(pairs))):
            first = min(a, b, key=lambda kind: appearances[kind][0])
            spans = tuple(sorted({*appearances[a][1], *appearances[b][1]}))
            yield self._question("first", f"The {first}.", spans, kind=a, other=b)

    def _appearances(self) -> dict[str, tuple[float, Spans]]:
        """When each lone thing is first seen, where it is seen long enough then to be noticed."""
        found: dict[str, tuple[float, Spans]] = {}
        for known in self._known:
            if known.seen and known.seen[0][1] - known.seen[0][0] >= self._calm:
                found[known.kind] = (known.seen[0][0], known.seen)
        for card in self._first_cards():
            found[card.thing.kind] = (float(card.start_s), self._shown(card))
        if motion := self._story.motion:
            found[motion.thing.kind] = (motion.start_s, ((motion.start_s, motion.end_s),))
        return found

    def _about_events(self) -> Iterator[Question]:
        story = self._story
        if motion := story.motion:
            spans: Spans = ((motion.start_s, motion.end_s),)
            yield self._question("direction", f"{_sentence(motion.direction)}", spans, kind=motion.thing.kind)
        for card in self._first_cards():
            if card.crowd:
                continue
            if card.style == "card":
                yield self._question("needle", f"{_a(card.thing).capitalize()}.", self._shown(card))
            else:
                times = sum(other.style == card.style for other in story.cards)
                yield self._question("often", TIMES[times], self._shown(card), kind=card.thing.kind)

    def _first_cards(self) -> Iterator[Card]:
        seen: set[Thing] = set()
        for card in self._story.cards:
            if card.thing not in seen:
                seen.add(card.thing)
                yield card

    def _shown(self, card: Card) -> Spans:
        return tuple((float(c.start_s), float(c.end_s)) for c in self._story.cards if c.thing == card.thing)

    @staticmethod
    def _always(placed: Placed) -> bool:
        return placed.since_s == 0 and placed.until_s == float("inf")

    @staticmethod
    def _stays(placed: Placed) -> bool:
        return placed.until_s == float("inf")


def _description(story: Story) -> str:
    """The places in the order in which they are first seen, then what happens."""
    places: Sequence[int] = tuple(dict.fromkeys(shot.place for shot in story.shots))
    named = [f"the {story.places[index].name}" for index in places]
    sentences = ["First " + ", then ".join(named) if len(named) > 1 else named[0].capitalize()]
    if story.motion:
        sentences.append(f"{_a(story.motion.thing).capitalize()} moves through the picture")
    for style, shown in (("card", "is shown briefly"), ("spotlight", "is in the spotlight")):
        card = next((card for card in story.cards if card.style == style and not card.crowd), None)
        if card is not None:
            sentences.append(f"{_a(card.thing).capitalize()} {shown}")
    return "".join(f"{sentence}. " for sentence in sentences).strip()


def _a(thing: Thing) -> str:
    return f"{'an' if thing.colour[0] in 'aeiou' else 'a'} {thing}"


def _sentence(words: str) -> str:
    return f"{words.capitalize()}."
