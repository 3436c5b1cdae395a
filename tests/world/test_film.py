"""world/film.py: ordinary video files."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from longvu_cli.config import SamplingOptions
from longvu_cli.video import Video
from longvu_cli.world.film import pictures, write_film
from longvu_cli.world.render import FILM_SIDE, Painter, film_frames, scene_arrays
from longvu_cli.world.story import Split, needle_story, story
from longvu_cli.world.title import TITLE


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Scenes are so small that more threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(("seconds", "fps"), [(1, 1), (7, 1), (7, 5)])
def test_a_film_is_a_video_of_its_length(tmp_path: Path, seconds: int, fps: int) -> None:
    told = story(Split.TEST.seed(2), seconds)
    write_film(told, tmp_path / "film.mp4", fps=fps)
    with Video(tmp_path / "film.mp4", SamplingOptions(fps=1.0)) as video:
        frames = list(video.frames())
        info = video.info
    assert [frame.time_s for frame in frames] == pytest.approx(range(seconds))
    assert (info.width, info.height, info.codec, info.warnings) == (FILM_SIDE, FILM_SIDE, "h264", ())
    assert info.fps == pytest.approx(fps)
    assert info.duration_s == pytest.approx(seconds)
    assert info.title == f"{TITLE}, seed {told.seed}" == f"longvu world, seed {2 * 2**40 + 2}"
    for frame, picture in zip(frames, islice(pictures(told, fps=1), seconds), strict=True):
        difference = np.abs(frame.pixels.astype(int) - picture.numpy())
        # Half the colours' resolution is lost in any H.264 file, so edges differ; the picture as a whole does not.
        assert difference.mean() < 6


def test_compression_costs_detail(tmp_path: Path) -> None:
    told = story(5, 3)
    sizes = []
    for crf in (18, 35):
        write_film(told, tmp_path / "film.mp4", fps=2, crf=crf)
        sizes.append((tmp_path / "film.mp4").stat().st_size)
    assert sizes[0] > 2 * sizes[1]


def test_pictures_are_the_scenes_at_their_moments() -> None:
    told = needle_story(3, 6, 0.4)
    painter = Painter(torch.device("cpu"))
    frames = list(pictures(told, fps=2))
    assert len(frames) == 12
    for number, frame in enumerate(frames):
        t = number / 2
        whole = film_frames(painter.paint(scene_arrays([told.scene_at(t)])), [told.camera_at(t)])
        assert frame.dtype == torch.uint8
        assert frame.equal(whole[0])


@pytest.mark.parametrize("name", ["missing/film.mp4", ""])
def test_a_film_that_cannot_be_written_is_an_os_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(OSError):
        write_film(story(1, 1), tmp_path / name, fps=1)
