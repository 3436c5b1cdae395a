"""Multiple-choice questions about videos, whichever benchmark they are of, and how they are asked.

::

    read      a folder in the benchmark's public layout → questions    (a file per benchmark)
    settings  its preset, with what the user wants otherwise
    plan      questions × variants → trials, each a row of a batch
    scoring   what the batch answered → outcomes, scores, a report     (scoring.py)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from longvu_cli.config import CompressionOptions, GenerationOptions, PromptOptions, SamplingOptions
from longvu_cli.errors import BadBenchmark, UsageError
from longvu_cli.manifest import Manifest, Row, Settings
from longvu_cli.subtitles import AUTO


@dataclass(frozen=True)
class Group:
    """What some questions of a benchmark have in common.

    Attributes:
        kind: ``task``, ``duration`` …
        name: as the benchmark writes it.
    """

    kind: str
    name: str


@dataclass(frozen=True)
class Question:
    """A question with options.

    Attributes:
        id: tells it from the others of the benchmark.
        video: a file; or, where ``picture_rate`` is given, a folder with the frames of a video.
        text: without its options.
        choices: the options.
        put: as the model is asked, with its options.
        answer: the letter of the right option; None: the benchmark keeps it to itself.
        groups: that the question is counted in.
        start_s, end_s: seconds of the video that it is about; None: to the end.
        subtitles: their file, if the video has some.
        picture_rate: frames per second of a folder of pictures.
    """

    id: str
    video: Path
    text: str
    choices: tuple[str, ...]
    put: str
    answer: str | None
    groups: tuple[Group, ...] = ()
    start_s: float = 0.0
    end_s: float | None = None
    subtitles: Path | None = None
    picture_rate: float | None = None


@dataclass(frozen=True)
class Reading:
    """What the files of a benchmark hold.

    Attributes:
        left_out: what is not asked, in sentences for the user.
    """

    questions: tuple[Question, ...]
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Preset:
    """How the reference's script answers the questions of a benchmark. None stands for the checkpoint's own value.

    Attributes:
        thin_above: see :class:`~longvu_cli.config.SamplingOptions`.
        subtitles: whether they are read where there are any.
    """

    fps: float
    dino_threshold: float | None = None
    stc_threshold: float | None = None
    thin_above: int = 0
    max_new_tokens: int = 5
    subtitles: bool = False


@dataclass(frozen=True)
class Benchmark:
    """A benchmark of multiple-choice questions.

    Attributes:
        name: on the command line.
        title: as its authors write it.
        read: a folder (or file) in the benchmark's public layout → its questions. Raises ``BadBenchmark``.
        average_over: a kind of group: the overall accuracy is the mean over these groups; None: over all questions.
        submitted: whether its authors take answers that they score themselves (EgoSchema).
    """

    name: str
    title: str
    preset: Preset
    read: Callable[[Path], Reading]
    average_over: str | None = None
    submitted: bool = False


@dataclass(frozen=True)
class Variant:
    """A way to answer all questions.

    Attributes:
        name: tells it from others that are tried on the same questions; empty: there is one only.
        settings: of each answer, but for the range of time and the subtitles, which are the question's. Subtitles are
            read where these settings have ``auto`` for them.
    """

    name: str
    settings: Settings


@dataclass(frozen=True)
class Trial:
    """A question, asked in one way; its row is what a batch works off."""

    question: Question
    variant: Variant
    row: Row


@dataclass(frozen=True)
class Part:
    """Which of the questions are asked.

    Attributes:
        shard, shards: those of every ``shards``-th video, from the ``shard``-th on, which counts from 1.
        limit: so many questions, evenly spread over all of them, of which shards take theirs; None: all.
    """

    shard: int = 1
    shards: int = 1
    limit: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.shard <= self.shards:
            raise UsageError(
                f"--shard {self.shard}/{self.shards} is no part", hint="the parts of three are 1/3, 2/3 and 3/3"
            )
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"--limit {self.limit} leaves no question", hint="give 1 or more")

    def of(self, questions: Sequence[Question]) -> tuple[Question, ...]:
        """The questions of this part, in their order; those about one video stay together."""
        count = len(questions)
        taken = count if self.limit is None else min(self.limit, count)
        chosen = [questions[place * count // taken] for place in range(taken)]
        videos = {video: number for number, video in enumerate(dict.fromkeys(one.video for one in chosen))}
        return tuple(one for one in chosen if videos[one.video] % self.shards == self.shard - 1)


def settings_of(
    preset: Preset,
    compression: CompressionOptions,
    *,
    fps: float | None = None,
    thin_above: int | None = None,
    max_new_tokens: int | None = None,
    subtitles: bool | None = None,
) -> Settings:
    """The settings of a preset; what is given here, or by the thresholds of ``compression``, wins over it."""
    return Settings(
        sampling=SamplingOptions(
            fps=preset.fps if fps is None else fps, thin_above=preset.thin_above if thin_above is None else thin_above
        ),
        compression=replace(
            compression,
            dino_threshold=preset.dino_threshold if compression.dino_threshold is None else compression.dino_threshold,
            stc_threshold=preset.stc_threshold if compression.stc_threshold is None else compression.stc_threshold,
        ),
        generation=GenerationOptions(
            max_new_tokens=preset.max_new_tokens if max_new_tokens is None else max_new_tokens
        ),
        prompting=PromptOptions(subtitles=AUTO if (preset.subtitles if subtitles is None else subtitles) else None),
    )


def departures(preset: Preset, settings: Settings) -> dict[str, Any]:
    """What is done in another way than by the preset: option → value. Of subtitles, the reports tell."""
    usual = _values(settings_of(preset, CompressionOptions()))
    return {name: value for name, value in _values(settings).items() if value != usual[name] and name != "subtitles"}


def missing_videos(questions: Sequence[Question]) -> str | None:
    """A sentence about the videos that are not there; None: they all are."""
    videos = tuple(dict.fromkeys(question.video for question in questions))
    gone = [video for video in videos if not os.path.exists(video)]  # not Path's own, which raises for some names
    return f"{len(gone)} of {len(videos)} videos are not there; the first is {gone[0]}" if gone else None


def plan(questions: Sequence[Question], variants: Sequence[Variant]) -> tuple[Trial, ...]:
    """Every question in every way; the trials of a question are neighbours.

    Raises:
        BadBenchmark: the range of time of a question is none.
    """
    asked = [(question, variant) for question in questions for variant in variants]
    return tuple(
        Trial(
            question,
            variant,
            Row(
                number=number,
                id=f"{variant.name}: {question.id}" if variant.name else question.id,
                video=str(question.video),
                question=question.put,
                settings=_settings_for(question, variant),
            ),
        )
        for number, (question, variant) in enumerate(asked, 1)
    )


def manifest_of(benchmark: Benchmark, trials: Sequence[Trial]) -> Manifest:
    """The trials as rows of a batch."""
    return Manifest(name=f"eval {benchmark.name}", rows=tuple(trial.row for trial in trials), misfits=())


def _values(settings: Settings) -> dict[str, Any]:
    groups = (settings.sampling, settings.compression, settings.generation, settings.prompting)
    return {name: value for group in groups for name, value in asdict(group).items()}


def _settings_for(question: Question, variant: Variant) -> Settings:
    settings = variant.settings
    try:
        sampling = replace(settings.sampling, start_s=question.start_s, end_s=question.end_s)
    except UsageError as error:
        raise BadBenchmark(f"question {question.id!r}: {error}") from error
    reads = settings.prompting.subtitles is not None and question.subtitles is not None
    return replace(
        settings,
        sampling=sampling,
        prompting=replace(settings.prompting, subtitles=str(question.subtitles) if reads else None),
    )
