"""evaluation/annotations.py: what the readers of benchmarks have in common."""

from __future__ import annotations

from pathlib import Path

import pytest

from longvu_cli.errors import BadBenchmark
from longvu_cli.evaluation.annotations import existing, letter_of, require_own_names


@pytest.mark.parametrize("name", ["a.mp4", "a.MP4", "a.mkv", "a.webm"])
def test_a_video_is_found_whatever_its_ending(tmp_path: Path, name: str) -> None:
    (tmp_path / "ab.mp4").touch()
    assert existing(tmp_path, "a") == tmp_path / "a.mp4", "where it should be"
    (tmp_path / name).touch()
    assert existing(tmp_path, "a") == tmp_path / name


def test_the_reference_takes_mp4_first(tmp_path: Path) -> None:
    for name in ("a.mkv", "a.avi", "a.mp4"):
        (tmp_path / name).touch()
    assert existing(tmp_path, "a") == tmp_path / "a.mp4"


def test_the_answer_is_the_first_option_with_its_text() -> None:
    assert letter_of("blue", ("red", "blue", "blue"), "question 1") == "B"
    with pytest.raises(BadBenchmark, match=r"question 1 has an answer that is none of its options"):
        letter_of("green", ("red", "blue"), "question 1")


def test_names_are_each_ones_own() -> None:
    require_own_names(["a", "b"], Path("file"), hint="")
    with pytest.raises(BadBenchmark, match="file has the id 'b' twice"):
        require_own_names(["a", "b", "c", "b"], Path("file"), hint="")
