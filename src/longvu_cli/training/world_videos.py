"""Batches of videos of the synthetic world with several questions each."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch.utils.data import IterableDataset, get_worker_info
from transformers import PreTrainedTokenizerFast

from longvu_cli.compression.budget import budget, plan
from longvu_cli.config import LLMFamily, Recipe
from longvu_cli.prompt import build_prompt
from longvu_cli.statistics import Resolution
from longvu_cli.training.world_pictures import Shown, kept_moments, neighbours, patch_items, patch_labels, shown
from longvu_cli.world.questions import Question, questions
from longvu_cli.world.render import offset
from longvu_cli.world.story import STYLES, Camera, Direction, Scene, Split, Story, needle_story, story
from longvu_cli.world.things import COLOURS, FURNITURE, THINGS

_DRAWINGS, _COLOURS = (*THINGS, *FURNITURE), tuple(COLOURS)
Filmed = tuple[Scene, Camera]
# How often each kind of question is asked, relative to others.
_EMPHASIS = {
    "count": 3.0,
    "often": 3.0,
    "direction": 2.0,
    "first": 2.0,
    "left": 2.0,
    "when": 2.0,
    "describe": 1.5,
    "needle": 1.0,
    "place": 0.7,
    "yes_no": 1.0,
    "colour": 0.5,
}
# Stories among which the one is taken that has the most of the rarer kinds.
_CHOICE = 3
_COLUMNS, _ROWS = ("left", "middle", "right"), ("up", "middle", "down")
# Moments after which a thing is not followed further.
_FOLLOWED = 8
# What a thing is, as words of the vocabulary; then what a token can show.
THING_WORDS = (*THINGS, *_COLOURS)
WORDS = (*_DRAWINGS, *_COLOURS, *STYLES)


@dataclass(frozen=True)
class Group:
    """Videos that go into one batch.

    Attributes:
        name: how logs call it.
        seconds: shortest and longest.
        videos: per batch.
        questions: per video.
        share: how often such a batch comes, relative to others.
        needle: whether nothing happens in them but a card with a crowd of things, which most questions are about.
    """

    name: str
    seconds: tuple[int, int]
    videos: int
    questions: int
    share: float
    needle: bool = False


@dataclass(frozen=True)
class VideoBatch:
    """B videos, F frames in all, Q questions each (R = B·Q rows), T frames in the longest.

    Attributes:
        group: which kind of videos it holds.
        video: [F] which video a frame belongs to; ascending.
        time: [F] number of the frame among the sampled ones.
        place: [F] number of the frame among those of its video.
        base_high: [B] whether every frame begins at full resolution.
        restored: [B] frames that get full resolution back.
        spatial: [B] whether spatial token compression runs.
        room: [B] visual tokens that fit.
        ids: [R, n] prompt after the video and answer; padded.
        prompt: [R] ids of the prompt after the video.
        length: [R] ids in all.
        evidence: [R, T] frames that the answer rests on.
        words: [F, Q², W] which of the world's words each full-resolution token shows.
        left: [F, Q², W′] which of the words for a thing hold for what is left of what it shows.
        kinds: [R] kinds of question.
    """

    group: str
    frames: Shown
    video: npt.NDArray[np.int64]
    time: npt.NDArray[np.int64]
    place: npt.NDArray[np.int64]
    base_high: npt.NDArray[np.bool_]
    restored: npt.NDArray[np.int64]
    spatial: npt.NDArray[np.bool_]
    room: npt.NDArray[np.int64]
    before: npt.NDArray[np.int64]
    ids: npt.NDArray[np.int64]
    prompt: npt.NDArray[np.int64]
    length: npt.NDArray[np.int64]
    evidence: npt.NDArray[np.bool_]
    words: npt.NDArray[np.bool_]
    left: npt.NDArray[np.bool_]
    kinds: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.room)


class WorldVideos(IterableDataset[tuple[VideoBatch, ...]]):
    """Endless batches, in tuples that share their videos and ask other questions of them.

    ``run`` tells the draws of one run from those of another.

    Args:
        groups: which videos, and how often.
        recipe: of the model that is trained; the compression is the real one.
        rounds: batches that share their videos.
        split: whose stories.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        tokenizer: PreTrainedTokenizerFast,
        recipe: Recipe,
        *,
        run: int,
        rounds: int = 1,
        split: Split = Split.TRAIN,
    ) -> None:
        super().__init__()
        self._groups, self._tokenizer, self._recipe = tuple(groups), tokenizer, recipe
        self._run, self._rounds, self._split = run, rounds, split

    def __iter__(self) -> Iterator[tuple[VideoBatch, ...]]:
        info = get_worker_info()
        chance = np.random.default_rng([self._run, 0 if info is None else info.id, 2])
        shares = np.array([group.share for group in self._groups])
        while True:
            group = self._groups[int(chance.choice(len(self._groups), p=shares / shares.sum()))]
            yield self.batches(group, chance)

    def batches(self, group: Group, chance: np.random.Generator) -> tuple[VideoBatch, ...]:
        """Batches of a group that share their videos."""
        draw = random.Random(int(chance.integers(2**63)))
        stories = [self._story(group, draw) for _ in range(group.videos)]
        moments = [self._moments(told, draw) for told in stories]
        filmed = [
            (told.scene_at(t), told.camera_at(t))
            for told, times in zip(stories, moments, strict=True)
            for t in times.tolist()
        ]
        frames = shown(filmed, chance)
        words, left = words_shown(filmed, self._recipe.high_side), left_shown(filmed, self._recipe.high_side)
        asked = [
            [*self._asked(group, told, draw), *exercises(told, times, self._rounds)]
            for told, times in zip(stories, moments, strict=True)
        ]
        return tuple(
            self._batch(group, moments, frames, words, left, [of_video[number :: self._rounds] for of_video in asked])
            for number in range(self._rounds)
        )

    def _batch(
        self,
        group: Group,
        moments: Sequence[npt.NDArray[np.int64]],
        frames: Shown,
        words: npt.NDArray[np.bool_],
        left: npt.NDArray[np.bool_],
        asked: Sequence[Sequence[Question]],
    ) -> VideoBatch:
        rows = [self._row(question) for of_video in asked for question in of_video]
        before = rows[0][0]
        # One choice of resolutions serves all questions of a video: the longest prompt decides the room.
        prompts = [max(row[1] for row in rows[n * group.questions :][: group.questions]) for n in range(group.videos)]
        rooms = [budget(self._recipe, len(before) + 1 + prompt) for prompt in prompts]
        high, low = self._recipe.high_side, self._recipe.low_side
        plans = [
            plan(self._recipe, room, kept=len(kept), high_tokens=high * (high + 1), low_tokens=low * (low + 1))
            for room, kept in zip(rooms, moments, strict=True)
        ]
        most, longest = max(map(len, moments)), max(len(row[2]) for row in rows)
        ids = np.zeros((len(rows), longest), np.int64)
        evidence = np.zeros((len(rows), most), np.bool_)
        flat = [question for of_video in asked for question in of_video]
        for number, (row, question) in enumerate(zip(rows, flat, strict=True)):
            ids[number, : len(row[2])] = row[2]
            times = moments[number // group.questions]
            for start, end in question.evidence:
                evidence[number, : len(times)] |= (times >= start) & (times < end)
        return VideoBatch(
            group=group.name,
            frames=frames,
            video=np.repeat(np.arange(group.videos), [len(times) for times in moments]),
            time=np.concatenate(moments),
            place=np.concatenate([np.arange(len(times)) for times in moments]),
            base_high=np.array([p.base is Resolution.HIGH for p in plans]),
            restored=np.array([p.restored for p in plans], np.int64),
            spatial=np.array([p.spatial_compression for p in plans]),
            room=np.array([room.visual_budget for room in rooms], np.int64),
            before=np.array(before, np.int64),
            ids=ids,
            prompt=np.array([row[1] for row in rows], np.int64),
            length=np.array([len(row[2]) for row in rows], np.int64),
            evidence=evidence,
            words=words,
            left=left,
            kinds=tuple(question.kind for question in flat),
        )

    def _asked(self, group: Group, told: Story, draw: random.Random) -> list[Question]:
        count = (group.questions - 1) * self._rounds
        asked = questions(told)
        if not group.needle:
            return some(asked, count, draw)
        (card,) = told.cards
        about = [question for question in asked if question.evidence == ((card.start_s, card.end_s),)]
        chosen = draw.choices(about, k=count * 2 // 3)
        return chosen + some(asked, count - len(chosen), draw)

    def _story(self, group: Group, draw: random.Random) -> Story:
        shortest, longest = group.seconds
        # Long videos are drawn so that each order of magnitude comes as often.
        seconds = round(shortest * (longest / shortest) ** draw.random())
        seconds = max(shortest, min(longest, seconds))
        if group.needle:
            return needle_story(self._split.seed(draw.randrange(2**40)), seconds, draw.random())
        choice = [story(self._split.seed(draw.randrange(2**40)), seconds) for _ in range(_CHOICE)]
        return max(choice, key=_riches)

    def _moments(self, told: Story, draw: random.Random) -> npt.NDArray[np.int64]:
        room = budget(self._recipe, 40)
        if told.seconds < room.low_cap:
            return np.arange(told.seconds)
        return kept_moments(told, threshold=draw.uniform(0.5, 0.7), likeness=draw.uniform(0.25, 0.45))

    def _row(self, question: Question) -> tuple[tuple[int, ...], int, list[int]]:
        prompt = build_prompt(self._tokenizer, LLMFamily.QWEN2, question.text)
        answer = self._tokenizer(question.answer, add_special_tokens=False)["input_ids"]
        return prompt.before, len(prompt.after), [*prompt.after, *answer, self._tokenizer.eos_token_id]


def _riches(told: Story) -> float:
    return sum(_EMPHASIS[kind] for kind in {question.kind for question in questions(told)})


def exercises(told: Story, times: npt.NDArray[np.int64], count: int) -> list[Question]:
    """``count`` tasks with long answers, whose every word teaches something that questions ask for.

    Args:
        times: [T] the moments that are looked at.
    """
    tasks = [everything(told), right_to_left(told)]
    moves = following(told, times)
    if moves is not None:
        tasks.append(moves)
    return [tasks[-1 - number % len(tasks)] for number in range(count)]


def following(told: Story, times: npt.NDArray[np.int64]) -> Question | None:
    """Where the thing that moves is at each moment; None when it is not seen moving."""
    motion = told.motion
    if motion is None:
        return None
    seen = [motion.at(float(t)) for t in times.tolist() if motion.start_s <= t < motion.end_s]
    if len(seen) < 2:
        return None
    across = [_COLUMNS[int(3 * x)] for x, _ in seen]
    if motion.direction in (Direction.UP, Direction.DOWN):
        across = [_ROWS[int(3 * y)] for _, y in seen]
    answer = f" {', '.join(across[:_FOLLOWED])}."
    return Question("follow", f"Follow the {motion.thing.kind}.", answer, ((motion.start_s, motion.end_s),))


def right_to_left(told: Story) -> Question:
    """All things of each piece of furniture from right to left: after each one comes what is left of it."""
    sentences = []
    for index in dict.fromkeys(shot.place for shot in told.shots):
        place = told.places[index]
        rows = []
        for number, stand in enumerate(place.stands):
            there = [placed for placed in place.things if placed.stand == number]
            seen = [placed for placed in there if told.seen(index, placed.since_s, placed.until_s)]
            if seen:
                seen.sort(key=lambda placed: -placed.x)
                rows.append(f" {stand.kind} {', '.join(str(placed.thing) for placed in seen)}")
        sentences.append(f" {place.name}:{';'.join(rows)}.")
    return Question("right to left", "List everything from right to left.", "".join(sentences))


def everything(told: Story) -> Question:
    """A list of all that stands anywhere: many answers in one, each a word away from what it is about."""
    sentences = []
    for index in dict.fromkeys(shot.place for shot in told.shots):
        place = told.places[index]
        things = sorted(place.things, key=lambda placed: (THINGS.index(placed.thing.kind), placed.x))
        seen = [placed for placed in things if told.seen(index, placed.since_s, placed.until_s)]
        listed = [f" {placed.thing.kind} {placed.thing.colour} {place.stands[placed.stand].kind}" for placed in seen]
        sentences.append(f" {place.name}:{','.join(listed)}.")
    return Question("list", "List everything.", "".join(sentences))


def words_shown(moments: Sequence[Filmed], side: int) -> npt.NDArray[np.bool_]:
    """Which of :data:`WORDS` each of the side² parts of each frame shows: [f, side², W].

    A thing, its colour, the furniture; the place or the kind of card everywhere.
    """
    part = np.arange(side * side)[:, None]

    def tell(scene: Scene, camera: Camera, shows: npt.NDArray[np.bool_]) -> None:
        labels = patch_labels(scene, camera, 2 * side, _DRAWINGS, _COLOURS).reshape(side, 2, side, 2, 2)
        blocks = labels.transpose(0, 2, 1, 3, 4).reshape(side * side, 4, 2)
        for column, first_word in ((0, 0), (1, len(_DRAWINGS))):
            label = blocks[:, :, column]
            shows[np.broadcast_to(part, label.shape)[label > 0], first_word + label[label > 0] - 1] = True
        shows[:, len(_DRAWINGS) + len(_COLOURS) + STYLES.index(scene.style)] = True

    return _told_once(moments, side, len(WORDS), tell)


def left_shown(moments: Sequence[Filmed], side: int) -> npt.NDArray[np.bool_]:
    """Which of :data:`THING_WORDS` hold for what is left of the thing that a part shows: [f, side², W′]."""

    def tell(scene: Scene, camera: Camera, shows: npt.NDArray[np.bool_]) -> None:
        beside = neighbours(scene)
        items = patch_items(scene, camera, 2 * side)
        for of_thing, of_left in beside.items():
            there = (items == of_thing).reshape(side, 2, side, 2).any(axis=(1, 3)).ravel()
            left = scene.items[of_left - 1]
            shows[there, THINGS.index(left.name)] = True
            shows[there, len(THINGS) + _COLOURS.index(str(left.colour))] = True

    return _told_once(moments, side, len(THING_WORDS), tell)


def _told_once(
    moments: Sequence[Filmed],
    side: int,
    words: int,
    tell: Callable[[Scene, Camera, npt.NDArray[np.bool_]], None],
) -> npt.NDArray[np.bool_]:
    """[f, side², words], where ``tell`` sets the [side², words] of a frame; frames that show the same share theirs."""
    shows = np.zeros((len(moments), side * side, words), np.bool_)
    seen: dict[tuple[Scene, tuple[int, int]], int] = {}
    for number, (scene, camera) in enumerate(moments):
        first = seen.setdefault((scene, offset(camera, 2)), number)
        if first == number:
            tell(scene, camera, shows[number])
        else:
            shows[number] = shows[first]
    return shows


def some(asked: Sequence[Question], count: int, draw: random.Random) -> list[Question]:
    """``count`` of the questions, most of them of the kinds that take longest to learn; some come twice."""
    by_kind = {kind: [question for question in asked if question.kind == kind] for kind in _EMPHASIS}
    kinds = [kind for kind, of_kind in by_kind.items() if of_kind]
    chosen = draw.choices(kinds, weights=[_EMPHASIS[kind] for kind in kinds], k=count)
    return [draw.choice(by_kind[kind]) for kind in chosen]
