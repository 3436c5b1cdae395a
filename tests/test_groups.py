"""Decoding only what the sampled frames need: the same frames, bit by bit, as when every frame is decoded."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame
from media import Pixels, picture, steady, write_video

from longvu_cli import group_decoder
from longvu_cli.config import Decoder, DecodingOptions, SamplingOptions
from longvu_cli.errors import DeviceUnavailable, UsageError
from longvu_cli.nvdec import require_nvdec
from longvu_cli.source import _StreamSource
from longvu_cli.video import Frame, Video, VideoInfo

FRAMES = 200
ONCE_A_SECOND = SamplingOptions()
EVERY_FRAME = DecodingOptions(decoder=Decoder.CPU, every_frame=True, isolated=False)


def here(workers: int) -> DecodingOptions:
    """In this process, for tests that reach into what decodes."""
    return DecodingOptions(workers=workers, isolated=False)


SVT = pytest.mark.skipif("libsvtav1" not in av.codecs_available, reason="there is no AV1 encoder")


def moving(count: int) -> Iterator[Pixels]:
    """Textured pictures that move and are cut now and then, so that each is predicted from others."""
    generator = np.random.default_rng(1)
    ground = np.kron(generator.integers(0, 255, (30, 40, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
    for number in range(count):
        y, x = number % 80, number * 2 % 120
        shown = picture(number) // 2 + ground[y : y + 72, x : x + 128] // 2
        yield 255 - shown if number % 70 > 60 else shown


def uneven(count: int) -> list[float]:
    steps = np.random.default_rng(2).integers(1, 9, count) * 0.013
    return [float(time) for time in np.cumsum(steps)]


H264 = {"preset": "medium"}
CLIPS: dict[str, tuple[str, int, dict[str, str], bool]] = {
    "gop12.mp4": ("libx264", 12, {**H264, "x264-params": "bframes=3"}, False),
    "gop60.mkv": ("libx264", 60, {**H264, "x264-params": "bframes=5:b-pyramid=normal"}, False),
    "gop250.mp4": ("libx264", 250, {"preset": "veryfast"}, False),
    "open.mp4": ("libx264", 30, {**H264, "x264-params": "bframes=4:open-gop=1"}, False),
    "open.mkv": ("libx264", 30, {**H264, "x264-params": "bframes=4:open-gop=1"}, True),
    "uneven.mp4": ("libx264", 40, H264, True),
    "intra.mp4": ("libx264", 1, H264, False),
    "refresh.mp4": ("libx264", 30, {**H264, "x264-params": "intra-refresh=1"}, False),
    "interlaced.mkv": ("libx264", 30, {**H264, "x264-params": "tff=1"}, False),
    "hevc.mp4": ("libx265", 48, {"preset": "fast", "x265-params": "log-level=none"}, False),
    "hevc.mkv": ("libx265", 48, {"preset": "fast", "x265-params": "log-level=none:open-gop=0"}, True),
    "layers.mkv": ("libx265", 48, {"x265-params": "log-level=none:temporal-layers=3:bframes=7"}, False),
    "vp9.webm": ("libvpx-vp9", 60, {"cpu-used": "8", "deadline": "good", "lag-in-frames": "25"}, False),
    "mpeg4.mp4": ("mpeg4", 20, {"bf": "2"}, False),
    "ffv1.mkv": ("ffv1", 12, {}, False),
    "av1.mp4": ("libsvtav1", 60, {"preset": "10"}, False),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("groups")


def clip(folder: Path, name: str) -> Path:
    codec, keyframes_every, options, is_uneven = CLIPS[name]
    if (folder / name).exists():
        return folder / name
    return write_video(
        folder / name,
        uneven(FRAMES) if is_uneven else steady(FRAMES, 30),
        pictures=moving(FRAMES),
        codec=codec,
        pixel_format="bgr0" if codec == "ffv1" else "yuv420p",
        rate=30,
        keyframes_every=keyframes_every,
        options=options,
        ticks=1_000 if codec == "mpeg4" else 30_000,
    )


def read(path: Path, sampling: SamplingOptions, decoding: DecodingOptions) -> tuple[list[Frame], VideoInfo]:
    with Video(path, sampling, decoding) as video:
        frames = list(video.frames())
        return frames, video.info


def assert_same(path: Path, sampling: SamplingOptions, decoding: DecodingOptions) -> VideoInfo:
    expected, expected_info = read(path, sampling, EVERY_FRAME)
    frames, info = read(path, sampling, decoding)
    assert [(frame.index, frame.time_s) for frame in frames] == [(frame.index, frame.time_s) for frame in expected]
    for ours, theirs in zip(frames, expected, strict=True):
        np.testing.assert_array_equal(ours.pixels, theirs.pixels)
    assert info == expected_info
    return info


@pytest.mark.parametrize("name", [pytest.param(name, marks=SVT if name == "av1.mp4" else ()) for name in CLIPS])
def test_same_frames_as_when_every_frame_is_decoded(folder: Path, name: str) -> None:
    path = clip(folder, name)
    for fps, (start_s, end_s) in product((0.1, 1.0, 2.5, 30.0), ((0.0, None), (2.3, None), (3.05, 5.1))):
        sampling = SamplingOptions(fps=fps, start_s=start_s, end_s=end_s)
        assert assert_same(path, sampling, DecodingOptions(workers=2)).warnings == ()


@pytest.mark.parametrize("workers", [1, 2, 3, 4, 5])
def test_same_frames_whatever_the_number_of_workers(folder: Path, workers: int) -> None:
    for name in ("gop12.mp4", "open.mp4"):
        assert_same(clip(folder, name), SamplingOptions(fps=5.0), DecodingOptions(workers=workers))


def test_little_is_decoded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packets: list[int] = []
    original = group_decoder.GroupDecoder.__call__

    def count(self: Any, plan: Any, channel: Any) -> None:
        packets.append(len(plan.packets))
        original(self, plan, channel)

    monkeypatch.setattr(group_decoder.GroupDecoder, "__call__", count)
    read(clip(folder, "gop12.mp4"), SamplingOptions(fps=0.5), here(2))
    # Four samples, at or shortly after keyframes.
    assert len(packets) == 4 and sum(packets) < 20


@pytest.fixture
def resumptions(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many samples the unfinished group had given, for each time that every frame was decoded after all."""
    found: list[int] = []
    original = _StreamSource._resumed

    def note(self: Any, planner: Any, ahead: Any, taken: int, orientation: Any) -> Any:
        found.append(taken)
        return original(self, planner, ahead, taken, orientation)

    monkeypatch.setattr(_StreamSource, "_resumed", note)
    return found


