"""training/tiny_checkpoint.py: a new model that knows its words."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from longvu_cli.config import CompressionOptions, LLMFamily, ModelConfig
from longvu_cli.prompt import SYSTEM, build_prompt, load_tokenizer
from longvu_cli.training.tiny_checkpoint import (
    SPECIAL_TOKENS,
    VOCABULARY,
    config_values,
    new_checkpoint,
    world_tokenizer,
)
from longvu_cli.training.world_videos import WORDS
from longvu_cli.world.questions import every_text, questions
from longvu_cli.world.story import Split, story


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return world_tokenizer()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    fresh = tmp_path_factory.mktemp("fresh")
    new_checkpoint(fresh)
    return fresh


def world_texts() -> list[str]:
    told = [story(Split.TEST.seed(number), (1, 20, 60, 300, 600)[number % 5]) for number in range(40)]
    asked = [question for one in told for question in questions(one)]
    return [*every_text(), *(question.text for question in asked), *(question.answer for question in asked)]


def test_every_text_of_the_world_survives(tokenizer: Tokenizer) -> None:
    for text in [*world_texts(), SYSTEM, "Ünknown wörds, 世界 🎈\n\ttoo"]:
        assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_words_of_the_world_are_single_tokens(tokenizer: Tokenizer) -> None:
    tokens = {word: tokenizer.encode(f" {word}").ids for word in WORDS}
    assert all(len(ids) == 1 for ids in tokens.values()), tokens
    assert len({ids[0] for ids in tokens.values()}) == len(WORDS)


def test_texts_of_the_world_are_short(tokenizer: Tokenizer) -> None:
    for text in world_texts():
        assert len(tokenizer.encode(text).ids) <= 1.5 * len(text.split()) + 4, text


def test_special_tokens_are_what_the_config_says(tokenizer: Tokenizer) -> None:
    values = config_values(VOCABULARY)
    assert [tokenizer.token_to_id(token) for token in SPECIAL_TOKENS] == [0, 1, 2]
    assert SPECIAL_TOKENS[values["eos_token_id"]] == "<|im_end|>"
    assert tokenizer.get_vocab_size() <= values["vocab_size"] == VOCABULARY


def test_the_tokenizer_is_always_the_same(tokenizer: Tokenizer) -> None:
    """In another process, too, whose hashes are others."""
    code = "import sys; from longvu_cli.training.tiny_checkpoint import world_tokenizer as t; print(t().to_str())"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert json.loads(told.stdout) == json.loads(tokenizer.to_str())


def test_a_checkpoint_is_decided_by_its_seed(folder: Path, tmp_path: Path) -> None:
    new_checkpoint(tmp_path / "same")
    new_checkpoint(tmp_path / "other", seed=1)
    names = sorted(file.name for file in folder.iterdir())
    assert names == ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    for name in names:
        assert (tmp_path / "same" / name).read_bytes() == (folder / name).read_bytes()
    mine, other = (load_file(place / "model.safetensors") for place in (folder, tmp_path / "other"))
    assert mine.keys() == other.keys()
    assert not mine["model.embed_tokens.weight"].equal(other["model.embed_tokens.weight"])


def test_weights_are_finite_and_of_one_type(folder: Path) -> None:
    for name, tensor in load_file(folder / "model.safetensors").items():
        assert tensor.dtype == torch.float32
        assert tensor.isfinite().all(), name
    assert sum(tensor.numel() for tensor in load_file(folder / "model.safetensors").values()) < 20e6


def test_the_config_is_read_as_a_released_one(folder: Path) -> None:
    values = json.loads((folder / "config.json").read_text())
    config = ModelConfig.from_values(values)
    recipe = CompressionOptions().resolve(config)
    assert recipe.high_side**2 == values["image_token_len"] == values["query_num_list"][0]
    assert recipe.low_side == values["lowres_token"]


def test_prompts_are_built_with_the_written_tokenizer(folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    prompt = build_prompt(tokenizer, LLMFamily.QWEN2, "What colour is the cup?")
    assert tokenizer.decode(prompt.after).endswith("What colour is the cup?<|im_end|>\n<|im_start|>assistant\n")
    assert tokenizer.eos_token_id == SPECIAL_TOKENS.index("<|im_end|>")
    assert len(prompt.before) + len(prompt.after) < 60
