"""Stages of the tiny model's training one after the other in one folder, and what is shipped of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from accelerate import PartialState

from longvu_cli.errors import UsageError
from longvu_cli.training.loop import STATE_FILE, STATE_FOLDER, LogRow
from longvu_cli.training.tiny_checkpoint import WEIGHTS_FILE
from longvu_cli.training.world import Stage, WorldTraining, finish, train_stage

SHIPPED_FOLDER = "shipped"


@dataclass(frozen=True)
class StageResult:
    """A stage that was run.

    Attributes:
        folder: where its log is.
        last: last row of the log; None: there was nothing left to do.
    """

    stage: Stage
    folder: Path
    last: LogRow | None


@dataclass(frozen=True)
class WorldTrained:
    """What was done.

    Attributes:
        shipped: the finished model; None: not all stages were run.
        is_main: whether this is the process that wrote the files.
    """

    stages: tuple[StageResult, ...]
    shipped: Path | None
    is_main: bool


def train_world(
    stages: Sequence[Stage], folder: Path, training: WorldTraining, *, on_log: Callable[[Stage, LogRow], None]
) -> WorldTrained:
    """Run stages in their order; after the last of all, write the shipped form to ``folder/shipped``.

    Args:
        stages: one of them, or all.
        on_log: hears each row of the logs, in the main process.

    Raises:
        UsageError: the stage before has not been run, or the folder holds what this one would replace.
        TrainingError: see :func:`longvu_cli.training.loop.run_stage`.
    """
    _require_usable(stages, folder, resume=training.resume)
    process = PartialState()
    results: list[StageResult] = []
    for stage in stages:
        rows: list[LogRow] = []

        def log(row: LogRow, stage: Stage = stage, rows: list[LogRow] = rows) -> None:
            rows[:] = [row]
            on_log(stage, row)

        train_stage(stage, folder, training, on_log=log)
        # The next stage reads what the main process has written.
        process.wait_for_everyone()
        results.append(StageResult(stage, stage_folder(folder, stage), rows[0] if rows else None))
    complete = tuple(stages) == tuple(Stage)
    if complete and process.is_main_process:
        finish(folder, folder / SHIPPED_FOLDER)
    return WorldTrained(tuple(results), folder / SHIPPED_FOLDER if complete else None, process.is_main_process)


def stage_folder(folder: Path, stage: Stage) -> Path:
    """Where a stage's log and state are."""
    return folder / "training" / stage.value


def _require_usable(stages: Sequence[Stage], folder: Path, *, resume: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is no folder", hint="name a folder for the model")
    order = list(Stage)
    first = order.index(stages[0])
    if first > 0 and not (folder / "siglip" / WEIGHTS_FILE).is_file():
        raise UsageError(f"there are no towers in {folder}", hint=f"run the stage `{order[0]}` first, or `all`")
    # The stage after the towers makes a new language model; those after it go on with one.
    if first > 1 and not (folder / WEIGHTS_FILE).is_file():
        raise UsageError(f"there is no model in {folder}", hint=f"run the stage `{order[first - 1]}` first, or `all`")
    begun = [stage for stage in order[first:] if (stage_folder(folder, stage) / STATE_FOLDER / STATE_FILE).is_file()]
    if begun and not resume:
        raise UsageError(
            f"{folder} holds a training of the stage `{begun[0]}` already",
            hint="go on with it with --resume, or name another folder",
        )
    later = [stage for stage in begun if stage not in stages]
    if later:
        raise UsageError(
            f"the stage `{later[-1]}` has gone on with what `{stages[-1]}` left in {folder}",
            hint=f"resume `{later[-1]}`, or `all`",
        )
