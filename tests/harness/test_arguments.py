from collections.abc import Iterator
from typing import Any

import pytest

from longvu_cli.config import (
    Decoder,
    DecodingOptions,
    DType,
    GenerationOptions,
    ModelOptions,
    Quantization,
    SamplingOptions,
)
from longvu_cli.errors import UsageError
from longvu_cli.harness.arguments import generation_of, model_arguments, text_before


def test_without_arguments_everything_is_as_usual() -> None:
    arguments = model_arguments({})
    assert (arguments.model, arguments.decoding) == (ModelOptions(), DecodingOptions())
    assert arguments.settings.changed() == {}
    assert not arguments.no_cache


def test_arguments_have_the_names_of_the_options() -> None:
    arguments = model_arguments(
        {
            "pretrained": "7b",
            "dinov2": "towers/dinov2",
            "offline": True,
            "dtype": "float32",
            "quantize": "4bit",
            "decoder": "nvdec",
            "workers": 2,
            "no_cache": True,
            "fps": 0.5,
            "start": "1:30",
            "stc_threshold": 0.65,
            "subtitles": "auto",
            "coverage": True,
        }
    )
    assert arguments.model == ModelOptions(
        model="7b", dinov2="towers/dinov2", offline=True, dtype=DType.FLOAT32, quantize=Quantization.NF4
    )
    assert arguments.decoding == DecodingOptions(decoder=Decoder.NVDEC, workers=2)
    assert arguments.settings.sampling == SamplingOptions(fps=0.5, start_s=90.0)
    assert arguments.settings.compression.stc_threshold == 0.65
    assert arguments.settings.prompting.subtitles == "auto"
    assert arguments.settings.covering.coverage
    assert arguments.no_cache


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"model": "7b"}, "'model' is no option"),
        ({"fpss": 1}, "'fpss' is no option"),
        ({"fps": "fast"}, "fps = 'fast' is no number"),
        ({"fps": -1}, "--fps -1.0 is not a rate"),
        ({"revision": 1234567}, "revision = 1234567 is no text"),
        ({"offline": "yes"}, "offline = 'yes' is no truth"),
        ({"workers": True}, "workers = True is no whole number"),
        ({"dtype": "fp8"}, "dtype = 'fp8' is none of auto, bfloat16, float16, float32"),
        ({"max_new_tokens": 5}, "max_new_tokens is the task's to say"),
        ({"choices": "a|b"}, "choices is the task's to say"),
    ],
)
def test_what_is_no_argument_is_refused(values: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        model_arguments(values)


# MVBench's, VideoMME's and others'.
GREEDY = {"max_new_tokens": 16, "temperature": 0, "top_p": 1.0, "num_beams": 1, "do_sample": False}


@pytest.mark.parametrize(
    ("values", "options"),
    [
        ({}, GenerationOptions()),
        (GREEDY, GenerationOptions(max_new_tokens=16)),
        # What only sampling needs says nothing about a greedy answer.
        ({"do_sample": False, "temperature": 0.7, "top_p": 0, "seed": 42, "top_k": 50}, GenerationOptions()),
        ({"temperature": None, "top_p": None, "num_beams": None}, GenerationOptions()),
        ({"temperature": 0.2, "top_p": 0.7, "seed": 3}, GenerationOptions(temperature=0.2, top_p=0.7, seed=3)),
        ({"do_sample": True, "temperature": 1}, GenerationOptions(temperature=1.0)),
        ({"image_aspect_ratio": "original"}, GenerationOptions()),
    ],
)
def test_a_task_says_how_it_wants_an_answer(values: dict[str, object], options: GenerationOptions) -> None:
    assert generation_of(values).options == options


@pytest.mark.parametrize(
    ("value", "until"),
    [(None, ()), ([], ()), ("\n\n", ("\n\n",)), (["</s>", "", "ASSISTANT:"], ("</s>", "ASSISTANT:"))],
)
def test_a_task_says_where_an_answer_ends(value: object, until: tuple[str, ...]) -> None:
    assert generation_of({"until": value}).until == until


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"num_beams": 4}, "num_beams = 4 is not possible with LongVU"),
        ({"repetition_penalty": 1.05}, "repetition_penalty = 1.05 is not possible"),
        ({"temperature": 0.7, "top_k": 20}, "top_k = 20 is not possible"),
        ({"max_new_tokens": 0}, "--max-new-tokens 0"),
        ({"max_new_tokens": "many"}, "generation_kwargs: max_new_tokens = 'many'"),
        ({"until": 3}, "until = 3 is no text"),
    ],
)
def test_what_this_model_does_not_do_is_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        generation_of(values)


@pytest.mark.parametrize(
    ("until", "text"),
    [
        ((), "On the shelf.\n\nIn the kitchen"),
        (("\n\n",), "On the shelf."),
        (("kitchen", "shelf"), "On the "),
        ((".", "lf"), "On the she"),
        (("bedroom",), "On the shelf.\n\nIn the kitchen"),
    ],
)
def test_an_answer_ends_before_the_first_of_the_texts_that_end_it(until: tuple[str, ...], text: str) -> None:
    assert text_before(["On the she", "lf.\n", "\nIn the ", "kitchen"], until) == text


def test_what_comes_after_the_end_is_not_waited_for() -> None:
    def pieces() -> Iterator[str]:
        yield "On the shelf.\n"
        yield "\n"
        raise AssertionError("more was asked for")

    assert text_before(pieces(), ("\n\n",)) == "On the shelf."
