import math
from pathlib import Path

import pytest
import torch
from media import steady, write_video

from longvu_cli import calibration
from longvu_cli.calibration import measure_decoding, measure_speed
from longvu_cli.config import DecodingOptions, SamplingOptions
from longvu_cli.errors import VideoNotFound


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_MATRIX_S", "_READ_S", "_DECODE_S"):
        monkeypatch.setattr(calibration, name, 0.01)
    monkeypatch.setitem(calibration._SIDE, "cpu", 128)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rates_are_measured(dtype: torch.dtype) -> None:
    speed = measure_speed(torch.device("cpu"), dtype)
    assert math.isfinite(speed.matrix) and speed.matrix > 0
    assert math.isfinite(speed.read) and speed.read > 0


def test_the_beginning_of_a_video_is_decoded(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mp4", steady(60))  # six seconds
    seen = measure_decoding(clip, SamplingOptions(fps=2), DecodingOptions(), device="cpu")
    assert (seen.frames, seen.info.codec) == (12, "h264")
    assert seen.seconds_per_frame is not None and 0 < seen.seconds_per_frame < 60
    one = measure_decoding(clip, SamplingOptions(end_s=1), DecodingOptions(), device="cpu")
    assert (one.frames, one.seconds_per_frame) == (1, None)


def test_only_without_a_gpu_preprocessing_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = write_video(tmp_path / "clip.mp4", steady(60))
    monkeypatch.setattr(calibration, "_square_seconds", lambda _: 1e6)
    for device, slow in (("cpu", True), ("mps", True), ("cuda", False)):
        seen = measure_decoding(clip, SamplingOptions(fps=2), DecodingOptions(), device=device)
        assert seen.seconds_per_frame is not None and (seen.seconds_per_frame > 1000) is slow


def test_a_picture_is_one_frame(parity: Path) -> None:
    seen = measure_decoding(parity / "still_image_portrait.png", SamplingOptions(), DecodingOptions(), device="cpu")
    assert (seen.frames, seen.seconds_per_frame, seen.info.is_still) == (1, None, True)


def test_what_is_no_video_is_its_own_error(tmp_path: Path) -> None:
    with pytest.raises(VideoNotFound):
        measure_decoding(tmp_path / "none.mp4", SamplingOptions(), DecodingOptions(), device="cpu")
