"""training/loop.py on a toy: a linear layer that learns a linear function."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from longvu_cli.errors import (
    ExtraNotInstalled,
    LongVUError,
    NonFiniteLoss,
    TrainingError,
    TrainingStateMismatch,
    UsageError,
)
from longvu_cli.training.loop import LogRow, LoopOptions, plot_log, read_log, run_stage

FAST = LoopOptions(learning_rate=0.05, steps=12, log_every=3)


class Toy(nn.Module):
    """A linear layer with dropout (so that the random generator matters), one frozen and one unused parameter."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.linear = nn.Linear(4, 2)
        self.dropout = nn.Dropout(0.1)
        self.frozen = nn.Linear(2, 2).requires_grad_(False)
        self.unused = nn.Parameter(torch.ones(3))

    def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
        predicted = self.linear(self.dropout(batch.inputs))
        loss = (self.frozen(predicted) - batch.targets).square().mean()
        return {"loss": loss, "size": predicted.detach().abs().mean()}


@dataclass(frozen=True)
class Batch:
    inputs: torch.Tensor
    targets: torch.Tensor

    def __len__(self) -> int:
        return len(self.inputs)


class Batches:
    """The same batches in every run; an epoch has five."""

    def __init__(self, seed: int = 0) -> None:
        random = torch.Generator().manual_seed(seed)
        inputs = torch.randn(5, 8, 4, generator=random)
        self.batches = [Batch(batch, batch[:, :2] * 2 + 1) for batch in inputs]
        self.number = 0

    def skip(self, batches: int) -> None:
        self.number = batches

    def __iter__(self) -> Iterator[Batch]:
        while True:
            yield self.batches[self.number % len(self.batches)]
            self.number += 1


class Interrupting(Batches):
    """Sends a signal in the middle of a step."""

    def __init__(self, at: int, number: int = signal.SIGINT) -> None:
        super().__init__()
        self.at, self.signal = at, number

    def __iter__(self) -> Iterator[Batch]:
        for position, batch in enumerate(super().__iter__(), self.number):
            if position == self.at:
                signal.raise_signal(self.signal)
            yield batch


def train(folder: Path, options: LoopOptions = FAST, *, resume: bool = False, batches: Any = None) -> Toy:
    module = Toy()
    trained = run_stage(module, batches or Batches(), options, folder, resume=resume, on_log=lambda row: None)
    assert trained is module
    return module


def losses(folder: Path) -> list[tuple[float, float]]:
    return [(row["step"], row["loss"]) for row in read_log(folder)]


def changed(options: LoopOptions = FAST, **values: Any) -> LoopOptions:
    return LoopOptions(**{**vars(options), **values})


def test_it_learns_and_says_so(tmp_path: Path) -> None:
    rows: list[LogRow] = []
    module = Toy()
    before = {name: item.clone() for name, item in module.state_dict().items()}
    run_stage(module, Batches(), changed(steps=100, log_every=30), tmp_path, resume=False, on_log=rows.append)
    assert [row.step for row in rows] == [30, 60, 90, 100]
    assert rows[-1].loss < rows[0].loss / 2
    assert rows[-1].progress == 1
    assert set(rows[0].values) == {"size", "gradient_norm"}
    assert all(row.samples_per_second and row.samples_per_second > 0 for row in rows)
    assert [row.seconds for row in rows] == sorted(row.seconds for row in rows)
    after = module.state_dict()
    assert torch.equal(after["frozen.weight"], before["frozen.weight"])
    assert torch.equal(after["unused"], before["unused"])
    assert not torch.equal(after["linear.weight"], before["linear.weight"])
    assert losses(tmp_path) == [(row.step, row.loss) for row in rows]
    assert (plot_log(tmp_path)).read_bytes().startswith(b"\x89PNG")


def test_the_rate_rises_and_then_follows_a_cosine() -> None:
    options = LoopOptions(learning_rate=1.0, steps=10, warmup=0.1, final_share=0.2)
    assert [options.rate(progress) for progress in (0, 0.05, 0.1, 0.55, 1.0, 1.5)] == pytest.approx(
        [0, 0.5, 1, 0.6, 0.2, 0.2]
    )
    assert changed(options, warmup=0.0).rate(0) == 1
    assert changed(options, warmup=1.0).rate(0.5) == 0.5
    assert changed(options, warmup=1.0).rate(1) == 1


