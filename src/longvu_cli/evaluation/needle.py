"""The needle test (paper, Figure 7 and appendix D): a card that is shown for one second somewhere in a long video.

The question is what was on it. Each video is asked about once per method, so that methods are compared on the same
videos. Answers are kept in a file as they come: a run that was cut off goes on where it was, and several processes
share the work.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from longvu_cli.config import (
    RELEASED_FRAME_CAP,
    CompressionOptions,
    GenerationOptions,
    SamplingOptions,
    TemporalReduction,
)
from longvu_cli.errors import UsageError
from longvu_cli.evaluation.proportions import Interval, PairedDifference, paired_difference, wilson
from longvu_cli.manifest import Settings
from longvu_cli.records import SCHEMA_VERSION, Record
from longvu_cli.result_file import ResultFile
from longvu_cli.results import Answer, ModelInfo
from longvu_cli.whole_file import whole_file

COMMAND = "eval needle"
# Haystacks are sampled at the rate at which they are drawn: one frame per second.
SAMPLING = SamplingOptions(fps=1.0)
# Raised when the same settings come to other videos or questions.
_FORMAT = 1
# Needles of other videos whose answers are tried on each question, for the level of chance, and the videos' length.
_OTHERS, _OTHER_SECONDS = 64, 60
# The times of frames are rounded in a file.
_CLOSE_S = 1e-3


class Method(StrEnum):
    """What the compression does, and what it leaves out."""

    DEFAULT = "default"
    WITHOUT_STC = "without-stc"
    WITHOUT_QUERY = "without-query"
    UNIFORM = "uniform"

    def applied(self, compression: CompressionOptions) -> CompressionOptions:
        """The settings, with what this method changes."""
        if self is Method.WITHOUT_STC:
            return replace(compression, spatial_compression=False)
        if self is Method.WITHOUT_QUERY:
            return replace(compression, query_guided=False)
        if self is Method.UNIFORM:
            return replace(compression, temporal_reduction=TemporalReduction.UNIFORM)
        return compression

    def sampling(self, frames: int) -> SamplingOptions:
        """When a video is looked at: uniform sampling spreads as many frames as any method keeps over a longer one."""
        if self is Method.UNIFORM and frames > RELEASED_FRAME_CAP:
            return replace(SAMPLING, fps=RELEASED_FRAME_CAP / frames)
        return SAMPLING


@dataclass(frozen=True)
class NeedleOptions:
    """What is tried.

    Attributes:
        frames: lengths of the videos, in frames that are looked at, which are seconds.
        depths: how many places of the needle, evenly from the first frame to the last.
        trials: videos per length and depth, each with a haystack and a needle of its own.
        long_from: frames from which a video is long; the longest are where none reaches it.
        compression: what the methods change.
    """

    frames: tuple[int, ...] = (100, 200, 400, 800, 1600, 3600)
    depths: int = 10
    trials: int = 3
    methods: tuple[Method, ...] = tuple(Method)
    seed: int = 0
    long_from: int = 1000
    compression: CompressionOptions = field(default_factory=CompressionOptions)
    generation: GenerationOptions = field(default_factory=lambda: GenerationOptions(max_new_tokens=16))

    def __post_init__(self) -> None:
        if not self.frames or min(self.frames) < 2:
            raise UsageError("--frames needs lengths of 2 or more", hint="give them as 100,200,400")
        if not self.methods:
            raise UsageError("--methods names none", hint=f"known are {', '.join(Method)}")
        for flag, values in (("--frames", self.frames), ("--methods", self.methods)):
            if len(set(values)) < len(values):
                raise UsageError(f"{flag} has a value twice", hint="name each once")
        for flag, value in (("--depths", self.depths), ("--trials", self.trials)):
            if value < 1:
                raise UsageError(f"{flag} {value} is no positive number", hint="give 1 or more")
        if not (self.compression.query_guided and self.compression.spatial_compression):
            raise UsageError(
                "the needle test itself leaves out steps of the compression", hint="name them with --methods"
            )

    @property
    def depth_values(self) -> tuple[float, ...]:
        """Places of the needle, from 0 to 1; a single one is the middle."""
        if self.depths == 1:
            return (0.5,)
        return tuple(index / (self.depths - 1) for index in range(self.depths))

    @property
    def long_frames(self) -> tuple[int, ...]:
        """The lengths that count as long."""
        return tuple(sorted(length for length in self.frames if length >= min(self.long_from, max(self.frames))))


@dataclass(frozen=True)
class Spot:
    """A place in the grid, which is a video.

    Attributes:
        depth: where the needle is, from 0 to 1.
        seed: decides what is in the video, and what the needle is.
    """

    frames: int
    depth: float
    trial: int
    seed: int


@dataclass(frozen=True)
class Outcome:
    """A question that was answered.

    Attributes:
        key: identifies the question, the model and the settings.
        chance: share of other needles' answers that would have been right.
        needle_tokens: visual tokens of the frames that show the needle, as the language model read them.
        seconds: that it took.
    """

    key: str
    method: Method
    frames: int
    depth: float
    trial: int
    seed: int
    question: str
    expected: str
    answer: str
    right: bool
    chance: float
    sampled: int
    kept: int
    regime: str
    visual_tokens: int
    truncated_tokens: int
    needle_tokens: int
    seconds: float


@dataclass(frozen=True)
class Score:
    """Right answers of a method, of all its questions or of those of one length or depth.

    Attributes:
        seen: questions for which the language model read anything of the needle's frame.
    """

    method: Method
    frames: int | None
    depth: float | None
    right: int
    trials: int
    seen: int

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return self.right / self.trials

    @property
    def interval(self) -> Interval:
        """What the share may be with more trials: 95 %, by Wilson."""
        return wilson(self.right, self.trials)


@dataclass(frozen=True)
class Comparison:
    """How much better the default is than another method on the long videos."""

    method: Method
    frames: tuple[int, ...]
    paired: PairedDifference


@dataclass(frozen=True)
class NeedleReport:
    """What came out.

    Attributes:
        overall: a score per method.
        by_frames: a score per method and length.
        cells: a score per method, length and depth.
        chance: share of right answers when each question gets the answer of another needle.
    """

    options: NeedleOptions
    model: ModelInfo
    overall: tuple[Score, ...]
    by_frames: tuple[Score, ...]
    cells: tuple[Score, ...]
    comparisons: tuple[Comparison, ...]
    chance: float


class Needle(Protocol):
    """The question about a card."""

    @property
    def text(self) -> str:
        """As it is asked."""

    @property
    def answer(self) -> str:
        """The right answer."""

    @property
    def evidence(self) -> tuple[tuple[float, float], ...]:
        """(start, end) seconds of when the card is shown."""


class Hidden(Protocol):
    """A needle in its spot, which is not drawn yet."""

    @property
    def needle(self) -> Needle:
        """The question."""

    def film(self, path: Path) -> None:
        """Write the video, one frame per second."""

    def is_right(self, answer: str) -> bool:
        """Whether an answer names the needle."""


# Seed, seconds and depth → a needle in its spot.
Hide = Callable[[int, int, float], Hidden]


class Answering(Protocol):
    """What the test needs of a model; :class:`~longvu_cli.longvu.LongVU` has it."""

    @property
    def info(self) -> ModelInfo:
        """Which model it is."""

    @property
    def identity(self) -> str:
        """Tells its answers from another model's."""

    def answer(
        self,
        video: str | Path,
        question: str,
        *,
        sampling: SamplingOptions | None = None,
        compression: CompressionOptions | None = None,
        generation: GenerationOptions | None = None,
        on_progress: Callable[[str, int, int | None], None] = ...,
    ) -> Answer:
        """Answer a question about a video."""


