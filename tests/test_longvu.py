"""longvu.py: the public API on the tiny checkpoints."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from longvu_cli import (
    CompressionOptions,
    GenerationOptions,
    LongVU,
    ModelOptions,
    Part,
    SamplingOptions,
)
from longvu_cli.adaptive_batch import AdaptiveBatch
from longvu_cli.config import DType
from longvu_cli.errors import LongVUError, QuestionTooLong, UsageError, VideoNotFound, WeightsNotFound
from longvu_cli.feature_cache import FeatureCache
from longvu_cli.results import CacheUse, FinishReason

QUESTION = "Where is the cup?"
CASES = {
    case["name"]: case
    for case in json.loads((Path(__file__).parent / "data" / "parity" / "cases.json").read_text(encoding="utf-8"))
}


def options_of(case: dict[str, Any]) -> CompressionOptions:
    return CompressionOptions(
        context_length=case["context_length"],
        dino_threshold=case["dino_threshold"],
        stc_threshold=case["drop_threshold"],
    )


@pytest.mark.parametrize(
    "name", ["one_frame", "short_window", "tiny_context", "llama_all_high", "still_image_portrait"]
)
def test_answers_are_the_references(name: str, request: pytest.FixtureRequest, parity: Path) -> None:
    case = CASES[name]
    model: LongVU = request.getfixturevalue(case["model"])
    media = parity / f"{name}.{'png' if case['image'] else 'mkv'}"
    answer = model.answer(
        media,
        case["question"],
        compression=options_of(case),
        generation=GenerationOptions(max_new_tokens=len(case["generated"])),
    )
    assert list(answer.token_ids) == case["generated"]  # none of them is an end id
    assert answer.finish_reason is FinishReason.LENGTH
    assert answer.compression.kept == tuple(case["selected"] or [0])
    assert answer.compression.statistics.tokens.visual == case["visual_tokens"]
    assert answer.compression.statistics.text_tokens == case["prompt_ids"] - 1


def test_folding_the_stream_gives_the_answer(qwen: LongVU, parity: Path) -> None:
    generation = GenerationOptions(max_new_tokens=16)
    chunks = list(qwen.stream(parity / "one_frame.mkv", QUESTION, generation=generation))
    answer = qwen.answer(parity / "one_frame.mkv", QUESTION, generation=generation)
    *pieces, last = chunks
    assert "".join(chunk.text for chunk in chunks) == answer.text
    assert tuple(chunk.token_id for chunk in pieces if chunk.token_id is not None) == answer.token_ids
    assert all(chunk.answer is None for chunk in pieces)
    assert last.answer is not None
    assert (last.text, last.token_id) == ("", None)
    assert (last.answer.text, last.answer.token_ids) == (answer.text, answer.token_ids)
    assert answer.question == QUESTION
    assert answer.generation == generation


def test_the_stream_can_be_left_early(qwen: LongVU, parity: Path) -> None:
    stream = qwen.stream(parity / "one_frame.mkv", QUESTION, generation=GenerationOptions(max_new_tokens=5000))
    first = next(stream)
    stream.close()
    assert first.token_id == CASES["one_frame"]["generated"][0]
    # The model can be asked again.
    assert qwen.answer(parity / "one_frame.mkv", QUESTION, generation=GenerationOptions(max_new_tokens=2)).token_ids


def with_end_id(checkpoint: Path, end: object) -> None:
    path = checkpoint / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "eos_token_id": end}))


@pytest.mark.parametrize("end", [113, [7, 113]])
def test_an_end_id_of_the_config_finishes_the_answer(
    checkpoint_copy: Path, tiny_options: ModelOptions, parity: Path, end: object
) -> None:
    with_end_id(checkpoint_copy, end)
    model = LongVU.from_pretrained(str(checkpoint_copy), options=tiny_options)
    answer = model.answer(parity / "one_frame.mkv", QUESTION)
    assert answer.token_ids == (118, 162, 113)
    assert answer.finish_reason is FinishReason.STOP
    # With no room for more the answer ends the same way.
    tight = model.answer(parity / "one_frame.mkv", QUESTION, generation=GenerationOptions(max_new_tokens=3))
    assert tight.finish_reason is FinishReason.STOP
    short = model.answer(parity / "one_frame.mkv", QUESTION, generation=GenerationOptions(max_new_tokens=2))
    assert short.token_ids == (118, 162)
    assert short.finish_reason is FinishReason.LENGTH


def test_sampling_with_a_seed_is_repeatable(qwen: LongVU, parity: Path) -> None:
    def sample(seed: int) -> tuple[int, ...]:
        generation = GenerationOptions(max_new_tokens=12, temperature=2.0, seed=seed)
        return qwen.answer(parity / "one_frame.mkv", QUESTION, generation=generation).token_ids

    assert sample(5) == sample(5)
    assert sample(5) != sample(6)


def test_what_is_reported_with_an_answer(qwen: LongVU, parity: Path) -> None:
    steps: list[tuple[str, int, int | None]] = []
    answer = qwen.answer(
        parity / "one_frame.mkv",
        QUESTION,
        sampling=SamplingOptions(fps=2.0),
        generation=GenerationOptions(max_new_tokens=2),
        on_progress=lambda *step: steps.append(step),
    )
    report = answer.compression
    assert report.question == QUESTION
    assert (report.video.width, report.video.height) == (64, 36)
    assert report.sampling.fps == 2.0
    assert report.recipe.context_length == 8192
    assert (report.model.name, report.model.dtype, report.model.device) == ("qwen", "float32", "cpu")
    assert (report.model.quantization, report.model.revision, report.model.notices) == ("none", None, ())
    assert report.cache is CacheUse.OFF
    assert report.memory.peak_host_bytes > 0
    assert report.memory.peak_device_bytes == 0
    seconds = [value for value in vars(report.timing).values() if value]
    assert len(seconds) == len(vars(report.timing))
    assert all(value >= 0 for value in seconds)
    assert report.timing.total >= (report.timing.first_token or 0.0) >= (report.timing.prefill or 0.0)
    assert steps[-1][:2] == ("encode", report.statistics.frames.sampled)


def test_a_thinned_video_is_that_of_a_lower_rate(qwen: LongVU, parity: Path) -> None:
    clip, few = parity / "square_mixed.mkv", GenerationOptions(max_new_tokens=2)
    thin = qwen.answer(clip, "What?", sampling=SamplingOptions(thin_above=40), generation=few)
    slow = qwen.answer(clip, "What?", sampling=SamplingOptions(fps=0.5), generation=few)
    assert thin.compression.statistics == slow.compression.statistics
    assert thin.token_ids == slow.token_ids
    assert thin.compression.sampling == SamplingOptions(fps=0.5, thin_above=40)


def test_compressing_needs_no_language_model(tiny_options: ModelOptions, parity: Path) -> None:
    model = LongVU.from_pretrained(str(parity / "qwen"), part=Part.VISION, options=tiny_options)
    report = model.compress(parity / "short_window.mkv")
    assert report.question is None
    assert report.statistics.tokens.visual == 12 * 84
    assert report.timing.prefill == 0
    with pytest.raises(UsageError, match="without what a question needs"):
        model.compress(parity / "short_window.mkv", QUESTION)
    with pytest.raises(UsageError, match="without its language model"):
        model.answer(parity / "short_window.mkv", QUESTION)


def without_the_decoder(checkpoint: Path) -> None:
    """Shards, of which that with the decoder's layers is not here."""
    tensors = load_file(checkpoint / "model.safetensors")
    (checkpoint / "model.safetensors").unlink()
    decoder = [name for name in tensors if name.startswith(("model.layers.", "model.norm.", "lm_head."))]
    weight_map = {name: f"model-{2 if name in decoder else 1}-of-2.safetensors" for name in tensors}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    save_file(
        {name: tensor for name, tensor in tensors.items() if name not in decoder},
        checkpoint / "model-1-of-2.safetensors",
    )


