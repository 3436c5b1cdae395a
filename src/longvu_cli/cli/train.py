"""``longvu train``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from longvu_cli.cli.errors import OK
from longvu_cli.cli.loading import ANNOUNCED_BYTES
from longvu_cli.cli.options import CompressionFlags, ModelFlags, VideoFlags, with_flags
from longvu_cli.cli.output import Output
from longvu_cli.errors import ExtraNotInstalled, UsageError

if TYPE_CHECKING:
    from longvu_cli.training.finetune import FinetuneOptions, Listeners
    from longvu_cli.training.loop import LogRow
    from longvu_cli.weights import DownloadPlan, Variant

_PANEL = "Training"
_PARTS = ("connector", "llm")

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
        return
    # The defaults of the config file were handed to `train`; they are meant for what comes after it.
    context.default_map = {context.invoked_subcommand: context.default_map or {}}


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


train_app.command("finetune")(with_flags(finetune))
