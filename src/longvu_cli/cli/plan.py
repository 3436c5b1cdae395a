"""``longvu plan``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from longvu_cli.cli.errors import OK
from longvu_cli.cli.options import ANSWER, CompressionFlags, Device, NumberFormat, VideoFlags, option
from longvu_cli.cli.output import Output
from longvu_cli.cli.quantities import shown_memory
from longvu_cli.cli.questions import question_of
from longvu_cli.config import CompressionOptions, DType, GenerationOptions, Quantization
from longvu_cli.errors import UsageError
from longvu_cli.moments import clock

if TYPE_CHECKING:
    import torch
    from rich.table import Table

    from longvu_cli.calibration import DecodingSpeed, Speed
    from longvu_cli.forecast import Counts, Model, Span, Times

_RESTS_ON = {
    "cpu": "the rates of this CPU, measured just now with matrix products and the beginning of the video",
    "cuda": "the rates of this GPU, measured just now, and on what each stage reached of them on an H100",
}


@dataclass(frozen=True)
class PlanFlags:
    """Where it would run, and how much would be said."""

    device: Device = "auto"
    dtype: NumberFormat = DType.AUTO
    max_new_tokens: Annotated[
        int,
        option("--max-new-tokens", panel=ANSWER, help="Length of the answer that the times are for, in tokens."),
    ] = 128


@dataclass(frozen=True)
class _Machine:
    """The device, as it is now."""

    device: torch.device
    dtype: torch.dtype
    free_bytes: int
    speed: Speed


@dataclass(frozen=True)
class _Row:
    """One model in one manner of holding it; ``refusal`` says why it cannot be asked, with ``work`` None."""

    model: Model
    quantize: Quantization
    device_bytes: int
    host_bytes: int | None
    fits: bool
    work: Counts | None
    times: Times | None
    refusal: str


def plan(
    output: Output,
    video: Annotated[str, typer.Argument(help="A video file, or a picture.", metavar="VIDEO")],
    question: Annotated[
        str | None, typer.Argument(help="A question of this length.", metavar="QUESTION", show_default=False)
    ] = None,
    *,
    flags: PlanFlags,
    moments: VideoFlags,
    compression: CompressionFlags,
) -> int:
    """Say what an answer about a video will take, before any model is loaded or downloaded.

    Frames, regime and tokens follow from the length of the video; memory is what decides whether a model is refused;
    times are estimates, within a factor of two or so, for the device as busy as it is now, and without the loading of
    the model. `next` is a further question about the same video, whose features are kept.
    """
    sampling, options, decoding = moments.options(), compression.options(), moments.decoding()
    new_tokens = GenerationOptions(max_new_tokens=flags.max_new_tokens).max_new_tokens
    from longvu_cli.calibration import measure_decoding, measure_speed
    from longvu_cli.device import free_memory, resolve_device, resolve_dtype
    from longvu_cli.prompt import DESCRIBE

    device = resolve_device(flags.device)
    seen = measure_decoding(video, sampling, decoding, device=device.type)
    if seen.frames is None:
        raise UsageError(
            f"the header of {video} does not say how long it is, or there are far more frames to look at than usual",
            hint="`longvu stats` decodes it, and counts; --fps looks at fewer",
        )
    dtype = resolve_dtype(flags.dtype, device)
    machine = _Machine(device, dtype, free_memory(device), measure_speed(device, dtype))
    rows = _rows(machine, seen, options, question_of(question) if question else DESCRIBE, new_tokens)
    rests_on = _RESTS_ON.get(device.type, "")
    if output.options.json:
        output.record(_record(seen, machine, rows, rests_on))
        return OK
    output.print(_heading(seen, machine), "", _table(rows))
    for name, refusal in {row.model.name: row.refusal for row in rows if row.refusal}.items():
        output.line(f"{name}: {refusal}")
    output.note(f"times rest on {rests_on}" if rests_on else f"no times: nothing was measured on {device.type}")
    return OK


def _rows(
    machine: _Machine, seen: DecodingSpeed, options: CompressionOptions, question: str, new_tokens: int
) -> list[_Row]:
    from longvu_cli.forecast import counts, device_bytes, host_bytes, models, times
    from longvu_cli.weights import TINY

    assert seen.frames is not None, "it was looked at before"
    kind, rows = machine.device.type, []
    for model in models(question):
        work, refusal = None, ""
        try:
            work = counts(model, options, seen.info, seen.frames)
        except UsageError as error:
            refusal = error.message
        for quantize in Quantization if kind == "cuda" and model.name != TINY else (Quantization.NONE,):
            needed = device_bytes(model, kind, machine.dtype, quantize)
            duration = None
            if work is not None:
                duration = times(
                    model,
                    work,
                    machine.speed,
                    device=kind,
                    dtype=machine.dtype,
                    quantize=quantize,
                    decoding_s=seen.seconds_per_frame or 0.0,
                    new_tokens=new_tokens,
                )
            held = host_bytes(model, kind, machine.dtype, quantize)
            rows.append(_Row(model, quantize, needed, held, needed <= machine.free_bytes, work, duration, refusal))
    return rows


def _record(seen: DecodingSpeed, machine: _Machine, rows: list[_Row], rests_on: str) -> dict[str, Any]:
    from longvu_cli.records import SCHEMA_VERSION

    return {
        "schema_version": SCHEMA_VERSION,
        "command": "plan",
        "video": {**asdict(seen.info), "warnings": list(seen.info.warnings)},
        "device": {
            "name": str(machine.device),
            "dtype": str(machine.dtype).removeprefix("torch."),
            "free_bytes": machine.free_bytes,
            "matrix_flops": machine.speed.matrix,
            "read_bytes_per_s": machine.speed.read,
            "decoding_s_per_frame": seen.seconds_per_frame,
        },
        "times_rest_on": rests_on,
        "models": [
            {
                "name": row.model.name,
                "quantization": row.quantize.value,
                "device_bytes": row.device_bytes,
                "host_bytes": row.host_bytes,
                "fits": row.fits,
                "compression": None if row.work is None else asdict(row.work),
                "estimated_s": None if row.times is None else asdict(row.times),
                "refusal": row.refusal or None,
            }
            for row in rows
        ],
    }


def _heading(seen: DecodingSpeed, machine: _Machine) -> str:
    info = seen.info
    length = "a picture" if info.duration_s is None else clock(info.duration_s)
    dtype = str(machine.dtype).removeprefix("torch.")
    return (
        f"{length} · {info.width}×{info.height} · {info.codec} · {seen.frames:,} frames to look at\n"
        f"{machine.device} · {shown_memory(machine.free_bytes)} free · {dtype} · "
        f"about {_rounded(machine.speed.matrix / 1e9):,g} GFLOP/s"
    )


def _table(rows: list[_Row]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column("model")
    table.add_column("memory", justify="right")
    table.add_column("fits")
    for name in ("frames kept", "regime", "tokens, at most", "first answer", "next"):
        table.add_column(name)
    for row in rows:
        held = "" if row.quantize is Quantization.NONE else f" --quantize {row.quantize}"
        cells = [f"{row.model.name}{held}", shown_memory(row.device_bytes), "yes" if row.fits else "no"]
        if row.work is None:
            table.add_row(*cells, "–")
            continue
        shown = ["not measured"] * 2 if row.times is None else [_about(row.times.first), _about(row.times.next)]
        regimes = " or ".join(regime.value for regime in row.work.regimes)
        room = f"{row.work.visual_tokens:,} of {row.work.visual_budget:,}"
        table.add_row(*cells, _frames(row.work.kept), regimes, room, *shown)
    return table


def _frames(kept: Span) -> str:
    return f"{kept.low:,.0f}" if kept.low == kept.high else f"{kept.low:,.0f} to {kept.high:,.0f}"


def _about(seconds: Span) -> str:
    low, high = _spoken_time(seconds.low), _spoken_time(seconds.high)
    return f"about {low}" if low == high else f"about {low} to {high}"


def _spoken_time(seconds: float) -> str:
    """One digit: more would promise more than an estimate knows."""
    for unit, name in ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        if _rounded(seconds) >= unit:
            return f"{_rounded(seconds / unit):.0f} {name}"
    return "1 s"


def _rounded(value: float) -> float:
    return float(f"{value:.1g}")
