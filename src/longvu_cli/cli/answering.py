"""``longvu ask`` and ``longvu describe``."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from longvu_cli.cli.errors import OK, SOME_FAILED, exit_code
from longvu_cli.cli.loading import load_model
from longvu_cli.cli.options import (
    AnswerFlags,
    CacheFlags,
    ChoiceFlags,
    ClientFlags,
    CompressionFlags,
    ContextFlags,
    CoverageFlags,
    EvidenceFlags,
    ModelFlags,
    SummaryFlags,
    VideoFlags,
)
from longvu_cli.cli.output import Output
from longvu_cli.cli.questions import question_of
from longvu_cli.config import CompressionOptions, DecodingOptions, GenerationOptions, PromptOptions, SamplingOptions
from longvu_cli.errors import LongVUError, UsageError

if TYPE_CHECKING:
    from longvu_cli.evidence import Evidence
    from longvu_cli.longvu import LongVU
    from longvu_cli.results import Answer, Compression

SaveFrames = Annotated[
    Path | None,
    typer.Option(
        "--save-frames",
        metavar="DIR",
        envvar="LONGVU_SAVE_FRAMES",
        show_envvar=False,
        rich_help_panel="Output",
        help="Write the kept frames to this folder, as 000012.png by their number among the sampled frames.",
    ),
]


Settings = tuple[SamplingOptions, CompressionOptions, PromptOptions, GenerationOptions]
_NO_EVIDENCE = EvidenceFlags()


def ask(
    output: Output,
    video: Annotated[str, typer.Argument(help="A video file, or a picture.", metavar="VIDEO")],
    question: Annotated[str, typer.Argument(help="What you want to know.", metavar="QUESTION")],
    save_frames: SaveFrames = None,
    *,
    given: typer.Context,
    client: ClientFlags,
    model: ModelFlags,
    moments: VideoFlags,
    compression: CompressionFlags,
    cache: CacheFlags,
    answer: AnswerFlags,
    context: ContextFlags,
    choice: ChoiceFlags,
    covering: CoverageFlags,
    evidence: EvidenceFlags,
    summary: SummaryFlags,
) -> int:
    """Answer a question about a video.

    The answer streams to stdout; a summary of what was kept of the video follows on stderr, with --evidence after the
    moments that matter most for the question, and what the model did not see. QUESTION may be @FILE, or @- for stdin.

    With --coverage, a video of which frames or tokens would have to go for lack of room is asked piece by piece; the
    answer is that of the piece whose best frame is most relevant for the question, and the others are told on stderr.

    With --server, a `longvu serve` answers: nothing is loaded here. A server on this machine reads the video itself if
    it may; else it is uploaded for the answer. What was not set here is as the server has it.
    """
    evidence.verify(output.options)
    question = question_of(question)
    if not question.strip():
        raise UsageError("the question is empty", hint="use `longvu describe` for a description")
    settings = moments.options(), compression.options(), context.options(choice.texts()), answer.options()
    if client.server is not None:
        from longvu_cli.cli.remote import ask_server

        return ask_server(client.server, client.token, video, question, given, output)
    refuse_token_alone(given)
    require_video(video, settings[0], moments.decoding())
    refuse_frames_of_segments(save_frames, covering)
    require_folder(save_frames)
    require_clips(evidence.clip)
    loaded = load_model(model, "ANSWER", output, cache, moments.decoding())
    if covering.coverage:
        from longvu_cli.cli.covering import answer_segments

        return answer_segments(
            loaded, "ask", video, question, settings, moments, output, evidence, merge_by="relevance"
        )
    _answer(loaded, "ask", video, question, settings, moments, save_frames, output, evidence)
    return OK


def describe(
    output: Output,
    videos: Annotated[list[str], typer.Argument(help="Video files, or pictures.", metavar="VIDEO...")],
    save_frames: SaveFrames = None,
    *,
    model: ModelFlags,
    moments: VideoFlags,
    compression: CompressionFlags,
    cache: CacheFlags,
    answer: AnswerFlags,
    context: ContextFlags,
    covering: CoverageFlags,
    summary: SummaryFlags,
) -> int:
    """Describe each video.

    The model is loaded once for all. With several videos, a line `==> VIDEO <==` goes before each description; one
    that cannot be read is reported, the others go on, and the exit code is 6. With --save-frames, several videos have
    a folder each, named by their number. With --coverage, a video that is too long to be seen at once is described
    piece by piece.
    """
    settings = moments.options(), compression.options(), context.options(), answer.options()
    if len(videos) == 1:
        require_video(videos[0], settings[0], moments.decoding())
    refuse_frames_of_segments(save_frames, covering)
    require_folder(save_frames)
    loaded = load_model(model, "ANSWER", output, cache, moments.decoding())
    from longvu_cli.prompt import DESCRIBE

    # Codes, not errors: an error's traceback would keep the tensors of a video that did not fit.
    failures: list[int] = []
    some_failed = False
    for number, video in enumerate(videos):
        if len(videos) > 1:
            output.answer_heading(video, first=number == 0)
        try:
            folder = save_frames / f"{number + 1:04}" if save_frames is not None and len(videos) > 1 else save_frames
            if covering.coverage:
                some_failed |= _describe_segments(loaded, video, settings, moments, output) == SOME_FAILED
            else:
                _answer(loaded, "describe", video, DESCRIBE, settings, moments, folder, output)
        except LongVUError as error:
            failures.append(exit_code(error))
            output.error(error, path=video if len(videos) > 1 else None)
    if some_failed or (failures and len(videos) > 1):
        return SOME_FAILED
    return failures[0] if failures else OK


def _describe_segments(loaded: LongVU, video: str, settings: Settings, moments: VideoFlags, output: Output) -> int:
    from longvu_cli.cli.covering import answer_segments
    from longvu_cli.prompt import DESCRIBE

    return answer_segments(
        loaded, "describe", video, DESCRIBE, settings, moments, output, _NO_EVIDENCE, merge_by="order"
    )


def require_video(video: str, sampling: SamplingOptions, decoding: DecodingOptions) -> None:
    """Notice a file that cannot be read before the model is loaded, which may take minutes."""
    from longvu_cli.video import Video

    Video(video, sampling, decoding).close()


def refuse_token_alone(given: typer.Context) -> None:
    """A token that is shown to nobody; in the environment it may stand for when there is a server."""
    source = given.get_parameter_source("token")
    if source is not None and source.name == "COMMANDLINE":
        raise UsageError("--token is for --server, which is not there", hint="name the server, too")


def tell(video: str, compression: Compression, output: Output) -> None:
    """What may make a result less than it seems."""
    tell_warnings(video, compression.video.warnings, compression.notices, output)


def tell_warnings(video: str, warnings: Sequence[str], notices: Sequence[str], output: Output) -> None:
    """The same, of its sentences."""
    for warning in warnings:
        output.warning(f"{video}: {warning}")
    for notice in notices:
        output.warning_once(notice)


def tell_choice(text: str, choice: str | None, output: Output, *, has_choices: bool) -> None:
    """Which of the options an answer means, where it is more than a letter, or none."""
    if has_choices and choice is None:
        output.warning("the answer names none of the options")
    elif choice is not None and text.strip(" ().:") != choice:
        output.note(f"the answer is option {choice}")


def require_folder(folder: Path | None) -> None:
    """Make the folder for the frames, or notice that it cannot be made, before there is anything to lose."""
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"--save-frames {folder} is no folder that can be written to: {error.strerror}", hint="name another folder"
        ) from error


def refuse_frames_of_segments(folder: Path | None, covering: CoverageFlags) -> None:
    """Frames are numbered within a segment: those of several would have the same names."""
    if folder is not None and covering.coverage:
        raise UsageError(
            "--save-frames and --coverage do not go together", hint="save those of a part with --start and --end"
        )


def write_frames(
    video: str,
    sampling: SamplingOptions,
    decoding: DecodingOptions,
    kept: Collection[int],
    folder: Path,
    output: Output,
) -> None:
    """Write the kept frames, and say where they are."""
    from longvu_cli.video import save_frames

    written = save_frames(video, sampling, kept, folder, decoding)
    output.note(f"{len(written)} frames written to {folder}")


def require_clips(folder: Path | None) -> None:
    """The same for clips."""
    if folder is not None:
        from longvu_cli.clips import require_clip_folder

        require_clip_folder(folder)


def tell_evidence(
    video: str, compression: Compression, wanted: EvidenceFlags, decoding: DecodingOptions, output: Output
) -> tuple[Evidence, list[Path]]:
    """Say what a result rests on, and write clips of it, as far as that is wanted.

    Returns:
        The evidence, and the clips of its moments.
    """
    from longvu_cli.cli.rendering import evidence_told

    found = compression.evidence(wanted.moments)
    if wanted.wanted:
        output.explanation(evidence_told(compression, found), "")
    if wanted.clip is None:
        return found, []
    if compression.video.is_still:
        output.warning(f"{video}: a picture has no clips")
        return found, []
    from longvu_cli.clips import write_clip

    clips = [write_clip(video, moment, wanted.clip, decoding) for moment in found.moments]
    for clip in clips:
        output.note(f"clip written: {clip}")
    return found, clips


def _answer(
    loaded: LongVU,
    command: str,
    video: str,
    question: str,
    settings: Settings,
    moments: VideoFlags,
    frames_to: Path | None,
    output: Output,
    wanted: EvidenceFlags = _NO_EVIDENCE,
) -> None:
    """Stream one answer, then say what it rests on. The record comes last: it says that all went well."""
    from longvu_cli.cli.rendering import summary
    from longvu_cli.records import answer_record

    sampling, compression, prompting, generation = settings
    answer: Answer | None = None
    with output.progress():
        for chunk in loaded.stream(
            video,
            question,
            sampling=sampling,
            compression=compression,
            prompting=prompting,
            generation=generation,
            on_progress=output.on_progress,
        ):
            output.stop_progress()
            output.answer_text(chunk.text)
            answer = chunk.answer
    assert answer is not None, "the last chunk carries the answer"
    output.answer_end()
    tell(video, answer.compression, output)
    tell_choice(answer.text, answer.choice, output, has_choices=bool(prompting.choices))
    if frames_to is not None:
        write_frames(video, sampling, moments.decoding(), answer.compression.kept, frames_to, output)
    found, clips = tell_evidence(video, answer.compression, wanted, moments.decoding(), output)
    output.summary(summary(answer.compression))
    output.record(answer_record(command, answer, found, clips))
