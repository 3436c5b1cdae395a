"""``longvu train``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from longvu_cli.cli.errors import OK
from longvu_cli.cli.loading import ANNOUNCED_BYTES
from longvu_cli.cli.options import CompressionFlags, ModelFlags, VideoFlags, with_flags
from longvu_cli.cli.output import Output
from longvu_cli.errors import ExtraNotInstalled, UsageError

if TYPE_CHECKING:
    from longvu_cli.hub import DownloadPlan
    from longvu_cli.training.finetune import FinetuneOptions, Listeners
    from longvu_cli.training.loop import LogRow
    from longvu_cli.training.world import Stage, WorldTraining
    from longvu_cli.weights import Variant

_PANEL = "Training"
_PARTS = ("connector", "llm")
# More processes than this only wait for the device.
_MOST_WORKERS = 16

train_app = typer.Typer(
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Training.",
)


@train_app.callback()
def train(context: typer.Context) -> None:
    """Training. Needs the extra `train`: pip install 'longvu-cli[train]'."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def _option(name: str, *more: str, help: str, **settings: Any) -> Any:
    return typer.Option(name, *more, help=help, rich_help_panel=_PANEL, **settings)


@dataclass(frozen=True)
class FinetuneFlags:
    """What is trained, and for how long."""

    train: Annotated[
        str, _option("--train", metavar="PARTS", help="What is trained: connector, llm, or both (the towers never).")
    ] = "connector,llm"
    lora_rank: Annotated[
        int,
        _option("--lora-rank", help="Rank of the adapters on the language model, merged at the end; 0: train it all."),
    ] = 16
    epochs: Annotated[float | None, _option("--epochs", help="See every example this often [1].")] = None
    steps: Annotated[int | None, _option("--steps", help="End after so many steps.")] = None
    minutes: Annotated[float | None, _option("--minutes", help="End after so much training time.")] = None
    batch: Annotated[int, _option("--batch", help="Examples per step, over all processes.")] = 8
    learning_rate: Annotated[
        float | None, _option("--learning-rate", help="Its peak [2e-4 with adapters, else 1e-5].")
    ] = None
    weight_decay: Annotated[float, _option("--weight-decay", help="Of AdamW.")] = 0.0
    warmup: Annotated[float, _option("--warmup", help="Share of the run in which the learning rate rises.")] = 0.03
    log_every: Annotated[int, _option("--log-every", help="Steps per row of the log.")] = 10
    save_every_minutes: Annotated[
        float, _option("--save-every-minutes", help="How often the state to go on from is saved.")
    ] = 5.0
    order_seed: Annotated[
        int, _option("--seed", help="Decides the order of the examples, and how the adapters begin.")
    ] = 0
    resume: Annotated[bool, _option("--resume", help="Go on where the training in the folder was cut off.")] = False

    def options(self) -> FinetuneOptions:
        """As the library takes them."""
        from longvu_cli.training.finetune import FinetuneOptions

        parts = [part.strip() for part in self.train.split(",")]
        if unknown := [part for part in parts if part not in _PARTS]:
            raise UsageError(f"--train {unknown[0]!r} is no part that is trained", hint="connector, llm, or both")
        endless = self.epochs is None and self.steps is None and self.minutes is None
        return FinetuneOptions(
            connector="connector" in parts,
            llm="llm" in parts,
            lora_rank=self.lora_rank,
            batch=self.batch,
            epochs=1.0 if endless else self.epochs,
            steps=self.steps,
            minutes=self.minutes,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            warmup=self.warmup,
            log_every=self.log_every,
            save_every_minutes=self.save_every_minutes,
            seed=self.order_seed,
        )


def finetune(
    output: Output,
    data: Annotated[
        Path, typer.Argument(help="JSON lines with video, question and answer.", metavar="DATA", show_default=False)
    ],
    folder: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="DIR", help="A new folder for the model.", rich_help_panel="Output"),
    ],
    *,
    model: ModelFlags,
    training: FinetuneFlags,
    moments: VideoFlags,
    compression: CompressionFlags,
) -> int:
    """Train a released model further, on your own questions and answers.

    Each line of DATA is a JSON object with `video` (a path, relative to DATA), `question` and `answer`. The result is a
    folder like that of a released model, for `longvu ask --model DIR`; DIR/training holds the log and what --resume
    goes on from. Several GPUs, or machines: `accelerate launch $(command -v longvu) train finetune …`.
    """
    from longvu_cli.training.dataset import read_examples

    examples = read_examples(data)
    options = training.options()
    from longvu_cli.training import finetune as training_room

    with output.progress(), training_room.process_group():
        done = training_room.finetune(
            examples,
            folder,
            options,
            model=model.options(),
            sampling=moments.options(),
            compression=compression.options(),
            decoding=moments.decoding(),
            resume=training.resume,
            listeners=_listeners(output, options),
        )
    if not done.is_main:
        return OK
    _plot(folder / training_room.TRAINING_FOLDER, output)
    last = done.last
    output.record(
        {
            "schema_version": 1,
            "command": "train finetune",
            "output": str(folder),
            "files": [str(file) for file in done.files],
            "model": {"name": done.model, "source": done.source, "device": done.device},
            "examples": done.examples,
            "videos": done.videos,
            "trained_parameters": done.trained_parameters,
            "steps": last.step if last else None,
            "seconds": last.seconds if last else None,
            "loss": last.loss if last else None,
            "accuracy": last.values["accuracy"] if last else None,
        }
    )
    output.note(f"the model is in {folder}: longvu ask VIDEO QUESTION --model {folder}")
    return OK


