"""Many questions about one video: it is watched once, and each question is read with what was said before."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from longvu_cli.config import CompressionOptions, GenerationOptions, PromptOptions, SamplingOptions
from longvu_cli.encoded_video import EncodedVideo
from longvu_cli.language_model import Prefix
from longvu_cli.pipeline import Progress
from longvu_cli.prompt import Turn
from longvu_cli.results import Answer, Chunk, folded
from longvu_cli.subtitles import Subtitles
from longvu_cli.video import VideoInfo

if TYPE_CHECKING:
    from longvu_cli.longvu import LongVU


def _unheard(*_: object) -> None:
    """The default of every callback."""


@dataclass(frozen=True)
class Watched:
    """A video as far as it was understood without a question."""

    encoded: EncodedVideo
    info: VideoInfo


@dataclass
class Remembered:
    """What makes the next question about the same video quick, and understood.

    Attributes:
        turns: questions and answers so far, the oldest first.
        watched: the video's features; None: it was not watched yet.
        prefix: keys and values of the prompt that was read last.
        subtitles: what was found of them; None: they were not looked for yet.
    """

    turns: tuple[Turn, ...] = ()
    watched: Watched | None = None
    prefix: Prefix = field(default_factory=Prefix)
    subtitles: Subtitles | None = None


class Conversation:
    """Questions about one video, in one conversation. Make one with ``LongVU.conversation``.

    The first answer is that of ``LongVU.answer``. After it, earlier questions and answers stand in the prompt, where
    they take at most a quarter of the room that the video would have; the oldest go first. They do not choose frames:
    the relevance of a frame is measured by the question at hand.
    """

    def __init__(
        self,
        model: LongVU,
        video: str | Path,
        *,
        sampling: SamplingOptions | None = None,
        compression: CompressionOptions | None = None,
        prompting: PromptOptions | None = None,
        generation: GenerationOptions | None = None,
    ) -> None:
        self._model = model
        self._video = video
        self._sampling = sampling
        self._compression = compression
        self._prompting = prompting
        self._generation = generation
        self._remembered = Remembered()

    @property
    def turns(self) -> tuple[Turn, ...]:
        """What was said so far, the oldest first."""
        return self._remembered.turns

    def stream(self, question: str, *, on_progress: Progress = _unheard) -> Generator[Chunk, None, None]:
        """Answer a question, token by token. The last chunk carries the whole answer, which then is part of the talk.

        Raises:
            LongVUError: as ``LongVU.stream``; the conversation can go on as if the question had not been asked.
        """
        return self._model.stream(
            self._video,
            question,
            sampling=self._sampling,
            compression=self._compression,
            prompting=self._prompting,
            generation=self._generation,
            on_progress=on_progress,
            remembered=self._remembered,
        )

    def answer(self, question: str, *, on_progress: Progress = _unheard) -> Answer:
        """Answer a question: :meth:`stream`, folded. Raises the same."""
        return folded(self.stream(question, on_progress=on_progress))

    def reset(self) -> None:
        """Forget what was said; what is known of the video stays."""
        self._remembered.turns = ()
