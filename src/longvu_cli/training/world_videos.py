"""Batches of videos of the synthetic world with several questions each."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch.utils.data import IterableDataset, get_worker_info
from transformers import PreTrainedTokenizerFast

from longvu_cli.compression.budget import budget, plan
from longvu_cli.config import LLMFamily, Recipe
from longvu_cli.prompt import build_prompt
from longvu_cli.statistics import Resolution
from longvu_cli.training.world_pictures import Shown, kept_moments, shown
from longvu_cli.world.questions import KINDS, Question, questions
from longvu_cli.world.story import Split, Story, story

# Where no loss is computed, as in torch's cross-entropy.
IGNORED = -100
# A description is long, and each of its words can be wrong.
_DESCRIBE_WEIGHT = 3.0


@dataclass(frozen=True)
class Group:
    """Videos that go into one batch.

    Attributes:
        name: how logs call it.
        seconds: shortest and longest.
        videos: per batch.
        questions: per video.
        share: how often such a batch comes, relative to others.
    """

    name: str
    seconds: tuple[int, int]
    videos: int
    questions: int
    share: float


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
        weight: [R] of the row's loss.
        evidence: [R, T] frames that the answer rests on.
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
    weight: npt.NDArray[np.float32]
    evidence: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.room)


class WorldVideos(IterableDataset[VideoBatch]):
    """Endless batches. ``run`` tells the draws of one run from those of another.

    Args:
        groups: which videos, and how often.
        recipe: of the model that is trained; the compression is the real one.
        split: whose stories.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        tokenizer: PreTrainedTokenizerFast,
        recipe: Recipe,
        *,
        run: int,
        split: Split = Split.TRAIN,
    ) -> None:
        super().__init__()
        self._groups, self._tokenizer, self._recipe = tuple(groups), tokenizer, recipe
        self._run, self._split = run, split

    def __iter__(self) -> Iterator[VideoBatch]:
        info = get_worker_info()
        chance = np.random.default_rng([self._run, 0 if info is None else info.id, 2])
        shares = np.array([group.share for group in self._groups])
        while True:
            group = self._groups[int(chance.choice(len(self._groups), p=shares / shares.sum()))]
            yield self.batch(group, chance)

    def batch(self, group: Group, chance: np.random.Generator) -> VideoBatch:
        """One batch of a group."""
        draw = random.Random(int(chance.integers(2**63)))
        stories = [self._story(group, draw) for _ in range(group.videos)]
        moments = [self._moments(told, draw) for told in stories]
        asked = [some(questions(told), group.questions, draw) for told in stories]
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
            frames=shown(
                [
                    (told.scene_at(t), told.camera_at(t))
                    for told, times in zip(stories, moments, strict=True)
                    for t in times.tolist()
                ],
                chance,
            ),
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
            weight=np.array([_DESCRIBE_WEIGHT if q.kind == "describe" else 1.0 for q in flat], np.float32),
            evidence=evidence,
        )

    def _story(self, group: Group, draw: random.Random) -> Story:
        shortest, longest = group.seconds
        # Long videos are drawn so that each order of magnitude comes as often.
        seconds = round(shortest * (longest / shortest) ** draw.random())
        if seconds >= 120 and draw.random() < 0.5:
            seconds -= seconds % 60
        return story(self._split.seed(draw.randrange(2**40)), max(shortest, min(longest, seconds)))

    def _moments(self, told: Story, draw: random.Random) -> npt.NDArray[np.int64]:
        room = budget(self._recipe, 40)
        if told.seconds < room.low_cap:
            return np.arange(told.seconds)
        return kept_moments(told, threshold=draw.uniform(0.5, 0.7), likeness=draw.uniform(0.25, 0.45))

    def _row(self, question: Question) -> tuple[tuple[int, ...], int, list[int]]:
        prompt = build_prompt(self._tokenizer, LLMFamily.QWEN2, question.text)
        answer = self._tokenizer(question.answer, add_special_tokens=False)["input_ids"]
        return prompt.before, len(prompt.after), [*prompt.after, *answer, self._tokenizer.eos_token_id]


def some(asked: Sequence[Question], count: int, draw: random.Random) -> list[Question]:
    """``count`` of the questions, of as many kinds as there are; some twice where there are too few."""
    by_kind = {kind: [question for question in asked if question.kind == kind] for kind in KINDS}
    chosen: list[Question] = []
    while len(chosen) < count:
        kinds = [kind for kind, left in by_kind.items() if left]
        if not kinds:
            chosen += draw.choices(asked, k=count - len(chosen))
            break
        draw.shuffle(kinds)
        for kind in kinds[: count - len(chosen)]:
            chosen.append(by_kind[kind].pop(draw.randrange(len(by_kind[kind]))))
    return chosen
