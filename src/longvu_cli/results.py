"""What the library hands back: plain frozen records that turn into JSON field by field."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from longvu_cli.choices import chosen
from longvu_cli.config import GenerationOptions, PromptOptions, Recipe, SamplingOptions
from longvu_cli.evidence import Evidence, find_evidence
from longvu_cli.moments import USUAL_MOMENTS
from longvu_cli.statistics import CompressionStatistics, Timeline
from longvu_cli.video import VideoInfo


class FinishReason(StrEnum):
    """Why an answer ended: the model ended its turn, or the token limit was reached."""

    STOP = "stop"
    LENGTH = "length"


class CacheUse(StrEnum):
    """Whether the video's features came from the feature cache, were put there, or it was not used.

    Within a conversation they are held in memory after the first question.
    """

    HIT = "hit"
    MISS = "miss"
    OFF = "off"
    MEMORY = "memory"


@dataclass(frozen=True)
class ModelInfo:
    """Which model answered.

    Attributes:
        name: short name, repository id or folder name.
        source: repository id or folder.
        revision: commit of the repository; None for a folder.
        notices: what a user should know about the checkpoint (a corrected config value, for instance).
        compiled: whether its layers are compiled.
    """

    name: str
    source: str
    revision: str | None
    dtype: str
    quantization: str
    device: str
    notices: tuple[str, ...] = ()
    compiled: bool = False


@dataclass(frozen=True)
class Timing:
    """Seconds per stage; 0 for a stage that did not run. Stages overlap, and ``total`` does not count ``load``."""

    load: float
    decode: float
    preprocess: float
    dinov2: float
    siglip: float
    connector: float
    compression: float
    prefill: float
    generate: float
    first_token: float
    total: float


@dataclass(frozen=True)
class Memory:
    """Peaks of this process, in bytes. ``peak_device_bytes`` is 0 where the device is the CPU."""

    peak_device_bytes: int
    peak_host_bytes: int


@dataclass(frozen=True)
class SubtitleUse:
    """What the prompt had of the subtitles.

    Attributes:
        source: the file, or that they are a track of the video.
        lines: within the range that was asked for.
        read: of them, those that stood in the prompt.
    """

    source: str
    lines: int
    read: int


@dataclass(frozen=True)
class Compression:
    """One video, compressed for a question or (``question`` None) as far as that goes without one.

    Attributes:
        sampling, recipe, prompting: the settings it was made with.
        subtitles: None: there were none, or none were asked for.
        kept: the kept frames' numbers among the sampled ones.
        timeline: every sampled frame, kept or not.
        notices: what a user should know about how it was made (smaller batches after running out of memory), or of what
            the model knows (the tiny one only the world that it was trained in).
    """

    video: VideoInfo
    question: str | None
    statistics: CompressionStatistics
    model: ModelInfo
    sampling: SamplingOptions
    recipe: Recipe
    kept: tuple[int, ...]
    timeline: Timeline
    notices: tuple[str, ...]
    timing: Timing
    memory: Memory
    cache: CacheUse
    prompting: PromptOptions = field(default_factory=PromptOptions)
    subtitles: SubtitleUse | None = None

    def evidence(self, count: int = USUAL_MOMENTS) -> Evidence:
        """The moments with the highest relevance for the question, ``count`` at most, and what was not seen."""
        return find_evidence(self.statistics, self.timeline, self.recipe, step_s=1 / self.sampling.fps, count=count)


@dataclass(frozen=True)
class History:
    """Earlier turns of a conversation: those that stood in the prompt, and older ones that no longer fitted."""

    turns: int = 0
    dropped: int = 0


@dataclass(frozen=True)
class Answer:
    """An answer with everything it rests on.

    Attributes:
        token_ids: the generated ids, the end id included when it was generated.
        reused_tokens: tokens of the prompt, the video's among them, that were known from the question before.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    compression: Compression
    generation: GenerationOptions
    history: History = field(default_factory=History)
    reused_tokens: int = 0

    @property
    def question(self) -> str:
        """The question that was answered."""
        return self.compression.question or ""

    @property
    def choice(self) -> str | None:
        """The letter of the option that the answer means; None: none, or there were no options."""
        return chosen(self.text, self.compression.prompting.choices)


@dataclass(frozen=True)
class Chunk:
    """A piece of a streamed answer: joining the texts of all chunks gives the answer's text.

    Attributes:
        text: may be empty (part of a character, or an end id).
        token_id: the generated id; None where text or the answer comes without one.
        answer: the whole answer, on the last chunk only.
    """

    text: str
    token_id: int | None
    answer: Answer | None = None


def folded(chunks: Iterable[Chunk]) -> Answer:
    """The answer that a whole stream comes to."""
    *_, last = chunks
    if last.answer is None:
        raise AssertionError("the last chunk carries the answer")
    return last.answer
