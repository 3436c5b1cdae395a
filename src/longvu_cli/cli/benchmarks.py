"""``longvu eval egoschema``, ``mvbench``, ``videomme``, ``mlvu`` and ``jsonl``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from longvu_cli.cli.ablations import ablate_option, ablation_tables, tables_named
from longvu_cli.cli.batch import Teller, told_as_output
from longvu_cli.cli.engines import open_engine
from longvu_cli.cli.errors import OK, SOME_FAILED
from longvu_cli.cli.options import ANSWER, OUTPUT, VIDEO, CacheFlags, CompressionFlags, EngineFlags, ModelFlags, option
from longvu_cli.cli.output import Output
from longvu_cli.cli.tables import plain_table, require_file_locks
from longvu_cli.config import Decoder, DecodingOptions
from longvu_cli.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from longvu_cli.evaluation.ablation import TableName
    from longvu_cli.evaluation.benchmark import Benchmark, Part, Variant
    from longvu_cli.evaluation.benchmark_ablation import Ablation
    from longvu_cli.evaluation.scoring import Report, Score

_QUESTIONS = "Questions"
_WRONG = ("errors", "unparsed")
_COUNTS = ("questions", *_WRONG)
# More characters than any line of a table has.
_ANY_WIDTH = 1000


class SubtitleChoice(StrEnum):
    """Whether subtitles are read; with ``both`` every question is asked twice."""

    AUTO = "auto"
    NONE = "none"
    BOTH = "both"


Source = Annotated[
    Path, typer.Argument(metavar="DIR", help="The benchmark's files as they are published; nothing is downloaded.")
]
Folder = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        metavar="DIR",
        rich_help_panel=OUTPUT,
        help="For every answer, and the summary; the same command goes on there, and several share the work.",
    ),
]


@dataclass(frozen=True)
class BenchmarkFlags:
    """Which questions, and what is done in another way than by the preset."""

    shard: Annotated[
        str | None, option("--shard", panel=_QUESTIONS, metavar="K/N", help="Ask those about every N-th video only.")
    ] = None
    limit: Annotated[
        int | None, option("--limit", panel=_QUESTIONS, help="Ask so many only, evenly spread over all.")
    ] = None
    ablate: Annotated[str | None, ablate_option(_QUESTIONS)] = None
    rescore: Annotated[
        bool, option("--rescore", panel=OUTPUT, help="Score the answers that are kept, without a model.")
    ] = False
    retry_failed: Annotated[
        bool, option("--retry-failed", panel=OUTPUT, help="Ask what ended in an error once more.")
    ] = False
    # Flags only: a config file that says how videos are looked at otherwise leaves the presets alone.
    fps: Annotated[
        float | None,
        typer.Option("--fps", rich_help_panel=VIDEO, help="Frames looked at per second of video [the preset]."),
    ] = None
    thin_above: Annotated[
        int | None,
        typer.Option(
            "--thin-above",
            rich_help_panel=VIDEO,
            help="Of n frames that are more, look at every (n // this)-th; 0: at all [the preset].",
        ),
    ] = None
    decoder: Annotated[
        Decoder, option("--decoder", panel=VIDEO, help="auto is the CPU; nvdec is the GPU's decoder, for H.264.")
    ] = Decoder.AUTO
    workers: Annotated[
        int, option("--workers", panel=VIDEO, help="Decode this many parts of the video at a time [one per core].")
    ] = 0
    max_new_tokens: Annotated[
        int | None,
        typer.Option("--max-new-tokens", rich_help_panel=ANSWER, help="Longest answer, in tokens [the preset: 5]."),
    ] = None

    def decoding(self) -> DecodingOptions:
        """As the library takes it."""
        return DecodingOptions(decoder=self.decoder, workers=self.workers)

    def part(self) -> Part:
        """Which questions, as the library takes it."""
        from longvu_cli.evaluation.benchmark import Part

        shard, _, shards = (self.shard or "1/1").partition("/")
        try:
            return Part(int(shard), int(shards), self.limit)
        except ValueError:
            raise UsageError(f"--shard {self.shard} is no part", hint="the second of four is 2/4") from None

    def tables(self, compression: CompressionFlags, subtitles: SubtitleChoice) -> tuple[TableName, ...]:
        """Of the paper, whose rows are run.

        Raises:
            UsageError: one is none, or something else says in which ways questions are asked.
        """
        if self.ablate is not None and subtitles is SubtitleChoice.BOTH:
            raise UsageError(
                "--ablate runs each row once, and --subtitles both everything twice",
                hint="run it with --subtitles auto and with none, each into a folder of its own",
            )
        return tables_named(self.ablate, compression.options())


def egoschema(
    output: Output,
    source: Source,
    folder: Folder,
    *,
    model: ModelFlags,
    questions: BenchmarkFlags,
    compression: CompressionFlags,
    cache: CacheFlags,
    engine: EngineFlags,
) -> int:
    """EgoSchema: `questions.json`, `subset_answers.json` and `good_clips_git/` (or `videos/`).

    The subset of 500 is scored; the paper's numbers are not of it alone. All answers are in `submission.csv` and
    `submission.json`, for the authors' server, with -1 for one that names no option.
    """
    from longvu_cli.evaluation.egoschema import EGOSCHEMA

    return _evaluate(output, EGOSCHEMA, source, folder, model, questions, compression, cache, engine)


def mvbench(
    output: Output,
    source: Source,
    folder: Folder,
    *,
    model: ModelFlags,
    questions: BenchmarkFlags,
    compression: CompressionFlags,
    cache: CacheFlags,
    engine: EngineFlags,
) -> int:
    """MVBench: `json/` with a file for each of its twenty tasks, and `video/` with their unpacked archives.

    Its revision "video", in which the parts that are asked about are files of their own, is read, too.
    """
    from longvu_cli.evaluation.mvbench import MVBENCH

    return _evaluate(output, MVBENCH, source, folder, model, questions, compression, cache, engine)


def videomme(
    output: Output,
    source: Source,
    folder: Folder,
    subtitles: Annotated[
        SubtitleChoice,
        # Not a variable: that of --subtitles elsewhere names a file.
        typer.Option("--subtitles", rich_help_panel=ANSWER, help="auto: where there are any; both: with and without."),
    ] = SubtitleChoice.AUTO,
    *,
    model: ModelFlags,
    questions: BenchmarkFlags,
    compression: CompressionFlags,
    cache: CacheFlags,
    engine: EngineFlags,
) -> int:
    """Video-MME: `videomme/test-00000-of-00001.parquet`, `data/` and `subtitle/`."""
    from longvu_cli.evaluation.videomme import VIDEOMME

    return _evaluate(output, VIDEOMME, source, folder, model, questions, compression, cache, engine, subtitles)


def mlvu(
    output: Output,
    source: Source,
    folder: Folder,
    *,
    model: ModelFlags,
    questions: BenchmarkFlags,
    compression: CompressionFlags,
    cache: CacheFlags,
    engine: EngineFlags,
) -> int:
    """MLVU (dev): `json/` with a file for each task, and `video/`. The score is the mean over the seven tasks."""
    from longvu_cli.evaluation.mlvu import MLVU

    return _evaluate(output, MLVU, source, folder, model, questions, compression, cache, engine)


def jsonl(
    output: Output,
    source: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="JSON lines with video, question, choices and answer (letter or text)."),
    ],
    folder: Folder,
    *,
    model: ModelFlags,
    questions: BenchmarkFlags,
    compression: CompressionFlags,
    cache: CacheFlags,
    engine: EngineFlags,
) -> int:
    """Questions of your own with options to choose from.

    Each line is an object: `{"video": "movie.mp4", "question": "What is red?", "choices": ["a hat", "a cup"],
    "answer": "B"}`; `id`, `start`, `end`, `subtitles` and `groups` (`{"task": "colours"}`) may be there.
    """
    from longvu_cli.evaluation.own_questions import OWN_QUESTIONS

    return _evaluate(
        output, OWN_QUESTIONS, source, folder, model, questions, compression, cache, engine, SubtitleChoice.AUTO
    )


def _evaluate(
    output: Output,
    benchmark: Benchmark,
    source: Path,
    folder: Path,
    model: ModelFlags,
    flags: BenchmarkFlags,
    compression: CompressionFlags,
    cache: CacheFlags,
    engine: EngineFlags,
    subtitles: SubtitleChoice = SubtitleChoice.NONE,
) -> int:
    require_file_locks("an evaluation")
    from longvu_cli.batch import Batch
    from longvu_cli.evaluation.benchmark import departures, manifest_of, missing_videos, plan
    from longvu_cli.evaluation.folder import EvaluationFolder
    from longvu_cli.evaluation.picture_folder import filmed
    from longvu_cli.evaluation.scoring import read_outcomes, report, report_record, write_report

    part, asked = flags.part(), flags.tables(compression, subtitles)
    variants = _variants(benchmark, flags, compression, subtitles)
    reading = benchmark.read(source)
    questions = part.of(reading.questions)
    for sentence in reading.left_out:
        output.note(sentence)
    if _has_numbers(benchmark) and (others := departures(benchmark.preset, variants[0].settings)):
        named = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in others.items())
        output.note(f"settings that are not those of the reference's script: {named}")
    kept = EvaluationFolder(folder)
    if flags.rescore:
        ablation = _ablation(asked, variants, kept.context_length)
        kept.require(benchmark, variants if ablation is None else ablation.noted)
        variants = variants if ablation is None else ablation.variants
        trials = plan(questions, variants)
    else:
        kept.make()
        if (gone := missing_videos(questions)) is not None:
            output.note(gone)
        with told_as_output(folder):
            questions = filmed(questions, kept.films)
        trials = plan(questions, variants)
        from longvu_cli.result_file import ResultFile

        with (
            ResultFile(kept.results) as opened,
            open_engine(
                f"eval {benchmark.name}",
                output,
                engine=engine,
                model=model,
                cache=cache,
                decoding=flags.decoding(),
                shared=True,
            ) as answering,
        ):
            context = answering.context_length
            ablation = _ablation(asked, variants, lambda: context)
            noted = variants if ablation is None else ablation.noted
            with told_as_output(folder):
                kept.begin(benchmark, answering.identity, context, noted)
            if ablation is not None:
                variants = ablation.variants
                trials = plan(questions, variants)
            teller = Teller(output)
            rows = manifest_of(benchmark, trials)
            work = Batch(rows, opened, engine=answering, on_progress=teller.progress, on_failure=teller.failure)
            with output.progress(), told_as_output(folder):
                work.run(retry_failed=flags.retry_failed)
    among = () if len(questions) == len(reading.questions) else plan(reading.questions, variants)
    made = report(benchmark, variants, trials, read_outcomes(trials, kept.results, among), ablation)
    with told_as_output(folder):
        write_report(made, folder)
    if output.options.json:
        output.record(report_record(made))
    else:
        output.print(*tables(made, output.width))
        _remark(made, output)
    output.note(f"results in {folder}")
    return SOME_FAILED if any(outcome.error is not None for outcome in made.outcomes) else OK


def _ablation(
    tables: tuple[TableName, ...], variants: tuple[Variant, ...], own_context: Callable[[], int]
) -> Ablation | None:
    """What the tables ask for, if there are some.

    Args:
        own_context: says which context the model has, if nobody asks for another.
    """
    from longvu_cli.evaluation.benchmark_ablation import Ablation

    if not tables:
        return None
    (variant,) = variants
    asked = variant.settings.compression.context_length
    return Ablation(tables, variant.settings, own_context() if asked is None else asked)


def _variants(
    benchmark: Benchmark, flags: BenchmarkFlags, compression: CompressionFlags, subtitles: SubtitleChoice
) -> tuple[Variant, ...]:
    from longvu_cli.evaluation.benchmark import Variant, settings_of

    def variant(name: str, reads: bool) -> Variant:
        return Variant(
            name,
            settings_of(
                benchmark.preset,
                compression.options(),
                fps=flags.fps,
                thin_above=flags.thin_above,
                max_new_tokens=flags.max_new_tokens,
                subtitles=reads,
            ),
        )

    if subtitles is SubtitleChoice.BOTH:
        return variant("without subtitles", False), variant("with subtitles", True)
    return (variant("", subtitles is SubtitleChoice.AUTO),)


def _remark(made: Report, output: Output) -> None:
    """What the table does not say by itself."""
    for asked, errors, unparsed in _wrong(made):
        for count, wrong in ((errors, "ended in an error"), (unparsed, "got an answer that names no option")):
            if count:
                output.note(f"{count} of {asked} {wrong}, and count as wrong")
    if made.unscored:
        output.note(f"{made.unscored} answers are not scored: the right ones are not known here")
    if made.missing and made.tables is None:
        output.note(f"{made.missing} questions have no answer yet")
    elif made.missing:
        output.note(f"{made.missing} answers are missing yet: the tables are about questions that have all of theirs")


def _wrong(made: Report) -> list[tuple[str, int, int]]:
    """What was asked, errors, and answers that name no option: of each way, or of all rows of an ablation together."""
    if made.tables is None:
        named = ((f" {score.variant}" if score.variant else "", score) for score in made.overall)
        return [(f"{score.questions} questions{name}", score.errors, score.unparsed) for name, score in named]
    asked, errors, unparsed = (sum(vars(score)[name] for score in made.overall) for name in _COUNTS)
    return [(f"{asked} trials", errors, unparsed)]


# --- tables ---------------------------------------------------------------------------------------------------------


def tables(made: Report, width: int) -> list[Table]:
    """Right answers in percent beside the numbers of the paper: by group and overall, or in the tables of the paper.

    Args:
        width: characters of a line.
    """
    from longvu_cli.evaluation.ablation import TABLES
    from longvu_cli.evaluation.published import models_of_paper
    from longvu_cli.evaluation.published_ablations import published_rows

    if made.tables is None:
        return [_fitting(made, variant, models_of_paper(made.model), width) for variant in made.variants]
    whole = "all" if made.benchmark.average_over is None else "mean"
    return [
        table
        for name, rows in made.tables.items()
        for table in ablation_tables(
            TABLES[name], rows, width=width, whole=whole, paper=published_rows(name, made.benchmark.name)
        )
    ]


def _fitting(made: Report, variant: Variant, models: Sequence[str], width: int) -> Table:
    """The table with all its columns where there is room for them; else without those that a remark has, too."""
    from rich.console import Console

    whole = _table(made, variant, models, brief=False)
    fits = Console(width=_ANY_WIDTH).measure(whole).maximum <= width
    return whole if fits else _table(made, variant, models, brief=True)


def _table(made: Report, variant: Variant, models: Sequence[str], *, brief: bool) -> Table:
    average = made.benchmark.average_over
    kinds = {score.group.kind for score in made.groups if score.group is not None}
    papers = [f"paper,{chr(10) if brief else ' '}{model}" for model in models] if _has_numbers(made.benchmark) else []
    counts = () if brief else _WRONG
    table = plain_table(
        made.benchmark.title, "asked" if brief else "questions", "right", "%", "95 % interval", *counts, *papers
    )
    # A name that is broken is still a name; one that is cut off may be another's.
    table.padding, table.columns[0].overflow = (0, 2, 0, 0), "fold"
    if variant.name:
        table.title, table.title_justify, table.title_style = variant.name, "left", "bold"
    for score in (*made.groups, *made.overall):
        if score.variant != variant.name:
            continue
        whole = "all" if average is None else f"mean over {average}s"
        group = score.group
        name = whole if group is None else group.name if len(kinds) == 1 else f"{group.kind} {group.name}"
        table.add_row(
            name,
            f"{score.questions:,}",
            f"{score.right:,}",
            f"{score.accuracy:.1%}",
            f"{score.interval.low:.1%} … {score.interval.high:.1%}",
            *(str(vars(score)[count]) for count in counts),
            *(_published(made, score, model, brief=brief) for model in models if papers),
        )
    return table


def _has_numbers(benchmark: Benchmark) -> bool:
    """Whether the paper has some of it."""
    from longvu_cli.evaluation.published import PUBLISHED

    return any(one.benchmark == benchmark.name for one in PUBLISHED)


def _published(made: Report, score: Score, model: str, *, brief: bool) -> str:
    from longvu_cli.evaluation.published import published

    numbers = published(model, made.benchmark.name, None if score.group is None else score.group.name)
    return "\n".join(f"{one.percent:g}" if brief else f"{one.percent:g} (Table {one.table})" for one in numbers)
