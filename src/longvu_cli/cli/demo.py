"""``longvu demo``."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from longvu_cli.cli.answering import tell
from longvu_cli.cli.errors import OK
from longvu_cli.cli.loading import load_model
from longvu_cli.cli.options import CacheFlags, Device, ModelFlags, SummaryFlags
from longvu_cli.cli.output import Output

if TYPE_CHECKING:
    from longvu_cli.longvu import LongVU
    from longvu_cli.results import Answer, Compression

_NEXT = (
    "this was the tiny model, in the drawn world that it was trained in; it knows no other. With a video of your own:",
    '    longvu ask movie.mp4 "Where is the cup?"      a released model: --model 1b, 3b or 7b (11 to 23 GB, once)',
    '    longvu stats movie.mp4 "Where is the cup?"    what the compression keeps of a video',
    "    longvu demo --help",
)


@dataclass(frozen=True)
class DemoFlags:
    """Where it runs."""

    device: Device = "cpu"


def demo(output: Output, *, flags: DemoFlags, summary: SummaryFlags) -> int:
    """Watch a clip of four minutes with a tiny model, and answer questions about it.

    Model and clip come with the package: nothing is downloaded, and any CPU will do. The clip is of a drawn world, the
    only one that the model knows. Under each answer stand the moments of the video that matter most for the question.
    """
    from longvu_cli.demo import QUESTIONS, demo_clip
    from longvu_cli.weights import TINY

    clip = str(demo_clip())
    model = ModelFlags(model=TINY, offline=True, device=flags.device)
    compression: Compression | None = None
    # A folder of its own: the clip is watched once for all questions, wherever nothing else may be written.
    with tempfile.TemporaryDirectory(prefix="longvu-") as scratch:
        loaded = load_model(model, "ANSWER", output, CacheFlags(), features=Path(scratch))
        for number, question in enumerate(QUESTIONS):
            output.question(question.text, first=number == 0)
            compression = _answer(loaded, clip, question.text, output).compression
    _conclude(compression, output)
    return OK


def _answer(loaded: LongVU, clip: str, question: str, output: Output) -> Answer:
    from longvu_cli.cli.rendering import moments_line
    from longvu_cli.records import answer_record

    answer: Answer | None = None
    with output.progress():
        for chunk in loaded.stream(clip, question, on_progress=output.on_progress):
            output.stop_progress()
            output.answer_text(chunk.text)
            answer = chunk.answer
    assert answer is not None, "the last chunk carries the answer"
    output.answer_end()
    tell(clip, answer.compression, output)
    output.summary(moments_line(answer.compression.evidence().moments))
    output.record(answer_record("demo", answer))
    return answer


def _conclude(compression: Compression | None, output: Output) -> None:
    """What was kept of the clip, and what to type next."""
    from longvu_cli.cli.rendering import summary

    if compression is not None:
        output.summary("", summary(compression))
    for line in _NEXT:
        output.note(line)
