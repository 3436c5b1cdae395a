"""coverage.py: which segments are asked, and how their answers become one; with a model that is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from media import steady, write_video

from longvu_cli import coverage
from longvu_cli.config import CompressionOptions, GenerationOptions, PromptOptions, SamplingOptions
from longvu_cli.coverage import Merge, Segment, ask_segments, merged
from longvu_cli.errors import DeviceOutOfMemory, LongVUError, NoFrames, VideoNotFound
from longvu_cli.longvu import LongVU
from longvu_cli.results import Answer
from longvu_cli.statistics import FrameStatistics, Resolution

Ranges = list[tuple[float, float | None]]


@pytest.fixture(scope="module")
def like(qwen: LongVU, parity: Path) -> Answer:
    return qwen.answer(parity / "one_frame.mkv", "Why?", generation=GenerationOptions(max_new_tokens=1))


@pytest.fixture(scope="module")
def minute(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty seconds, in which nothing happens."""
    return write_video(tmp_path_factory.mktemp("minute") / "minute.mp4", steady(60, 1), rate=1)


@dataclass
class FakeModel:
    """Answers with the range that it was asked about; ``relevance`` gives each range its best score.

    Attributes:
        too_long: in a range of more seconds tokens are cut.
        errors: by the second that a range begins at.
        ends_s: when the video really ends.
    """

    like: Answer
    relevance: Callable[[float], float] = lambda start_s: -start_s
    too_long: float = 1000.0
    errors: dict[float, LongVUError] = field(default_factory=dict)
    ends_s: float = 60.0
    asked: Ranges = field(default_factory=list)

    def answer(self, video: Path, question: str, *, sampling: SamplingOptions, **_: Any) -> Answer:
        if sampling.start_s >= self.ends_s:
            raise NoFrames("the video ends before")
        self.asked.append((sampling.start_s, sampling.end_s))
        if sampling.start_s in self.errors:
            raise self.errors[sampling.start_s]
        seconds = min(self.ends_s, sampling.end_s or self.ends_s) - sampling.start_s
        compression, score = self.like.compression, self.relevance(sampling.start_s)
        statistics = replace(
            compression.statistics,
            frames=replace(compression.statistics.frames, sampled=round(seconds * sampling.fps)),
            truncated_tokens=7 if seconds > self.too_long else 0,
            per_frame=tuple(
                FrameStatistics(index, sampling.start_s + index, Resolution.LOW, score - index, None, 1, 0)
                for index in range(2)
            ),
        )
        text = f"{sampling.start_s:g} to {'end' if sampling.end_s is None else f'{sampling.end_s:g}'}"
        return replace(self.like, text=text, compression=replace(compression, statistics=statistics))


def ask(model: FakeModel, video: Path, **range_s: float) -> list[Segment]:
    return list(
        ask_segments(
            model,  # type: ignore[arg-type]
            video,
            "Why?",
            sampling=SamplingOptions(**range_s),
            compression=CompressionOptions(),
            prompting=PromptOptions(),
            generation=GenerationOptions(),
            on_progress=lambda *_: None,
        )
    )


@pytest.mark.parametrize(
    ("most", "range_s", "wanted"),
    [
        (400, {}, [(0, None)]),
        (60, {}, [(0, None)]),
        (59, {}, [(0, 30), (30, None)]),
        (25, {}, [(0, 20), (20, 40), (40, None)]),
        (25, {"start_s": 10.5, "end_s": 40.0}, [(10.5, 25.5), (25.5, 40.0)]),
        (25, {"end_s": 500.0}, [(0, 20), (20, 40), (40, 500)]),
        (100, {"fps": 4.0}, [(0, 20), (20, 40), (40, None)]),
    ],
)
def test_segments_are_equal_and_small_enough_to_lose_no_frame(
    like: Answer, minute: Path, monkeypatch: pytest.MonkeyPatch, most: int, range_s: dict[str, float], wanted: Ranges
) -> None:
    monkeypatch.setattr(coverage, "_MOST_FRAMES", most)
    model = FakeModel(like)
    segments = ask(model, minute, **range_s)
    assert model.asked == [(segment.start_s, segment.end_s) for segment in segments] == wanted
    assert [(segment.number, segment.total) for segment in segments] == [
        (number + 1, len(wanted)) for number in range(len(wanted))
    ]