def test_no_step_is_done_at_a_rate_of_zero(tmp_path: Path) -> None:
    train(tmp_path, changed(steps=4, log_every=1, warmup=0.5))
    assert [row["learning_rate"] for row in read_log(tmp_path)] == pytest.approx(
        [0.0125, 0.0375, 0.05 * (2 + math.sqrt(2)) / 4, 0.05 * (2 - math.sqrt(2)) / 4]
    )


@pytest.mark.parametrize("at", [1, 6, 7, 12])
def test_a_resumed_training_is_that_which_was_never_interrupted(tmp_path: Path, at: int) -> None:
    whole = train(tmp_path / "whole")
    folder = tmp_path / "cut"
    with pytest.raises(KeyboardInterrupt):
        train(folder, batches=Interrupting(at - 1))
    assert torch.load(folder / "state" / "state.pt", weights_only=True)["step"] == at
    torch.rand(3)  # the generators are restored, whatever happened to them
    resumed = train(folder, resume=True)
    assert losses(folder) == losses(tmp_path / "whole")
    for name, item in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], item), name


def test_rows_after_the_saved_step_are_written_again(tmp_path: Path) -> None:
    train(tmp_path / "whole")
    folder = tmp_path / "cut"
    with pytest.raises(KeyboardInterrupt):
        train(folder, batches=Interrupting(3))
    saved = (folder / "state" / "state.pt").read_bytes()
    train(folder, resume=True)
    (folder / "state" / "state.pt").write_bytes(saved)  # as after a crash
    train(folder, resume=True)
    assert losses(folder) == losses(tmp_path / "whole")


def test_a_finished_training_is_not_done_again(tmp_path: Path) -> None:
    done = train(tmp_path)
    again = train(tmp_path, resume=True, batches=[])
    assert torch.equal(done.linear.weight, again.linear.weight)
    assert len(losses(tmp_path)) == 4


def test_without_resume_an_old_training_is_forgotten(tmp_path: Path) -> None:
    train(tmp_path)
    train(tmp_path, changed(steps=3))
    assert [step for step, _ in losses(tmp_path)] == [3]
    assert torch.load(tmp_path / "state" / "state.pt", weights_only=True)["step"] == 3


def test_resume_without_a_state_begins(tmp_path: Path) -> None:
    train(tmp_path, resume=True)
    assert len(losses(tmp_path)) == 4


def test_time_ends_it_and_that_of_earlier_runs_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=1000.0, monotonic=lambda: clock.now)
    monkeypatch.setattr("longvu_cli.training.loop.time", clock)

    class Slow(Batches):
        """A batch takes a second."""

        def __iter__(self) -> Iterator[Batch]:
            for batch in super().__iter__():
                clock.now += 1
                yield batch

    options = changed(steps=None, minutes=20 / 60, log_every=1)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, options, batches=type("Cut", (Slow, Interrupting), {})(5))
    assert [row["seconds"] for row in read_log(tmp_path)] == [1, 2, 3, 4, 5, 6]
    # No time of the training's.
    clock.now += 5000
    train(tmp_path, options, resume=True, batches=Slow())
    rows = read_log(tmp_path)
    assert [row["seconds"] for row in rows] == list(range(1, 21))
    assert rows[-1]["learning_rate"] < 0.01 < max(row["learning_rate"] for row in rows)


def test_accumulated_batches_are_one_large_one(tmp_path: Path) -> None:
    def without_dropout(batches: list[Batch], options: LoopOptions) -> Toy:
        module = Toy()
        module.dropout.p = 0.0
        run_stage(module, batches, options, tmp_path, resume=False, on_log=lambda row: None)
        return module

    several = Batches().batches[:2]
    one = Batch(torch.cat([b.inputs for b in several]), torch.cat([b.targets for b in several]))
    accumulated = without_dropout(several, changed(accumulate=2))
    together = without_dropout([one], FAST)
    torch.testing.assert_close(accumulated.linear.weight, together.linear.weight)


