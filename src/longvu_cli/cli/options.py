"""The flags that commands share, once: groups of options that become dataclasses, and back into command parameters.

Each flag is also an environment variable ``LONGVU_<NAME>`` and a key of the config file; a flag wins over the
environment, and the environment over the config file.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from longvu_cli.cli.errors import run
from longvu_cli.cli.output import Output, OutputOptions
from longvu_cli.cli.text import spoken
from longvu_cli.config import (
    QUESTION_PLACE,
    Anchor,
    CompressionOptions,
    CoverageOptions,
    Decoder,
    DecodingOptions,
    DType,
    EngineName,
    FrameResolution,
    GenerationOptions,
    ModelOptions,
    Orientation,
    PromptOptions,
    Quantization,
    RecipeName,
    SamplingOptions,
    StillMode,
    TemporalReduction,
)
from longvu_cli.errors import UsageError
from longvu_cli.moments import USUAL_MOMENTS, seconds_of


def option(name: str, *more: str, help: str, panel: str, **settings: Any) -> Any:
    """An option ``--name`` with its environment variable, which makes it a key of the config file."""
    variable = f"LONGVU_{name.split('/')[0].removeprefix('--').replace('-', '_').upper()}"
    return typer.Option(name, *more, help=help, envvar=variable, show_envvar=False, rich_help_panel=panel, **settings)


def parse_time(text: str | float) -> float:
    """Seconds, or ``[hh:]mm:ss``, with decimals, as seconds. A number (a default, or of the config file) is seconds."""
    try:
        return seconds_of(str(text))
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is {error}") from None


MODEL, VIDEO, _COMPRESSION, ANSWER, OUTPUT = "Model", "Video", "Compression", "Answer", "Output"

SERVER = "Server"
ENGINE = "Engine"

# What a server asks for, and what a client shows.
Token = Annotated[
    str | None,
    option(
        "--token",
        panel=SERVER,
        help="What has to be shown to the server; better in the environment, where no list of processes has it.",
    ),
]

# Options of the model that commands without ``ModelFlags`` have, too.
Dinov2 = Annotated[str | None, option("--dinov2", panel=MODEL, help="DINOv2 tower: a hub repository or a folder.")]
Siglip = Annotated[str | None, option("--siglip", panel=MODEL, help="SigLIP tower: a hub repository or a folder.")]
Revision = Annotated[
    str | None, option("--revision", panel=MODEL, help="Branch, tag or commit of the model's repository.")
]
Device = Annotated[str, option("--device", panel=MODEL, help="auto, cuda, cuda:N, mps or cpu.")]
NumberFormat = Annotated[
    DType, option("--dtype", panel=MODEL, help="Number format; auto: bfloat16 on a GPU, float32 on a CPU.")
]


@dataclass(frozen=True)
class ModelFlags:
    """Which model."""

    model: Annotated[
        str,
        option(
            "--model",
            "-m",
            panel=MODEL,
            help="auto, 7b, 3b, 1b (with -image for stills), tiny (the demo's), a hub repository, or a folder. "
            "auto takes the largest that fits the free memory of the device.",
        ),
    ] = "auto"
    dinov2: Dinov2 = None
    siglip: Siglip = None
    revision: Revision = None
    offline: Annotated[bool, option("--offline", panel=MODEL, help="Use only what is on this machine.")] = False
    device: Device = "auto"
    dtype: NumberFormat = DType.AUTO
    quantize: Annotated[
        Quantization,
        option("--quantize", panel=MODEL, help="Store the language model's linear layers in 8 or 4 bits."),
    ] = Quantization.NONE
    compile: Annotated[
        bool,
        option("--compile", panel=MODEL, help="Compile layers before the first video: for many, or long ones."),
    ] = False

    def options(self) -> ModelOptions:
        """As the library takes them."""
        return ModelOptions(**vars(self))


@dataclass(frozen=True)
class VideoFlags:
    """Which moments of the video, and how they are decoded."""

    fps: Annotated[float, option("--fps", panel=VIDEO, help="Frames looked at per second of video.")] = 1.0
    start: Annotated[
        float,
        option("--start", panel=VIDEO, parser=parse_time, metavar="TIME", help="Begin here: seconds, or [hh:]mm:ss."),
    ] = 0.0
    end: Annotated[
        float | None,
        option("--end", panel=VIDEO, parser=parse_time, metavar="TIME", help="End before this time."),
    ] = None
    thin_above: Annotated[
        int,
        option(
            "--thin-above", panel=VIDEO, help="Of n frames that are more, look at every (n // this)-th [0: at all]."
        ),
    ] = 0
    decoder: Annotated[
        Decoder,
        option("--decoder", panel=VIDEO, help="auto is the CPU; nvdec is the GPU's decoder, for H.264."),
    ] = Decoder.AUTO
    workers: Annotated[
        int, option("--workers", panel=VIDEO, help="Decode this many parts of the video at a time [one per core].")
    ] = 0

    def options(self) -> SamplingOptions:
        """As the library takes them."""
        return SamplingOptions(fps=self.fps, start_s=self.start, end_s=self.end, thin_above=self.thin_above)

    def decoding(self) -> DecodingOptions:
        """How the frames are decoded, as the library takes it."""
        return DecodingOptions(decoder=self.decoder, workers=self.workers)


@dataclass(frozen=True)
class CompressionFlags:
    """How the video is compressed."""

    recipe: Annotated[
        RecipeName,
        option("--recipe", panel=_COMPRESSION, help="Numbers of the released code and weights, or of the paper."),
    ] = RecipeName.RELEASED
    orientation: Annotated[
        Orientation,
        option(
            "--orientation",
            panel=_COMPRESSION,
            help="Crop of a video's frames: as the released models were trained (they mix up width and height), "
            "or upright.",
        ),
    ] = Orientation.RELEASED
    context_length: Annotated[
        int | None,
        option("--context-length", panel=_COMPRESSION, help="Tokens for video, question and answer [model's own]."),
    ] = None
    dino_threshold: Annotated[
        float | None,
        option("--dino-threshold", panel=_COMPRESSION, help="Similarity from which a frame is dropped [model's own]."),
    ] = None
    stc_threshold: Annotated[
        float | None,
        option("--stc-threshold", panel=_COMPRESSION, help="Similarity from which a token is dropped [model's own]."),
    ] = None
    temporal_reduction: Annotated[
        TemporalReduction,
        option("--temporal-reduction", panel=_COMPRESSION, help="What decides which frames stay (paper, Table 3)."),
    ] = TemporalReduction.DINOV2
    anchor: Annotated[
        Anchor,
        option("--anchor", panel=_COMPRESSION, help="Frame that others are compared with (paper, Table 5)."),
    ] = Anchor.FIRST
    frame_position_encoding: Annotated[
        bool | None,
        option(
            "--frame-position-encoding/--no-frame-position-encoding",
            panel=_COMPRESSION,
            help="Tell the model each frame's time (paper, appendix B) [model's own].",
        ),
    ] = None
    still: Annotated[
        StillMode,
        option("--still", panel=_COMPRESSION, help="Give a picture as an image, or as a video of one frame."),
    ] = StillMode.IMAGE
    query_guided: Annotated[
        bool,
        option(
            "--query-guided/--no-query-guided",
            panel=_COMPRESSION,
            help="Full resolution for the frames that matter for the question, or for as many evenly spread "
            "(paper, Table 3).",
        ),
    ] = True
    spatial_compression: Annotated[
        bool,
        option(
            "--spatial-compression/--no-spatial-compression",
            panel=_COMPRESSION,
            help="Where there are too many tokens, drop those that look alike, or cut the end (paper, Table 3).",
        ),
    ] = True
    resolution: Annotated[
        FrameResolution,
        option(
            "--resolution",
            panel=_COMPRESSION,
            help="Read frames as fits and as the question asks for, or all at the same resolution (paper, Table 3).",
        ),
    ] = FrameResolution.AUTO

    def options(self) -> CompressionOptions:
        """As the library takes them."""
        return CompressionOptions(**vars(self))


@dataclass(frozen=True)
class ContextFlags:
    """What the prompt holds beside the question."""

    subtitles: Annotated[
        str | None,
        option(
            "--subtitles",
            panel=ANSWER,
            metavar="FILE|auto",
            help="Read subtitles (srt, vtt, ass) with the question; auto: beside the video, or a text track in it.",
        ),
    ] = None
    system: Annotated[str | None, option("--system", panel=ANSWER, help="System text [the released one].")] = None
    prompt_template: Annotated[
        str | None,
        option("--prompt-template", panel=ANSWER, help=f"Text around the question, with {QUESTION_PLACE} for it."),
    ] = None

    def options(self, choices: Sequence[str] = ()) -> PromptOptions:
        """As the library takes them."""
        return PromptOptions(
            system=None if self.system is None else spoken(self.system),
            prompt_template=None if self.prompt_template is None else spoken(self.prompt_template),
            choices=tuple(choices),
            subtitles=self.subtitles,
        )


@dataclass(frozen=True)
class ChoiceFlags:
    """Options to choose from."""

    choices: Annotated[
        str | None,
        option("--choices", panel=ANSWER, metavar="A|B|C", help="Options to choose from; the answer is a letter."),
    ] = None

    def texts(self) -> tuple[str, ...]:
        """The options, in their order."""
        return () if self.choices is None else tuple(spoken(part).strip() for part in self.choices.split("|"))


@dataclass(frozen=True)
class CoverageFlags:
    """Whether long videos are asked piece by piece."""

    coverage: Annotated[
        bool,
        option("--coverage", panel=ANSWER, help="Ask a video that is too long to be seen at once piece by piece."),
    ] = False

    def options(self) -> CoverageOptions:
        """As the library takes them."""
        return CoverageOptions(coverage=self.coverage)


@dataclass(frozen=True)
class CacheFlags:
    """Whether the features of videos are kept."""

    no_cache: Annotated[
        bool, option("--no-cache", panel=VIDEO, help="Neither use nor keep the features of the video.")
    ] = False


@dataclass(frozen=True)
class EngineFlags:
    """Who answers many questions."""

    engine: Annotated[
        EngineName,
        option(
            "--engine",
            panel=ENGINE,
            help="plain: one model, in this process; processes: several on this machine; ray: on a cluster, or here.",
        ),
    ] = EngineName.PLAIN
    processes: Annotated[
        str | None,
        option("--processes", panel=ENGINE, metavar="N|auto", help="So many models, of those engines [one per GPU]."),
    ] = None
    address: Annotated[
        str | None,
        option("--address", panel=ENGINE, metavar="HOST:PORT", help="Of a running Ray cluster; auto finds that here."),
    ] = None


@dataclass(frozen=True)
class ClientFlags:
    """Whether a server answers, instead of a model of this process."""

    server: Annotated[
        str | None,
        option(
            "--server", panel=SERVER, metavar="URL", help="Have a `longvu serve` answer, which has its model loaded."
        ),
    ] = None
    token: Token = None


@dataclass(frozen=True)
class AnswerFlags:
    """How the answer is generated."""

    max_new_tokens: Annotated[int, option("--max-new-tokens", panel=ANSWER, help="Longest answer, in tokens.")] = 128
    temperature: Annotated[float, option("--temperature", panel=ANSWER, help="0 always takes the likeliest token.")] = (
        0.0
    )
    top_p: Annotated[
        float, option("--top-p", panel=ANSWER, help="Sample among the likeliest tokens up to this probability.")
    ] = 1.0
    seed: Annotated[int | None, option("--seed", panel=ANSWER, help="Makes sampling repeatable.")] = None

    def options(self) -> GenerationOptions:
        """As the library takes them."""
        return GenerationOptions(**vars(self))


@dataclass(frozen=True)
class OutputFlags:
    """What is shown."""

    json: Annotated[bool, option("--json", panel=OUTPUT, help="Print one JSON object per video.")] = False
    quiet: Annotated[bool, option("--quiet", "-q", panel=OUTPUT, help="Say nothing on stderr but errors.")] = False
    verbose: Annotated[
        bool, option("--verbose", "-v", panel=OUTPUT, help="Say more: which model, where from, tracebacks of bugs.")
    ] = False


@dataclass(frozen=True)
class SummaryFlags:
    """Whether the summary follows the answer."""

    stats: Annotated[
        bool, option("--stats/--no-stats", panel=OUTPUT, help="The compression summary after the answer.")
    ] = True


_EVIDENCE = "--evidence"


@dataclass(frozen=True)
class EvidenceFlags:
    """Which moments an answer rests on, and clips of them."""

    evidence: Annotated[
        int | None,
        option(
            _EVIDENCE,
            panel=OUTPUT,
            metavar="[N]",
            min=1,
            help=f"List the N moments [{USUAL_MOMENTS}] with the highest relevance, and what was not seen.",
        ),
    ] = None
    clip: Annotated[
        Path | None,
        option("--clip", panel=OUTPUT, metavar="DIR", help="Write a short clip of each of these moments there."),
    ] = None

    @property
    def wanted(self) -> bool:
        """Whether evidence is asked for."""
        return self.evidence is not None or self.clip is not None

    @property
    def moments(self) -> int:
        """How many moments."""
        return USUAL_MOMENTS if self.evidence is None else self.evidence

    def verify(self, output: OutputOptions) -> None:
        """Refuse what would show nothing to anybody."""
        if self.evidence is not None and output.quiet and not output.json:
            raise UsageError("--quiet leaves --evidence nothing to say", hint="leave one of them out, or add --json")


def with_usual_values(arguments: Sequence[str]) -> list[str]:
    """Give options their value where it was left out, which Typer's cannot be: ``--evidence``, by a number only."""
    completed: list[str] = []
    for number, word in enumerate(arguments):
        if word == "--":
            return [*completed, *arguments[number:]]
        following = arguments[number + 1] if number + 1 < len(arguments) else ""
        bare = word == _EVIDENCE and not following.lstrip("-").isdecimal()
        completed.append(f"{word}={USUAL_MOMENTS}" if bare else word)
    return completed


