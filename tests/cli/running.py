"""Running the command: in a process of its own, or in this one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

PARITY = Path(__file__).parents[1] / "data" / "parity"
QWEN = PARITY / "qwen"
TOWERS = {"LONGVU_DINOV2": str(PARITY / "towers" / "dinov2"), "LONGVU_SIGLIP": str(PARITY / "towers" / "siglip")}
TINY = {"LONGVU_MODEL": str(QWEN), **TOWERS}
QUESTION = "Where is the cup?"
# How long a test waits for a process that ought to have ended long ago.
PATIENCE_S = 300


@dataclass(frozen=True)
class Ran:
    """What a run of the command left behind."""

    code: int
    out: str
    err: str


_CALL = "import sys; sys.argv[0] = 'longvu'; from longvu_cli.cli.app import main; main()"


def command() -> list[str]:
    """The installed console script, or what it does where the package is only on the path."""
    script = Path(sys.executable).with_name("longvu")
    return [str(script)] if script.is_file() else [sys.executable, "-c", _CALL]


def environment(cache: Path, **variables: str) -> dict[str, str]:
    """An environment in which nothing of the user's own is read, and no hub is asked."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LONGVU_", "HF_", "_LONGVU"))}
    own = {"LONGVU_CONFIG": "", "LONGVU_CACHE_DIR": str(cache), "HF_HOME": str(cache / "hf"), "HF_HUB_OFFLINE": "1"}
    # One thread each: the models are so small that more of them only wait for each other.
    return {**kept, **own, "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "COLUMNS": "200", **variables}


def start(arguments: list[Any], variables: Mapping[str, str], **settings: Any) -> subprocess.Popen[Any]:
    """Start the real command; stdout and stderr are pipes of text unless ``settings`` say otherwise."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL, "encoding": "utf-8"}
    return subprocess.Popen([*command(), *map(str, arguments)], env=dict(variables), **{**pipes, **settings})


def run(arguments: list[Any], variables: Mapping[str, str], **settings: Any) -> Ran:
    """Run the real command to its end."""
    process = start(arguments, variables, **settings)
    try:
        out, err = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
    return Ran(process.returncode, out or "", err or "")


def run_here(
    arguments: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str] | None
) -> Ran:
    """Run the console script's function in this process, for it to be quick and open to monkeypatching.

    Args:
        capsys: None leaves ``sys.stdout`` and ``sys.stderr`` to the test.
    """
    from longvu_cli.cli.app import main

    monkeypatch.setattr(sys, "argv", ["longvu", *map(str, arguments)])
    # Started with -m, pytest would give the program its own name.
    monkeypatch.setattr(sys.modules["__main__"], "__package__", None)
    if capsys is not None:
        capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main()
    code = ended.value.code
    assert isinstance(code, int)
    out, err = ("", "") if capsys is None else capsys.readouterr()
    return Ran(code, out, err)


_CONNECTOR = ("model.mm_projector", "model.vision_query", "model.vision_sampler", "model.image_newline")


def part_of(tensor: str) -> str:
    """Which part of a checkpoint a tensor belongs to: ``embeddings``, ``connector`` or ``decoder``."""
    if tensor == "model.embed_tokens.weight":
        return "embeddings"
    return "connector" if tensor.startswith(_CONNECTOR) else "decoder"


def shard(source: Path, target: Path, *, suffix: str = ".safetensors") -> Path:
    """Copy a checkpoint folder, with one shard for each of its parts.

    Args:
        suffix: ``.safetensors`` or ``.bin``.
    """
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("model.safetensors"))
    tensors = load_file(source / "model.safetensors")
    weight_map = {name: f"{part_of(name)}{suffix}" for name in tensors}
    for file in sorted(set(weight_map.values())):
        own = {name: tensor for name, tensor in tensors.items() if weight_map[name] == file}
        if suffix == ".bin":
            torch.save(own, target / file)
        else:
            save_file(own, target / file)
    whole = "pytorch_model.bin" if suffix == ".bin" else "model.safetensors"
    (target / f"{whole}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return target
