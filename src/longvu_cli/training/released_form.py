"""A trained checkpoint → a folder of the released form, which every command loads like a released one."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from safetensors.torch import save_file

from longvu_cli.checkpoint import Checkpoint
from longvu_cli.errors import UsageError
from longvu_cli.whole_file import whole_file

SHARD_BYTES = 5 * 10**9
TOWERS = ("dinov2", "siglip")

_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
# Everything else of a checkpoint: its config and tokenizer, a chat template, licences.
_COPIED = (".json", ".jinja", ".txt", ".model", ".md")
_NOT_COPIED = ".index.json"

Changed = Callable[[str, torch.Tensor], torch.Tensor]


def write_released_form(
    source: Checkpoint, folder: Path, changed: Changed, *, shard_bytes: int = SHARD_BYTES
) -> tuple[Path, ...]:
    """Write every tensor of a checkpoint, as it is or changed, under its own name and in its own number format.

    The config and tokenizer are copied byte by byte; towers that lie in the source folder are linked, or copied.

    Args:
        changed: name and tensor → the trained tensor, or the same one.
        shard_bytes: with more than this there are several files and an index.

    Returns:
        The weight files.

    Raises:
        UsageError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _copy_the_rest(source.folder, folder)
        return _write_weights(source, folder, changed, shard_bytes)
    except OSError as error:
        raise UsageError(
            f"{folder} cannot be written: {error.strerror or error}",
            hint="free some space or name another folder, and go on with --resume",
        ) from error


def _copy_the_rest(source: Path, folder: Path) -> None:
    for path in sorted(source.iterdir()):
        if path.is_file() and path.suffix in _COPIED and not path.name.endswith(_NOT_COPIED):
            shutil.copyfile(path, folder / path.name)
    if all((source / tower).is_dir() for tower in TOWERS):
        for tower in TOWERS:
            shutil.copytree(source / tower, folder / tower, copy_function=_link_or_copy, dirs_exist_ok=True)


def _link_or_copy(source: str, target: str) -> None:
    Path(target).unlink(missing_ok=True)
    try:
        os.link(os.path.realpath(source), target)
    except OSError:  # another disk, or a system without links
        shutil.copyfile(source, target)


def _write_weights(source: Checkpoint, folder: Path, changed: Changed, shard_bytes: int) -> tuple[Path, ...]:
    # Mapped from their files, not read: a shard at a time is held.
    tensors = source.read(sorted(source.names))
    shards = list(_shards({name: tensor.nbytes for name, tensor in tensors.items()}, shard_bytes))
    files = [_WEIGHTS] if len(shards) == 1 else [_shard_name(number, len(shards)) for number in range(len(shards))]
    for names, file in zip(shards, files, strict=True):
        trained = {
            name: changed(name, tensors[name]).to(device="cpu", dtype=tensors[name].dtype).contiguous()
            for name in names
        }
        with whole_file(folder / file) as aside:
            save_file(trained, aside, metadata={"format": "pt"})
    if len(shards) > 1:
        weight_map = {name: file for names, file in zip(shards, files, strict=True) for name in names}
        size = sum(tensor.nbytes for tensor in tensors.values())
        index = {"metadata": {"total_size": size}, "weight_map": weight_map}
        (folder / _INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return tuple(folder / file for file in files)


def _shards(sizes: dict[str, int], shard_bytes: int) -> Iterable[list[str]]:
    """Names of tensors, as many per shard as fit; a tensor that is larger has one to itself."""
    shard: list[str] = []
    held = 0
    for name, size in sizes.items():
        if shard and held + size > shard_bytes:
            yield shard
            shard, held = [], 0
        shard.append(name)
        held += size
    yield shard


def _shard_name(number: int, count: int) -> str:
    return f"model-{number + 1:05d}-of-{count:05d}.safetensors"
