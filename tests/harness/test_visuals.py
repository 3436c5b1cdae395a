from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from longvu_cli.config import SamplingOptions
from longvu_cli.errors import NotAVideo, UsageError
from longvu_cli.harness.visuals import as_file
from longvu_cli.video import Video


def picture(number: int, size: tuple[int, int] = (30, 20)) -> Image.Image:
    pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def seen(path: Path, fps: float) -> list[np.ndarray]:
    with Video(path, SamplingOptions(fps=fps)) as video:
        return [frame.pixels.copy() for frame in video.frames()]


def test_a_file_is_looked_at_where_it_is() -> None:
    with as_file(["films/a.mp4"], fps=1) as path:
        assert path == Path("films/a.mp4")


def test_a_picture_is_one_picture() -> None:
    with as_file([picture(0)], fps=1) as path:
        frames = seen(path, 1)
    assert len(frames) == 1
    assert np.array_equal(frames[0], np.asarray(picture(0)))
    assert not path.exists()


@pytest.mark.parametrize("fps", [0.5, 1, 2, 3, 29.97])
def test_each_of_several_pictures_is_looked_at_once_and_in_order(fps: float) -> None:
    with as_file([picture(number) for number in range(7)], fps=fps) as path:
        frames = seen(path, fps)
    assert len(frames) == 7
    for number, frame in enumerate(frames):
        assert np.array_equal(frame, np.asarray(picture(number)))
    assert not path.exists()


def test_a_folder_of_pictures_is_a_video_in_the_order_of_the_names(tmp_path: Path) -> None:
    for number in (2, 0, 1):
        picture(number).save(tmp_path / f"{number:05}.png")
    (tmp_path / "notes.txt").write_text("no picture")
    with as_file([str(tmp_path)], fps=3) as path:
        frames = seen(path, 3)
    assert len(frames) == 3
    assert all(np.array_equal(frame, np.asarray(picture(number))) for number, frame in enumerate(frames))


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a folder without pictures"), as_file([tmp_path], fps=1):
        pass


def test_a_damaged_picture_in_a_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "00000.jpg").write_bytes(b"no picture")
    with pytest.raises(NotAVideo, match=r"00000\.jpg is no picture"), as_file([tmp_path], fps=1):
        pass


def test_pictures_of_other_kinds_than_rgb_are_shown_as_they_look() -> None:
    grey = picture(1).convert("L")
    with as_file([picture(0), grey], fps=1) as path:
        assert np.array_equal(seen(path, 1)[1], np.asarray(grey.convert("RGB")))


@pytest.mark.parametrize(
    ("visuals", "said"),
    [
        ([], "shows nothing"),
        ([None], "shows NoneType"),
        ([{"array": [0.0], "sampling_rate": 16000}], "shows dict"),
        (["a.mp4", "b.mp4"], "shows str, str"),
        ([picture(0), "b.mp4"], "shows Image, str"),
        ([picture(0), picture(1, (20, 30))], "pictures of several sizes"),
    ],
)
def test_what_this_model_cannot_look_at_is_refused(visuals: Sequence[object], said: str) -> None:
    with pytest.raises(UsageError, match=said), as_file(visuals, fps=1):
        pass
