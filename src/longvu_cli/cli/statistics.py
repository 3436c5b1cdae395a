"""``longvu stats``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from longvu_cli.cli.answering import (
    SaveFrames,
    require_clips,
    require_folder,
    require_video,
    tell,
    tell_evidence,
    write_frames,
)
from longvu_cli.cli.errors import OK
from longvu_cli.cli.loading import load_model
from longvu_cli.cli.options import (
    AnswerFlags,
    CacheFlags,
    CompressionFlags,
    EvidenceFlags,
    ModelFlags,
    SummaryFlags,
    VideoFlags,
)
from longvu_cli.cli.output import Output
from longvu_cli.cli.questions import question_of
from longvu_cli.errors import UsageError


def stats(
    output: Output,
    video: Annotated[str, typer.Argument(help="A video file, or a picture.", metavar="VIDEO")],
    question: Annotated[
        str | None, typer.Argument(help="Compress for this question.", metavar="QUESTION", show_default=False)
    ] = None,
    save_frames: SaveFrames = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot",
            metavar="FILE.png",
            envvar="LONGVU_PLOT",
            show_envvar=False,
            rich_help_panel="Output",
            help="Draw the similarity, the relevance and the tokens into this picture.",
        ),
    ] = None,
    *,
    model: ModelFlags,
    moments: VideoFlags,
    compression: CompressionFlags,
    cache: CacheFlags,
    answer: AnswerFlags,
    evidence: EvidenceFlags,
    summary: SummaryFlags,
) -> int:
    """Show what the compression keeps of a video.

    Needs no language model: without a question none of its weights, with one only its embeddings. The options of the
    answer are those of `ask`, for the record; they do not change what is kept. With --evidence the moments that matter
    most for the question follow on stderr.
    """
    evidence.verify(output.options)
    if not summary.stats and not output.options.json:
        raise UsageError("--no-stats leaves `longvu stats` nothing to print", hint="add --json, or leave it out")
    question = None if question is None else question_of(question)
    if question is not None and not question.strip():
        raise UsageError("the question is empty", hint="leave it out to see what holds for every question")
    if question is None and evidence.wanted:
        raise UsageError("--evidence and --clip need a question", hint='add one: "Where is the cup?"')
    sampling, options, generation = moments.options(), compression.options(), answer.options()
    decoding = moments.decoding()
    require_video(video, sampling, decoding)
    require_folder(save_frames)
    require_clips(evidence.clip)
    if plot is not None:
        from longvu_cli.reporting.figure import require_figure

        require_figure(plot)
    loaded = load_model(model, "VISION" if question is None else "QUESTION", output, cache, decoding)
    from longvu_cli.cli.rendering import stats as rendered
    from longvu_cli.records import compression_record

    with output.progress():
        compressed = loaded.compress(
            video,
            question,
            sampling=sampling,
            compression=options,
            on_progress=output.on_progress,
        )
    tell(video, compressed, output)
    if save_frames is not None:
        write_frames(video, sampling, decoding, compressed.kept, save_frames, output)
    if plot is not None:
        from longvu_cli.reporting.figure import write_figure

        write_figure(compressed, plot)
        output.note(f"plot written: {plot}")
    if not output.options.json:
        output.print(rendered(compressed))
    found, clips = tell_evidence(video, compressed, evidence, decoding, output)
    output.record(compression_record("stats", compressed, generation, found, clips))
    return OK
