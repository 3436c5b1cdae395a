"""What several tests share: the tiny checkpoints of ``data/parity``, loaded once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from longvu_cli.config import ModelOptions, Quantization
from longvu_cli.loading import Modules, load_modules
from longvu_cli.longvu import LongVU
from longvu_cli.weights import Part, Weights

PARITY = Path(__file__).parent / "data" / "parity"


@pytest.fixture(scope="session")
def parity() -> Path:
    """The folder with the tiny checkpoints and a few clips."""
    return PARITY


@pytest.fixture(scope="session")
def tiny_options() -> ModelOptions:
    """Where the towers of both tiny checkpoints are."""
    return ModelOptions(
        dinov2=str(PARITY / "towers" / "dinov2"), siglip=str(PARITY / "towers" / "siglip"), device="cpu"
    )


@pytest.fixture(scope="session")
def qwen(tiny_options: ModelOptions) -> LongVU:
    return LongVU.from_pretrained(str(PARITY / "qwen"), options=tiny_options)


@pytest.fixture(scope="session")
def llama(tiny_options: ModelOptions) -> LongVU:
    return LongVU.from_pretrained(str(PARITY / "llama"), options=tiny_options)


def weights_of(checkpoint: Path) -> Weights:
    """A checkpoint folder with its own towers, or those of the tiny checkpoints."""
    towers = checkpoint if (checkpoint / "dinov2").is_dir() else PARITY / "towers"
    return Weights(
        name=checkpoint.name,
        source=str(checkpoint),
        revision=None,
        checkpoint=checkpoint,
        dinov2=towers / "dinov2",
        siglip=towers / "siglip",
    )


@pytest.fixture(scope="session")
def load() -> Callable[..., Modules]:
    """Load a folder in float32 on the CPU."""

    def load_folder(checkpoint: Path, part: Part = Part.ANSWER) -> Modules:
        return load_modules(
            weights_of(checkpoint),
            part,
            device=torch.device("cpu"),
            dtype=torch.float32,
            quantize=Quantization.NONE,
        )

    return load_folder


@pytest.fixture
def checkpoint_copy(tmp_path: Path) -> Path:
    """A copy of the tiny Qwen2 checkpoint that a test may change."""
    return Path(shutil.copytree(PARITY / "qwen", tmp_path / "qwen"))
