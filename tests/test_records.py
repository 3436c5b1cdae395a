import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from longvu_cli.config import CompressionOptions, GenerationOptions
from longvu_cli.errors import NotAVideo
from longvu_cli.evidence import DroppedSpan, Evidence, Moment, TruncatedSpan
from longvu_cli.longvu import LongVU
from longvu_cli.records import answer_record, compression_record, error_record
from longvu_cli.results import Answer, Compression, Memory, ModelInfo, Timing
from longvu_cli.statistics import CompressionStatistics, Fate, FrameCounts, FrameStatistics, TokenCounts
from longvu_cli.video import VideoInfo

QUESTION = "Where is the cup?"


@pytest.fixture(scope="module")
def answer(qwen: LongVU, parity: Path) -> Answer:
    return qwen.answer(
        parity / "short_window.mkv",
        QUESTION,
        compression=CompressionOptions(context_length=900),
        generation=GenerationOptions(max_new_tokens=3, temperature=0.5, top_p=0.9, seed=4),
    )


@pytest.fixture(scope="module")
def without_question(qwen: LongVU, parity: Path) -> Compression:
    return qwen.compress(parity / "one_frame.mkv")


def names(kind: Any) -> set[str]:
    return {field.name for field in fields(kind)}


def test_an_answer(answer: Answer) -> None:
    record = answer_record("ask", answer)
    assert list(record) == [
        *("schema_version", "command", "video", "question", "answer", "finish_reason", "token_ids", "model"),
        *("settings", "prompt", "compression", "timing_s", "memory", "cache", "notices", "evidence"),
    ]
    assert (record["schema_version"], record["command"], record["question"]) == (1, "ask", QUESTION)
    assert (record["answer"], record["token_ids"]) == (answer.text, list(answer.token_ids))
    assert record["finish_reason"] == "length"
    wanted = {"max_new_tokens": 3, "temperature": 0.5, "top_p": 0.9, "seed": 4, "context_length": 900, "fps": 1.0}
    assert record["settings"] | wanted == record["settings"]


def test_every_field_of_the_results_is_in_the_record(answer: Answer) -> None:
    record = answer_record("ask", answer)
    assert set(record["video"]) == names(VideoInfo)
    assert set(record["model"]) == names(ModelInfo)
    assert set(record["timing_s"]) == names(Timing)
    assert set(record["memory"]) == names(Memory)
    assert set(record["compression"]) == names(CompressionStatistics)
    assert set(record["compression"]["frames"]) == names(FrameCounts)
    assert set(record["compression"]["tokens"]) == names(TokenCounts)
    assert all(set(frame) == names(FrameStatistics) for frame in record["compression"]["per_frame"])
    assert set(record["evidence"]) == names(Evidence)
    assert all(set(moment) == names(Moment) | {"clip"} for moment in record["evidence"]["moments"])
    assert names(GenerationOptions) <= set(record["settings"])
    assert names(CompressionOptions) <= set(record["settings"])


def test_every_value_is_that_of_the_result(answer: Answer) -> None:
    record = answer_record("ask", answer)
    result = answer.compression
    pairs = (
        (record["timing_s"], result.timing),
        (record["memory"], result.memory),
        (record["compression"]["frames"], result.statistics.frames),
        (record["compression"]["tokens"], result.statistics.tokens),
        *zip(record["compression"]["per_frame"], result.statistics.per_frame, strict=True),
    )
    for made, source in pairs:
        assert made == vars(source)
    assert [frame["index"] for frame in record["compression"]["per_frame"]] == list(result.kept)
    assert record["cache"] == {"features": "off"}


def test_evidence_with_clips_and_what_was_lost(answer: Answer) -> None:
    found = answer.compression.evidence(2)
    lost = replace(
        found,
        dropped=(DroppedSpan(1.0, 3.0, 2, Fate.SIMILAR, 0.9, (0.0, 3.0)),),
        truncated=(TruncatedSpan(4.0, 5.0, 1, 7),),
    )
    record = answer_record("ask", answer, lost, [Path("a.mp4"), Path("b.mp4")])["evidence"]
    assert record["steers"] is True
    assert record["moments"] == [
        vars(moment) | {"clip": clip} for moment, clip in zip(found.moments, ("a.mp4", "b.mp4"), strict=True)
    ]
    dropped = {"start_s": 1.0, "end_s": 3.0, "frames": 2, "fate": "similar", "similarity": 0.9}
    assert record["dropped"] == [dropped | {"resembles_s": [0.0, 3.0]}]
    assert record["truncated"] == [{"start_s": 4.0, "end_s": 5.0, "frames": 1, "tokens": 7}]
    usual = answer_record("ask", answer)["evidence"]["moments"]
    assert len(usual) == len(answer.compression.evidence().moments) and usual[0]["clip"] is None


def test_the_counts_belong_together(answer: Answer) -> None:
    compression = answer_record("ask", answer)["compression"]
    per_frame, tokens = compression["per_frame"], compression["tokens"]
    assert sum(frame["tokens"] for frame in per_frame) == tokens["visual"] <= compression["visual_budget"]
    highs = [frame for frame in per_frame if frame["resolution"] == "high"]
    assert (len(highs), len(per_frame)) == (compression["frames"]["high_resolution"], compression["frames"]["kept"])
    assert tokens["dense"] * compression["frames"]["kept"] == (
        tokens["after_temporal"] * compression["frames"]["sampled"]
    )


def test_a_record_is_plain_json(answer: Answer, without_question: Compression) -> None:
    for record in (answer_record("ask", answer), compression_record("stats", without_question, GenerationOptions())):
        assert json.loads(json.dumps(record, allow_nan=False)) == record


def test_a_compressed_video_lacks_the_fields_of_an_answer(answer: Answer, without_question: Compression) -> None:
    full, bare = answer_record("ask", answer), compression_record("stats", without_question, GenerationOptions())
    assert full.keys() - bare.keys() == {"question", "answer", "finish_reason", "token_ids"}
    assert names(GenerationOptions) <= bare["settings"].keys() == full["settings"].keys()
    asked = compression_record("stats", answer.compression, answer.generation)
    assert asked == {
        **{name: value for name, value in full.items() if name not in ("answer", "finish_reason", "token_ids")},
        "command": "stats",
        "settings": {name: full["settings"][name] for name in asked["settings"]},
    }
    assert bare["compression"]["per_frame"][0]["relevance"] is None
    assert (bare["timing_s"]["prefill"], bare["timing_s"]["first_token"]) == (0, 0)


def test_an_error() -> None:
    error = NotAVideo("no video", hint="try another")
    told = {"schema_version": 1, "error": {"type": "NotAVideo", "message": "no video", "hint": "try another"}}
    assert error_record(error) == told
    assert error_record(error, path="a.mp4") == told | {"video": {"path": "a.mp4"}}
    assert error_record(NotAVideo("no video"))["error"]["hint"] == ""
    assert error_record(error, path="http://me:S3CRET@host/a.mp4")["video"] == {"path": "http://host/a.mp4"}
