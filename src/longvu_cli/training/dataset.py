"""Training data as JSON lines (video, question, answer) → examples, and their order."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast

from longvu_cli.config import LLMFamily, ModelConfig
from longvu_cli.errors import BadTrainingData, NotACheckpoint

# `id` is allowed for the user's own bookkeeping.
_KEYS = ("video", "question", "answer")
_OTHERS = ("id",)
_TURN_END = {LLMFamily.QWEN2: "<|im_end|>", LLMFamily.LLAMA: "<|eot_id|>"}
_SHAPE = 'one JSON object a line: {"video": "movie.mp4", "question": "Where is the cup?", "answer": "On the table."}'


@dataclass(frozen=True)
class Example:
    """A question about a video, with the answer to learn.

    Attributes:
        line: counts the file's lines from 1.
    """

    line: int
    video: Path
    question: str
    answer: str


def read_examples(file: Path) -> tuple[Example, ...]:
    """Read and verify every line; a relative path of a video is relative to the file.

    Raises:
        BadTrainingData: the file cannot be read or has no lines, or lines of it are wrong: the first is told.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise BadTrainingData(f"the training data {file} cannot be read: {reason}", hint="check the path") from error
    examples: list[Example] = []
    problems: list[str] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            examples.append(_example(number, line, file.parent))
        except ValueError as error:
            problems.append(f"line {number}: {error}")
    if problems:
        more = f" (and {len(problems) - 1} more lines are wrong)" if len(problems) > 1 else ""
        raise BadTrainingData(f"{file}, {problems[0]}{more}", hint=_SHAPE)
    if not examples:
        raise BadTrainingData(f"the training data {file} has no lines", hint=_SHAPE)
    return tuple(examples)


def _example(number: int, line: str, folder: Path) -> Example:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is no JSON: {error}") from error
    if not isinstance(values, dict):
        raise ValueError("it is no JSON object")
    unknown = [key for key in values if key not in (*_KEYS, *_OTHERS)]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is none of {', '.join((*_KEYS, *_OTHERS))}")
    video, question, answer = (_text(values, key) for key in _KEYS)
    path = folder / video
    try:
        there = os.path.isfile(path)
    except ValueError:  # a zero byte
        there = False
    if not there:
        raise ValueError(f"there is no video {path}")
    return Example(number, path, question, answer.strip())


def _text(values: Mapping[str, object], key: str) -> str:
    value = values.get(key)
    if key not in values:
        raise ValueError(f"{key} is missing")
    if not isinstance(value, str):
        raise ValueError(f"{key} is no text")
    if not value.strip():
        raise ValueError(f"{key} is empty")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{key} is no valid text (UTF-8)") from None
    return value


def answer_ids(tokenizer: PreTrainedTokenizerFast, config: ModelConfig, answer: str) -> tuple[int, ...]:
    """The ids that the model is to generate: the answer, and the id that ends its turn.

    Raises:
        NotACheckpoint: the tokenizer has no such id, or generation would not stop at it.
    """
    end = tokenizer.convert_tokens_to_ids(_TURN_END[config.family])
    if not isinstance(end, int) or end not in (*config.end_of_turn_ids, tokenizer.eos_token_id):
        raise NotACheckpoint(f"the tokenizer's {_TURN_END[config.family]} ends no turn of this model")
    # What looks like a special token in the answer is text.
    ids = tokenizer(answer, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return (*ids, end)


class Shuffled:
    """Examples without end, one process's share of them: each epoch in another order, which only the seed decides.

    Args:
        process, processes: this one, and how many share the examples.
    """

    def __init__(self, examples: Sequence[Example], *, seed: int, process: int, processes: int) -> None:
        self._examples = examples
        self._seed = seed
        self._position = process
        self._processes = processes
        self._order: tuple[int, list[int]] | None = None

    def skip(self, batches: int) -> None:
        """Leave out what an earlier run has seen."""
        self._position += batches * self._processes

    def __iter__(self) -> Iterator[list[Example]]:
        while True:
            epoch, place = divmod(self._position, len(self._examples))
            self._position += self._processes
            yield [self._examples[self._order_of(epoch)[place]]]

    def _order_of(self, epoch: int) -> list[int]:
        if self._order is None or self._order[0] != epoch:
            generator = torch.Generator().manual_seed(self._seed + epoch)
            self._order = (epoch, torch.randperm(len(self._examples), generator=generator).tolist())
        return self._order[1]
