"""The training of the bundled tiny model, stage by stage (paper §3 and §4.3, towers first).

::

    towers   both towers learn what every patch shows                     world_towers.py
    images   connector and language model: questions about single frames  world_answers.py
    clips    videos of 8 seconds to a minute
    videos   videos of 8 seconds to an hour, with the real compression

Each stage begins with what the one before left in the folder, and leaves a checkpoint in the released form there.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader, IterableDataset
from transformers import PreTrainedTokenizerFast

from longvu_cli.checkpoint import CONFIG_FILE
from longvu_cli.config import CompressionOptions, Quantization
from longvu_cli.errors import UsageError
from longvu_cli.loading import load_modules
from longvu_cli.training.loop import LogRow, LoopOptions, run_stage
from longvu_cli.training.tiny_checkpoint import WEIGHTS_FILE, new_checkpoint, save_weights
from longvu_cli.training.world_answers import AnswerModel
from longvu_cli.training.world_towers import LabelledPictures, TowerPair
from longvu_cli.training.world_videos import WORDS, Group, VideoBatch, WorldVideos
from longvu_cli.weights import Part, Weights


class Stage(StrEnum):
    """Stages in their order."""

    TOWERS = "towers"
    IMAGES = "images"
    CLIPS = "clips"
    VIDEOS = "videos"


@dataclass(frozen=True)
class StagePlan:
    """What a stage trains on, and how.

    Attributes:
        minutes: on one GPU of the kind that the bundled model was trained on.
        groups: the videos; none where the towers are trained.
    """

    minutes: float
    learning_rate: float
    groups: tuple[Group, ...] = ()


TOWER_BATCH = 512
# Batches of questions that are asked of the same videos.
ROUNDS = 3
_IMAGE = Group("image", (1, 1), 256, 8, 1.0)
_SHORT = Group("short", (8, 24), 72, 12, 1.0)
_MINUTE = Group("minute", (25, 60), 32, 12, 1.0)
_MINUTES = Group("minutes", (61, 120), 18, 12, 1.0)
_MIXED = Group("mixed", (121, 446), 7, 10, 1.0)
_LONG = Group("long", (447, 3600), 10, 10, 1.0)
_NEEDLE = Group("needle", (2, 24), 72, 12, 1.0, needle=True)
_FAR_NEEDLE = Group("far needle", (121, 446), 7, 10, 1.0, needle=True)
PLANS: dict[Stage, StagePlan] = {
    Stage.TOWERS: StagePlan(minutes=2.0, learning_rate=1.0e-3),
    Stage.IMAGES: StagePlan(minutes=2.5, learning_rate=2e-3, groups=(_IMAGE,)),
    Stage.CLIPS: StagePlan(
        minutes=2.5,
        learning_rate=1.5e-3,
        groups=(replace(_IMAGE, share=0.1), replace(_SHORT, share=0.55), replace(_MINUTE, share=0.35)),
    ),
    Stage.VIDEOS: StagePlan(
        minutes=45.0,
        learning_rate=1.3e-3,
        groups=(
            replace(_IMAGE, share=0.14),
            replace(_SHORT, share=0.25),
            replace(_MINUTE, share=0.15),
            replace(_MINUTES, share=0.1),
            replace(_MIXED, share=0.08),
            replace(_LONG, share=0.13),
            replace(_NEEDLE, share=0.1),
            replace(_FAR_NEEDLE, share=0.05),
        ),
    ),
}


@dataclass(frozen=True)
class WorldTraining:
    """How the stages are run.

    Attributes:
        minutes: instead of the stage's own.
        steps: instead of minutes.
        scale: batches are this much smaller (a number from 0 to 1), for machines that are.
        workers: processes that prepare batches.
        run: number of the run: another one sees other stories.
        resume: go on with an interrupted run of this stage.
    """

    minutes: float | None = None
    steps: int | None = None
    learning_rate: float | None = None
    scale: float = 1.0
    workers: int = 0
    run: int = 0
    resume: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.scale <= 1:
            raise UsageError(f"{self.scale} is no scale of a batch", hint="give a number above 0 and up to 1")


def train_stage(stage: Stage, folder: Path, training: WorldTraining, *, on_log: Callable[[LogRow], None]) -> None:
    """Run one stage on the devices that accelerate finds.

    Args:
        folder: gets the checkpoint, and in ``training/STAGE`` the log, its plot, and the state to resume from.

    Raises:
        UsageError: the stage before has not been run.
        TrainingError: see :func:`longvu_cli.training.loop.run_stage`.
    """
    process = PartialState()
    device = process.device
    plan = PLANS[stage]
    options = _options(plan, training, device)
    run = 1000 * training.run + process.process_index
    place = folder / "training" / stage.value
    if stage is Stage.TOWERS:
        pair = TowerPair(device)
        pictures = LabelledPictures(batch=_scaled(TOWER_BATCH, training.scale), run=run)
        run_stage(pair, _loader(pictures, training.workers), options, place, resume=training.resume, on_log=on_log)
        if process.is_main_process:
            pair.save(folder)
        return
    if not (folder / "siglip" / WEIGHTS_FILE).is_file():
        raise UsageError(f"there are no towers in {folder}", hint="run the stage `towers` first")
    if process.is_main_process and not (folder / WEIGHTS_FILE).is_file():
        new_checkpoint(folder)
    process.wait_for_everyone()
    modules = load_modules(
        weights_of(folder), Part.ANSWER, device=device, dtype=torch.float32, quantize=Quantization.NONE
    )
    if modules.language_model is None:
        raise AssertionError("the whole model was loaded")
    decoder = modules.language_model.decoder
    for module in (modules.vision.connector, decoder):
        module.requires_grad_(True)
    recipe = CompressionOptions().resolve(modules.config)
    model = AnswerModel(modules.vision, decoder, recipe, word_ids(modules.tokenizer)).to(device)
    groups = [replace(group, videos=_scaled(group.videos, training.scale)) for group in plan.groups]
    videos = WorldVideos(groups, modules.tokenizer, recipe, run=run, rounds=ROUNDS)
    loader = _Flat(_loader(videos, training.workers))
    run_stage(model, loader, options, place, resume=training.resume, on_log=on_log)
    if process.is_main_process:
        save_weights(folder, modules.vision.connector, decoder, dtype=torch.float32)


class _Flat:
    """The batches of tuples of batches."""

    def __init__(self, tuples: Iterable[tuple[VideoBatch, ...]]) -> None:
        self._tuples = tuples

    def __iter__(self) -> Iterator[VideoBatch]:
        for batches in self._tuples:
            yield from batches


def word_ids(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """The ids of the world's words, as they stand within a sentence; the first id where a word has several."""
    return [tokenizer(f" {word}", add_special_tokens=False)["input_ids"][0] for word in WORDS]


