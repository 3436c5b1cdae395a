"""``longvu eval``."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from longvu_cli.cli import benchmarks
from longvu_cli.cli.batch import duration, told_as_output
from longvu_cli.cli.errors import OK
from longvu_cli.cli.loading import load_model
from longvu_cli.cli.options import CacheFlags, CompressionFlags, with_flags
from longvu_cli.cli.output import Output
from longvu_cli.cli.tables import EvaluatedModelFlags, plain_table, require_file_locks, words
from longvu_cli.cli.world import world
from longvu_cli.config import GenerationOptions
from longvu_cli.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from longvu_cli.evaluation.needle import Comparison, Hide, Method, NeedleOptions, NeedleReport, Score

_GRID = "Needle"
# Where nothing can be animated, how often a line says how far it is.
_NOTE_EVERY_S = 60.0

eval_app = typer.Typer(
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Tests with known answers.",
)


@eval_app.callback()
def evaluate(context: typer.Context) -> None:
    """Tests with known answers."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def _option(name: str, *, help: str, **settings: Any) -> Any:
    """An option of the grid, with its environment variable."""
    variable = f"LONGVU_{name.removeprefix('--').replace('-', '_').upper()}"
    return typer.Option(name, help=help, envvar=variable, show_envvar=False, rich_help_panel=_GRID, **settings)


@dataclass(frozen=True)
class NeedleFlags:
    """Which videos, and what is compared."""

    frames: Annotated[
        str, _option("--frames", metavar="LIST", help="Lengths of the videos, in frames (one per second).")
    ] = "100,200,400,800,1600,3600"
    depths: Annotated[
        int, _option("--depths", help="Places of the needle, evenly from the first frame to the last.")
    ] = 10
    trials: Annotated[
        int, _option("--trials", help="Videos per length and place, each with another haystack and needle.")
    ] = 3
    methods: Annotated[
        str,
        _option("--methods", metavar="LIST", help="What is compared: default, and what leaves out a step of it."),
    ] = "default,without-stc,without-query,uniform"
    long_from: Annotated[
        int, _option("--long-from", help="Frames from which a video is long, for the differences.")
    ] = 1000
    seed: Annotated[int, _option("--seed", help="Decides what the videos show.")] = 0
    max_new_tokens: Annotated[int, _option("--max-new-tokens", help="Longest answer, in tokens.")] = 16

    def options(self, compression: CompressionFlags) -> NeedleOptions:
        """As the library takes them."""
        from longvu_cli.evaluation.needle import NeedleOptions

        return NeedleOptions(
            frames=tuple(_whole(word) for word in words(self.frames)),
            depths=self.depths,
            trials=self.trials,
            methods=tuple(_method(word) for word in words(self.methods)),
            seed=self.seed,
            long_from=self.long_from,
            compression=compression.options(),
            generation=GenerationOptions(max_new_tokens=self.max_new_tokens),
        )


def _whole(word: str) -> int:
    try:
        return int(word)
    except ValueError:
        raise UsageError(f"--frames has {word!r}, which is no whole number", hint="give them as 100,200,400") from None


def _method(word: str) -> Method:
    from longvu_cli.evaluation.needle import Method

    try:
        return Method(word)
    except ValueError:
        raise UsageError(f"--methods has {word!r}, which is none", hint=f"known are {', '.join(Method)}") from None