def test_weights_decay_and_biases_do_not(tmp_path: Path) -> None:
    class Still(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.bias = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2))

        def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
            return {"loss": 0 * (self.weight.sum() + self.bias.sum())}

    module = Still()
    run_stage(module, Batches(), changed(weight_decay=0.5), tmp_path, resume=False, on_log=lambda row: None)
    assert (module.weight < 0.95).all()
    assert (module.bias == 1).all()


def test_the_gradient_is_clipped(tmp_path: Path) -> None:
    taken: list[float] = []

    class Watched(Toy):
        def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
            return {name: value * (1000 if name == "loss" else 1) for name, value in super().forward(batch).items()}

    for clip in (0.5, 0.0):
        module = Watched()
        hook = register_optimizer_step_pre_hook(
            lambda optimizer, *_: taken.append(
                math.hypot(
                    *(float(p.grad.norm()) for g in optimizer.param_groups for p in g["params"] if p.grad is not None)
                )
            )
        )
        run_stage(module, Batches(), changed(steps=1, clip=clip), tmp_path, resume=False, on_log=lambda row: None)
        hook.remove()
    assert taken[0] == pytest.approx(0.5, rel=1e-3)
    assert taken[1] > 100


def test_bfloat16_computes_in_it_and_keeps_the_parameters(tmp_path: Path) -> None:
    kinds: set[torch.dtype] = set()

    class Watched(Toy):
        def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
            kinds.add(self.linear(batch.inputs).dtype)
            return super().forward(batch)

    for bf16 in (True, False):  # two precisions in one process
        module = Watched()
        run_stage(module, Batches(), changed(bf16=bf16), tmp_path, resume=False, on_log=lambda row: None)
        assert module.linear.weight.dtype is torch.float32
    assert kinds == {torch.bfloat16, torch.float32}


class Exploding(Batches):
    def __iter__(self) -> Iterator[Batch]:
        for position, batch in enumerate(super().__iter__()):
            yield batch if position < 4 else Batch(batch.inputs * math.inf, batch.targets)


def test_a_loss_that_is_no_number_ends_it_and_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteLoss, match="became nan by step 6"):
        train(tmp_path, batches=Exploding())
    assert not (tmp_path / "state" / "state.pt").exists()
    with pytest.raises(NonFiniteLoss, match="by step 5"):
        train(tmp_path, changed(log_every=100, save_every_minutes=0.0), batches=Exploding())
    assert torch.load(tmp_path / "state" / "state.pt", weights_only=True)["step"] == 4


def test_sigterm_saves_and_then_does_what_it_did(tmp_path: Path) -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        train(tmp_path, batches=Interrupting(4, signal.SIGTERM))
    finally:
        assert signal.signal(signal.SIGTERM, before) is not signal.SIG_DFL
    assert heard == [signal.SIGTERM]
    assert torch.load(tmp_path / "state" / "state.pt", weights_only=True)["step"] == 5
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_another_thread_can_train(tmp_path: Path) -> None:
    thread = threading.Thread(target=train, args=(tmp_path,))
    thread.start()
    thread.join()
    assert len(losses(tmp_path)) == 4


def test_new_values_get_columns(tmp_path: Path) -> None:
    class Late(Toy):
        calls = 0

        def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
            self.calls += 1
            more = {"late": torch.tensor(2.0)} if self.calls > 4 else {}
            return {**super().forward(batch), **more}

    run_stage(Late(), Batches(), FAST, tmp_path, resume=False, on_log=lambda row: None)
    assert [row["late"] for row in read_log(tmp_path)] == pytest.approx([math.nan, 2, 2, 2], nan_ok=True)
    assert list(read_log(tmp_path)[0])[-1] == "samples_per_second"


def test_batches_without_a_length_have_no_speed(tmp_path: Path) -> None:
    class Nameless(Toy):
        def forward(self, batch: Any) -> dict[str, torch.Tensor]:
            return {"loss": self.linear(next(batch)).square().mean()}

    rows: list[LogRow] = []
    batches = [iter([torch.ones(4)] * 20)]
    run_stage(Nameless(), batches, FAST, tmp_path, resume=False, on_log=rows.append)
    assert rows[0].samples_per_second is None
    assert math.isnan(read_log(tmp_path)[0]["samples_per_second"])


