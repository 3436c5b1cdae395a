"""training/released_form.py: what was trained, in the form of a released checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from longvu_cli.checkpoint import Checkpoint
from longvu_cli.errors import UsageError
from longvu_cli.loading import Modules
from longvu_cli.training.released_form import write_released_form

CHANGED = "model.norm.weight"


def changed(name: str, tensor: torch.Tensor) -> torch.Tensor:
    return tensor.double() + 1 if name == CHANGED else tensor


def test_one_file_with_the_same_names_and_formats(parity: Path, tmp_path: Path, load: Callable[..., Modules]) -> None:
    files = write_released_form(Checkpoint.open(parity / "qwen"), tmp_path / "new", changed)
    assert files == (tmp_path / "new" / "model.safetensors",)
    before, after = load_file(parity / "qwen" / "model.safetensors"), load_file(files[0])
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert after[name].dtype == tensor.dtype
        assert torch.equal(after[name], tensor + (name == CHANGED)), name
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (tmp_path / "new" / file).read_bytes() == (parity / "qwen" / file).read_bytes()
    load(tmp_path / "new")


def test_large_ones_are_several_files_with_an_index(parity: Path, tmp_path: Path, load: Callable[..., Modules]) -> None:
    files = write_released_form(Checkpoint.open(parity / "qwen"), tmp_path / "new", changed, shard_bytes=300_000)
    assert len(files) > 2
    assert files[0].name == f"model-00001-of-{len(files):05d}.safetensors"
    assert all(file.stat().st_size < 320_000 for file in files)
    tensors = {name: tensor for file in files for name, tensor in load_file(file).items()}
    assert tensors.keys() == load_file(parity / "qwen" / "model.safetensors").keys()
    index = json.loads((tmp_path / "new" / "model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == tensors.keys()
    load(tmp_path / "new")
    again = write_released_form(Checkpoint.open(tmp_path / "new"), tmp_path / "again", changed)
    assert torch.equal(load_file(again[0])[CHANGED], tensors[CHANGED] + 1)


def test_the_format_of_the_source_is_kept(checkpoint_copy: Path, tmp_path: Path) -> None:
    weights = checkpoint_copy / "model.safetensors"
    save_file({name: tensor.bfloat16() for name, tensor in load_file(weights).items()}, weights)
    files = write_released_form(Checkpoint.open(checkpoint_copy), tmp_path / "new", changed)
    assert {tensor.dtype for tensor in load_file(files[0]).values()} == {torch.bfloat16}


def test_towers_of_the_source_come_along(
    checkpoint_copy: Path, parity: Path, tmp_path: Path, load: Callable[..., Modules]
) -> None:
    for tower in ("dinov2", "siglip"):
        (checkpoint_copy / tower).mkdir()
        for file in (parity / "towers" / tower).iterdir():
            (checkpoint_copy / tower / file.name).write_bytes(file.read_bytes())
    for _ in range(2):  # a resumed training writes once more
        write_released_form(Checkpoint.open(checkpoint_copy), tmp_path / "new", changed)
    load(tmp_path / "new")


def test_a_folder_that_cannot_be_written_is_told(parity: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be written"):
        write_released_form(Checkpoint.open(parity / "qwen"), tmp_path / "file" / "new", changed)
