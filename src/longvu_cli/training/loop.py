"""One training loop for everything: module and batches → trained module, a log, and a state to go on from.

It runs through accelerate, so that the same command trains on a CPU, one GPU, several, or several machines
(``accelerate launch``). Processes that share the work have to do the same at the same step, so what a step depends on
and each process would see in its own way (the time, a signal) is agreed on first (:class:`_Clock`).
"""

from __future__ import annotations

import csv
import math
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, gather_object
from torch import distributed, nn

from longvu_cli.errors import NonFiniteLoss, TrainingError, TrainingStateMismatch, UsageError
from longvu_cli.extras import require_matplotlib
from longvu_cli.whole_file import whole_file

LOSS = "loss"
GRADIENT_NORM = "gradient_norm"
STATE_FOLDER, STATE_FILE = "state", "state.pt"
LOG_FILE, PLOT_FILE = "log.csv", "log.png"

_BETAS = (0.9, 0.98)
# Columns of the log; those of the module's own values stand between them.
_FIRST, _LAST = ("step", "seconds", "learning_rate", LOSS), ("samples_per_second",)


@dataclass(frozen=True)
class LoopOptions:
    """How to train.

    Attributes:
        steps: end after so many optimiser steps, or
        minutes: after so much training time, which the schedule then follows; exactly one of both is given.
        warmup: share of the run in which the learning rate rises (paper, §4.3).
        weight_decay: of AdamW; parameters with one dimension (norms, biases) have none.
        final_share: the cosine ends at this share of ``learning_rate``.
        accumulate: batches per optimiser step.
        clip: largest norm of the gradient; 0: no limit.
        bf16: compute in bfloat16 where that is safe; the parameters keep their own type.
        log_every: steps per row of the log.
        save_every_minutes: how often the state is saved.
        fused: AdamW in one kernel (CUDA).
    """

    learning_rate: float
    steps: int | None = None
    minutes: float | None = None
    warmup: float = 0.03
    weight_decay: float = 0.0
    final_share: float = 0.0
    accumulate: int = 1
    clip: float = 1.0
    bf16: bool = False
    log_every: int = 20
    save_every_minutes: float = 5.0
    fused: bool = False

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.minutes is None):
            raise UsageError("a training has a number of steps or of minutes", hint="give one of them")
        positive = {
            "learning rate": self.learning_rate,
            "number of steps": 1 if self.steps is None else self.steps,
            "number of minutes": 1 if self.minutes is None else self.minutes,
            "number of batches per step": self.accumulate,
            "number of steps per log row": self.log_every,
        }
        for name, value in positive.items():
            if not (math.isfinite(value) and value > 0):
                raise UsageError(f"{value} is no {name}", hint="give a number above 0")
        for name, share in {"warm-up": self.warmup, "final share": self.final_share}.items():
            if not 0 <= share <= 1:
                raise UsageError(f"a {name} of {share} is no share of the whole", hint="give a number from 0 to 1")
        for name, value in {"weight decay": self.weight_decay, "clip": self.clip}.items():
            if not (math.isfinite(value) and value >= 0):
                raise UsageError(f"{value} is no {name}", hint="give 0 or more")

    def rate(self, progress: float) -> float:
        """The learning rate when this share of the run is done: a linear warm-up, then half a cosine."""
        if progress < self.warmup:
            return self.learning_rate * progress / self.warmup
        if self.warmup == 1:
            return self.learning_rate
        done = min((progress - self.warmup) / (1 - self.warmup), 1.0)
        return self.learning_rate * (self.final_share + (1 - self.final_share) * (1 + math.cos(math.pi * done)) / 2)


@dataclass(frozen=True)
class LogRow:
    """What happened since the row before.

    Attributes:
        step: optimiser steps done.
        progress: the share of the run that is done.
        seconds: training time so far, that of earlier runs included.
        learning_rate: of the last step.
        loss: averaged since the row before, over all processes.
        values: everything else that the module returned, and the norm of the gradient, averaged in the same way.
        samples_per_second: of all processes together; None: the batches have no length.
    """

    step: int
    progress: float
    seconds: float
    learning_rate: float
    loss: float
    values: Mapping[str, float]
    samples_per_second: float | None