def other_parameters(folder: Path) -> None:
    train(folder)
    run_stage(nn.Linear(2, 2), Batches(), FAST, folder, resume=True, on_log=lambda row: None)


def damaged_state(folder: Path) -> None:
    train(folder)
    (folder / "state" / "state.pt").write_bytes(b"nonsense")
    train(folder, resume=True)


def no_batches(folder: Path) -> None:
    run_stage(Toy(), [], FAST, folder, resume=False, on_log=lambda row: None)


def nothing_to_train(folder: Path) -> None:
    run_stage(Toy().requires_grad_(False), Batches(), FAST, folder, resume=False, on_log=lambda row: None)


@pytest.mark.parametrize(
    ("doing", "kind", "message"),
    [
        (other_parameters, TrainingStateMismatch, "other parameters"),
        (damaged_state, TrainingStateMismatch, "no state of a training"),
        (no_batches, TrainingError, "no batches"),
        (nothing_to_train, TrainingError, "nothing of the model"),
        (plot_log, TrainingError, "there is no log"),
    ],
)
def test_what_cannot_be_done_is_said(tmp_path: Path, doing: Any, kind: type[LongVUError], message: str) -> None:
    with pytest.raises(kind, match=message) as told:
        doing(tmp_path)
    assert told.value.hint


@pytest.mark.parametrize(
    "values",
    [
        {"steps": None},
        {"minutes": 1.0},
        {"steps": 0},
        {"steps": None, "minutes": math.inf},
        {"learning_rate": 0.0},
        {"learning_rate": math.nan},
        {"accumulate": 0},
        {"log_every": 0},
        {"warmup": 1.1},
        {"final_share": -0.1},
        {"clip": -1.0},
        {"weight_decay": -1.0},
    ],
    ids=str,
)
def test_unusable_options_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as told:
        changed(**values)
    assert told.value.hint


def test_without_matplotlib_the_plot_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ExtraNotInstalled, match="matplotlib") as told:
        plot_log(tmp_path)
    assert "longvu-cli[train]" in told.value.hint


WORKER = """
import json, sys, torch
from pathlib import Path
sys.path.insert(0, {here!r})
from test_loop import *
from accelerate import PartialState
folder = Path(sys.argv[1])
rank = int(os.environ["RANK"])
options = changed(accumulate=2, **json.loads(sys.argv[2]))
interrupt = len(sys.argv) > 3 and rank == 1
batches = Interrupting(7) if interrupt else Batches(seed=rank)
module = Toy()
try:
    run_stage(module, batches, options, folder, resume=True, on_log=lambda row: None)
except KeyboardInterrupt:
    (folder / f"interrupted-{{rank}}").touch()
torch.save(module.state_dict(), folder / f"trained-{{rank}}.pt")
PartialState().destroy_process_group()
"""


def launch(folder: Path, *arguments: str) -> list[dict[str, torch.Tensor]]:
    script = folder / "worker.py"
    script.write_text(WORKER.format(here=str(Path(__file__).parent)))
    # `accelerate launch` starts several processes in this way on GPUs; on a CPU it would need MPI for them.
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*command, str(script), str(folder), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
    )
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"trained-{rank}.pt") for rank in range(2)]


def test_two_processes_train_one_model_and_stop_together(tmp_path: Path) -> None:
    first, second = launch(tmp_path, json.dumps({"steps": 9}), "interrupt")
    assert all((tmp_path / f"interrupted-{rank}").exists() for rank in range(2))
    step = torch.load(tmp_path / "state" / "state.pt", weights_only=True)["step"]
    assert 4 <= step < 9
    assert torch.equal(first["linear.weight"], second["linear.weight"])
    first, second = launch(tmp_path, json.dumps({"steps": 9}))
    assert torch.equal(first["linear.weight"], second["linear.weight"])
    assert torch.load(tmp_path / "state" / "state.pt", weights_only=True)["step"] == 9
    assert [step for step, _ in losses(tmp_path)] == [3, 6, 9]
