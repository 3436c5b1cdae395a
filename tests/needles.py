"""Haystacks without pictures and a model that reads them, for the tests of the needle test."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longvu_cli.config import CompressionOptions, GenerationOptions, ModelConfig, SamplingOptions, TemporalReduction
from longvu_cli.evaluation.needle import Method
from longvu_cli.results import Answer, CacheUse, Compression, FinishReason, Memory, ModelInfo, Timing
from longvu_cli.statistics import (
    CompressionStatistics,
    FrameCounts,
    FrameStatistics,
    Regime,
    Resolution,
    Timeline,
    TokenCounts,
)
from longvu_cli.video import VideoInfo

CONFIG = ModelConfig.from_file(Path(__file__).parent / "data" / "parity" / "qwen" / "config.json")
COLOURS = ("red", "green", "blue", "white")


@dataclass(frozen=True)
class FakeQuestion:
    text: str
    answer: str
    evidence: tuple[tuple[float, float], ...]


class FakeHaystack:
    """A file that says what the needle is, and where."""

    def __init__(self, seed: int, seconds: int, depth: float) -> None:
        at = round(depth * (seconds - 1))
        self._facts = {"frames": seconds, "at": at, "colour": COLOURS[seed % len(COLOURS)]}
        self.needle = FakeQuestion("What colour is the card?", f"{self._facts['colour']}.", ((at, at + 1.0),))

    def film(self, path: Path) -> None:
        path.write_text(json.dumps(self._facts))

    def is_right(self, answer: str) -> bool:
        return answer == self.needle.answer


Knows = Callable[[Method, int, int], bool]


class FakeModel:
    """Answers rightly where ``knows(method, frames, at)`` says so; it reads 64 tokens of each frame that it keeps.

    Args:
        stop_after: answers until someone presses Ctrl-C.
    """

    def __init__(self, knows: Knows, *, identity: str = "one", stop_after: int | None = None) -> None:
        self.info = ModelInfo("fake", "nowhere", None, "float32", "none", "cpu")
        self.identity = identity
        self.asked: list[tuple[Method, int, int]] = []
        self._knows = knows
        self._stop_after = stop_after

    def answer(
        self,
        video: str | Path,
        question: str,
        *,
        sampling: SamplingOptions | None = None,
        compression: CompressionOptions | None = None,
        generation: GenerationOptions | None = None,
        on_progress: Callable[[str, int, int | None], None] = lambda *_: None,
    ) -> Answer:
        assert sampling is not None and compression is not None and generation is not None
        if len(self.asked) == self._stop_after:
            raise KeyboardInterrupt
        facts = json.loads(Path(video).read_text())
        method = method_of(compression)
        self.asked.append((method, facts["frames"], facts["at"]))
        right = self._knows(method, facts["frames"], facts["at"])
        text = f"{facts['colour']}." if right else "I do not know."
        return Answer(text, (1,), FinishReason.STOP, _compressed(facts, right, sampling), generation)


def method_of(compression: CompressionOptions) -> Method:
    if not compression.spatial_compression:
        return Method.WITHOUT_STC
    if not compression.query_guided:
        return Method.WITHOUT_QUERY
    return Method.UNIFORM if compression.temporal_reduction is TemporalReduction.UNIFORM else Method.DEFAULT


def _compressed(facts: dict[str, Any], seen: bool, sampling: SamplingOptions) -> Compression:
    """Every other frame was kept, and the needle's where it was seen."""
    kept = sorted(
        {*range(0, facts["frames"], 2), facts["at"]} if seen else {*range(0, facts["frames"], 2)} - {facts["at"]}
    )
    statistics = CompressionStatistics(
        regime=Regime.MIXED,
        spatial_compression=False,
        text_tokens=75,
        visual_budget=8101,
        frames=FrameCounts(facts["frames"], len(kept), 0),
        tokens=TokenCounts(facts["frames"] * 144, len(kept) * 144, len(kept) * 64, len(kept) * 64),
        truncated_tokens=3,
        per_frame=tuple(FrameStatistics(i, i + 1e-4, Resolution.LOW, 0.1, 0.2, 64, 0) for i in kept),
    )
    return Compression(
        video=VideoInfo("haystack.mp4", float(facts["frames"]), 8, 8, 1.0, 0, "h264", False, ()),
        question="?",
        statistics=statistics,
        model=ModelInfo("fake", "nowhere", None, "float32", "none", "cpu"),
        sampling=sampling,
        recipe=CompressionOptions().resolve(CONFIG),
        kept=tuple(kept),
        timeline=Timeline((), (), ()),
        notices=(),
        timing=Timing(1.0, 2.0, 0.0, 0.0, 3.0, 0.0, 0.0, 0.5, 1.5, 4.0, 9.75),
        memory=Memory(0, 1),
        cache=CacheUse.OFF,
    )
