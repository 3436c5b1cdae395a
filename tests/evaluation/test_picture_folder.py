"""evaluation/picture_folder.py: a folder of frames → a film of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import av
import pytest
from PIL import Image

from longvu_cli.errors import BadBenchmark
from longvu_cli.evaluation.benchmark import Question
from longvu_cli.evaluation.picture_folder import filmed

GREYS = (20, 80, 140, 200)


def question(folder: Path) -> Question:
    return Question("one", folder, "Which?", ("red", "blue"), "Which?", "A", picture_rate=3.0)


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    folder = tmp_path / "frames" / "clip"
    folder.mkdir(parents=True)
    for number, grey in enumerate(GREYS, 1):
        Image.new("RGB", (32, 16), (grey, grey, grey)).save(folder / f"{number:05}.jpg")
    (folder / "notes.txt").touch()
    return folder


def test_the_film_shows_the_pictures_in_the_order_of_their_names(
    frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = sorted(frames.iterdir(), reverse=True)

    def iterdir(self: Path) -> Iterator[Path]:
        return iter(listed)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    (made,) = filmed([question(frames)], tmp_path / "films")
    with av.open(str(made.video)) as film:
        shown = [(frame.time, round(float(frame.to_ndarray(format="gray").mean()))) for frame in film.decode(video=0)]
    assert [grey for _, grey in shown] == pytest.approx(GREYS, abs=2)
    assert [time for time, _ in shown] == pytest.approx([0, 1 / 3, 2 / 3, 1], abs=2e-3)


def test_a_film_is_made_once_and_folders_of_one_name_are_told_apart(frames: Path, tmp_path: Path) -> None:
    films = tmp_path / "films"
    other = tmp_path / "others" / "clip"
    other.mkdir(parents=True)
    (other / "00001.jpg").write_bytes((frames / "00004.jpg").read_bytes())
    first, second = filmed([question(frames), question(other)], films)
    assert first.video != second.video
    before = first.video.stat().st_mtime_ns
    assert filmed([question(frames)], films) == (first,)
    assert first.video.stat().st_mtime_ns == before


def test_what_is_no_folder_of_pictures_stays(frames: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    asked = (question(tmp_path / "none"), question(empty), replace(question(frames), picture_rate=None))
    assert filmed(asked, tmp_path / "films") == asked
    assert not (tmp_path / "films").exists()


def test_a_picture_that_is_none_is_told(frames: Path, tmp_path: Path) -> None:
    (frames / "00001.jpg").write_bytes(b"no picture")
    with pytest.raises(BadBenchmark, match=r"the frames in .*clip cannot be read"):
        filmed([question(frames)], tmp_path / "films")
    assert list((tmp_path / "films").iterdir()) == []