@pytest.mark.parametrize("after", range(4))
def test_every_frame_is_decoded_from_where_a_group_fails(
    folder: Path, monkeypatch: pytest.MonkeyPatch, resumptions: list[int], after: int
) -> None:
    original, calls = group_decoder.GroupDecoder._pixels, []

    def fail(self: Any, *arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) > after * 3:
            raise group_decoder.Irregular
        return original(self, *arguments)

    monkeypatch.setattr(group_decoder.GroupDecoder, "_pixels", fail)
    assert_same(clip(folder, "gop60.mkv"), SamplingOptions(fps=3.0), here(1))
    assert len(resumptions) == 1


def test_a_damaged_group_is_told_of(folder: Path, tmp_path: Path, resumptions: list[int]) -> None:
    data = bytearray(clip(folder, "gop12.mp4").read_bytes())
    middle = len(data) // 2
    data[middle : middle + 400] = np.random.default_rng(0).integers(0, 255, 400, np.uint8).tobytes()
    (tmp_path / "damaged.mp4").write_bytes(data)
    expected, _ = read(tmp_path / "damaged.mp4", SamplingOptions(fps=5.0), EVERY_FRAME)
    frames, info = read(tmp_path / "damaged.mp4", SamplingOptions(fps=5.0), here(2))
    assert [frame.time_s for frame in frames] == [frame.time_s for frame in expected]
    assert resumptions and any("corrupt" in warning for warning in info.warnings)


def decoding_threads() -> int:
    return sum(thread.name == "decoding" for thread in threading.enumerate())


def test_closing_early_ends_the_threads(folder: Path) -> None:
    with Video(clip(folder, "gop12.mp4"), SamplingOptions(fps=5.0), here(4)) as video:
        frames = video.frames()
        next(frames)
        assert decoding_threads() > 0
        begin = time.perf_counter()
        frames.close()  # type: ignore[attr-defined]
    assert decoding_threads() == 0 and time.perf_counter() - begin < 5


def test_an_error_of_a_thread_ends_them_all(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(group_decoder.GroupDecoder, "_pixels", fail)
    with pytest.raises(MemoryError, match="no room"):
        read(clip(folder, "gop12.mp4"), SamplingOptions(), here(3))
    assert decoding_threads() == 0


def test_an_interrupt_ends_the_threads(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wait(self: Any, plan: Any, channel: Any) -> None:
        while True:
            time.sleep(0.01)
            channel.refuse_stopped()

    monkeypatch.setattr(group_decoder.GroupDecoder, "__call__", wait)
    interrupt = threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT))
    with Video(clip(folder, "gop12.mp4"), SamplingOptions(), here(3)) as video:
        frames = video.frames()
        interrupt.start()
        with pytest.raises(KeyboardInterrupt):
            next(frames)
    assert decoding_threads() == 0


def test_a_file_that_goes_away_is_read_on(folder: Path, tmp_path: Path, resumptions: list[int]) -> None:
    path = tmp_path / "gone.mp4"
    path.write_bytes(clip(folder, "gop12.mp4").read_bytes())
    expected, _ = read(path, ONCE_A_SECOND, EVERY_FRAME)
    with Video(path, ONCE_A_SECOND, here(2)) as video:
        path.unlink()
        found = list(video.frames())
    assert [frame.time_s for frame in found] == [frame.time_s for frame in expected] and resumptions == [0]


@pytest.mark.parametrize("decoding", [EVERY_FRAME, here(2)])
def test_decoded_frames_are_let_go_of_at_once(folder: Path, decoding: DecodingOptions) -> None:
    gc.collect()
    gc.disable()
    try:
        read(clip(folder, "gop60.mkv"), SamplingOptions(), decoding)
        assert sum(type(item) is VideoFrame for item in gc.get_objects()) < 10
    finally:
        gc.enable()


def test_a_decoder_that_is_not_there_is_told_of(folder: Path) -> None:
    try:
        require_nvdec()
    except DeviceUnavailable:
        with pytest.raises(DeviceUnavailable, match="no NVIDIA GPU") as caught:
            Video(clip(folder, "gop12.mp4"), SamplingOptions(), DecodingOptions(decoder=Decoder.NVDEC))
        assert "--decoder cpu" in caught.value.hint
    else:
        pytest.skip("there is one")


def test_the_decoder_of_a_gpu_gives_the_same_frames(folder: Path) -> None:
    try:
        require_nvdec()
    except DeviceUnavailable as error:
        pytest.skip(error.message)
    assert_same(clip(folder, "gop12.mp4"), SamplingOptions(), DecodingOptions(decoder=Decoder.NVDEC))


def test_a_negative_number_of_workers() -> None:
    with pytest.raises(UsageError, match="--workers -1"):
        DecodingOptions(workers=-1)