@runtime_checkable
class Resumable(Protocol):
    """Batches that can begin where an earlier run ended."""

    def skip(self, batches: int) -> None:
        """Leave out the batches that were yielded before; called once, before the first is asked for."""


def run_stage(
    module: nn.Module,
    batches: Iterable[Any],
    options: LoopOptions,
    folder: Path,
    *,
    resume: bool,
    on_log: Callable[[LogRow], None],
) -> nn.Module:
    """Train what requires a gradient, until the steps are done or the time is over.

    The state (trained parameters, optimiser, step, time, random generators) is kept in ``folder/state``. SIGINT and
    SIGTERM end the run after the step, with the state saved, and then do what they did before.

    Args:
        module: ``module(batch)`` returns scalar tensors by name; ``loss`` is minimised, the others (detached) are
            logged. It moves a batch to its device itself.
        batches: this process's own; asked for again when they end. :class:`Resumable` ones are told what to leave out.
        folder: where the log and the state go.
        resume: go on from the state in the folder, if there is one; otherwise what is there is removed.
        on_log: hears each row of the log, in the main process.

    Returns:
        The module, trained.

    Raises:
        TrainingError: nothing is to be trained, there are no batches, or the state is that of another training.
        NonFiniteLoss: the loss or the gradient is NaN or infinite; the state is the last one from before.
    """
    return _Stage(module, options, folder, on_log).run(batches, resume=resume)


