"""training/dataset.py: lines → examples, their ids and their order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from longvu_cli.config import ModelConfig
from longvu_cli.errors import BadTrainingData, NotACheckpoint
from longvu_cli.prompt import load_tokenizer
from longvu_cli.training.dataset import Example, Shuffled, answer_ids, read_examples

GOOD = {"video": "clip.mkv", "question": "Where?", "answer": "There."}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "clip.mkv").write_bytes(b"x")
    return tmp_path / "data.jsonl"


def write(data: Path, *lines: Any) -> Path:
    data.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return data


def test_lines_become_examples_with_paths_relative_to_the_file(data: Path) -> None:
    write(data, GOOD, "", {**GOOD, "video": str(data.parent / "clip.mkv"), "id": 3, "answer": " so \n"})
    assert read_examples(data) == (
        Example(1, data.parent / "clip.mkv", "Where?", "There."),
        Example(3, data.parent / "clip.mkv", "Where?", "so"),
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: it is no JSON"),
        ("[1]", "line 2: it is no JSON object"),
        ({**GOOD, "answr": "x"}, "line 2: 'answr' is none of video, question, answer, id"),
        ({"video": "clip.mkv", "question": "Where?"}, "line 2: answer is missing"),
        ({**GOOD, "question": 3}, "line 2: question is no text"),
        ({**GOOD, "answer": " "}, "line 2: answer is empty"),
        ({**GOOD, "answer": "\ud800"}, "line 2: answer is no valid text"),
        ({**GOOD, "video": "other.mkv"}, "line 2: there is no video .*other.mkv"),
        ({**GOOD, "video": "\0"}, "line 2: there is no video"),
    ],
    ids=str,
)
def test_a_wrong_line_is_told(data: Path, line: Any, message: str) -> None:
    with pytest.raises(BadTrainingData, match=message) as told:
        read_examples(write(data, GOOD, line, line))
    assert "and 1 more lines are wrong" in told.value.message
    assert told.value.hint


def test_a_file_without_lines_or_none_at_all_is_told(data: Path) -> None:
    with pytest.raises(BadTrainingData, match="no lines"):
        read_examples(write(data, " "))
    with pytest.raises(BadTrainingData, match="No such file"):
        read_examples(data.parent / "missing.jsonl")
    data.write_bytes(b"\xff")
    with pytest.raises(BadTrainingData, match="cannot be read"):
        read_examples(data)


@pytest.mark.parametrize("name", ["qwen", "llama"])
def test_an_answer_ends_its_turn(parity: Path, name: str) -> None:
    tokenizer = load_tokenizer(parity / name)
    config = ModelConfig.from_file(parity / name / "config.json")
    ids = answer_ids(tokenizer, config, "On the <|im_end|>")
    assert ids[-1] in config.end_of_turn_ids
    assert ids[-1] not in ids[:-1]
    assert tokenizer.decode(ids[:-1]) == "On the <|im_end|>"


def test_a_tokenizer_without_the_end_of_a_turn_is_refused(parity: Path) -> None:
    config = ModelConfig.from_file(parity / "qwen" / "config.json")
    with pytest.raises(NotACheckpoint, match="ends no turn"):
        answer_ids(load_tokenizer(parity / "llama"), config, "x")


def taken(shuffled: Shuffled, count: int) -> list[int]:
    return [batch[0].line for batch, _ in zip(shuffled, range(count), strict=False)]


def test_an_epoch_has_every_example_once_in_an_order_of_its_own() -> None:
    examples = [Example(line, Path("x"), "q", "a") for line in range(10)]
    order = taken(Shuffled(examples, seed=1, process=0, processes=1), 20)
    assert sorted(order[:10]) == sorted(order[10:]) == list(range(10))
    assert order[:10] != order[10:]
    assert order != taken(Shuffled(examples, seed=2, process=0, processes=1), 20)
    halves = [taken(Shuffled(examples, seed=1, process=process, processes=2), 10) for process in range(2)]
    assert [line for pair in zip(*halves, strict=True) for line in pair] == order
    resumed = Shuffled(examples, seed=1, process=1, processes=2)
    resumed.skip(3)
    assert taken(resumed, 7) == halves[1][3:]
