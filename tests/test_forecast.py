import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from longvu_cli.calibration import Speed
from longvu_cli.config import CompressionOptions, ModelOptions, Quantization, RecipeName, StillMode, TemporalReduction
from longvu_cli.errors import UsageError
from longvu_cli.forecast import Counts, Model, Span, Times, counts, device_bytes, host_bytes, models, times
from longvu_cli.frames import VideoInfo
from longvu_cli.longvu import LongVU
from longvu_cli.statistics import Regime
from longvu_cli.variants import Footprint
from longvu_cli.weights import VARIANTS, Part

HD = VideoInfo("a.mp4", 600.0, 1280, 720, 30.0, 0, "h264", False, ())
STILL = dataclasses.replace(HD, duration_s=None, is_still=True)
BF16, F32 = torch.bfloat16, torch.float32
NONE, INT8, NF4 = Quantization.NONE, Quantization.INT8, Quantization.NF4
# The product of two matrices for a moment, and the bytes that a large copy moves.
H100 = Speed(matrix=785e12, read=3.0e12)
ALL_HIGH, MIXED, SPATIAL = Regime.ALL_HIGH, Regime.MIXED, Regime.SPATIAL


def model(name: str, question: str = "Where is the cup?") -> Model:
    return next(model for model in models(question) if model.name == name)


def planned(name: str, frames: int, video: VideoInfo = HD, **options: Any) -> Counts:
    return counts(model(name), CompressionOptions(**options), video, frames)


# --- counts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frames", "kept", "regimes"),
    [
        (1, (1, 1), (ALL_HIGH,)),
        (50, (50, 50), (ALL_HIGH,)),
        (100, (100, 100), (MIXED,)),
        (200, (13, 200), (ALL_HIGH, MIXED, SPATIAL)),
        (600, (38, 400), (ALL_HIGH, MIXED, SPATIAL)),
        (3600, (225, 400), (SPATIAL,)),
    ],
)
def test_the_released_recipe(frames: int, kept: tuple[int, int], regimes: tuple[Regime, ...]) -> None:
    work = planned("7b", frames)
    assert (work.sampled, work.kept, work.regimes) == (frames, Span(*kept), regimes)
    assert work.visual_budget == 10_000 - 16 - work.text_tokens
    assert work.visual_tokens <= work.visual_budget


def test_other_settings() -> None:
    assert planned("7b", 3600, recipe=RecipeName.PAPER).kept == Span(450, 3600)
    assert planned("7b", 600, temporal_reduction=TemporalReduction.NONE).kept == Span(600, 600)
    assert planned("7b", 600, temporal_reduction=TemporalReduction.UNIFORM).kept.high < 160
    assert planned("7b", 20, context_length=2000).regimes == (MIXED,)
    # Frames of 16:9 are read as 12 × 6 tokens and as many newlines as rows.
    assert planned("7b", 10).visual_tokens == 840
    still = planned("7b", 1, STILL)
    assert (still.kept, still.regimes, still.visual_tokens < 84) == (Span(1, 1), (MIXED,), True)
    assert planned("7b", 1, STILL, still=StillMode.VIDEO).visual_tokens == 84
    with pytest.raises(UsageError, match="more than the model's"):
        planned("7b", 1, context_length=40_000)


@pytest.mark.parametrize("context_length", [None, 700, 400, 150])
def test_what_the_compression_does_is_what_was_forecast(tiny_folder: Path, context_length: int | None) -> None:
    question, options = "Where is the cup?", CompressionOptions(context_length=context_length)
    loaded = LongVU.from_pretrained(str(tiny_folder), part=Part.QUESTION, options=ModelOptions(device="cpu"))
    done = loaded.compress(tiny_folder / "demo.mp4", question, compression=options)
    work = counts(model("tiny", question), options, done.video, 12)
    real = done.statistics
    assert (real.frames.sampled, real.text_tokens, real.visual_budget) == (12, work.text_tokens, work.visual_budget)
    assert work.kept.low <= real.frames.kept <= work.kept.high
    assert real.regime in work.regimes
    assert real.tokens.visual <= work.visual_tokens <= work.visual_budget


# --- memory ---------------------------------------------------------------------------------------------------------