class _Stage:
    """One run of the loop."""

    def __init__(self, module: nn.Module, options: LoopOptions, folder: Path, on_log: Callable[[LogRow], None]) -> None:
        self._options = options
        self._folder = folder
        self._on_log = on_log
        self._trained = {name: item for name, item in module.named_parameters() if item.requires_grad}
        if not self._trained:
            raise TrainingError("nothing of the model is to be trained", hint="choose a part that is trained")
        self._accelerator = _accelerator(options)
        self._module, self._optimizer = self._accelerator.prepare(module, self._adamw())
        self._log = _Log(folder / LOG_FILE)
        self._meter = _Meter()
        self._clock = _Clock(self._accelerator)
        self._step = 0
        self._rate = 0.0

    def run(self, batches: Iterable[Any], *, resume: bool) -> nn.Module:
        """See :func:`run_stage`."""
        self._begin(batches, resume=resume)
        endless = _endless(batches)
        saved_at = self._clock.seconds
        with _signals_wait() as signals:
            while self._progress() < 1:
                self._do_step(endless)
                self._clock.agree(interrupted=bool(signals))
                if self._step % self._options.log_every == 0:
                    self._write_row()
                if self._clock.interrupted:
                    break
                if self._clock.seconds - saved_at >= 60 * self._options.save_every_minutes:
                    self._save()
                    saved_at = self._clock.seconds
            if not self._clock.interrupted and self._meter.steps:
                self._write_row()
            self._save()
        if self._clock.interrupted and not signals:
            raise KeyboardInterrupt  # another process was told to end
        self._accelerator.wait_for_everyone()
        trained: nn.Module = self._accelerator.unwrap_model(self._module, keep_fp32_wrapper=False)
        return trained

    def _adamw(self) -> torch.optim.AdamW:
        matrices = [item for item in self._trained.values() if item.dim() > 1]
        vectors = [item for item in self._trained.values() if item.dim() <= 1]
        groups: list[dict[str, Any]] = []
        if matrices:
            groups.append({"params": matrices, "weight_decay": self._options.weight_decay})
        if vectors:
            groups.append({"params": vectors, "weight_decay": 0.0})
        return torch.optim.AdamW(
            groups, lr=self._options.learning_rate, betas=_BETAS, fused=self._options.fused or None
        )

    def _begin(self, batches: Iterable[Any], *, resume: bool) -> None:
        state_file = self._folder / STATE_FOLDER / STATE_FILE
        if resume and state_file.is_file():
            self._load(state_file)
            if isinstance(batches, Resumable):
                batches.skip(self._step * self._options.accumulate)
        elif self._accelerator.is_main_process:
            self._folder.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(state_file.parent, ignore_errors=True)
        if self._accelerator.is_main_process:
            self._log.begin(self._step)
        self._accelerator.wait_for_everyone()
        self._clock.start()

    def _progress(self) -> float:
        if self._options.steps is not None:
            return self._step / self._options.steps
        if self._options.minutes is None:
            raise AssertionError("the options have steps or minutes")
        return self._clock.seconds / (60 * self._options.minutes)

    def _do_step(self, batches: Iterator[Any]) -> None:
        # The middle of a step: with its beginning the first would be lost (a rate of 0), with its end the last.
        half = 0.0 if self._options.steps is None else 0.5 / self._options.steps
        self._rate = self._options.rate(self._progress() + half)
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate
        for number in range(1, self._options.accumulate + 1):
            batch = next(batches)
            last = number == self._options.accumulate
            with nullcontext() if last else self._accelerator.no_sync(self._module):
                values = self._module(batch)
                self._accelerator.backward(values[LOSS] / self._options.accumulate)
            self._meter.add(values, len(batch) if isinstance(batch, Sized) else None)
        limit = self._options.clip or math.inf
        norm = self._accelerator.clip_grad_norm_(self._trained.values(), limit)
        if norm is not None:
            self._meter.add_value(GRADIENT_NORM, norm)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._step += 1
        self._meter.steps += 1

    def _write_row(self) -> None:
        """Average over all processes, which therefore agree whether the numbers are finite."""
        seconds = self._clock.exact()
        values, samples = _averaged(gather_object([self._meter.state()]))
        span = seconds - self._meter.since
        row = LogRow(
            step=self._step,
            progress=min(self._progress(), 1.0),
            seconds=seconds,
            learning_rate=self._rate,
            loss=values.pop(LOSS),
            values=values,
            samples_per_second=None if samples is None or span <= 0 else samples / span,
        )
        self._meter = _Meter(since=seconds)
        if self._accelerator.is_main_process:
            self._log.write(row)
            self._on_log(row)
        _require_finite({LOSS: row.loss, **row.values}, self._step)

    def _save(self) -> None:
        meters = gather_object([self._meter.state()])
        if self._meter.steps:
            _require_finite(_averaged(meters)[0], self._step)
        generators = gather_object([_random_state()])
        if not self._accelerator.is_main_process:
            return
        state = {
            "step": self._step,
            "seconds": self._clock.exact(),
            "parameters": {name: item.detach() for name, item in self._trained.items()},
            "optimizer": self._optimizer.state_dict(),
            "generators": generators,
            "meters": meters,
        }
        file = self._folder / STATE_FOLDER / STATE_FILE
        file.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(file, durable=True) as aside:
            torch.save(state, aside)

    def _load(self, file: Path) -> None:
        try:
            state = torch.load(file, map_location="cpu", weights_only=True)
            parameters, optimizer = state["parameters"], state["optimizer"]
            generators, meters = state["generators"], state["meters"]
            step, seconds = int(state["step"]), float(state["seconds"])
        # What a malformed file raises depends on where it is malformed.
        except Exception as error:
            raise TrainingStateMismatch(
                f"{file} is no state of a training: {error}", hint="remove it, or train without resuming"
            ) from error
        shapes = {name: item.shape for name, item in self._trained.items()}
        if shapes != {name: item.shape for name, item in parameters.items()}:
            raise TrainingStateMismatch(
                f"the state in {file.parent} is that of a training of other parameters",
                hint="choose the same model and options as before, another folder, or train without resuming",
            )
        with torch.no_grad():
            for name, item in self._trained.items():
                item.copy_(parameters[name])
        self._optimizer.load_state_dict(optimizer)
        self._step, self._clock.earlier = step, seconds
        mine = self._accelerator.process_index
        # With another number of processes than before, the new ones begin with generators and sums of their own.
        if mine < len(generators):
            _restore_random_state(generators[mine])
            self._meter = _Meter.of(meters[mine])


