"""training/finetune.py on the tiny checkpoint: two clips, learnt by heart."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from longvu_cli import LongVU, ModelOptions, SamplingOptions
from longvu_cli.config import CompressionOptions, DecodingOptions, DType, Quantization
from longvu_cli.errors import ExtraNotInstalled, LongVUError, NotAVideo, QuestionTooLong, TrainingError, UsageError
from longvu_cli.training.dataset import Example
from longvu_cli.training.finetune import Finetuned, FinetuneOptions, Listeners, finetune
from longvu_cli.training.loop import LogRow, read_log

QUESTION = "Where is the cup?"
ANSWERS = {"tiny_context.mkv": "There.", "square_mixed.mkv": "Here"}
SAMPLING = SamplingOptions(fps=0.05)
# One of the clips has mixed resolutions by the question, the other spatial token compression, in few tokens.
COMPRESSION = CompressionOptions(context_length=400, dino_threshold=0.6)
FULL = FinetuneOptions(lora_rank=0, batch=2, steps=20, learning_rate=1e-2, log_every=2)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The models are so small that more threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def examples() -> tuple[Example, ...]:
    parity = Path(__file__).parents[1] / "data" / "parity"
    return tuple(Example(line, parity / name, QUESTION, ANSWERS[name]) for line, name in enumerate(ANSWERS, 1))


@pytest.fixture
def options(tiny_options: ModelOptions, parity: Path) -> ModelOptions:
    return replace(tiny_options, model=str(parity / "qwen"))


def unheard(*_: Any) -> None:
    """Nobody listens."""


QUIET = Listeners(unheard, unheard, unheard, unheard, unheard)


def train(
    examples: tuple[Example, ...],
    folder: Path,
    model: ModelOptions,
    training: FinetuneOptions = FULL,
    *,
    resume: bool = False,
    listeners: Listeners = QUIET,
    compression: CompressionOptions = COMPRESSION,
) -> Finetuned:
    return finetune(
        examples,
        folder,
        training,
        model=model,
        sampling=SAMPLING,
        compression=compression,
        decoding=DecodingOptions(),
        resume=resume,
        listeners=listeners,
    )


def answers(folder: Path, examples: tuple[Example, ...], model: ModelOptions) -> list[str]:
    loaded = LongVU.from_pretrained(str(folder), options=model)
    told = [loaded.answer(it.video, it.question, sampling=SAMPLING, compression=COMPRESSION) for it in examples]
    assert all(answer.finish_reason.value == "stop" for answer in told)
    assert {answer.compression.statistics.regime.value for answer in told} == {"mixed", "spatial"}
    return [answer.text for answer in told]


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def changed_names(folder: Path, parity: Path) -> set[str]:
    before, after = tensors(parity / "qwen"), tensors(folder)
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


def is_connector(name: str) -> bool:
    return name.startswith(("model.mm_", "model.vision_", "model.image_newline"))


def test_everything_is_trained_and_the_answers_are_learnt(
    examples: tuple[Example, ...], tmp_path: Path, options: ModelOptions, parity: Path
) -> None:
    rows: list[LogRow] = []
    done = train(examples, tmp_path / "new", options, listeners=replace(QUIET, on_log=rows.append))
    assert rows[-1].loss < 0.1 < rows[0].loss
    assert rows[-1].values["accuracy"] == 1
    assert done.last == rows[-1]
    assert (done.examples, done.videos) == (2, 2)
    assert done.trained_parameters == sum(tensor.numel() for tensor in tensors(parity / "qwen").values())
    assert answers(tmp_path / "new", examples, options) == [example.answer for example in examples]
    names = changed_names(tmp_path / "new", parity)
    assert {is_connector(name) for name in names} == {True, False}
    assert {"lm_head.weight", "model.embed_tokens.weight", "model.image_newline", "model.vision_query"} <= names


def test_adapters_are_merged(
    examples: tuple[Example, ...], tmp_path: Path, options: ModelOptions, parity: Path
) -> None:
    lora = replace(FULL, lora_rank=16, steps=30)
    done = train(examples, tmp_path / "new", options, lora)
    assert done.last is not None and done.last.loss < 0.1
    assert answers(tmp_path / "new", examples, options) == [example.answer for example in examples]
    names = {name for name in changed_names(tmp_path / "new", parity) if not is_connector(name)}
    linear = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    assert names == {
        name
        for name in tensors(parity / "qwen")
        if name.endswith(tuple(f"{part}.weight" for part in linear)) and name.startswith("model.layers.")
    }


@pytest.mark.parametrize("part", ["connector", "llm"])
def test_what_is_not_trained_stays_as_it_is(
    part: str, examples: tuple[Example, ...], tmp_path: Path, options: ModelOptions, parity: Path
) -> None:
    only = replace(FULL, connector=part == "connector", llm=part == "llm", steps=2)
    train(examples, tmp_path / "new", options, only)
    assert {is_connector(name) for name in changed_names(tmp_path / "new", parity)} == {part == "connector"}


def test_a_resumed_training_is_that_which_was_never_interrupted(
    examples: tuple[Example, ...], tmp_path: Path, options: ModelOptions
) -> None:
    lora = replace(FULL, lora_rank=4, steps=5, log_every=1)
    train(examples, tmp_path / "whole", options, lora)

    def interrupt(row: LogRow) -> None:
        if row.step == 2:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(examples, tmp_path / "cut", options, lora, listeners=replace(QUIET, on_log=interrupt))
    assert not (tmp_path / "cut" / "config.json").exists()
    seen: list[tuple[Any, ...]] = []
    train(examples, tmp_path / "cut", options, lora, resume=True, listeners=replace(QUIET, on_log=seen.append))
    losses = [[row["loss"] for row in read_log(tmp_path / name / "training")] for name in ("whole", "cut")]
    assert losses[0] == losses[1]
    whole, cut = tensors(tmp_path / "whole"), tensors(tmp_path / "cut")
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    again = train(examples, tmp_path / "cut", options, lora, resume=True)
    assert again.last is None


def test_bfloat16_computes_in_it_and_trains_in_float32(
    examples: tuple[Example, ...], tmp_path: Path, options: ModelOptions, parity: Path
) -> None:
    done = train(examples, tmp_path / "new", replace(options, dtype=DType.BFLOAT16), replace(FULL, steps=2))
    assert done.last is not None
    before, after = tensors(parity / "qwen"), tensors(tmp_path / "new")
    name = "model.mm_projector.0.weight"
    assert after[name].dtype == before[name].dtype


@pytest.fixture
def broken(tmp_path: Path) -> Iterator[tuple[Example, ...]]:
    (tmp_path / "broken.mkv").write_bytes(b"nonsense")
    yield (Example(7, tmp_path / "broken.mkv", QUESTION, "x"),)


def test_a_video_that_cannot_be_read_names_its_line(
    broken: tuple[Example, ...], tmp_path: Path, options: ModelOptions
) -> None:
    with pytest.raises(NotAVideo, match="line 7: "):
        train(broken, tmp_path / "new", options)


def test_questions_and_answers_have_to_fit(
    examples: tuple[Example, ...], tmp_path: Path, options: ModelOptions
) -> None:
    with pytest.raises(QuestionTooLong, match="line 1: "):
        train(examples, tmp_path / "new", options, compression=CompressionOptions(context_length=20))
    long = (replace(examples[0], answer="word " * 30000),)
    with pytest.raises(TrainingError, match="line 1: an answer of"):
        train(long, tmp_path / "new", options)


def test_folders_that_hold_something_are_left_alone(
    examples: tuple[Example, ...], tmp_path: Path, options: ModelOptions, checkpoint_copy: Path
) -> None:
    (tmp_path / "begun" / "training").mkdir(parents=True)
    (tmp_path / "file").touch()
    for folder, resume, message in (
        (checkpoint_copy, False, "holds a model already"),
        (checkpoint_copy, True, "holds a model already"),
        (tmp_path / "begun", False, "holds a training already"),
        (tmp_path / "file", False, "is no folder"),
    ):
        with pytest.raises(UsageError, match=message) as told:
            train(examples, folder, options, resume=resume)
        assert told.value.hint


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quantize": Quantization.NF4}, "4bit is not trained"),
        ({"dtype": DType.FLOAT16}, "float16 is not supported"),
        ({"compile": True}, "--compile is for answering"),
    ],
    ids=str,
)
def test_formats_that_do_not_train_are_refused(
    changes: dict[str, Any], message: str, examples: tuple[Example, ...], tmp_path: Path, options: ModelOptions
) -> None:
    with pytest.raises(UsageError, match=message):
        train(examples, tmp_path / "new", replace(options, **changes))


def test_without_peft_it_is_said_what_to_install(
    examples: tuple[Example, ...], tmp_path: Path, options: ModelOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft.tuners.lora", None)
    with pytest.raises(ExtraNotInstalled, match="peft") as told:
        train(examples, tmp_path / "new", options, replace(FULL, lora_rank=4))
    assert "longvu-cli[train]" in told.value.hint


@pytest.mark.parametrize(
    "changes",
    [
        {"connector": False, "llm": False},
        {"lora_rank": -1},
        {"batch": 0},
        {"epochs": 1.0},
        {"steps": None},
        {"steps": None, "epochs": 0.0},
        {"steps": 0},
        {"learning_rate": -1.0},
    ],
    ids=str,
)
def test_unusable_options_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(LongVUError) as told:
        replace(FULL, **changes)
    assert isinstance(told.value, UsageError) and told.value.hint


def test_steps_follow_from_epochs_and_batches_are_shared() -> None:
    epochs = replace(FULL, steps=None, epochs=1.5, batch=4, learning_rate=None)
    loop = epochs.loop(examples=10, processes=2, bf16=False, fused=False)
    assert (loop.steps, loop.accumulate, loop.learning_rate) == (4, 2, 1e-5)
    assert replace(epochs, lora_rank=8).loop(examples=1, processes=1, bf16=False, fused=False).learning_rate == 2e-4
    with pytest.raises(UsageError, match="shared by 3 processes"):
        epochs.loop(examples=10, processes=3, bf16=False, fused=False)