def test_memory_is_that_by_which_models_are_refused() -> None:
    for name in ("7b", "3b", "1b"):
        for quantize in Quantization:
            assert device_bytes(model(name), "cuda", BF16, quantize) == Footprint.of(VARIANTS[name]).needed_bytes(
                BF16, quantize
            )
    assert host_bytes(model("7b"), "cuda", BF16, NF4) == int(15.3 * 2**30)
    assert host_bytes(model("7b"), "cuda", BF16, INT8) is None
    assert host_bytes(model("7b"), "mps", BF16, NONE) is None
    assert host_bytes(model("1b"), "cpu", F32, NONE) == device_bytes(model("1b"), "cpu", F32, NONE)
    assert device_bytes(model("tiny"), "cpu", F32, NONE) < 10**9


# --- times ----------------------------------------------------------------------------------------------------------


def test_operations_are_those_of_the_towers() -> None:
    seven = model("7b")
    assert seven.dinov2 == pytest.approx(1.79e12, rel=0.01)
    assert seven.siglip == pytest.approx(0.67e12, rel=0.01)
    assert 2e10 < seven.connector < 5e10
    assert seven.read == pytest.approx(7.1e9, rel=0.02)


def work_of(sampled: int, kept: int, tokens: int) -> Counts:
    return Counts(sampled, Span(kept, kept), Span(kept, kept), Span(0, 0), (SPATIAL,), 75, 8101, tokens)


def estimated(
    name: str,
    work: Counts,
    speed: Speed = H100,
    *,
    device: str = "cuda",
    dtype: torch.dtype = BF16,
    quantize: Quantization = NONE,
    decoding_s: float = 0.0,
    new_tokens: int = 1,
) -> Times | None:
    return times(
        model(name),
        work,
        speed,
        device=device,
        dtype=dtype,
        quantize=quantize,
        decoding_s=decoding_s,
        new_tokens=new_tokens,
    )


def test_the_measured_runs_are_met_within_a_fifth() -> None:
    """The rows of bench/README.md for one H100: seconds to the first token, 7b, all frames different."""
    for frames, decoding_s, seconds in ((200, 0.65 / 200, 3.23), (600, 2.3 / 600, 7.0), (3600, 17.1 / 3600, 24.4)):
        made = estimated("7b", planned("7b", frames), decoding_s=decoding_s)
        assert made is not None
        assert seconds / 1.2 < made.first.high < seconds * 1.2, frames


def test_frames_that_wait_are_seen_twice_if_they_stay() -> None:
    # Measured (bench/README.md): SigLIP saw 784 of an hour's frames that all stand out, and DINOv2 352 of them twice.
    hour = planned("7b", 3600)
    assert (hour.seen_again.high, hour.seen_by_siglip.high) == (356, 756)
    assert (hour.seen_again.low, hour.seen_by_siglip.low) == (0, planned("7b", 3600).seen_by_siglip.low)
    assert planned("7b", 1000).seen_again == Span(0, 0)
    assert planned("7b", 1000).seen_by_siglip.high == 1000
    assert planned("7b", 3600, recipe=RecipeName.PAPER).seen_again == Span(0, 0)
    assert planned("7b", 3600, temporal_reduction=TemporalReduction.UNIFORM).seen_again == Span(0, 0)


def test_twice_the_rate_is_half_the_time() -> None:
    work = work_of(600, 400, 8000)
    slow = estimated("1b", work, Speed(2e10, 4e9), device="cpu", dtype=F32)
    fast = estimated("1b", work, Speed(4e10, 8e9), device="cpu", dtype=F32)
    assert slow is not None and fast is not None
    assert slow.first.high == pytest.approx(2 * fast.first.high)
    assert slow.next.high == pytest.approx(2 * fast.next.high)
    assert slow.next.high < slow.first.high


def test_on_a_gpu_the_slower_of_decoding_and_watching_counts() -> None:
    work = work_of(600, 400, 8000)
    quick, slow = estimated("1b", work), estimated("1b", work, decoding_s=1.0)
    assert quick is not None and slow is not None
    assert slow.first.high - slow.next.high == pytest.approx(600.6)  # and before the first frames come
    on_cpu = [estimated("1b", work, Speed(1e12, 1e11), device="cpu", dtype=F32, decoding_s=s) for s in (0.0, 1.0)]
    assert on_cpu[0] is not None and on_cpu[1] is not None
    assert on_cpu[1].first.high - on_cpu[0].first.high == pytest.approx(600)


def test_what_was_never_measured_is_not_estimated() -> None:
    work = work_of(600, 400, 8000)
    assert estimated("7b", work, quantize=INT8) is None
    assert estimated("7b", work, device="mps") is None
    assert estimated("tiny", work) is None
    assert estimated("tiny", work, device="cpu", dtype=F32) is not None
