from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from longvu_cli.config import GenerationOptions, SamplingOptions
from longvu_cli.errors import UsageError, VideoNotFound
from longvu_cli.longvu import LongVU
from longvu_cli.world.story import Story

GREEDY = {"max_new_tokens": 16, "temperature": 0, "do_sample": False}


@pytest.fixture
def made(plugin: Any, trained_tiny: LongVU, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Makes the harness's model around one that is loaded already, for a task with these documents."""

    def make(documents: list[object], **values: object) -> Any:
        monkeypatch.setattr(plugin.LongVU, "from_pretrained", lambda *_, **__: trained_tiny)
        model = plugin.LongVUModel(pretrained="tiny", **values)
        model.task_dict["films"] = {"test": documents}
        return model

    return make


@pytest.fixture
def ask(made: Callable[..., Any], request_for: Callable[..., Any]) -> Callable[..., list[str]]:
    def answers(visuals: list[Any], questions: list[str], wanted: dict[str, Any] | None = None, **values: Any) -> Any:
        model = made(visuals, **values)
        return model.generate_until(
            [
                request_for((question, wanted or GREEDY, lambda document: document, number, "films", "test"))
                for number, question in enumerate(questions)
            ]
        )

    return answers


def test_the_answers_are_those_of_the_library(
    ask: Callable[..., list[str]], trained_tiny: LongVU, short_film: tuple[Story, Path]
) -> None:
    film = str(short_film[1])
    questions = ["What is shown only briefly?", "Describe this video in detail."]
    expected = [
        trained_tiny.answer(
            film, question, sampling=SamplingOptions(fps=2), generation=GenerationOptions(max_new_tokens=16)
        ).text
        for question in questions
    ]
    assert ask([[film], film], questions, fps=2) == expected
    assert len(set(expected)) == 2


def test_an_answer_ends_where_the_task_says(ask: Callable[..., list[str]], short_film: tuple[Story, Path]) -> None:
    film, question = str(short_film[1]), "Describe this video in detail."
    (whole,) = ask([[film]], [question], {"max_new_tokens": 64})
    (until_comma,) = ask([[film]], [question], {"max_new_tokens": 64, "until": [","]})
    assert "," in whole
    assert until_comma == whole.split(",")[0]


def test_a_video_can_be_asked_piece_by_piece(
    ask: Callable[..., list[str]], trained_tiny: LongVU, short_film: tuple[Story, Path]
) -> None:
    film, question = str(short_film[1]), "What is shown only briefly?"
    # A video that fits is one piece.
    assert ask([[film]], [question], coverage=True) == ask([[film]], [question])


def test_pictures_in_memory_are_looked_at(ask: Callable[..., list[str]], log: Any) -> None:
    picture = Image.new("RGB", (336, 336), (200, 30, 30))
    answers = ask([[picture], [picture] * 3], ["What is this?"] * 2)
    assert all(answers)
    # The model knows neither of them; the log says so, once.
    assert len(log.warnings) == 1
    assert "tiny model knows only the drawn world" in log.warnings[0]


def test_a_video_that_is_not_there_is_an_error(ask: Callable[..., list[str]], tmp_path: Path) -> None:
    with pytest.raises(VideoNotFound):
        ask([[str(tmp_path / "gone.mp4")]], ["What is this?"])


def test_more_than_one_question_at_a_time_is_refused(made: Callable[..., Any]) -> None:
    with pytest.raises(UsageError, match="one question at a time"):
        made([], batch_size=8)
    assert made([], batch_size="1").rank == 0


@pytest.mark.parametrize("method", ["loglikelihood", "generate_until_multi_round"])
def test_what_there_is_not_names_the_task(
    made: Callable[..., Any], request_for: Callable[..., Any], method: str
) -> None:
    with pytest.raises(NotImplementedError, match=r"films .*: take a task of output_type generate_until"):
        getattr(made([]), method)([request_for(())])


def test_the_arguments_reach_the_model(plugin: Any, trained_tiny: LongVU, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def from_pretrained(model: str, **given: Any) -> LongVU:
        asked.update(given, model=model)
        return trained_tiny

    monkeypatch.setattr(plugin.LongVU, "from_pretrained", from_pretrained)
    model = plugin.LongVUModel(pretrained="3b", device="cuda:1", workers=2, no_cache=True, batch_size=1)
    assert (asked["model"], asked["options"].device, asked["decoding"].workers) == ("3b", "cuda:1", 2)
    assert asked["cache"] is None
    assert (model.rank, model.world_size, str(model.device)) == (0, 1, "cpu")
    plugin.LongVUModel()
    assert asked["model"] == "auto"
    assert asked["cache"] is not None


@pytest.mark.parametrize(("own", "device"), [("cuda:2", "cuda:2"), ("cpu:0", "cpu")])
def test_each_of_several_processes_has_the_device_that_accelerate_gives_it(
    plugin: Any, trained_tiny: LongVU, monkeypatch: pytest.MonkeyPatch, own: str, device: str
) -> None:
    asked: list[Any] = []

    def from_pretrained(_: str, **given: Any) -> LongVU:
        asked.append(given["options"].device)
        return trained_tiny

    several = SimpleNamespace(process_index=2, num_processes=4, device=torch.device(own))
    monkeypatch.setattr(plugin, "Accelerator", lambda: several)
    monkeypatch.setattr(plugin.LongVU, "from_pretrained", from_pretrained)
    model = plugin.LongVUModel(device="mps")
    assert (model.rank, model.world_size, asked) == (2, 4, [device])
    assert model.accelerator is several