@pytest.mark.parametrize(("part", "question"), [(Part.VISION, None), (Part.QUESTION, QUESTION)])
def test_compressing_needs_no_tensor_of_the_decoder(
    checkpoint_copy: Path,
    tiny_options: ModelOptions,
    qwen: LongVU,
    parity: Path,
    part: Part,
    question: str | None,
) -> None:
    without_the_decoder(checkpoint_copy)
    model = LongVU.from_pretrained(str(checkpoint_copy), part=part, options=tiny_options)
    options = CompressionOptions(context_length=600)
    found = model.compress(parity / "short_window.mkv", question, compression=options).statistics
    wanted = qwen.compress(parity / "short_window.mkv", question, compression=options).statistics
    # The files lie differently in memory, which may change the rounding of the relevances.
    assert found.tokens == wanted.tokens
    assert found.frames == wanted.frames
    assert [frame.resolution for frame in found.per_frame] == [frame.resolution for frame in wanted.per_frame]
    with pytest.raises(WeightsNotFound, match=r"model-2-of-2\.safetensors"):
        LongVU.from_pretrained(str(checkpoint_copy), part=Part.ANSWER, options=tiny_options)


def test_bfloat16_runs_on_a_cpu(tiny_options: ModelOptions, qwen: LongVU, parity: Path) -> None:
    options = ModelOptions(dinov2=tiny_options.dinov2, siglip=tiny_options.siglip, device="cpu", dtype=DType.BFLOAT16)
    model = LongVU.from_pretrained(str(parity / "qwen"), options=options)
    assert model.info.dtype == "bfloat16"
    for context_length in (8192, 300):
        compression = CompressionOptions(context_length=context_length)
        generation = GenerationOptions(max_new_tokens=4)
        answer = model.answer(parity / "short_window.mkv", QUESTION, compression=compression, generation=generation)
        assert len(answer.token_ids) == 4
        statistics = answer.compression.statistics
        exact = qwen.compress(parity / "short_window.mkv", QUESTION, compression=compression).statistics
        assert statistics.regime is exact.regime
        assert statistics.tokens.visual <= statistics.visual_budget
        assert all(math.isfinite(frame.relevance or 0.0) for frame in statistics.per_frame)


