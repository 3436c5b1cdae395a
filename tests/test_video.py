"""A file → sampled frames: which frames, at which times, which way up, and what is said of broken and hostile files."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from media import UPRIGHT, corners_of, number_of, picture, steady, write_video
from PIL import Image

from longvu_cli import sampling as sampling_module
from longvu_cli import source as source_module
from longvu_cli.config import DecodingOptions, SamplingOptions
from longvu_cli.errors import NoFrames, NotAVideo, NoVideoStream, UsageError, VideoError, VideoNotFound
from longvu_cli.video import Frame, Video, VideoInfo, save_frames

SHARED = Path(__file__).parents[2] / "shared"
BAD_MEDIA = SHARED / "badmedia"
PARITY = SHARED / "parity"


ONE_PER_SECOND, AUTOMATIC = SamplingOptions(), DecodingOptions()
# For tests that reach into what reads the file.
HERE = DecodingOptions(isolated=False)


def read(
    path: str | Path, sampling: SamplingOptions = ONE_PER_SECOND, decoding: DecodingOptions = AUTOMATIC
) -> tuple[list[Frame], VideoInfo]:
    with Video(path, sampling, decoding) as video:
        frames = list(video.frames())
        return frames, video.info


def numbers(path: Path, decoding: DecodingOptions = AUTOMATIC, **sampling: Any) -> list[int]:
    return [number_of(frame.pixels) for frame in read(path, SamplingOptions(**sampling), decoding)[0]]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8.5 seconds at 10 frames per second, a keyframe each second, B-frames."""
    return write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", steady(85))


def test_one_frame_per_second(clip: Path) -> None:
    frames, info = read(clip)
    assert [number_of(frame.pixels) for frame in frames] == [0, 10, 20, 30, 40, 50, 60, 70, 80]
    assert [frame.index for frame in frames] == list(range(9))
    assert [frame.time_s for frame in frames] == pytest.approx([float(second) for second in range(9)])
    assert frames[0].pixels.shape == (72, 128, 3) and frames[0].pixels.dtype == np.uint8
    assert (info.width, info.height, info.fps, info.rotation, info.codec) == (128, 72, 10.0, 0, "h264")
    assert info.duration_s == pytest.approx(8.5)
    assert info.warnings == () and not info.is_still
    assert info.title is None


def test_the_title_is_that_of_the_container(clip: Path, tmp_path: Path) -> None:
    titled = tmp_path / "titled.mp4"
    with av.open(str(clip)) as source, av.open(str(titled), "w") as target:
        target.metadata["title"] = "Holidays in März"
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    assert read(titled)[1].title == "Holidays in März"