def needle(
    output: Output,
    folder: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            rich_help_panel="Output",
            help="For needle.json, .csv, .png, and .jsonl with every answer, where a run that was cut off goes on.",
        ),
    ] = Path("needle"),
    *,
    model: EvaluatedModelFlags,
    grid: NeedleFlags,
    compression: CompressionFlags,
) -> int:
    """Find a card that is shown for one second in a long video (paper, appendix D).

    Videos of the synthetic world are drawn one at a time and asked about once per method: `default`; `without-stc`,
    which cuts the end in place of spatial token compression; `without-query`, whose frames of full resolution are
    evenly spread; and `uniform`, which keeps evenly spaced frames. The table has the share of right answers with its
    95 % interval (Wilson), and the mean difference to the default on the same long videos with its standard error.

    The same command goes on where it was cut off; several of them share the work.
    """
    require_file_locks("the needle test")
    from longvu_cli.evaluation.needle_figure import write_figure
    from longvu_cli.extras import require_matplotlib

    options = grid.options(compression)
    require_matplotlib("the figure", extra="eval")
    _require_folder(folder)
    with tempfile.TemporaryDirectory(prefix="longvu-") as scratch:
        loaded = load_model(model, "ANSWER", output, CacheFlags(), features=Path(scratch) / "features")
        from longvu_cli.evaluation.needle import NeedleTest, report_record, write_report

        test = NeedleTest(
            options,
            loaded,
            _haystacks(),
            results=folder / "needle.jsonl",
            folder=Path(scratch),
            on_progress=_Teller(output).progress,
        )
        with output.progress(), told_as_output(folder):
            report = test.run()
    with told_as_output(folder):
        write_report(report, folder)
        write_figure(report, folder / "needle.png")
    if output.options.json:
        output.record(report_record(report))
    else:
        output.print(*tables(report))
    output.note(f"results in {folder}")
    return OK


def _require_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"--output {folder} is no folder that can be written to: {error.strerror}", hint="name another folder"
        ) from error


def _haystacks() -> Hide:
    """What draws the videos; tests put something quicker in its place."""
    from longvu_cli.evaluation.haystack import Haystack

    return Haystack


class _Teller:
    """Says how far it is: in a bar, or in a line from time to time."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._said = self._began = time.monotonic()
        self._found: int | None = None

    def progress(self, stage: str, done: int, total: int | None) -> None:
        """The library's progress callback."""
        self._output.on_progress(stage, done, total)
        if stage != "questions" or total is None:
            return
        if self._found is None:
            self._found = done
            if done:
                self._output.note(f"{done} of {total} questions are answered already")
        now = time.monotonic()
        if not self._output.animated and now - self._said >= _NOTE_EVERY_S:
            self._said = now
            fresh = done - self._found
            left = f", {duration((now - self._began) / fresh * (total - done))} left" if fresh and done < total else ""
            self._output.note(f"{done} of {total} questions{left}")


# --- tables ---------------------------------------------------------------------------------------------------------


def tables(report: NeedleReport) -> list[Table]:
    """The share of right answers per length and method, and the differences on the long videos."""
    return [_accuracies(report), *([_differences(report)] if report.comparisons else [])]


def _accuracies(report: NeedleReport) -> Table:
    table = plain_table("frames", "trials", *report.options.methods)
    lengths = sorted(report.options.frames)
    scores = {(score.method, score.frames): score for score in (*report.by_frames, *report.overall)}
    for frames in (*lengths, None):
        row = [scores[method, frames] for method in report.options.methods]
        name = "all" if frames is None else f"{frames:,}"
        table.add_row(name, f"{row[0].trials:,}", *(_share(score) for score in row))
    table.add_row("chance", "", *[f"{report.chance:.2f}"] * len(report.options.methods))
    return table


def _share(score: Score) -> str:
    return f"{score.accuracy:.2f} [{score.interval.low:.2f}, {score.interval.high:.2f}]"


def _differences(report: NeedleReport) -> Table:
    lengths = ", ".join(f"{frames:,}" for frames in report.comparisons[0].frames)
    table = plain_table(f"with {lengths} frames", "pairs", "difference", "standard error")
    for comparison in report.comparisons:
        table.add_row(f"default − {comparison.method}", *_difference(comparison))
    return table


def _difference(comparison: Comparison) -> tuple[str, str, str]:
    paired = comparison.paired
    error = "unknown" if paired.standard_error is None else f"{paired.standard_error:.3f}"
    return f"{paired.pairs:,}", f"{paired.difference:+.3f}".replace("-", "−"), error


eval_app.command("needle")(with_flags(needle))
eval_app.command("world")(with_flags(world))
eval_app.command("egoschema")(with_flags(benchmarks.egoschema))
eval_app.command("mvbench")(with_flags(benchmarks.mvbench))
eval_app.command("videomme")(with_flags(benchmarks.videomme))
eval_app.command("mlvu")(with_flags(benchmarks.mlvu))
eval_app.command("jsonl")(with_flags(benchmarks.jsonl))
