"""What the tests of the server share: the tiny model behind HTTP, and a film that it can answer questions about."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from conftest import PARITY, TRAINED

from longvu_cli.config import GenerationOptions, ModelOptions
from longvu_cli.feature_cache import FeatureCache
from longvu_cli.longvu import LongVU
from longvu_cli.results import Answer
from longvu_cli.serving.asking import asking
from longvu_cli.world.film import write_film
from longvu_cli.world.questions import Question, questions
from longvu_cli.world.story import story
from serving.served import Served, serving


@dataclass(frozen=True)
class Film:
    """Six seconds of the drawn world.

    Attributes:
        questions: with short answers that the tiny model knows.
    """

    path: Path
    questions: tuple[Question, ...]


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> Film:
    told = story(10_001, 6)
    path = tmp_path_factory.mktemp("allowed") / "film é.mp4"
    write_film(told, path, fps=2)
    known = [question for question in questions(told) if question.kind in ("colour", "yes_no")]
    return Film(path, tuple(known[:4]))


@pytest.fixture(scope="session")
def served(film: Film, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The tiny model, with room for every request of the tests."""
    if not TRAINED:
        pytest.skip("the tiny model is not part of this installation")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    cache = FeatureCache(tmp_path_factory.mktemp("features"))
    model = LongVU.from_pretrained("tiny", options=ModelOptions(device="cpu"), cache=cache)
    with serving(asking(model), queue=250, folders=(film.path.parent,), max_upload_bytes=10**6) as running:
        yield running
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def an_answer(qwen: LongVU) -> Answer:
    """Of a real model, for scripted ones to be like."""
    return qwen.answer(PARITY / "one_frame.mkv", "What is it?", generation=GenerationOptions(max_new_tokens=2))
