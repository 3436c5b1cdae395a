"""thumbnails.py: which frames are shown, and small pictures of them."""

from __future__ import annotations

import base64
import io
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from media import UPRIGHT, corners_of, number_of, picture, steady, write_video
from PIL import Image

from longvu_cli.config import SamplingOptions
from longvu_cli.reporting.thumbnails import chosen_frames, data_uri, thumbnails


def opened(uri: str) -> Image.Image:
    kind, _, data = uri.partition(";base64,")
    assert kind == "data:image/jpeg"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_few_frames_are_all_shown() -> None:
    assert chosen_frames([1, 4, 9], {4}, 3) == (1, 4, 9)


def test_of_many_the_wanted_and_others_evenly_spread() -> None:
    chosen = chosen_frames(range(0, 1000, 2), {10, 12, 14}, 13)
    assert len(chosen) == 13
    assert {10, 12, 14} < set(chosen)
    others = [index for index in chosen if index not in (10, 12, 14)]
    assert others == sorted(others)
    assert all(80 <= after - before <= 120 for before, after in pairwise(others))


def test_what_is_wanted_comes_first_even_where_it_is_more_than_there_is_room_for() -> None:
    assert chosen_frames(range(100), set(range(5)), 3) == (0, 1, 2, 3, 4)


def test_a_thumbnail_is_small_and_shows_the_frame(tmp_path: Path) -> None:
    video = write_video(
        tmp_path / "large.mp4", steady(30), pictures=[picture(number, 640, 360) for number in range(30)]
    )
    made = thumbnails(video, SamplingOptions(fps=2), {1, 4})
    assert set(made) == {1, 4}
    for index, uri in made.items():
        image = opened(uri)
        assert image.size == (224, 126)
        assert number_of(np.asarray(image)) == 5 * index
        assert corners_of(np.asarray(image)) == UPRIGHT
        assert len(uri) < 20_000


def test_a_small_frame_is_not_made_larger() -> None:
    assert opened(data_uri(picture(3))).size == (128, 72)


@pytest.mark.parametrize("wanted", [set(), {99}])
def test_frames_that_are_not_there_are_missing(tmp_path: Path, wanted: set[int]) -> None:
    assert thumbnails(write_video(tmp_path / "a.mp4", steady(10)), SamplingOptions(), wanted) == {}
