"""``longvu report``."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from longvu_cli.cli.answering import require_video, tell
from longvu_cli.cli.errors import OK
from longvu_cli.cli.loading import load_model
from longvu_cli.cli.options import AnswerFlags, CacheFlags, CompressionFlags, ModelFlags, VideoFlags
from longvu_cli.cli.output import Output
from longvu_cli.cli.text import spoken
from longvu_cli.config import GenerationOptions
from longvu_cli.errors import UsageError

if TYPE_CHECKING:
    from longvu_cli.longvu import LongVU
    from longvu_cli.records import Record
    from longvu_cli.results import Answer, Compression


def report(
    output: Output,
    video: Annotated[str, typer.Argument(help="A video file, or a picture.", metavar="VIDEO")],
    questions: Annotated[
        list[str] | None, typer.Argument(help="What you want to know.", metavar="QUESTION...", show_default=False)
    ] = None,
    target: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            envvar="LONGVU_OUTPUT",
            show_envvar=False,
            rich_help_panel="Output",
            help="The HTML file; a report that is there is replaced, any other file is not.",
        ),
    ] = Path("report.html"),
    *,
    model: ModelFlags,
    moments: VideoFlags,
    compression: CompressionFlags,
    cache: CacheFlags,
    answer: AnswerFlags,
) -> int:
    """Write an HTML page about a video: answers, the moments they rest on, and what was kept.

    One file that needs no network and runs no script. The answers go to stdout, too. Without a question the page shows
    what the compression keeps, and needs no language model.
    """
    from longvu_cli.reporting.page import page, pictures_wanted, require_own_page, write_page
    from longvu_cli.reporting.thumbnails import chosen_frames, thumbnails

    asked = [_question(text) for text in questions or []]
    sampling, decoding = moments.options(), moments.decoding()
    require_own_page(target)
    require_video(video, sampling, decoding)
    with ExitStack() as stack:
        if cache.no_cache:
            # The video is watched once for all questions, and nothing of it is left.
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="longvu-")))
            loaded = load_model(
                model,
                "ANSWER" if asked else "VISION",
                output,
                replace(cache, no_cache=False),
                decoding,
                features=scratch,
            )
        else:
            loaded = load_model(model, "ANSWER" if asked else "VISION", output, cache, decoding)
        answers = [
            _answer(loaded, video, text, moments, compression, answer, output, first=number == 0)
            for number, text in enumerate(asked)
        ]
        compressions = [one.compression for one in answers] or [
            _compressed(loaded, video, moments, compression, output)
        ]
    tell(video, compressions[0], output)
    kept, peaks = pictures_wanted(compressions)
    pictures = thumbnails(video, sampling, chosen_frames(kept, peaks), decoding)
    made = f"{datetime.now().astimezone():%Y-%m-%d %H:%M}"
    write_page(page(answers or compressions, pictures, made=made), target)
    output.note(f"report written: {target}")
    for record in _records(answers, compressions, answer.options()):
        output.record({**record, "report": str(target)})
    return OK


def _question(text: str) -> str:
    question = spoken(text)
    if not question.strip():
        raise UsageError("a question is empty", hint="leave it out for a report without answers")
    return question


def _answer(
    loaded: LongVU,
    video: str,
    question: str,
    moments: VideoFlags,
    compression: CompressionFlags,
    flags: AnswerFlags,
    output: Output,
    *,
    first: bool,
) -> Answer:
    output.question(question, first=first)
    answer: Answer | None = None
    with output.progress():
        for chunk in loaded.stream(
            video,
            question,
            sampling=moments.options(),
            compression=compression.options(),
            generation=flags.options(),
            on_progress=output.on_progress,
        ):
            output.stop_progress()
            output.answer_text(chunk.text)
            answer = chunk.answer
    assert answer is not None, "the last chunk carries the answer"
    output.answer_end()
    return answer


def _compressed(
    loaded: LongVU, video: str, moments: VideoFlags, compression: CompressionFlags, output: Output
) -> Compression:
    with output.progress():
        return loaded.compress(
            video, sampling=moments.options(), compression=compression.options(), on_progress=output.on_progress
        )


def _records(
    answers: Sequence[Answer], compressions: Sequence[Compression], generation: GenerationOptions
) -> Iterator[Record]:
    from longvu_cli.records import answer_record, compression_record

    if not answers:
        yield compression_record("report", compressions[0], generation)
    for answer in answers:
        yield answer_record("report", answer)