def test_a_cached_video_is_answered_the_same(tiny_options: ModelOptions, parity: Path, tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "features")
    model = LongVU.from_pretrained(str(parity / "qwen"), options=tiny_options, cache=cache)
    case = CASES["tiny_context"]
    generation = GenerationOptions(max_new_tokens=4)
    answers = [
        model.answer(parity / "tiny_context.mkv", case["question"], compression=options_of(case), generation=generation)
        for _ in range(2)
    ]
    first, second = answers
    assert (first.compression.cache, second.compression.cache) == (CacheUse.MISS, CacheUse.HIT)
    assert list(second.token_ids) == list(first.token_ids) == case["generated"][:4]
    assert second.compression.statistics == first.compression.statistics
    assert second.compression.video == first.compression.video
    assert second.compression.timing.dinov2 == 0


def test_a_cached_video_serves_a_question_that_needs_other_frames(
    tiny_options: ModelOptions, qwen: LongVU, parity: Path, tmp_path: Path
) -> None:
    cache = FeatureCache(tmp_path / "features")
    model = LongVU.from_pretrained(str(parity / "qwen"), options=tiny_options, cache=cache)
    sampling = SamplingOptions(end_s=17.5)
    kept, uses = [], []
    for context_length in (700, 8192, 700):  # of 18 frames 9 would fit, then all, then 9
        options = CompressionOptions(context_length=context_length, dino_threshold=0.5)
        cached = model.compress(parity / "tiny_context.mkv", QUESTION, sampling=sampling, compression=options)
        plain = qwen.compress(parity / "tiny_context.mkv", QUESTION, sampling=sampling, compression=options)
        assert cached.statistics == plain.statistics
        assert cached.kept == plain.kept
        kept.append(len(cached.kept))
        uses.append(cached.cache)
    assert kept[0] == kept[2] < kept[1] == 18
    assert uses == [CacheUse.MISS, CacheUse.MISS, CacheUse.HIT]


def test_a_question_that_fills_the_context_is_refused(qwen: LongVU, parity: Path) -> None:
    with pytest.raises(QuestionTooLong, match="leaves no room for the video"):
        qwen.answer(parity / "one_frame.mkv", "why? " * 2000)


def test_a_missing_video_is_refused(qwen: LongVU, tmp_path: Path) -> None:
    with pytest.raises(VideoNotFound):
        qwen.answer(tmp_path / "nothing.mp4", QUESTION)


def test_every_failure_is_a_longvu_error(qwen: LongVU, tmp_path: Path) -> None:
    text = tmp_path / "notes.mp4"
    text.write_text("not a video")
    with pytest.raises(LongVUError):
        qwen.compress(text)


def test_running_out_of_memory_is_met_with_smaller_batches_and_said(
    qwen: LongVU, parity: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tower = vars(qwen)["_modules"].vision.dinov2
    forward = type(tower).forward

    def short_of_memory(self: Any, pixels: torch.Tensor) -> torch.Tensor:
        if len(pixels) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, pixels)

    wanted = qwen.compress(parity / "short_window.mkv", "Where is the cup?")
    assert wanted.notices == ()
    monkeypatch.setitem(vars(qwen), "_batch", AdaptiveBatch(16))
    monkeypatch.setattr(type(tower), "forward", short_of_memory)
    found = qwen.compress(parity / "short_window.mkv", "Where is the cup?")
    assert found.kept == wanted.kept
    assert found.statistics.tokens == wanted.statistics.tokens
    assert found.notices == ("cpu ran out of memory: frames now go through the towers 4 at a time",)
