"""What happens in a video of the world: a pure function of a seed and a length.

A video is a sequence of shots of a few places. Each place has furniture, and things stand on it; some are put there
during the video, one may be carried away, one may cross the picture. Cards are shown between: a thing in a frame, once
and only briefly (the needle), or a thing in a spotlight, once or several times.

Times are in seconds; sampling at one frame per second sees the world at 0, 1, 2 …
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum, StrEnum
from functools import cached_property

from longvu_cli.world.things import COLOURS, FURNITURE_FACTS, THINGS

# Name → the preposition that goes with it. The order is that of the labels that the towers are taught.
PLACES: dict[str, str] = {
    "kitchen": "in",
    "garden": "in",
    "beach": "on",
    "street": "in",
    "library": "in",
    "bedroom": "in",
}
STYLES = (*PLACES, "card", "spotlight")
LOOKS = 8
# How far apart the middles of four things on a card are, in frame sides.
_CROWD_STEP = 0.155
LONGEST_S = 36_000

# Up to this length every sampled frame is read (the tiny model's context holds so many at low resolution), so an event
# may be quick. In longer videos it has to outlast the windows of the temporal reduction.
_QUICK_UNTIL_S = 400
_FOREVER = math.inf


class Split(Enum):
    """Disjoint ranges of seeds."""

    TRAIN = 0
    VALIDATION = 1
    TEST = 2

    def seed(self, number: int) -> int:
        """The number-th seed of the range.

        Raises:
            ValueError: the range has no such seed.
        """
        if not 0 <= number < 2**40:
            raise ValueError(f"{number} is not a number from 0 to 2^40 - 1")
        return self.value * 2**40 + number


class Direction(StrEnum):
    """Which way a thing crosses the picture."""

    LEFT = "to the left"
    RIGHT = "to the right"
    UP = "upwards"
    DOWN = "downwards"


@dataclass(frozen=True)
class Thing:
    """A kind in a colour."""

    kind: str
    colour: str

    def __str__(self) -> str:
        return f"{self.colour} {self.kind}"


@dataclass(frozen=True)
class Stand:
    """A piece of furniture at its place; ``x`` is its middle and ``y`` its upper edge, in frame sides."""

    kind: str
    x: float
    y: float
    width: float


@dataclass(frozen=True)
class Placed:
    """A thing that stands somewhere, from a moment to another.

    Attributes:
        stand: index of the furniture that it stands on.
        x, y: its middle, in frame sides.
        since_s: when it is put there; 0 where it was there from the beginning.
        until_s: when it begins to be carried away.
    """

    thing: Thing
    stand: int
    x: float
    y: float
    size: float
    mirrored: bool
    since_s: float = 0.0
    until_s: float = _FOREVER


@dataclass(frozen=True)
class Place:
    """A place with what is in it; ``look`` are numbers from 0 to 1 that vary its texture."""

    name: str
    look: tuple[float, ...]
    stands: tuple[Stand, ...]
    things: tuple[Placed, ...]


@dataclass(frozen=True)
class Shot:
    """A while in one place, seen by one camera in one light."""

    start_s: int
    end_s: int
    place: int
    shift: tuple[float, float]
    gain: float
    warmth: float
    phase: float

    @property
    def seconds(self) -> int:
        """How long it lasts."""
        return self.end_s - self.start_s


@dataclass(frozen=True)
class Card:
    """A full-screen picture that interrupts whatever is shown.

    Attributes:
        thing: what is on it.
        crowd: three more things on it: they form a square with the first, around ``x`` and ``y``.
    """

    start_s: int
    end_s: int
    thing: Thing
    style: str
    x: float
    y: float
    size: float
    look: tuple[float, ...]
    crowd: tuple[Thing, ...] = ()

    @property
    def things(self) -> tuple[Thing, ...]:
        """All that is on it."""
        return (self.thing, *self.crowd)

    @property
    def items(self) -> tuple[Item, ...]:
        """What is drawn on it."""
        if not self.crowd:
            return (Item(self.thing.kind, self.thing.colour, self.x, self.y, self.size),)
        far = _CROWD_STEP / 2
        corners = ((-far, -far), (far, -far), (-far, far), (far, far))
        return tuple(
            Item(thing.kind, thing.colour, self.x + x, self.y + y, self.size)
            for thing, (x, y) in zip(self.things, corners, strict=True)
        )


@dataclass(frozen=True)
class Motion:
    """A thing that crosses the picture."""

    thing: Thing
    shot: int
    start_s: float
    end_s: float
    direction: Direction
    size: float

    def at(self, t: float) -> tuple[float, float]:
        """Where it is, in frame sides."""
        way = 0.14 + 0.72 * (t - self.start_s) / (self.end_s - self.start_s)
        if self.direction in (Direction.LEFT, Direction.UP):
            way = 1 - way
        return (way, 0.51) if self.direction in (Direction.LEFT, Direction.RIGHT) else (0.5, way)


@dataclass(frozen=True)
class Item:
    """One drawing on the picture."""

    name: str
    colour: str | None
    x: float
    y: float
    size: float
    mirrored: bool = False


@dataclass(frozen=True)
class Scene:
    """What a picture shows before camera and light: equal scenes are drawn once."""

    style: str
    look: tuple[float, ...]
    items: tuple[Item, ...]


@dataclass(frozen=True)
class Camera:
    """How a scene is filmed: offset in frame sides, brightness, and warmth of the light."""

    shift: tuple[float, float]
    gain: float
    warmth: float


@dataclass(frozen=True)
class Story:
    """Everything that happens.

    Attributes:
        seconds: length.
        cards: in order, not overlapping.
        motion: at most one thing crosses the picture.
    """

    seed: int
    seconds: int
    places: tuple[Place, ...]
    shots: tuple[Shot, ...]
    cards: tuple[Card, ...]
    motion: Motion | None

    def shot_at(self, t: float) -> int:
        """Index of the shot that a moment falls into, cards aside."""
        low, high = 0, len(self.shots) - 1
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.shots[middle].start_s <= t else (low, middle - 1)
        return low

    def card_at(self, t: float) -> Card | None:
        """The card that is shown at a moment."""
        return next((card for card in self.cards if card.start_s <= t < card.end_s), None)

    def scene_at(self, t: float) -> Scene:
        """What is shown at a moment."""
        if card := self.card_at(t):
            return Scene(card.style, card.look, card.items)
        index = self.shot_at(t)
        place = self.places[self.shots[index].place]
        return Scene(place.name, place.look, (*_furniture(place), *self._things_at(place, index, t)))

    def camera_at(self, t: float) -> Camera:
        """How it is filmed: a slow drift, and light that wavers."""
        if self.card_at(t):
            return Camera((0.0, 0.0), 1.0, 0.0)
        shot = self.shots[self.shot_at(t)]
        drift = 0.012 * math.sin(0.21 * t + shot.phase), 0.012 * math.cos(0.17 * t + shot.phase)
        shift = shot.shift[0] + drift[0], shot.shift[1] + drift[1]
        return Camera(shift, shot.gain * (1 + 0.07 * math.sin(0.33 * t + 2 * shot.phase)), shot.warmth)

    @cached_property
    def things(self) -> tuple[Thing, ...]:
        """Every thing that is ever shown, once, in no particular order."""
        shown = [placed.thing for place in self.places for placed in place.things]
        shown += [thing for card in self.cards for thing in card.things]
        shown += [self.motion.thing] if self.motion else []
        return tuple(dict.fromkeys(shown))

    def seen(self, place: int, since_s: float = 0.0, until_s: float = _FOREVER) -> tuple[tuple[float, float], ...]:
        """When a place is on screen between two moments, cards aside: (start, end) in order."""
        spans: list[tuple[float, float]] = []
        for shot in self.shots:
            start, end = max(float(shot.start_s), since_s), min(float(shot.end_s), until_s)
            if shot.place == place and start < end:
                spans += self._without_cards(start, end)
        return tuple(spans)

    def _without_cards(self, start: float, end: float) -> Iterator[tuple[float, float]]:
        for card in self.cards:
            if card.end_s <= start or card.start_s >= end:
                continue
            if card.start_s > start:
                yield start, float(card.start_s)
            start = float(card.end_s)
        if start < end:
            yield start, end

    def _things_at(self, place: Place, shot: int, t: float) -> Iterator[Item]:
        for placed in place.things:
            flight = _flight(placed, t, pace=3.0)
            if flight is not None:
                thing = placed.thing
                yield Item(
                    thing.kind, thing.colour, placed.x + flight[0], placed.y + flight[1], placed.size, placed.mirrored
                )
        motion = self.motion
        if motion is not None and motion.shot == shot and motion.start_s <= t < motion.end_s:
            x, y = motion.at(t)
            yield Item(motion.thing.kind, motion.thing.colour, x, y, motion.size)


def _furniture(place: Place) -> Iterator[Item]:
    for stand in place.stands:
        # Drawings hang from the upper edge of their square.
        yield Item(stand.kind, None, stand.x, stand.y + stand.width / 2, stand.width)


def _flight(placed: Placed, t: float, *, pace: float) -> tuple[float, float] | None:
    """Offset of a thing from where it stands: it is let down when it comes, and taken out to the side when it goes."""
    if t < placed.since_s:
        return None
    if placed.since_s > 0 and t < placed.since_s + 1:
        return 0.0, -0.08 * (placed.since_s + 1 - t)
    if t < placed.until_s:
        return 0.0, 0.0
    gone = (t - placed.until_s) / pace
    side = -1.0 if placed.x < 0.5 else 1.0
    return (side * 0.6 * gone, -0.1 * gone) if gone < 1 else None


# --- writing a story -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Pace:
    """How fast things happen.

    Attributes:
        shot_s: shortest and longest shot.
        calm_s: how long something has to be seen before and after it changes.
        motion_s: shortest and longest crossing.
        gap_s: between cards.
    """

    shot_s: tuple[int, int]
    calm_s: int
    motion_s: tuple[int, int]
    gap_s: int


def _pace(seconds: int) -> _Pace:
    if seconds <= 20:
        return _Pace((4, 9), 2, (4, 7), 2)
    if seconds <= 120:
        return _Pace((5, 18), 2, (4, 10), 3)
    if seconds <= _QUICK_UNTIL_S:
        return _Pace((9, 36), 3, (6, 16), 6)
    return _Pace((26, 72), 20, (50, 70), 40)


def story(seed: int, seconds: int) -> Story:
    """Write the story of a seed.

    Args:
        seconds: length, 1 (a picture) to ten hours.

    Raises:
        ValueError: the length is out of range.
    """
    if not 1 <= seconds <= LONGEST_S:
        raise ValueError(f"a length of {seconds} s is not between 1 and {LONGEST_S}")
    chance = random.Random(f"world {seed} {seconds}")
    return _Writer(chance, seed, seconds).write()


def needle_story(seed: int, seconds: int, depth: float) -> Story:
    """A long story in which nothing happens but one card, shown for one second.

    Where the seed is odd, one thing is on the card; where it is even there are four, so near to each other that only
    full resolution tells them apart.

    Args:
        depth: where it is shown, from 0 (the first frame) to 1 (the last).

    Raises:
        ValueError: the depth or the length is out of range.
    """
    if not 0 <= depth <= 1:
        raise ValueError(f"a depth of {depth} is not between 0 and 1")
    if not 2 <= seconds <= LONGEST_S:
        raise ValueError(f"a length of {seconds} s is not between 2 and {LONGEST_S}")
    chance = random.Random(f"needle {seed} {seconds}")
    return _Writer(chance, seed, seconds).needle(round(depth * (seconds - 1)))


class _Writer:
    """Draws everything from one source of chance, in a fixed order."""

    def __init__(self, chance: random.Random, seed: int, seconds: int) -> None:
        self._chance = chance
        self._seed = seed
        self._seconds = seconds
        self._pace = _pace(seconds)
        self._kinds = list(THINGS)
        chance.shuffle(self._kinds)

    def write(self) -> Story:
        places = self._places()
        shots = self._shots(len(places))
        if self._seconds == 1:
            return Story(self._seed, 1, places, shots, (), None)
        motion = self._motion(shots)
        places = self._with_comings(places, shots, motion)
        cards = self._cards(places, shots, motion)
        return Story(self._seed, self._seconds, places, shots, cards, motion)

    def needle(self, at_s: int) -> Story:
        if self._seed % 2:
            places = self._places()
            shots = self._shots(len(places))
            card = self._card("card", at_s, at_s + 1)
        else:
            kinds = [self._kinds.pop() for _ in range(4)]  # before the places take theirs
            places = self._places()
            shots = self._shots(len(places))
            card = self._crowded(kinds, at_s)
        return Story(self._seed, self._seconds, places, shots, (card,), None)

    def _crowded(self, kinds: Sequence[str], at_s: int) -> Card:
        chance = self._chance
        first, *others = (Thing(*pair) for pair in zip(kinds, chance.sample(list(COLOURS), 4), strict=True))
        # In the middle of one of nine fields, which at low resolution are one token each.
        x, y = (self._near((0.5 + chance.randrange(3)) / 3, 0.005) for _ in range(2))
        size = self._near(_CROWD_STEP, 0.01)
        return Card(at_s, at_s + 1, first, "card", x, y, size, self._look(), tuple(others))

    # --- places ---

    def _places(self) -> tuple[Place, ...]:
        chance = self._chance
        most = max(1, min(4, self._seconds // 5))
        count = chance.randint(min(2, most), most)
        several = chance.random() < 0.45
        several_in = chance.randrange(count)
        names = chance.sample(list(PLACES), count)
        return tuple(self._place(name, several and index == several_in) for index, name in enumerate(names))

    def _place(self, name: str, several: bool) -> Place:
        chance = self._chance
        stands = self._stands()
        slots = [
            (index, stand.x + slot, stand.y + FURNITURE_FACTS[stand.kind].depth)
            for index, stand in enumerate(stands)
            for slot in FURNITURE_FACTS[stand.kind].slots
        ]
        chance.shuffle(slots)
        things: list[Thing] = []
        if several:
            kind = self._kinds.pop()
            colours = [self._colour() for _ in range(chance.randint(2, min(4, len(slots))))]
            things += [Thing(kind, colour) for colour in colours]
        # Each thing is the only one of its kind in the video but for the several; some kinds stay out of it.
        for _ in range(chance.randint(1, 3)):
            if len(things) < len(slots) and len(self._kinds) > 5:
                things.append(Thing(self._kinds.pop(), self._colour()))
        placed = tuple(self._put(thing, slot) for thing, slot in zip(things, slots, strict=False))
        return Place(name, self._look(), stands, placed)

    def _stands(self) -> tuple[Stand, ...]:
        chance = self._chance
        wall = chance.sample([kind for kind, facts in FURNITURE_FACTS.items() if facts.wall], chance.randint(1, 2))
        floor = chance.sample([kind for kind, facts in FURNITURE_FACTS.items() if not facts.wall], 2)
        stands: list[Stand] = []
        for kinds, height in ((wall, 0.39), (floor, 0.79)):
            sides = [0.27, 0.73]
            chance.shuffle(sides)
            for kind, x in zip(kinds, sides, strict=False):
                stands.append(
                    Stand(kind, self._near(x, 0.02), self._near(height, 0.015), 0.42 + 0.02 * chance.random())
                )
        return tuple(stands)

    def _put(self, thing: Thing, slot: tuple[int, float, float]) -> Placed:
        stand, x, y = slot
        size = self._near(0.185, 0.015)
        mirrored = thing.kind not in ("clock", "book") and self._chance.random() < 0.5
        return Placed(thing, stand, self._near(x, 0.006), y - size * 0.47, size, mirrored)

    # --- time ---

    def _shots(self, places: int) -> tuple[Shot, ...]:
        chance = self._chance
        shortest, longest = self._pace.shot_s
        shots: list[Shot] = []
        start, unseen = 0, list(range(places))
        while start < self._seconds:
            seconds = chance.randint(shortest, longest)
            # Room for the places that have not been on screen yet; no rest that is too short for a shot.
            seconds = min(seconds, self._seconds - start - shortest * max(0, len(unseen) - 1))
            if places == 1 or self._seconds - start - seconds < shortest:
                seconds = self._seconds - start
            before = shots[-1].place if shots else -1
            choices = [place for place in (unseen or range(places)) if place != before]
            place = chance.choice(choices or [0])
            if place in unseen:
                unseen.remove(place)
            shots.append(self._shot(start, start + seconds, place))
            start += seconds
        return tuple(shots)

    def _shot(self, start: int, end: int, place: int) -> Shot:
        chance = self._chance
        shift = self._near(0.0, 0.025), self._near(0.0, 0.025)
        return Shot(start, end, place, shift, chance.uniform(0.8, 1.12), self._near(0, 0.06), chance.uniform(0, 6.28))

    def _motion(self, shots: Sequence[Shot]) -> Motion | None:
        chance = self._chance
        shortest, longest = self._pace.motion_s
        long_enough = [index for index, shot in enumerate(shots) if shot.seconds >= shortest + 1]
        if not long_enough or len(self._kinds) <= 3 or chance.random() < 0.35:
            return None
        index = chance.choice(long_enough)
        shot = shots[index]
        seconds = chance.randint(shortest, min(longest, shot.seconds - 1))
        start = chance.randint(shot.start_s, shot.end_s - seconds)
        direction = chance.choice(list(Direction))
        thing = Thing(self._kinds.pop(), self._colour())
        return Motion(thing, index, start, start + seconds, direction, self._near(0.175, 0.015))

    def _with_comings(
        self, places: tuple[Place, ...], shots: Sequence[Shot], motion: Motion | None
    ) -> tuple[Place, ...]:
        """Let some things come during the video, and one go."""
        chance = self._chance
        changed = list(places)
        taken = {motion.shot} if motion else set()
        wanted = ["comes"] * chance.choice((0, 1, 1, 2)) + ["goes"] * chance.choice((0, 1, 1))
        chance.shuffle(wanted)
        for what in wanted:
            calm = self._pace.calm_s
            roomy = [i for i, shot in enumerate(shots) if i not in taken and shot.seconds >= 2 * calm + 4]
            if not roomy:
                break
            index = chance.choice(roomy)
            taken.add(index)
            shot = shots[index]
            at_s = float(chance.randint(shot.start_s + calm, shot.end_s - calm - 3))
            changed[shot.place] = self._with_change(changed[shot.place], what, at_s)
        return tuple(changed)

    def _with_change(self, place: Place, what: str, at_s: float) -> Place:
        """The place with one of its lone, unchanged things put there, or carried away, at a moment."""
        kinds = [placed.thing.kind for placed in place.things]
        lone = [
            index
            for index, placed in enumerate(place.things)
            if kinds.count(placed.thing.kind) == 1 and placed.since_s == 0 and placed.until_s == _FOREVER
        ]
        if not lone:
            return place
        index = self._chance.choice(lone)
        old = place.things[index]
        new = replace(old, since_s=at_s) if what == "comes" else replace(old, until_s=at_s)
        return replace(place, things=(*place.things[:index], new, *place.things[index + 1 :]))

    # --- cards ---

    def _cards(self, places: Sequence[Place], shots: Sequence[Shot], motion: Motion | None) -> tuple[Card, ...]:
        chance = self._chance
        if self._seconds < 10:
            return ()
        wanted: list[tuple[str, int]] = []
        if chance.random() < 0.6:
            wanted.append(("card", chance.randint(1, 2)))
        times = chance.randint(1, 4) if chance.random() < 0.5 else 0
        times = min(times, self._seconds // (3 * self._pace.gap_s + 3))
        wanted += [("spotlight", 2)] * times
        chance.shuffle(wanted)
        closed = list(self._closed(places, motion))
        cards: list[Card] = []
        kept: dict[str, Card] = {}
        for style, seconds in wanted:
            start = self._free(closed, seconds)
            if start is None or (style not in kept and len(self._kinds) <= 1):
                continue
            card = self._card(style, start, start + seconds) if style not in kept else kept[style]
            kept[style] = card
            cards.append(replace(card, start_s=start, end_s=start + seconds))
            gap = self._pace.gap_s
            closed.append((start - gap, start + seconds + gap))
        return tuple(sorted(cards, key=lambda card: card.start_s))

    def _closed(self, places: Sequence[Place], motion: Motion | None) -> Iterator[tuple[float, float]]:
        """When no card may be shown: while something changes, and at both ends of the video."""
        calm = self._pace.calm_s
        yield -_FOREVER, 2
        yield self._seconds - 1, _FOREVER
        if motion is not None:
            yield motion.start_s - 1, motion.end_s + 1
        for place in places:
            for placed in place.things:
                for moment in (placed.since_s, placed.until_s):
                    if 0 < moment < _FOREVER:
                        yield moment - calm - 1, moment + calm + 4

    def _free(self, closed: Sequence[tuple[float, float]], seconds: int) -> int | None:
        for _ in range(20):
            start = self._chance.randint(2, max(2, self._seconds - seconds - 2))
            if all(start + seconds <= begin or start >= end for begin, end in closed):
                return start
        return None

    def _card(self, style: str, start: int, end: int) -> Card:
        chance = self._chance
        thing = Thing(self._kinds.pop(), self._colour())
        if style == "card":
            size = chance.uniform(0.2, 0.5)
            free = 0.4 - size / 2
            return Card(start, end, thing, style, self._near(0.5, free), self._near(0.5, free), size, self._look())
        return Card(start, end, thing, style, 0.5, 0.5, chance.uniform(0.42, 0.55), self._look())

    # --- chance ---

    def _look(self) -> tuple[float, ...]:
        return tuple(self._chance.random() for _ in range(LOOKS))

    def _near(self, value: float, spread: float) -> float:
        return value + self._chance.uniform(-spread, spread)

    def _colour(self) -> str:
        return self._chance.choice(list(COLOURS))
