"""tiny_world.py: what the tiny model is shown that it cannot know."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from longvu_cli import weights
from longvu_cli.longvu import LongVU
from longvu_cli.results import ModelInfo
from longvu_cli.tiny_world import FOREIGN, is_foreign
from longvu_cli.video import VideoInfo

CLIP = VideoInfo("clip.mp4", 8.0, 336, 336, 4.0, 0, "h264", False, (), "longvu world, seed 7")


@pytest.fixture
def bundled() -> ModelInfo:
    return ModelInfo("tiny", str(weights.tiny_folder()), None, "float32", "none", "cpu")


@pytest.mark.parametrize(
    ("title", "foreign"),
    [
        ("longvu world, seed 7", False),
        ("longvu world", False),
        (None, True),
        ("", True),
        ("Holidays", True),
        ("My longvu world", True),
    ],
)
def test_a_clip_of_the_world_is_known_by_its_title(bundled: ModelInfo, title: str | None, foreign: bool) -> None:
    assert is_foreign(bundled, replace(CLIP, title=title)) is foreign


def test_other_models_may_be_shown_anything(bundled: ModelInfo) -> None:
    video = replace(CLIP, title=None)
    assert not is_foreign(replace(bundled, name="7b", source="Vision-CAIR/LongVU_Qwen2_7B"), video)
    assert not is_foreign(replace(bundled, source="/home/me/tiny"), video)


def test_the_notice_comes_with_the_answer(tiny_installed: Path, parity: Path) -> None:
    model = LongVU.from_pretrained("tiny")
    assert model.compress(parity / "one_frame.mkv").notices == (FOREIGN,)
    assert model.compress(parity / "one_frame.mkv", "Where is the cup?").notices == (FOREIGN,)
    assert model.compress(tiny_installed / "demo.mp4").notices == ()


def test_the_notice_is_one_line() -> None:
    assert "\n" not in FOREIGN and len(FOREIGN) < 120