def _accelerator(options: LoopOptions) -> Accelerator:
    precision = "bf16" if options.bf16 else "no"
    # accelerate keeps one state per process, which refuses another precision than that of the stage before.
    AcceleratorState._reset_state()
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    # Several processes on a CPU are seen as one unless it is named.
    return Accelerator(cpu=not torch.accelerator.is_available(), mixed_precision=precision, kwargs_handlers=[unused])


def _endless(batches: Iterable[Any]) -> Iterator[Any]:
    while True:
        some = False
        for batch in batches:
            some = True
            yield batch
        if not some:
            raise TrainingError("there are no batches to train with", hint="check the training data")


@contextmanager
def _signals_wait() -> Iterator[list[int]]:
    """Let SIGINT and SIGTERM wait for the end of the step; afterwards they do what they did before.

    A second one does so at once. Yields those that have arrived. In another thread than the main one, where signals
    cannot be caught, nothing changes.
    """
    arrived: list[int] = []
    before: dict[int, Any] = {}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, frame: FrameType | None) -> None:
        if arrived:
            restore()
            signal.raise_signal(number)
        arrived.append(number)

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, note)
    except ValueError:
        before.clear()
    try:
        yield arrived
    finally:
        restore()
    if arrived:
        signal.raise_signal(arrived[0])


class _Clock:
    """Training time and interruptions, on which all processes agree once per step.

    On several processes the numbers are those of the step before: a step never waits for the device to learn them.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.earlier = 0.0
        self.seconds = 0.0
        self.interrupted = False
        self._device = accelerator.device
        self._shared = accelerator.num_processes > 1
        self._started = time.monotonic()
        self._asked: tuple[Any, torch.Tensor] | None = None

    def start(self) -> None:
        """Begin to count, after :attr:`earlier`."""
        self._started = time.monotonic()
        self.seconds = self.earlier

    def exact(self) -> float:
        """The time by this process's own clock."""
        return self.earlier + time.monotonic() - self._started

    def agree(self, *, interrupted: bool) -> None:
        """Bring :attr:`seconds` and :attr:`interrupted` up to date."""
        if not self._shared:
            self.seconds, self.interrupted = self.exact(), interrupted
            return
        if self._asked is not None:
            work, answer = self._asked
            work.wait()
            self.seconds, told = answer.tolist()
            self.interrupted = bool(told)
        facts = torch.tensor([self.exact(), float(interrupted)], dtype=torch.float32).to(self._device)
        self._asked = (distributed.all_reduce(facts, distributed.ReduceOp.MAX, async_op=True), facts)


class _Meter:
    """Sums since the last row of the log; they stay on the device until someone asks.

    Args:
        since: training time at the last row.
    """

    def __init__(self, *, since: float = 0.0) -> None:
        self.since = since
        self.steps = 0
        self.samples: int | None = 0
        self._sums: dict[str, torch.Tensor] = {}
        self._counts: dict[str, int] = {}

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> _Meter:
        """The meter whose :meth:`state` this is."""
        meter = cls(since=state["since"])
        meter.steps, meter.samples = state["steps"], state["samples"]
        meter._sums = {name: torch.tensor(value) for name, value in state["sums"].items()}
        meter._counts = dict(state["counts"])
        return meter

    def state(self) -> dict[str, Any]:
        """The sums as plain numbers; waits for the device."""
        return {
            "since": self.since,
            "steps": self.steps,
            "samples": self.samples,
            "sums": {name: value.item() for name, value in self._sums.items()},
            "counts": self._counts,
        }

    def add(self, values: Mapping[str, torch.Tensor], samples: int | None) -> None:
        """What the module returned for a batch."""
        for name, value in values.items():
            self.add_value(name, value)
        self.samples = None if samples is None or self.samples is None else self.samples + samples

    def add_value(self, name: str, value: torch.Tensor) -> None:
        """One number."""
        value = value.detach().float()
        self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._counts[name] = self._counts.get(name, 0) + 1