def test_other_sampling_rates(clip: Path) -> None:
    assert numbers(clip, fps=2.0) == list(range(0, 85, 5))
    assert numbers(clip, fps=0.25) == [0, 40, 80]
    assert numbers(clip, fps=10.0) == list(range(85))
    assert numbers(clip, fps=20.0) == [number // 2 for number in range(170)]


def test_too_many_samples_are_thinned(clip: Path) -> None:
    asked = SamplingOptions(fps=2.0, thin_above=4)
    with Video(clip, replace(asked, thin_above=0)) as video:
        every = [(frame.time_s, number_of(frame.pixels)) for frame in video.frames()]
    with Video(clip, asked) as video:
        assert video.sampling == replace(asked, fps=2.0 / (len(every) // 4))
        assert video.expected_frames == math.ceil(len(every) / (len(every) // 4))
        thin = [(frame.time_s, number_of(frame.pixels)) for frame in video.frames()]
    assert thin == every[:: len(every) // 4]


def test_variable_rate_is_sampled_by_time(tmp_path: Path) -> None:
    # Ten frames in the first second, then frame 10 for 2.5 s, then frame 11.
    times = [*steady(11), 3.5]
    path = write_video(tmp_path / "vfr.mkv", times, codec="ffv1", pixel_format="bgr0")
    frames, _ = read(path)
    assert [number_of(frame.pixels) for frame in frames][:4] == [0, 10, 10, 10]
    assert [frame.time_s for frame in frames][:4] == pytest.approx([0.0, 1.0, 1.0, 1.0])


def test_the_last_frame_is_held_for_its_duration(tmp_path: Path) -> None:
    path = write_video(tmp_path / "slow.mp4", [0.0, 2.0, 4.0], rate=1)
    frames, info = read(path)
    assert [number_of(frame.pixels) for frame in frames][:5] == [0, 0, 1, 1, 2]
    assert info.duration_s == pytest.approx(len(frames), abs=1.0)


def test_a_single_frame_gives_one_sample(tmp_path: Path) -> None:
    assert numbers(write_video(tmp_path / "one.mp4", [0.0])) == [0]


def test_times_count_from_the_first_frame(tmp_path: Path) -> None:
    path = write_video(tmp_path / "late.ts", [1000 + second for second in steady(25)])
    frames, _ = read(path)
    assert [number_of(frame.pixels) for frame in frames] == [0, 10, 20]
    assert [frame.time_s for frame in frames] == pytest.approx([0.0, 1.0, 2.0])


def test_rounded_time_bases_do_not_shift_samples(tmp_path: Path) -> None:
    """Matroska rounds 1/30 s to milliseconds."""
    path = write_video(tmp_path / "thirty.mkv", steady(95, 30), rate=30)
    assert numbers(path) == [0, 30, 60, 90]
    assert numbers(path, fps=10.0) == list(range(0, 95, 3))


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.webm", "clip.ts", "clip.avi"])
@pytest.mark.parametrize("start, end", [(0.0, 3.0), (2.95, 6.0), (3.0, None), (4.5, 4.6), (7.2, 100.0), (8.4, None)])
def test_a_range_equals_that_part_of_a_full_decode(
    tmp_path_factory: pytest.TempPathFactory, clip: Path, name: str, start: float, end: float | None
) -> None:
    path = clip.with_name(name)
    if not path.exists():
        codec = {"webm": "libvpx-vp9", "avi": "mpeg4"}.get(path.suffix[1:], "libx264")
        options = {"cpu-used": "8", "deadline": "realtime"} if codec == "libvpx-vp9" else {}
        write_video(path, steady(85), codec=codec, options=options, ticks=10 if codec == "mpeg4" else 30_000)
    full = read(path, SamplingOptions(fps=10.0))[0]
    part, info = read(path, SamplingOptions(fps=10.0, start_s=start, end_s=end))
    count = len(part)
    first = int(start * 10 + 1e-6)
    assert [frame.index for frame in part] == list(range(count))
    assert count == len(range(85)[first:]) if end is None or end > 8.5 else round((end - start) * 10 + 0.4)
    for ours, whole in zip(part, full[first : first + count], strict=True):
        assert ours.time_s == pytest.approx(whole.time_s)
        np.testing.assert_array_equal(ours.pixels, whole.pixels)
    assert info.warnings == ()


def test_a_start_far_into_the_file_decodes_little(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = 0
    original = source_module._StreamSource._timed

    def count(self: Any, frames: Any) -> Any:
        nonlocal decoded
        for item in original(self, frames):
            decoded += 1
            yield item

    monkeypatch.setattr(source_module._StreamSource, "_timed", count)
    assert numbers(clip, HERE, start_s=7.0) == [70, 80]
    assert decoded <= 30


def test_a_start_beyond_the_end(clip: Path) -> None:
    with (
        Video(clip, SamplingOptions(start_s=20)) as video,
        pytest.raises(NoFrames, match=r"8\.5 s.*--start 20") as caught,
    ):
        list(video.frames())
    assert caught.value.hint


@pytest.mark.parametrize("degrees, clockwise", [(0, 0), (-90, 90), (180, 180), (90, 270)])
@pytest.mark.parametrize("mirrored", [False, True])
def test_orientation(tmp_path: Path, degrees: int, clockwise: int, mirrored: bool) -> None:
    stored = np.rot90(picture(5), clockwise // 90)
    stored = np.ascontiguousarray(stored)
    path = write_video(tmp_path / "turned.mp4", [0.0, 0.1], pictures=[stored, stored], display=(degrees, mirrored))
    frames, info = read(path)
    left_to_right = ("green", "red", "yellow", "blue")
    upside_down = ("blue", "yellow", "red", "green")
    allowed = {UPRIGHT} if not mirrored else {left_to_right, upside_down}
    assert corners_of(frames[0].pixels) in allowed
    assert frames[0].pixels.shape == (72, 128, 3)
    assert (info.width, info.height) == (128, 72)
    if not mirrored:
        assert info.rotation == clockwise
        assert number_of(frames[0].pixels) == 5


def test_a_mirror_undoes_a_mirrored_picture(tmp_path: Path) -> None:
    stored = np.ascontiguousarray(picture(5)[:, ::-1])
    path = write_video(tmp_path / "mirror.mp4", [0.0, 0.1], pictures=[stored, stored], display=(0, True))
    frames, _ = read(path)
    assert corners_of(frames[0].pixels) == UPRIGHT and number_of(frames[0].pixels) == 5


def test_transparent_parts(tmp_path: Path) -> None:
    see_through = np.dstack([picture(5), np.full((72, 128), 128, np.uint8)])
    path = write_video(tmp_path / "alpha.mov", [0.0], pictures=[see_through], codec="png", pixel_format="rgba")
    np.testing.assert_array_equal(read(path)[0][0].pixels, picture(5))
    Image.fromarray(see_through).save(tmp_path / "alpha.png")
    np.testing.assert_allclose(read(tmp_path / "alpha.png")[0][0].pixels, picture(5) * (128 / 255), atol=1)


def test_number_of_frames_is_capped_by_a_growing_stride(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling_module, "MAX_FRAMES", 8)
    frames, info = read(clip, SamplingOptions(fps=10.0), HERE)
    assert [number_of(frame.pixels) for frame in frames][:13] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16]
    assert len(frames) < 20
    assert any("cap" in warning for warning in info.warnings)


def test_as_many_frames_as_the_cap_are_no_reason_to_warn(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling_module, "MAX_FRAMES", 85)
    frames, info = read(clip, SamplingOptions(fps=10.0), HERE)
    assert len(frames) == 85 and info.warnings == ()


def test_ten_hours_fit_under_the_cap() -> None:
    assert sampling_module.MAX_FRAMES >= 36_000


def test_a_long_hold_is_sampled_throughout(tmp_path: Path) -> None:
    """A screen recording: nothing moves for half an hour."""
    path = write_video(tmp_path / "hold.mkv", [0.0, 1800.0, 1801.0], codec="ffv1", pixel_format="bgr0", rate=1)
    frames, info = read(path)
    assert len(frames) == 1802 and info.warnings == ()
    assert all(frame.pixels is frames[0].pixels for frame in frames[:1800])


def test_sampling_goes_on_after_a_hold_that_was_cut_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling_module, "MAX_REPEATS", 3)
    path = write_video(tmp_path / "hold.mkv", [0.0, 20.0, 21.0, 22.0], codec="ffv1", pixel_format="bgr0", rate=1)
    assert numbers(path, HERE) == [0, 0, 0, 1, 2, 3]


def test_memory_does_not_grow_with_the_video(tmp_path: Path) -> None:
    def peak(frames: int) -> int:
        path = write_video(tmp_path / f"{frames}.mkv", steady(frames, 1), rate=1)
        tracemalloc.start()
        with Video(path, decoding=HERE) as video:
            for _ in video.frames():
                pass
        try:
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(10)
    # A picture has 27,648 bytes.
    assert peak(400) < 5 * 72 * 128 * 3


def test_stills(tmp_path: Path) -> None:
    Image.fromarray(picture(9)).save(tmp_path / "still.png")
    frames, info = read(tmp_path / "still.png")
    assert [(frame.index, frame.time_s) for frame in frames] == [(0, 0.0)]
    np.testing.assert_array_equal(frames[0].pixels, picture(9))
    assert info.is_still and (info.width, info.height, info.codec, info.duration_s) == (128, 72, "png", None)


def test_exif_orientation_of_a_still(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.ascontiguousarray(np.rot90(picture(9)))).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    frames, info = read(tmp_path / "turned.jpg")
    assert corners_of(frames[0].pixels) == UPRIGHT and info.rotation == 90


def test_sixteen_bit_grey_still(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 256, 32768, 65535]], np.uint16)).save(tmp_path / "grey.png")
    assert read(tmp_path / "grey.png")[0][0].pixels[0, :, 0].tolist() == [0, 1, 128, 255]


def test_a_damaged_still(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(tmp_path / "still.png")
    data = (tmp_path / "still.png").read_bytes()
    (tmp_path / "still.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(NoFrames, match="no frame could be decoded"):
        Video(tmp_path / "still.png")


def test_large_frames_are_refused_before_they_are_decoded(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_module, "MAX_PIXELS", 100 * 50)
    with pytest.raises(NoFrames, match=r"too large \(128x72\)"):
        Video(clip, decoding=HERE)


def test_a_large_still_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    Image.new("1", (8_000, 6_000)).save(tmp_path / "large.png")
    with pytest.raises(NoFrames, match=r"too large \(8000x6000\)"):
        Video(tmp_path / "large.png", decoding=HERE)


@pytest.mark.parametrize("name", ["cut.mp4", "cut.mkv", "cut.avi"])
def test_a_file_that_was_cut_off(tmp_path: Path, name: str) -> None:
    rng = np.random.default_rng(0)
    pictures = [picture(number) // 2 + rng.integers(0, 120, (72, 128, 3), np.uint8) for number in range(60)]
    options = {"movflags": "faststart"} if name.endswith("mp4") else {}
    codec, ticks = ("mjpeg", 10) if name.endswith("avi") else ("libx264", 30_000)
    path = write_video(
        tmp_path / name,
        steady(60),
        pictures=pictures,
        container_options=options,
        codec=codec,
        pixel_format="yuvj420p" if codec == "mjpeg" else "yuv420p",
        ticks=ticks,
    )
    assert read(path)[1].warnings == ()
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    frames, info = read(path)
    assert 2 <= len(frames) <= 4
    assert any("ends early" in warning for warning in info.warnings)


@pytest.mark.parametrize(
    "name, codec, settings",
    [
        ("hole.mkv", "libx265", {"options": {"x265-params": "log-level=none"}}),
        ("hole.mkv", "ffv1", {"pixel_format": "bgr0"}),
        ("hole.gif", "gif", {"pixel_format": "rgb8"}),
    ],
    ids=["container, in groups", "decoder, in groups", "decoder, every frame"],
)
def test_damage_of_which_only_the_log_tells_is_told(
    tmp_path: Path, name: str, codec: str, settings: dict[str, Any]
) -> None:
    rng = np.random.default_rng(0)
    pictures = [picture(number) // 2 + rng.integers(0, 120, (72, 128, 3), np.uint8) for number in range(40)]
    path = write_video(tmp_path / name, steady(40), pictures=pictures, codec=codec, ticks=1000, **settings)
    assert read(path)[1].warnings == ()
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 2000] = bytes(2000)
    path.write_bytes(data)
    frames, info = read(path)
    assert frames and len(info.warnings) == 1
    assert re.fullmatch(r"\d+ signs? of corrupt data: frames may be missing or damaged", info.warnings[0])


@pytest.mark.parametrize("transfer, is_hdr", [("smpte2084", True), ("arib-std-b67", True), ("bt709", False)])
@pytest.mark.parametrize("start_s", [0.0, 2.0])
def test_colours_that_no_ordinary_screen_has_are_told(
    tmp_path: Path, transfer: str, is_hdr: bool, start_s: float
) -> None:
    color = f"log-level=none:colorprim=bt2020:transfer={transfer}:colormatrix=bt2020nc"
    path = write_video(
        tmp_path / "hdr.mp4", steady(40), codec="libx265", pixel_format="yuv420p10le", options={"x265-params": color}
    )
    frames, info = read(path, SamplingOptions(start_s=start_s))
    assert number_of(frames[0].pixels) == 10 * start_s
    assert [warning.split(":")[0] for warning in info.warnings] == (["the video is HDR"] if is_hdr else [])


def test_a_length_that_is_nonsense_ends_the_file(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.ivf", steady(20), codec="libvpx")
    path.write_bytes(path.read_bytes() + b"\xf0\xff\xff\x7f" * 3 + bytes(100))
    frames, info = read(path)
    assert [number_of(frame.pixels) for frame in frames] == [0, 10]
    assert any("corrupt" in warning for warning in info.warnings)


def test_what_a_container_cannot_read_is_counted_and_the_rest_is_kept(tmp_path: Path) -> None:
    """A length below zero: FFmpeg has no memory for it, and says so in place of a packet."""
    options = {"deadline": "realtime", "cpu-used": "8"}
    path = write_video(tmp_path / "clip.ivf", steady(20), codec="libvpx-vp9", options=options)
    data, at = bytearray(path.read_bytes()), 32
    for _ in range(15):
        at += 12 + int.from_bytes(data[at : at + 4], "little")
    data[at : at + 4] = (0xFC998FB9).to_bytes(4, "little")
    path.write_bytes(data)
    frames, info = read(path)
    assert [number_of(frame.pixels) for frame in frames] == [0, 10]
    assert "corrupt packet" in info.warnings[0]


def test_packets_that_the_index_lists_and_the_file_lacks(tmp_path: Path) -> None:
    """The data goes on to the end of the file, wherever that is, and it ends between two packets."""
    path = write_video(tmp_path / "clip.mp4", steady(60), container_options={"movflags": "faststart"})
    with av.open(str(path)) as container:
        ends = sorted(packet.pos + packet.size for packet in container.demux(video=0) if packet.pos is not None)
    data = bytearray(path.read_bytes())
    at = data.find(b"mdat")
    data[at - 4 : at] = bytes(4)
    path.write_bytes(data)
    assert read(path)[1].warnings == ()
    path.write_bytes(data[: ends[30]])
    frames, info = read(path)
    assert 2 <= len(frames) <= 4
    assert any("ends early" in warning for warning in info.warnings)


def test_jpegs_one_behind_the_other_are_a_video(tmp_path: Path) -> None:
    pictures = [Image.fromarray(picture(number)) for number in range(50)]
    with (tmp_path / "camera.mjpeg").open("wb") as stream:
        for one in pictures:
            one.save(stream, "JPEG", quality=90)
    frames, info = read(tmp_path / "camera.mjpeg")
    assert [number_of(frame.pixels) for frame in frames] == [0, 25] and not info.is_still
    assert info.warnings == ("frames without timestamps: 25 frames per second are assumed",)
    # A camera's second picture belongs to the first.
    pictures[7].save(tmp_path / "stereo.jpg", "MPO", save_all=True, append_images=pictures[8:9], quality=90)
    frames, info = read(tmp_path / "stereo.jpg")
    assert [number_of(frame.pixels) for frame in frames] == [7] and info.is_still


def test_an_assumed_rate_is_told_where_timestamps_are_made_up(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.obu", steady(30), codec="libsvtav1", container="obu", options={"preset": "12"})
    assert read(path)[1].warnings == ("frames without timestamps: 25 frames per second are assumed",)


def test_times_that_begin_in_the_middle_go_on_from_there(tmp_path: Path) -> None:
    # FFmpeg gives no times below zero of Matroska.
    times = [time_s - 2 for time_s in steady(80)]
    path = write_video(tmp_path / "clip.mkv", times, container_options={"avoid_negative_ts": "disabled"})
    frames, info = read(path)
    assert [number_of(frame.pixels) for frame in frames] == list(range(0, 80, 10))
    assert info.warnings == ("frames without timestamps: 10 frames per second are assumed",)


def test_recordings_that_were_joined_are_no_damage(tmp_path: Path) -> None:
    parts = [
        write_video(tmp_path / f"{start}.ts", [start + time_s for time_s in steady(20)], pictures=pictures)
        for start, pictures in ((0, None), (2, (picture(number, 160, 90) for number in range(20))), (4, None))
    ]
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    frames, info = read(joined)
    assert len(frames) == 6
    assert info.warnings == ("the size of the picture changes; later frames are fitted into 128x72",)


def test_the_unit_of_time_is_no_rate(tmp_path: Path) -> None:
    pictures = [picture(number, 720, 576) for number in range(5)]
    path = write_video(tmp_path / "tape.dv", steady(5, 25), pictures=pictures, codec="dvvideo", rate=25, ticks=25)
    assert read(path)[1].fps == 25


@pytest.mark.parametrize(
    "change, is_told",
    [
        (lambda path: os.truncate(path, 100), True),
        (lambda path: path.write_bytes(path.read_bytes() + bytes(5_000)), True),
        (lambda path: (path.unlink(), path.write_bytes(b"another")), True),
        (lambda path: path.unlink(), False),
        (lambda path: path.chmod(0o600), False),
    ],
    ids=["cut", "grown", "replaced", "gone", "other rights"],
)
def test_a_file_that_changes_while_it_is_read(tmp_path: Path, change: Callable[[Path], object], is_told: bool) -> None:
    path = write_video(tmp_path / "clip.ts", steady(85))
    # In a process of its own it might have been read to its end by then.
    with Video(path, decoding=HERE) as video:
        frames = video.frames()
        next(frames)
        change(path)
        assert len(list(frames)) > 2
        assert any("changed while it was read" in warning for warning in video.info.warnings) == is_told


def test_an_index_that_was_cut_off_is_said_to_be_damaged(clip: Path, tmp_path: Path) -> None:
    data = clip.read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(data[: data.find(b"moov") + 200])
    with pytest.raises(NoVideoStream, match="no video stream that can be read") as caught:
        Video(cut)
    assert "cut off" in caught.value.hint


def test_a_stream_that_appeared_in_the_middle(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recording of a broadcast: at its end, PyAV takes sound that set in later for a stream that it does not know."""

    class Container:
        def __init__(self, opened: Any) -> None:
            self._opened = opened

        def __getattr__(self, name: str) -> Any:
            return getattr(self._opened, name)

        def demux(self, stream: Any) -> Any:
            yield from self._opened.demux(stream)
            raise IndexError("list index out of range")

    original = source_module.open_container
    monkeypatch.setattr(source_module, "open_container", lambda *a, **k: Container(original(*a, **k)))
    frames, info = read(clip, decoding=DecodingOptions(isolated=False, every_frame=True))
    assert len(frames) == 9 and info.warnings == ()


def test_reading_is_one_pass(clip: Path) -> None:
    with Video(clip) as video:
        list(video.frames())
        with pytest.raises(RuntimeError, match="once"):
            video.frames()


def test_info_outlives_the_file(clip: Path) -> None:
    with Video(clip) as video:
        assert video.expected_frames == 9
        assert len(list(video.frames())) == 9
    assert video.info.duration_s == pytest.approx(8.5)


def test_expected_frames_of_a_range(clip: Path) -> None:
    with Video(clip, SamplingOptions(fps=2.0, start_s=1.0, end_s=3.0)) as video:
        assert video.expected_frames == 4 == len(list(video.frames()))


@pytest.mark.parametrize("name", ["%03d.jpg", "a*.png", "{1,2}.tiff", "%d/x.jpg"])
def test_a_name_like_that_of_many_pictures_is_a_name(clip: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    shutil.copy(clip, tmp_path / name)
    assert len(read(tmp_path / name)[0]) == len(read(clip)[0])


def test_control_characters_of_a_name_are_escaped(tmp_path: Path) -> None:
    path = tmp_path / "a\x1b[31m\u202eb.mp4"
    path.write_text("no video")
    with pytest.raises(NotAVideo) as caught:
        Video(path)
    assert "\\x1b[31m\\u202eb.mp4" in caught.value.message and "\x1b" not in caught.value.message


def test_an_interrupt_while_opening_is_not_swallowed(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(source_module.av, "open", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Video(clip, decoding=HERE)


def test_another_signal_while_opening_does_no_harm(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, calls = source_module.av.open, []

    def interrupted_once(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 1:
            raise source_module.av.error.InterruptedError(4, "Interrupted system call")
        return original(*arguments, **options)

    monkeypatch.setattr(source_module.av, "open", interrupted_once)
    frames, _ = read(clip, SamplingOptions(end_s=2.0), DecodingOptions(every_frame=True, isolated=False))
    assert [number_of(frame.pixels) for frame in frames] == [0, 10] and len(calls) == 2


def test_nothing_is_printed(clip: Path, tmp_path: Path) -> None:
    data = bytearray(clip.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 100] = np.random.default_rng(0).integers(0, 255, 100, np.uint8).tobytes()
    (tmp_path / "garbled.mp4").write_bytes(data)
    script = "import sys; from longvu_cli.video import Video; print(len(list(Video(sys.argv[1]).frames())), end='')"
    source = Path(source_module.__file__).parents[1]
    result = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "garbled.mp4"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(source)},
    )
    assert result.stdout.isdigit() and result.stderr == ""


class TestSaveFrames:
    def test_writes_the_sampled_frames(self, clip: Path, tmp_path: Path) -> None:
        folder = tmp_path / "new" / "frames"
        files = save_frames(clip, SamplingOptions(), [5, 2], folder)
        assert files == [folder / "000002.png", folder / "000005.png"] == sorted(folder.iterdir())
        frames, _ = read(clip)
        for file, index in zip(files, (2, 5), strict=True):
            np.testing.assert_array_equal(np.asarray(Image.open(file)), frames[index].pixels)

    def test_no_frames_to_save(self, clip: Path, tmp_path: Path) -> None:
        assert save_frames(clip, SamplingOptions(), [], tmp_path / "frames") == []

    def test_a_folder_that_cannot_be_made(self, clip: Path, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(UsageError, match="cannot be written") as caught:
            save_frames(clip, SamplingOptions(), [0], tmp_path / "file" / "frames")
        assert caught.value.hint

    def test_frames_that_do_not_exist(self, clip: Path, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="1 of the 2"):
            save_frames(clip, SamplingOptions(), [0, 9], tmp_path)


@pytest.mark.skipif(not PARITY.is_dir(), reason="the parity data is not here")
@pytest.mark.parametrize("name, count", [("all_high_short", 20), ("capped_400", 620)])
def test_parity_files_are_sampled_frame_by_frame(name: str, count: int) -> None:
    frames, info = read(PARITY / f"{name}.mkv")
    assert [frame.time_s for frame in frames] == pytest.approx([float(second) for second in range(count)])
    assert info.duration_s == pytest.approx(count) and info.warnings == ()


# -------------------------------------------------------------------------------- odd, broken and hostile files


def entries(*, special: bool) -> list[Any]:
    if not BAD_MEDIA.is_dir():
        return []
    manifest = json.loads((BAD_MEDIA / "manifest.json").read_text(encoding="utf-8"))
    wanted = [entry for entry in manifest if (entry["group"] == "special") == special]
    return [pytest.param(entry, id=entry["made"].split(",")[0][:40]) for entry in wanted]


# Files on which a sentence is due although the manifest asks for none.
MAY_WARN = {"raw.h264", "two_videos.mkv", "hevc10_hdr.mp4", "ts_cut_head.ts"}


def verify(entry: dict[str, Any], path: str | Path) -> None:
    try:
        frames, info = read(path)
    except VideoError as error:
        assert 3 in entry["exit"], error.message
        assert re.search(entry["message"] or "", error.message, re.IGNORECASE)
        assert "S3CRET" not in error.message + error.hint
        assert error.message.isprintable()
        return
    assert 0 in entry["exit"]
    fewest, most = entry["frames"]
    assert fewest <= len(frames) <= most
    assert len({frame.pixels.shape for frame in frames}) == 1
    assert all(sentence.isprintable() for sentence in info.warnings)
    if entry["orientation"] == "upright":
        assert all(corners_of(frame.pixels) == UPRIGHT for frame in (frames[0], frames[len(frames) // 3]))
    if entry["frame_numbers"] is not None:
        found = [number_of(frame.pixels) for frame in frames][: len(entry["frame_numbers"])]
        assert np.abs(np.subtract(found, entry["frame_numbers"])).max() <= 0.11 * entry["source_fps"]
    if entry["warning"] is not None:
        assert re.search(entry["warning"], " ".join(info.warnings), re.IGNORECASE)
    elif Path(path).name not in MAY_WARN:
        assert info.warnings == ()


@pytest.mark.parametrize("entry", entries(special=False))
def test_manifest(entry: dict[str, Any], tmp_path: Path) -> None:
    path = BAD_MEDIA / entry["name"]
    if entry["group"] == "name":
        path = tmp_path / Path(entry["name"]).name
        shutil.copy(BAD_MEDIA / "plain.mp4", path)
    verify(entry, path)


def make_unreadable(path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    shutil.copy(BAD_MEDIA / "plain.mp4", path)
    path.chmod(0)


def make_sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 8 << 30)


SPECIAL: dict[str, Callable[[Path], object]] = {
    "a_directory.mp4": Path.mkdir,
    "missing.mp4": lambda path: None,
    "unreadable.mp4": make_unreadable,
    "fifo.mp4": os.mkfifo,
    "fifo-endless": os.mkfifo,
    "dev_zero.mp4": lambda path: path.symlink_to("/dev/zero"),
    "dev_urandom.mp4": lambda path: path.symlink_to("/dev/urandom"),
    "dangling.mp4": lambda path: path.symlink_to("nowhere"),
    "loop.mp4": lambda path: path.symlink_to(path.name),
    "link_ok.mp4": lambda path: path.symlink_to(BAD_MEDIA / "control.mp4"),
    "sparse_8g.mp4": make_sparse,
}


@pytest.mark.parametrize("entry", entries(special=True))
def test_special_files(entry: dict[str, Any], tmp_path: Path) -> None:
    if "://" in entry["name"]:
        verify(entry, entry["name"])
        verify(entry, Path(entry["name"]))
        return
    path = tmp_path / Path(entry["name"]).name
    SPECIAL[path.name](path)
    verify(entry, path)


def test_an_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also for those whom no permission stops."""
    (tmp_path / "a.mp4").write_text("x")

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(VideoNotFound, match="permission denied"):
        Video(tmp_path / "a.mp4")


def test_a_pipe_is_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    assert stat.S_ISFIFO((tmp_path / "pipe.mp4").stat().st_mode)
    monkeypatch.setattr(Path, "open", lambda *_: pytest.fail("opened"))
    with pytest.raises(VideoNotFound, match="not a regular file"):
        Video(tmp_path / "pipe.mp4")
