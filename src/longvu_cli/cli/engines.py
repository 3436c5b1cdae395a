"""Who answers the rows of a command: the engine that its flags ask for. The only place that makes one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from longvu_cli.cli.loading import Announcer, load_model
from longvu_cli.cli.options import CacheFlags, EngineFlags, ModelFlags
from longvu_cli.cli.output import Output
from longvu_cli.config import DecodingOptions, EngineName
from longvu_cli.errors import UsageError
from longvu_cli.extras import require_ray

if TYPE_CHECKING:
    from longvu_cli.engines.engine import Engine
    from longvu_cli.engines.events import Told
    from longvu_cli.longvu import LongVU

_AUTO = "auto"


@contextmanager
def open_engine(
    command: str,
    output: Output,
    *,
    engine: EngineFlags,
    model: ModelFlags,
    cache: CacheFlags,
    decoding: DecodingOptions,
    shared: bool,
) -> Iterator[Engine]:
    """An engine with its model loaded, for as many batches as one likes.

    Args:
        command: as the records have it.
        shared: other processes see the results, and these see theirs.

    Raises:
        UsageError: the flags contradict each other.
        LongVUError: the model cannot be loaded.
    """
    verify_engine(engine, model, shared=shared)
    if engine.engine is EngineName.PLAIN:
        yield plain_engine(command, output, load_model(_of_rank(model), "ANSWER", output, cache, decoding))
        return
    from longvu_cli.engines.assignment import Assignment

    assignment = Assignment(command, model.options(), decoding, cached=not cache.no_cache)
    told = _teller(output)
    if engine.engine is EngineName.RAY:
        from longvu_cli.engines.ray_workers import open_ray

        opened = open_ray(assignment, _count(engine), engine.address, told)
    else:
        from longvu_cli.engines.processes import open_processes

        opened = open_processes(assignment, _count(engine), told)
    with opened as dispatcher:
        yield dispatcher


def plain_engine(command: str, output: Output, loaded: LongVU) -> Engine:
    """One model, in this process, that is loaded already."""
    from longvu_cli.engines.answering import Answering
    from longvu_cli.engines.plain import Plain

    answer = Answering(
        loaded, command, on_progress=output.on_progress, on_notice=output.warning_once, on_bug=output.trace
    )
    return Plain(loaded.identity, loaded.context_length, answer)


def verify_engine(engine: EngineFlags, model: ModelFlags, *, shared: bool) -> None:
    """Refuse what contradicts itself, best before anything is opened.

    Args:
        shared: see :func:`open_engine`.

    Raises:
        UsageError: it does.
    """
    several = engine.engine is not EngineName.PLAIN
    if engine.processes is not None and not several:
        raise UsageError("--processes needs another engine than plain", hint="add --engine processes")
    if engine.address is not None and engine.engine is not EngineName.RAY:
        raise UsageError("--address is of a Ray cluster", hint="add --engine ray")
    if several and model.device.startswith("cuda:"):
        raise UsageError(
            f"--device {model.device} names one GPU, and each process gets its own",
            hint="leave it out, and choose GPUs with CUDA_VISIBLE_DEVICES",
        )
    _count(engine)
    if engine.engine is EngineName.RAY:
        require_ray()
    if _ranks() > 1 and several:
        raise UsageError(
            f"a launcher started {_ranks()} processes, and --engine {engine.engine} would start more for each",
            hint="leave out one of the two",
        )
    if _ranks() > 1 and not shared:
        raise UsageError(
            f"the {_ranks()} processes that a launcher started share their work through the file of the results",
            hint="name it with --output",
        )


def _count(engine: EngineFlags) -> int | None:
    """How many processes; None: one per GPU."""
    text = engine.processes
    if text is None or text == _AUTO:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"--processes {text} is neither a number nor auto", hint="write --processes 2")
    return int(text)


def _ranks() -> int:
    """How many processes ``accelerate launch`` or ``torchrun`` started."""
    text = os.environ.get("WORLD_SIZE", "")
    return int(text) if text.isdecimal() and "LOCAL_RANK" in os.environ else 1


def _of_rank(model: ModelFlags) -> ModelFlags:
    """Each process that a launcher started takes the GPU of its number."""
    if _ranks() == 1 or model.device not in ("auto", "cuda"):
        return model
    import torch

    gpus = torch.cuda.device_count()
    return replace(model, device=f"cuda:{int(os.environ['LOCAL_RANK']) % gpus}") if gpus else model


def _teller(output: Output) -> Callable[[Told], None]:
    """Says what the workers tell."""
    from longvu_cli.engines.events import Bug, Chosen, Comparing, Loaded, Lost, Noticed, Unreachable, Without
    from longvu_cli.hub import DownloadPlan

    announcer = Announcer(output)

    def tell(told: Told) -> None:
        match told:
            case Chosen(model=model):
                announcer.chosen(model)
            case DownloadPlan():
                announcer.download(told)
            case Comparing(repo=repo, size=size):
                announcer.check(repo, size)
            case Loaded(info=info):
                announcer.loaded(info)
            case Noticed(text=text):
                output.warning_once(text)
            case Bug(trace=trace):
                output.trace(trace)
            case Lost(worker=worker, died=died, row=row):
                again = "" if row is None else f" at row {row.number}, which is tried again"
                output.warning(f"worker {worker} {died.how}{again}")
                output.trace(died.trace)
            case Unreachable(trace=trace):
                output.trace(trace)
            case Without(worker=worker, error=error):
                output.warning(f"it goes on without worker {worker}: {error.message}")

    return tell