Body = Callable[..., int]


def with_flags(body: Body) -> Callable[..., None]:
    """Make a Typer command of a function ``body(output, …, flags: SomeFlags, …) -> exit code``.

    A parameter whose type is one of the dataclasses above becomes its fields' options; the others stay as they are.
    The body runs inside the one place that turns errors into sentences and exit codes.
    """
    hints = get_type_hints(body, include_extras=True)
    groups: dict[str, type[Any]] = {}
    parameters: list[inspect.Parameter] = []
    for name, parameter in list(inspect.signature(body).parameters.items())[1:]:
        hint = hints[name]
        if is_dataclass(hint) and isinstance(hint, type):
            groups[name] = hint
            parameters += _as_parameters(hint)
        else:
            parameters.append(parameter.replace(annotation=hint, kind=inspect.Parameter.KEYWORD_ONLY))
    parameters += _as_parameters(OutputFlags)

    @functools.wraps(body)
    def command(**values: Any) -> None:
        flags = {name: _taken(group, values) for name, group in groups.items()}
        shown = vars(_taken(OutputFlags, values))
        with_stats = {key: vars(group)[key] for group in flags.values() for key in vars(group) if key == "stats"}
        output = Output(OutputOptions(**shown, **with_stats))

        def checked() -> int:
            output.options.verify()
            return body(output, **values, **flags)

        code = run(output, checked)
        raise typer.Exit(code)

    vars(command)["__signature__"] = inspect.Signature(parameters)
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    del vars(command)["__wrapped__"]
    return command


def _as_parameters(group: type[Any]) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name]
        )
        for field in fields(group)
    ]


def _taken(group: type[Any], values: dict[str, Any]) -> Any:
    """Take a group's fields out of the command's values."""
    return group(**{field.name: values.pop(field.name) for field in fields(group)})
