"""``longvu eval world``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from longvu_cli.cli.ablations import ablate_option, ablation_tables, tables_named
from longvu_cli.cli.batch import Teller, told_as_output
from longvu_cli.cli.engines import plain_engine
from longvu_cli.cli.errors import OK, SOME_FAILED
from longvu_cli.cli.loading import load_model
from longvu_cli.cli.options import CacheFlags, CompressionFlags, option
from longvu_cli.cli.output import Output
from longvu_cli.cli.tables import EvaluatedModelFlags, plain_table, require_file_locks, words
from longvu_cli.config import GenerationOptions
from longvu_cli.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from longvu_cli.evaluation.ablation import Score
    from longvu_cli.evaluation.world import WorldOptions, WorldReport

_WORLD = "World"


def _option(name: str, *, help: str, **settings: Any) -> Any:
    return option(name, panel=_WORLD, help=help, **settings)


@dataclass(frozen=True)
class WorldFlags:
    """Which films, and what is compared."""

    films: Annotated[int, _option("--films", help="How many films.")] = 16
    seconds: Annotated[
        str, _option("--seconds", metavar="LIST", help="Lengths of the films in seconds, which take turns.")
    ] = "600"
    questions: Annotated[int, _option("--questions", help="Questions per film.")] = 8
    first: Annotated[int, _option("--first", help="Number of the first story.")] = 0
    ablate: Annotated[str | None, ablate_option(_WORLD)] = None
    max_new_tokens: Annotated[int, _option("--max-new-tokens", help="Longest answer, in tokens.")] = 128

    def options(self, compression: CompressionFlags) -> WorldOptions:
        """As the library takes them."""
        from longvu_cli.evaluation.world import WorldOptions

        asked = compression.options()
        return WorldOptions(
            films=self.films,
            seconds=tuple(_whole(word) for word in words(self.seconds)),
            questions=self.questions,
            first=self.first,
            tables=tables_named(self.ablate, asked),
            compression=asked,
            generation=GenerationOptions(max_new_tokens=self.max_new_tokens),
        )


def _whole(word: str) -> int:
    try:
        return int(word)
    except ValueError:
        raise UsageError(f"--seconds has {word!r}, which is no whole number", hint="give them as 60,300,600") from None


def world(
    output: Output,
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="For the films, results.jsonl with every answer, and world.json; a run goes on there."
        ),
    ],
    *,
    model: EvaluatedModelFlags,
    grid: WorldFlags,
    compression: CompressionFlags,
    cache: CacheFlags,
) -> int:
    """Ask questions about films of the drawn world, whose answers are known.

    The films show stories that the tiny model has not seen; each is asked the kinds of question that were asked least
    so far. The table has the share of right answers for each kind with its 95 % interval (Wilson), and what always
    giving the commonest right answer would score.

    --ablate runs the rows of the paper's ablations on the same questions: where frames come from (uniform, SigLIP,
    DINOv2), tokens per frame and context (--context-length, or the model's own, stands for 8k), query, spatial token
    compression, its anchors, frame position encoding. The tables have shares of frames kept, and of tokens that went,
    and the mean difference to the default row on the same questions with its standard error.

    The same command goes on where it was cut off; several of them share the work.
    """
    require_file_locks("the test")
    options = grid.options(compression)
    from longvu_cli.evaluation.drawn_films import write_films
    from longvu_cli.evaluation.world import (
        FILMS,
        RESULTS,
        films_of,
        manifest_of,
        plan,
        read_tried,
        report,
        report_record,
        write_report,
    )

    films = folder.resolve() / FILMS
    with output.progress():
        write_films(films_of(options), films, output.on_progress)
    loaded = load_model(model, "ANSWER", output, cache)
    engine = plain_engine("eval world", output, loaded)
    from longvu_cli.batch import Batch
    from longvu_cli.result_file import ResultFile

    trials = plan(options, films, loaded.context_length)
    with ResultFile(folder / RESULTS) as opened:
        teller = Teller(output)
        work = Batch(manifest_of(trials), opened, engine=engine, on_progress=teller.progress, on_failure=teller.failure)
        with output.progress(), told_as_output(folder):
            tally = work.run()
    tried = read_tried(trials, folder / RESULTS, engine.identity)
    made = report(options, trials, tried, loaded.context_length)
    with told_as_output(folder):
        write_report(options, made, folder)
    if output.options.json:
        output.record(report_record(options, made))
    else:
        output.print(*tables(made, output.width))
    output.note(f"results in {folder}")
    return SOME_FAILED if tally.failures else OK


# --- tables ---------------------------------------------------------------------------------------------------------


def tables(made: WorldReport, width: int) -> list[Table]:
    """The share of right answers per kind of question, or the tables of the paper in lines of so many characters."""
    from longvu_cli.evaluation.ablation import TABLES

    if made.whole is None:
        return [
            table for name, rows in made.tables.items() for table in ablation_tables(TABLES[name], rows, width=width)
        ]
    table = plain_table("kind", "questions", "right", "95 % interval", "commonest")
    for kind, own in made.kinds.items():
        table.add_row(kind, f"{own.questions:,}", *_share(own), f"{made.commonest[kind]:.1%}")
    table.add_row("all", f"{made.whole.questions:,}", *_share(made.whole), "")
    return [table]


def _share(own: Score) -> tuple[str, str]:
    return f"{own.accuracy:.1%}", f"{own.interval.low:.1%} … {own.interval.high:.1%}"
