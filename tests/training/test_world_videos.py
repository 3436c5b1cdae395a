"""training/world_videos.py: batches of videos whose questions, answers and evidence belong together."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator
from itertools import islice

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from longvu_cli.config import CompressionOptions, ModelConfig, Recipe
from longvu_cli.prompt import load_tokenizer
from longvu_cli.training import world_videos
from longvu_cli.training.tiny_checkpoint import VOCABULARY, config_values, new_checkpoint
from longvu_cli.training.world_videos import (
    THING_WORDS,
    WORDS,
    Group,
    VideoBatch,
    WorldVideos,
    exercises,
    following,
    left_shown,
    right_to_left,
    some,
    words_shown,
)
from longvu_cli.world.questions import KINDS, Question, questions
from longvu_cli.world.story import (
    LOOKS,
    Camera,
    Direction,
    Item,
    Motion,
    Place,
    Placed,
    Scene,
    Shot,
    Split,
    Stand,
    Story,
    Thing,
    story,
)
from longvu_cli.world.things import THINGS

STILL = Camera((0.0, 0.0), 1.0, 0.0)
SHORT = Group("short", (8, 30), 3, 6, 1.0)
PICTURES = Group("pictures", (1, 1), 4, 4, 1.0)
LONG = Group("long", (600, 900), 2, 4, 1.0)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerFast:
    folder = tmp_path_factory.mktemp("fresh")
    new_checkpoint(folder)
    return load_tokenizer(folder)


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return CompressionOptions().resolve(ModelConfig.from_values(config_values(VOCABULARY)))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def batches(
    tokenizer: PreTrainedTokenizerFast, recipe: Recipe, group: Group, *, rounds: int = 2, seed: int = 0
) -> tuple[VideoBatch, ...]:
    videos = WorldVideos([group], tokenizer, recipe, run=0, rounds=rounds)
    return videos.batches(group, np.random.default_rng(seed))


@pytest.mark.parametrize("group", [SHORT, PICTURES, LONG], ids=lambda group: group.name)
def test_rounds_share_their_frames(tokenizer: PreTrainedTokenizerFast, recipe: Recipe, group: Group) -> None:
    first, *others = batches(tokenizer, recipe, group, rounds=3)
    assert len(others) == 2
    for other in others:
        # The same object: the towers see them once.
        assert other.frames is first.frames
        assert np.array_equal(other.time, first.time)
        assert not np.array_equal(other.ids, first.ids)


@pytest.mark.parametrize("group", [SHORT, PICTURES, LONG], ids=lambda group: group.name)
def test_a_batch_fits_together(tokenizer: PreTrainedTokenizerFast, recipe: Recipe, group: Group) -> None:
    for batch in batches(tokenizer, recipe, group):
        rows = group.videos * group.questions
        frames = len(batch.frames)
        assert len(batch) == group.videos
        assert batch.ids.shape[0] == len(batch.prompt) == len(batch.length) == len(batch.kinds) == rows
        assert batch.evidence.shape == (rows, np.bincount(batch.video).max())
        assert batch.words.shape == (frames, recipe.high_side**2, len(WORDS))
        assert len(batch.video) == len(batch.time) == len(batch.place) == frames
        assert (np.diff(batch.video) >= 0).all()
        for number in range(group.videos):
            mine = batch.video == number
            assert np.array_equal(batch.place[mine], np.arange(mine.sum()))
            assert (np.diff(batch.time[mine]) > 0).all()
        assert (batch.prompt < batch.length).all()
        assert batch.length.max() == batch.ids.shape[1]


def test_rows_are_questions_and_answers(tokenizer: PreTrainedTokenizerFast, recipe: Recipe) -> None:
    for batch in batches(tokenizer, recipe, SHORT):
        for ids, prompt, length in zip(batch.ids, batch.prompt, batch.length, strict=True):
            assert not ids[length:].any()
            assert ids[length - 1] == tokenizer.eos_token_id
            asked = tokenizer.decode(ids[:prompt].tolist())
            assert re.fullmatch(r"\n[^\n]+<\|im_end\|>\n<\|im_start\|>assistant\n", asked), asked
            assert tokenizer.decode(ids[prompt : length - 1].tolist()).rstrip().endswith(".")


def test_evidence_shows_what_is_asked_for(tokenizer: PreTrainedTokenizerFast, recipe: Recipe) -> None:
    """Labels of the frames say so, which are made without the question."""
    checked = 0
    for seed in range(4):
        for batch in batches(tokenizer, recipe, SHORT, seed=seed):
            for row, kind in enumerate(batch.kinds):
                if kind not in ("colour", "place", "direction", "often"):
                    continue
                text = tokenizer.decode(batch.ids[row, : batch.prompt[row]].tolist())
                thing = next(name for name in THINGS if re.search(rf"\b{name}\b", text))
                mine = batch.video == row // SHORT.questions
                frames = batch.words[mine][batch.evidence[row, : mine.sum()]]
                assert len(frames), text
                assert frames[:, :, WORDS.index(thing)].any(axis=1).all(), text
                assert not batch.evidence[row, mine.sum() :].any()
                checked += 1
    assert checked > 20


def test_long_videos_are_read_in_part(tokenizer: PreTrainedTokenizerFast, recipe: Recipe) -> None:
    (batch,) = batches(tokenizer, recipe, LONG, rounds=1)
    assert np.bincount(batch.video).max() <= 400
    assert np.bincount(batch.video).min() >= 600 // 16
    assert batch.time.max() >= 550
    whole = (6 + 1) * 6 * np.bincount(batch.video)
    assert np.array_equal(batch.base_high, whole <= batch.room)


def test_a_run_always_draws_the_same_and_another_something_else(
    tokenizer: PreTrainedTokenizerFast, recipe: Recipe
) -> None:
    def drawn(run: int) -> list[VideoBatch]:
        videos = WorldVideos([PICTURES, SHORT], tokenizer, recipe, run=run, rounds=2)
        return [batch for pair in islice(videos, 3) for batch in pair]

    first, second, other = drawn(0), drawn(0), drawn(1)
    for a, b in zip(first, second, strict=True):
        assert a.group == b.group
        assert np.array_equal(a.ids, b.ids)
        assert np.array_equal(a.frames.noise, b.frames.noise)
    assert any(a.ids.shape != c.ids.shape or (a.ids != c.ids).any() for a, c in zip(first, other, strict=True))


@pytest.mark.parametrize("split", Split)
def test_stories_are_those_of_the_split(
    tokenizer: PreTrainedTokenizerFast, recipe: Recipe, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[int, int]] = []

    def listening(seed: int, seconds: int) -> Story:
        told.append((seed, seconds))
        return story(seed, seconds)

    monkeypatch.setattr(world_videos, "story", listening)
    videos = WorldVideos([SHORT], tokenizer, recipe, run=0, split=split)
    for _ in islice(videos, 2):
        pass
    assert all(split.seed(0) <= seed <= split.seed(2**40 - 1) for seed, _ in told)
    assert all(SHORT.seconds[0] <= seconds <= SHORT.seconds[1] for _, seconds in told)


def test_shares_decide_how_often_a_group_comes(tokenizer: PreTrainedTokenizerFast, recipe: Recipe) -> None:
    often, rarely = Group("often", (1, 1), 1, 1, 0.9), Group("rarely", (1, 1), 1, 1, 0.1)
    videos = WorldVideos([often, rarely], tokenizer, recipe, run=0)
    names = [batch.group for (batch,) in islice(videos, 100)]
    assert 80 <= names.count("often") < 100


def of_kinds(*kinds: str) -> list[Question]:
    return [Question(kind, f"{kind} {number}?", "Yes.") for number, kind in enumerate(kinds)]


def test_every_kind_is_asked_for_however_rare_it_is() -> None:
    asked = of_kinds(*["colour"] * 20, "left", "when", *["count"] * 3)
    chosen = some(asked, 200, random.Random(0))
    assert len(chosen) == 200
    assert set(chosen) <= set(asked)
    kinds = Counter(question.kind for question in chosen)
    assert set(kinds) == {"colour", "left", "when", "count"}
    # It is one of twenty-five questions: drawn evenly, it would come eight times.
    assert kinds["left"] > 16


def test_too_few_questions_are_asked_twice() -> None:
    asked = of_kinds("colour", "left")
    chosen = [some(asked, 7, random.Random(seed)) for seed in range(20)]
    assert {len(questions) for questions in chosen} == {7}
    assert {question for questions in chosen for question in questions} == set(asked)


def test_real_stories_are_asked_about_in_many_ways() -> None:
    kinds = {
        question.kind for seed in range(30) for question in some(questions(story(seed, 120)), 12, random.Random(seed))
    }
    assert kinds == set(KINDS)


def test_words_are_where_the_things_are() -> None:
    scene = Scene("beach", (0.5,) * LOOKS, (Item("rug", None, 0.3, 0.8, 0.4), Item("key", "red", 0.75, 0.25, 0.2)))
    shows = words_shown([(scene, STILL)], 6)[0].reshape(6, 6, len(WORDS))
    assert shows[:, :, WORDS.index("beach")].all()
    for word in ("key", "red"):
        rows, columns = np.nonzero(shows[:, :, WORDS.index(word)])
        assert (rows.min(), rows.max(), columns.min(), columns.max()) == (1, 1, 4, 4) or (
            rows.mean() < 2.5 and columns.mean() > 3
        )
    rows, columns = np.nonzero(shows[:, :, WORDS.index("rug")])
    assert rows.min() >= 3 and columns.max() <= 3
    shown = {WORDS[number] for number in np.flatnonzero(shows.any(axis=(0, 1)))}
    assert shown == {"beach", "key", "red", "rug"}


def test_words_of_equal_frames_are_equal_and_follow_the_camera() -> None:
    scene = Scene("beach", (0.5,) * LOOKS, (Item("key", "red", 0.42, 0.42, 0.16),))
    moved = Camera((0.05, 0.0), 1.0, 0.0)
    first, other, again = words_shown([(scene, STILL), (scene, moved), (scene, STILL)], 24)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_what_is_left_is_told_by_the_tokens_of_the_thing_itself() -> None:
    cup, key = Item("cup", "white", 0.42, 0.42, 0.16), Item("key", "red", 0.64, 0.42, 0.16)
    higher = Item("hat", "blue", 0.55, 0.2, 0.16)
    shows = left_shown([(Scene("beach", (0.5,) * LOOKS, (cup, key, higher)), STILL)], 6)[0].reshape(6, 6, -1)
    rows, columns = np.nonzero(shows.any(axis=-1))
    assert (rows.min(), rows.max()) == (2, 2) and (columns.min(), columns.max()) == (3, 4)
    assert {THING_WORDS[number] for number in np.flatnonzero(shows.any(axis=(0, 1)))} == {"cup", "white"}


def told(motion: Motion | None) -> Story:
    table, box = Stand("table", 0.3, 0.5, 0.4), Stand("box", 0.7, 0.8, 0.4)
    things = (
        Placed(Thing("cup", "white"), 0, 0.2, 0.4, 0.18, False),
        Placed(Thing("key", "red"), 0, 0.4, 0.4, 0.18, False),
        Placed(Thing("hat", "blue"), 1, 0.7, 0.7, 0.18, False),
    )
    place = Place("kitchen", (0.5,) * LOOKS, (table, box), things)
    return Story(0, 20, (place,), (Shot(0, 20, 0, (0.0, 0.0), 1.0, 0.0, 0.0),), (), motion)


def test_from_right_to_left_each_thing_is_followed_by_what_is_left_of_it() -> None:
    assert right_to_left(told(None)).answer == " kitchen: table red key, white cup; box blue hat."


@pytest.mark.parametrize(
    ("direction", "answer"),
    [
        (Direction.RIGHT, " left, left, middle, middle, middle, right."),
        (Direction.UP, " down, down, middle, middle, middle, up."),
    ],
)
def test_what_moves_is_followed_through_the_moments_that_are_looked_at(direction: Direction, answer: str) -> None:
    video = told(Motion(Thing("ball", "green"), 0, 4.0, 10.0, direction, 0.17))
    follow = following(video, np.arange(20))
    assert follow is not None
    assert (follow.text, follow.answer, follow.evidence) == ("Follow the ball.", answer, ((4.0, 10.0),))
    assert following(video, np.array([0, 5, 15])) is None  # one moment tells no direction
    assert following(told(None), np.arange(20)) is None


def test_each_kind_of_exercise_comes_in_turn() -> None:
    video = told(Motion(Thing("ball", "green"), 0, 4.0, 10.0, Direction.LEFT, 0.17))
    assert [task.kind for task in exercises(video, np.arange(20), 4)] == ["follow", "right to left", "list", "follow"]
    assert [task.kind for task in exercises(told(None), np.arange(20), 3)] == ["right to left", "list", "right to left"]


def test_most_questions_about_haystacks_are_about_the_card(tokenizer: PreTrainedTokenizerFast, recipe: Recipe) -> None:
    group = Group("needle", (8, 12), 2, 7, 1.0, needle=True)
    (batch,) = WorldVideos([group], tokenizer, recipe, run=1).batches(group, np.random.default_rng(0))
    assert sum(evidence.sum() == 1 for evidence in batch.evidence) >= 2 * 4