Progress = Callable[[str, int, int | None], None]


def _unheard(*_: object) -> None:
    """The default of every callback."""


# --- plan -----------------------------------------------------------------------------------------------------------


def plan(options: NeedleOptions) -> tuple[Spot, ...]:
    """The videos, in the order in which they are made: the whole grid once before anything is tried again."""
    return tuple(
        Spot(frames, depth, trial, _seed(options.seed, frames, depth, trial))
        for trial in range(options.trials)
        for frames in sorted(options.frames)
        for depth in options.depth_values
    )


def _seed(*facts: float) -> int:
    return int.from_bytes(_digest(facts)[:4])


def _digest(facts: object) -> bytes:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).digest()


# --- run ------------------------------------------------------------------------------------------------------------


class NeedleTest:
    """Runs the grid.

    Args:
        hide: makes haystacks.
        results: file of the outcomes, which those of earlier runs are taken from.
        folder: where videos lie while they are asked about, one at a time.
        on_progress: called with ``questions``, how many are answered, and how many there are; also with what the model
            is at.
    """

    def __init__(
        self,
        options: NeedleOptions,
        model: Answering,
        hide: Hide,
        *,
        results: Path,
        folder: Path,
        on_progress: Progress = _unheard,
    ) -> None:
        self._options = options
        self._model = model
        self._hide = hide
        self._results = results
        self._folder = folder
        self._on_progress = on_progress
        self._others: tuple[str, ...] = ()

    def run(self) -> NeedleReport:
        """Ask what has not been asked yet, and sum up.

        Raises:
            UsageError: the file of the outcomes is something else, or a video cannot be written.
            LongVUError: the model cannot answer.
        """
        spots = plan(self._options)
        wanted = {self._key(spot, method): None for spot in spots for method in self._options.methods}
        with ResultFile(self._results) as file:
            read_outcomes(file.path)  # what is no outcome is noticed before there is any work
            # Those that another process is at come last, when it may have finished them.
            for wait in (False, True):
                for spot in spots:
                    self._tell(file, wanted)
                    if self._missing(file, spot) and file.claim(claim := _hex(asdict(spot)), wait=wait):
                        try:
                            self._ask(file, spot, wanted)
                        finally:
                            file.release(claim)
            self._tell(file, wanted)
            found = read_outcomes(file.path)
        return report(self._options, self._model.info, [found[key] for key in wanted])

    def _key(self, spot: Spot, method: Method) -> str:
        compression = method.applied(self._options.compression)
        settings = Settings(method.sampling(spot.frames), compression, self._options.generation)
        facts = [_FORMAT, self._model.identity, asdict(spot), method.value, settings.changed()]
        return _hex(facts)

    def _missing(self, file: ResultFile, spot: Spot) -> list[Method]:
        return [method for method in self._options.methods if self._key(spot, method) not in file.entries]

    def _tell(self, file: ResultFile, wanted: Mapping[str, None]) -> None:
        self._on_progress("questions", len(wanted.keys() & file.entries.keys()), len(wanted))

    def _ask(self, file: ResultFile, spot: Spot, wanted: Mapping[str, None]) -> None:
        """One video, with each method that lacks an answer; the first to come leaves its features to the others."""
        missing = self._missing(file, spot)
        if not missing:  # another process was quicker
            return
        hidden = self._hide(spot.seed, spot.frames, spot.depth)
        video = self._folder / "haystack.mp4"
        try:
            try:
                hidden.film(video)
            except OSError as error:
                raise UsageError(
                    f"the videos cannot be written to {self._folder}: {error.strerror}",
                    hint="TMPDIR names another folder for them",
                ) from error
            for method in missing:
                outcome = self._outcome(spot, method, hidden, video)
                file.append({"schema_version": SCHEMA_VERSION, "command": COMMAND, **asdict(outcome)})
                self._tell(file, wanted)
        finally:
            video.unlink(missing_ok=True)

    def _outcome(self, spot: Spot, method: Method, hidden: Hidden, video: Path) -> Outcome:
        needle = hidden.needle
        answer = self._model.answer(
            video,
            needle.text,
            sampling=method.sampling(spot.frames),
            compression=method.applied(self._options.compression),
            generation=self._options.generation,
            on_progress=self._on_progress,
        )
        statistics = answer.compression.statistics
        return Outcome(
            key=self._key(spot, method),
            method=method,
            frames=spot.frames,
            depth=spot.depth,
            trial=spot.trial,
            seed=spot.seed,
            question=needle.text,
            expected=needle.answer,
            answer=answer.text,
            right=hidden.is_right(answer.text),
            chance=self._chance(hidden),
            sampled=statistics.frames.sampled,
            kept=statistics.frames.kept,
            regime=statistics.regime.value,
            visual_tokens=statistics.tokens.visual,
            truncated_tokens=statistics.truncated_tokens,
            needle_tokens=_needle_tokens(needle, answer),
            seconds=answer.compression.timing.total,
        )

    def _chance(self, hidden: Hidden) -> float:
        """How often the answer of another needle would be right."""
        if not self._others:
            seeds = (_seed(self._options.seed, -1.0, number) for number in range(_OTHERS))
            self._others = tuple(self._hide(seed, _OTHER_SECONDS, 0.5).needle.answer for seed in seeds)
        return sum(hidden.is_right(other) for other in self._others) / len(self._others)