def weights_of(folder: Path) -> Weights:
    """A checkpoint folder that holds its towers."""
    return Weights(
        name=folder.name,
        source=str(folder),
        revision=None,
        checkpoint=folder,
        dinov2=folder / "dinov2",
        siglip=folder / "siglip",
    )


def finish(folder: Path, target: Path) -> None:
    """Copy the checkpoint without its training states, in half precision: what is shipped."""
    if not (folder / CONFIG_FILE).is_file():
        raise UsageError(f"there is no {CONFIG_FILE} in {folder}", hint="run the stages before")
    target.mkdir(parents=True, exist_ok=True)
    for name in ("", "dinov2", "siglip"):
        (target / name).mkdir(exist_ok=True)
        for file in (folder / name).glob("*.json"):
            shutil.copyfile(file, target / name / file.name)
        tensors = {key: tensor.half() for key, tensor in load_file(folder / name / WEIGHTS_FILE).items()}
        save_file(tensors, target / name / WEIGHTS_FILE, metadata={"format": "pt"})


def _options(plan: StagePlan, training: WorldTraining, device: torch.device) -> LoopOptions:
    minutes = plan.minutes if training.minutes is None else training.minutes
    return LoopOptions(
        learning_rate=plan.learning_rate if training.learning_rate is None else training.learning_rate,
        steps=training.steps,
        minutes=None if training.steps is not None else minutes,
        warmup=0.03,
        weight_decay=0.02,
        final_share=0.02,
        bf16=device.type == "cuda",
        fused=device.type == "cuda",
        log_every=50 if training.steps is None else max(1, training.steps // 20),
    )


def _scaled(count: int, scale: float) -> int:
    return max(1, round(count * scale))


def _loader(batches: IterableDataset[Any], workers: int) -> Iterable[Any]:
    ahead = 4 if workers else None
    return DataLoader(batches, batch_size=None, num_workers=workers, prefetch_factor=ahead, collate_fn=_as_it_is)


def _as_it_is(batch: Any) -> Any:
    return batch