def _listeners(output: Output, options: FinetuneOptions) -> Listeners:
    from longvu_cli.training.finetune import Listeners

    def announce(plan: DownloadPlan) -> None:
        if plan.bytes_missing > ANNOUNCED_BYTES:
            output.note(f"downloading {plan.bytes_missing / 1e9:.2f} GB of {plan.repo} to {plan.destination}")

    def choose(variant: Variant) -> None:
        output.note(f"--model auto takes {variant.name}, the largest that fits the free memory of the device")

    def log(row: LogRow) -> None:
        output.on_progress("training, %", round(100 * row.progress), 100)
        accuracy = row.values["accuracy"]
        output.note(
            f"step {row.step} ({row.progress:.0%}): loss {row.loss:.4f}, {accuracy:.1%} of the answers' tokens right"
        )

    return Listeners(
        on_progress=output.on_progress,
        on_log=log,
        on_chosen=choose,
        on_download=announce,
        on_notice=output.warning,
    )


def _plot(folder: Path, output: Output) -> None:
    """The log as a picture, where that is possible: the training is done in any case."""
    from longvu_cli.training.loop import plot_log

    try:
        plot_log(folder)
    except ExtraNotInstalled as error:
        output.detail(f"{error.message}; {error.hint}")


class WorldStage(StrEnum):
    """Stages of the tiny model's training, as the library has them; naming them here costs no import of it."""

    ALL = "all"
    TOWERS = "towers"
    IMAGES = "images"
    CLIPS = "clips"
    VIDEOS = "videos"

    def stages(self) -> tuple[Stage, ...]:
        """Those that are run, in their order."""
        from longvu_cli.training.world import Stage

        return tuple(Stage) if self is WorldStage.ALL else (Stage(self.value),)


@dataclass(frozen=True)
class WorldFlags:
    """How long the stages are trained, and on what."""

    minutes: Annotated[float | None, _option("--minutes", help="Training time of each stage [its own].")] = None
    steps: Annotated[int | None, _option("--steps", help="End each stage after so many steps instead.")] = None
    learning_rate: Annotated[float | None, _option("--learning-rate", help="Its peak [the stage's own].")] = None
    scale: Annotated[
        float, _option("--scale", help="Make batches this much smaller (a number up to 1), for smaller machines.")
    ] = 1.0
    workers: Annotated[
        int | None, _option("--workers", min=0, help="Processes that draw batches [one per CPU core, 16 at most].")
    ] = None
    number: Annotated[
        int, _option("--run", min=0, help="Number of the run: another one is trained on other stories.")
    ] = 0
    resume: Annotated[bool, _option("--resume", help="Go on where the training in the folder was cut off.")] = False

    def options(self) -> WorldTraining:
        """As the library takes them."""
        if self.minutes is not None and self.steps is not None:
            raise UsageError("--minutes and --steps exclude each other", hint="give one of them")
        for name, value in {"--minutes": self.minutes, "--learning-rate": self.learning_rate}.items():
            if value is not None and not value > 0:
                raise UsageError(f"{name} {value:g} is too small", hint="give a number above 0")
        from longvu_cli.side_by_side import cores
        from longvu_cli.training.world import WorldTraining

        return WorldTraining(
            minutes=self.minutes,
            steps=self.steps,
            learning_rate=self.learning_rate,
            scale=self.scale,
            workers=min(cores(), _MOST_WORKERS) if self.workers is None else self.workers,
            run=self.number,
            resume=self.resume,
        )


def world(
    output: Output,
    stage: Annotated[
        WorldStage, typer.Argument(help="Which stage is trained; each goes on with the one before.", show_default=False)
    ],
    folder: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="DIR", help="Folder of the model.", rich_help_panel="Output"),
    ],
    *,
    training: WorldFlags,
) -> int:
    """Train the bundled tiny model anew: a LongVU for a drawn world.

    The videos, questions and answers are drawn while it is trained; nothing is downloaded. DIR holds the model as it
    is trained; after `all`, DIR/shipped holds it in half precision, for `longvu ask --model DIR/shipped`.
    DIR/training/STAGE holds the log and what --resume goes on from. Several GPUs:
    `accelerate launch $(command -v longvu) train world …`.
    """
    options = training.options()
    from longvu_cli.training.finetune import process_group
    from longvu_cli.training.world_stages import train_world

    def log(of_stage: Stage, row: LogRow) -> None:
        output.on_progress(f"{of_stage.value}, %", round(100 * row.progress), 100)
        speed = "" if row.samples_per_second is None else f"  {row.samples_per_second:.1f}/s"
        values = "  ".join(f"{name} {value:.3f}" for name, value in {"loss": row.loss, **row.values}.items())
        output.note(f"{of_stage.value:6}  step {row.step:6}  {row.progress:4.0%}  {values}{speed}")

    with output.progress(), process_group():
        done = train_world(stage.stages(), folder, options, on_log=log)
    if not done.is_main:
        return OK
    for result in done.stages:
        _plot(result.folder, output)
    output.record(
        {
            "schema_version": 1,
            "command": "train world",
            "output": str(folder),
            "shipped": None if done.shipped is None else str(done.shipped),
            "stages": [
                {
                    "stage": result.stage.value,
                    "steps": result.last.step if result.last else None,
                    "seconds": result.last.seconds if result.last else None,
                    "loss": result.last.loss if result.last else None,
                    "values": _finite(result.last.values) if result.last else None,
                }
                for result in done.stages
            ],
        }
    )
    if done.shipped is not None:
        output.note(f"the model is in {done.shipped}: longvu ask VIDEO QUESTION --model {done.shipped}")
    return OK


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    """What JSON can hold: a share of nothing is no number."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


train_app.command("finetune")(with_flags(finetune))
train_app.command("world")(with_flags(world))