def _averaged(meters: list[dict[str, Any]]) -> tuple[dict[str, float], int | None]:
    """The averages over all processes, and the samples of all together."""
    names = dict.fromkeys(name for meter in meters for name in meter["sums"])
    values = {
        name: sum(meter["sums"].get(name, 0.0) for meter in meters)
        / sum(meter["counts"].get(name, 0) for meter in meters)
        for name in names
    }
    samples = [meter["samples"] for meter in meters]
    return values, None if None in samples else sum(samples)


def _require_finite(values: Mapping[str, float], step: int) -> None:
    for name, value in values.items():
        if name in (LOSS, GRADIENT_NORM) and not math.isfinite(value):
            raise NonFiniteLoss(
                f"the {'loss' if name == LOSS else 'gradient'} became {value} by step {step}",
                hint="use a smaller learning rate; the state saved before is intact",
            )


def _random_state() -> dict[str, Any]:
    """This process's random generators, in a form that is loaded without executing anything."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": (version, torch.tensor(words), gauss),
        "numpy": (str(name), torch.from_numpy(np.asarray(keys, dtype=np.int64)), int(position), has_gauss, cached),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def _restore_random_state(state: Mapping[str, Any]) -> None:
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words.tolist()), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


class _Log:
    """The rows as CSV."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._columns: tuple[str, ...] = ()

    def begin(self, step: int) -> None:
        """Keep the rows up to a step: those after it will be written again."""
        if step == 0 or not self._file.is_file():
            self._file.unlink(missing_ok=True)
            return
        kept = [row for row in read_log(self._file.parent) if row["step"] <= step]
        if kept:
            self._rewrite(tuple(kept[0]), kept)

    def write(self, row: LogRow) -> None:
        """Add a row."""
        values: dict[str, float | None] = {
            "step": row.step,
            "seconds": round(row.seconds, 3),
            "learning_rate": row.learning_rate,
            LOSS: row.loss,
            **row.values,
            "samples_per_second": row.samples_per_second,
        }
        if not set(values) <= set(self._columns):
            old = read_log(self._file.parent) if self._columns else []
            known = [name for name in self._columns if name not in _LAST]
            own = dict.fromkeys([*known[len(_FIRST) :], *row.values])
            self._rewrite((*_FIRST, *own, *_LAST), old)
        with self._file.open("a", newline="", encoding="utf-8") as stream:
            csv.DictWriter(stream, self._columns).writerow(values)

    def _rewrite(self, columns: tuple[str, ...], rows: list[dict[str, float]]) -> None:
        self._columns = columns
        with whole_file(self._file) as aside, aside.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, columns)
            writer.writeheader()
            writer.writerows(rows)


def read_log(folder: Path) -> list[dict[str, float]]:
    """The rows of a training's log; a cell with nothing in it is NaN."""
    with (folder / LOG_FILE).open(newline="", encoding="utf-8") as stream:
        return [
            {name: float(cell) if cell else math.nan for name, cell in row.items()} for row in csv.DictReader(stream)
        ]


def plot_log(folder: Path) -> Path:
    """Draw the log: each value over the steps.

    Returns:
        The picture.

    Raises:
        ExtraNotInstalled: matplotlib is missing.
        TrainingError: there is no log.
    """
    require_matplotlib("drawing the log", extra="train")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = read_log(folder) if (folder / LOG_FILE).is_file() else []
    if not rows:
        raise TrainingError(f"there is no log in {folder}", hint="train first")
    names = [LOSS, *(name for name in rows[0] if name not in (*_FIRST, *_LAST)), "learning_rate"]
    figure = Figure(figsize=(7.0, 1.8 * len(names) + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, name in zip(figure.subplots(len(names), sharex=True), names, strict=True):
        axes.plot([row["step"] for row in rows], [row[name] for row in rows])
        axes.set_ylabel(name.replace("_", " "))
        axes.grid(alpha=0.3)
    axes.set_xlabel("step")
    picture = folder / PLOT_FILE
    figure.savefig(picture, dpi=120)
    return picture