def _hex(facts: object) -> str:
    return _digest(facts).hex()


def _needle_tokens(needle: Needle, answer: Answer) -> int:
    return sum(
        frame.tokens or 0
        for frame in answer.compression.statistics.per_frame
        if any(start - _CLOSE_S <= frame.time_s < end - _CLOSE_S for start, end in needle.evidence)
    )


def read_outcomes(path: Path) -> dict[str, Outcome]:
    """The outcomes in a file, by their keys.

    Raises:
        UsageError: a line is no outcome.
    """
    if not path.exists():
        return {}
    found: dict[str, Outcome] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        values = json.loads(line)
        try:
            known = {one.name: values[one.name] for one in fields(Outcome)}
            outcome = Outcome(**{**known, "method": Method(known["method"])})
        except (KeyError, ValueError):
            raise UsageError(
                f"line {number} of {path} is no outcome of the needle test", hint="name another folder"
            ) from None
        found[outcome.key] = outcome
    return found


# --- sum up ---------------------------------------------------------------------------------------------------------


def report(options: NeedleOptions, model: ModelInfo, outcomes: Sequence[Outcome]) -> NeedleReport:
    """Sum up; there has to be an outcome for every question."""
    lengths = sorted(options.frames)
    return NeedleReport(
        options=options,
        model=model,
        overall=tuple(_score(outcomes, method) for method in options.methods),
        by_frames=tuple(_score(outcomes, method, frames) for method in options.methods for frames in lengths),
        cells=tuple(
            _score(outcomes, method, frames, depth)
            for method in options.methods
            for frames in lengths
            for depth in options.depth_values
        ),
        comparisons=tuple(_comparisons(options, outcomes)),
        chance=sum(outcome.chance for outcome in outcomes) / len(outcomes),
    )


