"""The trained tiny model, asked real questions: what the whole pipeline is for.

Every step of the compression is on the way of one of these answers; with a step broken on purpose, they are wrong (see
the docstrings). The seeds are of the test split, or of needle stories: no training saw them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from longvu_cli import Answer, LongVU
from longvu_cli.config import GenerationOptions, ModelOptions
from longvu_cli.demo import QUESTIONS as QUESTIONS_OF_THE_DEMO
from longvu_cli.demo_story import demo_story
from longvu_cli.feature_cache import FeatureCache
from longvu_cli.statistics import Regime, Resolution
from longvu_cli.weights import tiny_folder
from longvu_cli.world.film import write_film
from longvu_cli.world.questions import Question, Spans, is_right, questions
from longvu_cli.world.story import Split, Story, needle_story, story

pytestmark = pytest.mark.skipif(
    not (tiny_folder() / "model.safetensors").is_file(), reason="the tiny model is not part of this installation"
)

# Kinds that the model has learnt well; the others are measured by bench/world_accuracy.py.
KINDS = ("colour", "place", "yes_no", "needle", "when")
QUESTIONS = 9
SHORT = [(10_001, 12), (10_002, 20), (10_004, 9), (10_006, 16)]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """A model this small runs faster on one thread than on some that wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> LongVU:
    cache = FeatureCache(tmp_path_factory.mktemp("features"))
    return LongVU.from_pretrained("tiny", options=ModelOptions(device="cpu"), cache=cache)


@dataclass(frozen=True)
class Asked:
    """A question with what the model made of it."""

    story: Story
    question: Question
    answer: Answer

    @property
    def is_right(self) -> bool:
        return is_right(self.question, self.answer.text)

    @property
    def looked_at_the_right_frame(self) -> bool:
        """Whether the frame with the highest relevance is one that shows what was asked for."""
        frames = self.answer.compression.statistics.per_frame
        best = max(frames, key=lambda frame: -float("inf") if frame.relevance is None else frame.relevance)
        return any(start <= best.time_s < end for start, end in self.question.evidence)


def ask(
    tiny: LongVU, folder: Path, told: Story, kinds: tuple[str, ...], *, fps: int = 2, evidence: Spans | None = None
) -> list[Asked]:
    film = folder / f"{told.seed}-{told.seconds}.mp4"
    if not film.exists():
        write_film(told, film, fps=fps)
    asked = [
        question for question in questions(told) if question.kind in kinds and evidence in (None, question.evidence)
    ][:QUESTIONS]
    generation = GenerationOptions(max_new_tokens=24)
    return [Asked(told, question, tiny.answer(film, question.text, generation=generation)) for question in asked]


def share(of: list[bool]) -> float:
    return sum(of) / len(of)


@pytest.fixture(scope="module")
def short(tiny: LongVU, tmp_path_factory: pytest.TempPathFactory) -> list[Asked]:
    """Questions about films of which every frame is read at full resolution."""
    folder = tmp_path_factory.mktemp("short")
    stories = [story(Split.TEST.seed(number), seconds) for number, seconds in SHORT]
    return [asked for told in stories for asked in ask(tiny, folder, told, KINDS)]


def test_short_films_are_answered(short: list[Asked]) -> None:
    assert {asked.answer.compression.statistics.regime for asked in short} == {Regime.ALL_HIGH}
    assert len(short) > 30
    assert share([asked.is_right for asked in short]) >= 0.95


def test_the_most_relevant_frame_shows_what_was_asked_for(short: list[Asked]) -> None:
    """Paper §3.2."""
    told = [asked for asked in short if asked.question.kind in ("colour", "place", "needle")]
    assert share([asked.looked_at_the_right_frame for asked in told]) >= 0.95


def find_needle(tiny: LongVU, folder: Path, seed: int, seconds: int, depth: float) -> list[Asked]:
    """Four questions about a card with four things that is shown for one second.

    It comes in the middle of a window of eight frames, and not of one of sixteen. At low resolution the things are not
    told apart.
    """
    told = needle_story(seed, seconds, depth)
    (card,) = told.cards
    asked = ask(tiny, folder, told, ("colour",), fps=1, evidence=((card.start_s, card.end_s),))
    assert len(asked) == 4
    return asked


def test_spatial_token_compression_keeps_what_changed(tiny: LongVU, tmp_path: Path) -> None:
    """Paper §3.3. Wrong when only the first frame of each window of eight keeps tokens."""
    found = find_needle(tiny, tmp_path, 6, 104, 0.37)
    statistics = found[0].answer.compression.statistics
    assert (statistics.regime, statistics.spatial_compression) == (Regime.ALL_HIGH, True)
    assert statistics.tokens.visual < statistics.tokens.after_query / 2
    assert share([asked.is_right for asked in found]) >= 0.75


def test_the_question_chooses_the_frames_of_full_resolution(tiny: LongVU, tmp_path: Path) -> None:
    """Paper §3.2. The needle is read at low resolution when relevance is turned round."""
    found = find_needle(tiny, tmp_path, 2, 130, 0.15)
    for asked in found:
        statistics = asked.answer.compression.statistics
        assert statistics.regime is Regime.MIXED
        assert 0 < statistics.frames.high_resolution < statistics.frames.kept
        needle = statistics.per_frame[19]
        assert (needle.time_s, needle.resolution) == (19.0, Resolution.HIGH)
        assert asked.looked_at_the_right_frame
    assert share([asked.is_right for asked in found]) >= 0.75


def test_temporal_reduction_keeps_the_one_frame_that_is_different(tiny: LongVU, tmp_path: Path) -> None:
    """Paper §3.1. Wrong when every window keeps its middle frame only."""
    found = find_needle(tiny, tmp_path, 4, 470, 0.3)
    statistics = found[0].answer.compression.statistics
    assert statistics.frames.kept < statistics.frames.sampled / 4
    assert 141 in found[0].answer.compression.kept
    assert share([asked.is_right for asked in found]) >= 0.75


def test_every_question_of_the_demo_is_answered_rightly(tiny: LongVU) -> None:
    right = {(question.kind, question.answer) for question in questions(demo_story())}
    answers = [
        (asked.kind, tiny.answer(tiny_folder() / "demo.mp4", asked.text).text) for asked in QUESTIONS_OF_THE_DEMO
    ]
    assert [answer for answer in answers if answer not in right] == []
