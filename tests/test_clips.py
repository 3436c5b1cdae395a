"""clips.py: which part of a video a clip shows, and files that are whole, right and nobody else's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import av
import pytest
from media import UPRIGHT, corners_of, number_of, picture, steady, write_video

from longvu_cli import clips
from longvu_cli.clips import Stretch, clip_size, require_clip_folder, stretch_around, write_clip
from longvu_cli.errors import DecodingFailed, UsageError, VideoNotFound
from longvu_cli.evidence import Moment
from longvu_cli.frames import Frame
from longvu_cli.statistics import Resolution
from longvu_cli.video import Video

MOMENT = Moment(2.0, 3.0, 2.0, 2, 2, 2, 1, 1, Resolution.HIGH, 1.0, 2.0, 84, 0.1)


def moment(start_s: float, end_s: float, peak_s: float) -> Moment:
    return replace(MOMENT, start_s=start_s, end_s=end_s, peak_s=peak_s)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six seconds at ten frames per second; the frame shown from second s on carries the number 10·s."""
    return write_video(tmp_path_factory.mktemp("media") / "movie.mp4", steady(60))


def frames_of(clip: Path) -> list[Frame]:
    with av.open(str(clip)) as container:
        return [
            Frame(number, float(frame.time or 0), frame.to_ndarray(format="rgb24"))
            for number, frame in enumerate(container.decode(video=0))
        ]


# --- which part -----------------------------------------------------------------------------------------------------


def test_a_clip_shows_a_moment_and_a_second_around_it() -> None:
    assert stretch_around(moment(10, 14, 12)) == Stretch(9, 15)


def test_a_clip_does_not_begin_before_its_video() -> None:
    assert stretch_around(moment(0.5, 2, 1)) == Stretch(0, 3)


@pytest.mark.parametrize(("peak", "start"), [(100, 85), (12, 9), (208, 181)])
def test_of_a_long_moment_thirty_seconds_around_the_peak_are_shown(peak: float, start: float) -> None:
    assert stretch_around(moment(10, 210, peak)) == Stretch(start, start + 30)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((640, 360), (640, 360)),
        ((641, 359), (640, 360)),
        ((3840, 2160), (1280, 720)),
        ((1, 1), (2, 2)),
        ((3, 4000), (2, 1280)),
    ],
)
def test_the_size_of_a_clip_is_even_and_not_large(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert clip_size(*size) == expected


# --- files ----------------------------------------------------------------------------------------------------------


def test_a_clip_has_the_frames_of_its_moment(video: Path, tmp_path: Path) -> None:
    clip = write_clip(video, MOMENT, tmp_path)
    assert clip == tmp_path / "movie-0m02s.mp4"
    shown = frames_of(clip)
    assert [number_of(frame.pixels) for frame in shown] == list(range(10, 40))
    assert [frame.time_s for frame in shown] == pytest.approx([number / 10 for number in range(30)], abs=0.01)
    assert corners_of(shown[0].pixels) == UPRIGHT
    assert list(tmp_path.iterdir()) == [clip]


def test_a_clip_of_a_turned_video_is_upright(tmp_path: Path) -> None:
    turned = write_video(
        tmp_path / "turned.mp4",
        steady(30),
        pictures=[picture(number).swapaxes(0, 1)[::-1].copy() for number in range(30)],
        display=(270, False),
    )
    shown = frames_of(write_clip(turned, moment(1, 2, 1), tmp_path))
    assert shown[0].pixels.shape == (72, 128, 3)
    assert corners_of(shown[0].pixels) == UPRIGHT


def test_frames_are_not_shown_faster_than_the_eye_sees(tmp_path: Path) -> None:
    fast = write_video(tmp_path / "fast.mp4", steady(120, 60), rate=60)
    assert len(frames_of(write_clip(fast, moment(0, 0.5, 0), tmp_path))) == 45  # 1.5 s


def test_a_name_that_is_taken_gets_a_number(video: Path, tmp_path: Path) -> None:
    (tmp_path / "movie-0m02s.mp4").write_text("mine")
    assert [write_clip(video, MOMENT, tmp_path).name for _ in range(2)] == ["movie-0m02s-2.mp4", "movie-0m02s-3.mp4"]
    assert (tmp_path / "movie-0m02s.mp4").read_text() == "mine"


def test_a_name_that_a_link_to_nowhere_has_is_taken(video: Path, tmp_path: Path) -> None:
    (tmp_path / "movie-0m02s.mp4").symlink_to(tmp_path / "elsewhere.mp4")
    assert write_clip(video, MOMENT, tmp_path).name == "movie-0m02s-2.mp4"
    assert not (tmp_path / "elsewhere.mp4").exists()


def test_hours_and_long_names(tmp_path: Path, video: Path) -> None:
    long = tmp_path / f"{'n' * 200}.mp4"
    os.link(video, long) if os.stat(video).st_dev == os.stat(tmp_path).st_dev else long.write_bytes(video.read_bytes())
    assert write_clip(long, MOMENT, tmp_path).name == f"{'n' * 60}-0m02s.mp4"
    assert clips._time_in_name(3725.9) == "1h02m05s"


# --- what goes wrong ------------------------------------------------------------------------------------------------


def test_nothing_is_left_of_a_clip_that_was_broken_off(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = Video.frames

    def crashing(self: Video) -> Iterator[Frame]:
        yield from list(frames(self)) * 5
        raise DecodingFailed("the decoder crashed")

    monkeypatch.setattr(Video, "frames", crashing)
    with pytest.raises(DecodingFailed):
        write_clip(video, MOMENT, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_video_that_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(VideoNotFound):
        write_clip(tmp_path / "gone.mp4", MOMENT, tmp_path)


def test_a_folder_that_cannot_be_written_to_is_told(video: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="clips cannot be written to"):
        require_clip_folder(tmp_path / "file")
    with pytest.raises(UsageError, match="clips cannot be written to") as told:
        write_clip(video, MOMENT, tmp_path / "missing")
    assert told.value.hint == "name a folder that can be written to"


def test_the_folder_is_made(tmp_path: Path) -> None:
    require_clip_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