def test_as_many_frames_are_in_a_segment_as_are_ever_kept() -> None:
    assert coverage._MOST_FRAMES == 400


def test_a_segment_of_which_tokens_were_cut_is_halved(like: Answer, minute: Path) -> None:
    model = FakeModel(like, too_long=31.0)
    segments = ask(model, minute)
    assert model.asked == [(0, None), (0, 30), (30, None)]
    assert [(segment.start_s, segment.end_s) for segment in segments] == [(0, 30), (30, None)]
    # One that is too short to be halved is what it is.
    model = FakeModel(like, too_long=1.0)
    segments = ask(model, minute)
    assert [segment.start_s for segment in segments] == [0, 30]
    assert all(segment.answer and segment.answer.compression.statistics.truncated_tokens for segment in segments)
    assert not merged(segments, Merge.RELEVANCE).is_complete
    assert merged(ask(FakeModel(like), minute), Merge.RELEVANCE).is_complete


def test_one_segment_that_fails_does_not_lose_the_others(
    like: Answer, minute: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coverage, "_MOST_FRAMES", 25)
    error = DeviceOutOfMemory("full")
    segments = ask(FakeModel(like, errors={20.0: error}), minute)
    assert [segment.error for segment in segments] == [None, error, None]
    assert [said.start_s for said in merged(segments, Merge.ORDER).told] == [0, 40]
    assert merged(segments, Merge.RELEVANCE).text == "0 to 20"
    with pytest.raises(DeviceOutOfMemory):
        merged([segments[1]], Merge.RELEVANCE)


def test_a_header_that_promises_too_much_is_no_failure(
    like: Answer, minute: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coverage, "_MOST_FRAMES", 25)
    assert [segment.start_s for segment in ask(FakeModel(like, ends_s=30.0), minute)] == [0, 20]
    with pytest.raises(NoFrames):
        ask(FakeModel(like, ends_s=0.0), minute)


def test_a_picture_is_one_segment_and_a_missing_file_an_error(like: Answer, parity: Path, tmp_path: Path) -> None:
    assert len(ask(FakeModel(like), parity / "still_image_landscape.png")) == 1
    with pytest.raises(VideoNotFound):
        ask(FakeModel(like), tmp_path / "none.mp4")


def test_the_answer_is_that_of_the_segment_with_the_most_relevant_frame(
    like: Answer, minute: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coverage, "_MOST_FRAMES", 25)
    segments = ask(FakeModel(like, relevance={0.0: 1.0, 20.0: 3.0, 40.0: 2.0}.__getitem__), minute)
    covered = merged(segments, Merge.RELEVANCE)
    assert (covered.text, covered.chosen.span) == ("20 to 40", "0:20–0:40")
    assert covered.told == (covered.chosen,)
    best = covered.chosen.best
    assert best is not None and (best.time_s, best.relevance) == (20.0, 3.0)  # a time of the whole video
    equal = ask(FakeModel(like, relevance=lambda _: 1.0), minute)
    assert merged(equal, Merge.RELEVANCE).chosen.start_s == 0


def test_descriptions_are_put_one_after_another(like: Answer, minute: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert merged(ask(FakeModel(like), minute), Merge.ORDER).text == "0 to end"
    monkeypatch.setattr(coverage, "_MOST_FRAMES", 30)
    covered = merged(ask(FakeModel(like), minute), Merge.ORDER)
    assert covered.text == "[0:00–0:30] 0 to 30\n[0:30–end] 30 to end"
    assert len(covered.told) == 2
