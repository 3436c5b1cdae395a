"""Whether a file was cut off, for each format that shows it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import pytest
from media import picture, steady, write_video
from PIL import Image

from longvu_cli.cut_off import seems_cut_off

_FRAGMENTED = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}


def gif(path: Path) -> None:
    first, *others = (Image.fromarray(picture(number)) for number in range(20))
    first.save(path, save_all=True, append_images=others, duration=100)


def apng(path: Path) -> None:
    first, *others = (Image.fromarray(picture(number)) for number in range(20))
    first.save(path, "PNG", save_all=True, append_images=others, duration=100)


def y4m(path: Path, pixels: str, *, width: int = 64, height: int = 48) -> None:
    options = {"strict": "-1"}
    with av.open(str(path), "w", format="yuv4mpegpipe", options=options) as output:
        stream = output.add_stream("wrapped_avframe", rate=10, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        for number in range(20):
            frame = av.VideoFrame.from_image(Image.fromarray(picture(number)))
            output.mux(stream.encode(frame.reformat(width, height, pixels)))
        output.mux(stream.encode())


MAKERS: dict[str, Callable[[Path], object]] = {
    "faststart.mp4": lambda path: write_video(path, steady(20), container_options={"movflags": "faststart"}),
    "fragmented.mp4": lambda path: write_video(path, steady(20), container_options=_FRAGMENTED),
    "clip.mkv": lambda path: write_video(path, steady(20)),
    "clip.avi": lambda path: write_video(path, steady(20), codec="mpeg4", ticks=10),
    "clip.asf": lambda path: write_video(path, steady(20), codec="wmv2", ticks=1000),
    "clip.ogv": lambda path: write_video(path, steady(20), codec="libvpx", container="ogg"),
    "clip.flv": lambda path: write_video(path, steady(20), codec="flv", ticks=1000),
    "clip.ts": lambda path: write_video(path, steady(20)),
    "clip.m2ts": lambda path: write_video(
        path, steady(20), container="mpegts", container_options={"mpegts_m2ts_mode": "1"}
    ),
    "clip.ivf": lambda path: write_video(path, steady(20), codec="libvpx"),
    "clip.y4m": lambda path: y4m(path, "yuv420p"),
    "odd.y4m": lambda path: y4m(path, "yuv411p", width=127, height=71),
    "high.y4m": lambda path: y4m(path, "yuv422p10le", width=127, height=71),
    "gray.y4m": lambda path: y4m(path, "gray", width=127, height=71),
    "clip.gif": gif,
    "clip.apng": apng,
}


def is_cut(path: Path, container: str) -> bool:
    return seems_cut_off(path, container)


@pytest.mark.parametrize("name", MAKERS)
def test_the_whole_file_is_not_and_most_of_it_is(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    MAKERS[name](path)
    with av.open(str(path)) as opened:
        container = opened.format.name
    assert not is_cut(path, container)
    data = path.read_bytes()
    for share in (0.97, 0.8, 0.61):
        path.write_bytes(data[: int(len(data) * share) // 2 * 2 + 1])
        assert is_cut(path, container), share


@pytest.mark.parametrize("junk", [b"\0" * 50_000, b"junk" * 5_000])
def test_what_stands_behind_an_mp4_does_no_harm(tmp_path: Path, junk: bytes) -> None:
    path = write_video(tmp_path / "clip.mp4", steady(20))
    path.write_bytes(path.read_bytes() + junk)
    assert not is_cut(path, "mov,mp4,m4a,3gp,3g2,mj2")


@pytest.mark.parametrize("filling", [b"\0", b"\xf7"])
def test_a_hole_between_fragments(tmp_path: Path, filling: bytes) -> None:
    path = write_video(tmp_path / "clip.mp4", steady(30), container_options=_FRAGMENTED)
    data = bytearray(path.read_bytes())
    fragment = data.find(b"moof", data.find(b"moof") + 4) - 4
    data[fragment : fragment + 40] = filling * 40
    path.write_bytes(data)
    assert is_cut(path, "mov,mp4,m4a,3gp,3g2,mj2")


def test_a_gif_filled_up_with_zeros_is_whole(tmp_path: Path) -> None:
    gif(tmp_path / "clip.gif")
    (tmp_path / "clip.gif").write_bytes((tmp_path / "clip.gif").read_bytes() + bytes(100))
    assert not is_cut(tmp_path / "clip.gif", "gif")


@pytest.mark.parametrize(
    "container", ["h264", "dv", "avi", "asf", "flv", "ogg", "matroska,webm", "mpegts", "gif", "ivf", "yuv4mpegpipe"]
)
def test_any_bytes_do(tmp_path: Path, container: str) -> None:
    for number, data in enumerate(
        (b"x", b"RIFF", bytes(20), b"\xff" * 30, b"OggS" * 30, b"\x1a\x45\xdf\xa3\x18\x53\x80\x67")
    ):
        path = tmp_path / str(number)
        path.write_bytes(data)
        assert is_cut(path, container) in (True, False)


def test_a_format_without_an_end_of_its_own_never_is(tmp_path: Path) -> None:
    (tmp_path / "clip.h264").write_bytes(b"anything")
    assert not is_cut(tmp_path / "clip.h264", "h264")


def test_y4m_of_pictures_of_an_unknown_size_shows_nothing(tmp_path: Path) -> None:
    path = tmp_path / "clip.y4m"
    path.write_bytes(b"YUV4MPEG2 W64 H48 F10:1 Cxyz\nFRAME\n" + bytes(100))
    assert not is_cut(path, "yuv4mpegpipe")


def test_y4m_is_cut_within_the_mark_of_a_picture_too(tmp_path: Path) -> None:
    path, whole = tmp_path / "clip.y4m", b"YUV4MPEG2 W4 H2 F10:1\nFRAME Ip\n" + bytes(12)
    path.write_bytes(whole)
    assert not is_cut(path, "yuv4mpegpipe")
    path.write_bytes(whole + b"FRA")
    assert is_cut(path, "yuv4mpegpipe")
