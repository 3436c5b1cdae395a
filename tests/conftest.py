"""What several tests share: the tiny checkpoints of ``data/parity``, loaded once."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from longvu_cli import weights
from longvu_cli.config import ModelOptions, Quantization
from longvu_cli.loading import Modules, load_modules
from longvu_cli.longvu import LongVU
from longvu_cli.weights import Part, Weights
from longvu_cli.world.film import write_film
from longvu_cli.world.story import Split, Story, story

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


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, or an untrained one of its form where the package has none, with a short clip as its demo."""
    folder = tmp_path_factory.mktemp("installed") / "tiny"
    if (weights.tiny_folder() / "config.json").is_file():
        shutil.copytree(weights.tiny_folder(), folder, ignore=shutil.ignore_patterns("*.mp4"))
    else:
        _untrained(tmp_path_factory.mktemp("untrained"), folder)
    write_film(story(Split.VALIDATION.seed(3), 12), folder / "demo.mp4", fps=4)
    return folder


TRAINED = (weights.tiny_folder() / "model.safetensors").is_file()


@pytest.fixture(scope="session")
def trained_tiny() -> Iterator[LongVU]:
    """The tiny model as it comes with the package; one thread is faster than some that wait for each other."""
    if not TRAINED:
        pytest.skip("the tiny model is not part of this installation")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield LongVU.from_pretrained("tiny", options=ModelOptions(device="cpu"))
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def short_film(tmp_path_factory: pytest.TempPathFactory) -> tuple[Story, Path]:
    """Twelve seconds of the drawn world that nothing was trained on: an umbrella, a clock, a key, a ball."""
    told = story(10_001, 12)
    film = tmp_path_factory.mktemp("films") / "short.mp4"
    write_film(told, film, fps=2)
    return told, film


@pytest.fixture
def tiny_installed(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``--model tiny`` in this process is the model of ``tiny_folder``."""
    monkeypatch.setattr(weights, "_TINY_FOLDER", tiny_folder)
    return tiny_folder


def _untrained(scratch: Path, folder: Path) -> None:
    from longvu_cli.training.tiny_checkpoint import new_checkpoint
    from longvu_cli.training.world import finish
    from longvu_cli.training.world_towers import TowerPair

    TowerPair(torch.device("cpu")).save(scratch)
    new_checkpoint(scratch)
    finish(scratch, folder)