def _score(outcomes: Sequence[Outcome], method: Method, frames: int | None = None, depth: float | None = None) -> Score:
    those = [
        outcome
        for outcome in outcomes
        if outcome.method is method and frames in (None, outcome.frames) and depth in (None, outcome.depth)
    ]
    return Score(
        method=method,
        frames=frames,
        depth=depth,
        right=sum(outcome.right for outcome in those),
        trials=len(those),
        seen=sum(outcome.needle_tokens > 0 for outcome in those),
    )


def _comparisons(options: NeedleOptions, outcomes: Sequence[Outcome]) -> Iterable[Comparison]:
    if Method.DEFAULT not in options.methods:
        return
    long = options.long_frames
    right = {
        method: {outcome.seed: outcome.right for outcome in outcomes if outcome.method is method}
        for method in options.methods
    }
    seeds = [spot.seed for spot in plan(options) if spot.frames in long]
    for method in options.methods:
        if method is not Method.DEFAULT:
            pairs = [(right[Method.DEFAULT][seed], right[method][seed]) for seed in seeds]
            yield Comparison(method, long, paired_difference(pairs))


def report_record(made: NeedleReport) -> Record:
    """The report as JSON. Fields may be added, never renamed."""
    options = made.options
    return {
        "schema_version": SCHEMA_VERSION,
        "command": COMMAND,
        "model": {**asdict(made.model), "notices": list(made.model.notices)},
        "settings": {
            "frames": sorted(options.frames),
            "depths": list(options.depth_values),
            "trials": options.trials,
            "methods": [method.value for method in options.methods],
            "seed": options.seed,
            "max_new_tokens": options.generation.max_new_tokens,
            "compression": asdict(options.compression),
        },
        "methods": [_score_record(score) for score in made.overall],
        "by_frames": [_score_record(score) for score in made.by_frames],
        "cells": [_score_record(score) for score in made.cells],
        "differences": [
            {"method": one.method.value, "frames": list(one.frames), **asdict(one.paired)} for one in made.comparisons
        ],
        "chance": made.chance,
    }


def _score_record(score: Score) -> dict[str, Any]:
    where = {name: value for name, value in (("frames", score.frames), ("depth", score.depth)) if value is not None}
    return {
        "method": score.method.value,
        **where,
        "right": score.right,
        "trials": score.trials,
        "seen": score.seen,
        "accuracy": score.accuracy,
        "interval": [score.interval.low, score.interval.high],
    }


def report_csv(made: NeedleReport) -> str:
    """The cells, a line each."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("method", "frames", "depth", "trials", "right", "seen", "accuracy", "low", "high"))
    for cell in made.cells:
        shares = (f"{share:.4f}" for share in (cell.accuracy, cell.interval.low, cell.interval.high))
        table.writerow((cell.method, cell.frames, f"{cell.depth:.4f}", cell.trials, cell.right, cell.seen, *shares))
    return text.getvalue()


def write_report(made: NeedleReport, folder: Path) -> None:
    """Write ``needle.json`` and ``needle.csv``, each whole or not at all.

    Raises:
        OSError: they cannot be written.
    """
    contents = {
        "needle.json": json.dumps(report_record(made), indent=1, allow_nan=False) + "\n",
        "needle.csv": report_csv(made),
    }
    for name, content in contents.items():
        # Processes that share the work end at the same time.
        with whole_file(folder / name) as aside:
            aside.write_text(content, encoding="utf-8")
