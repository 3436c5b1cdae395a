"""Known damage in a few formats; ``damage_media.py`` tries all of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from damage_media import DAMAGES, FORMATS, damage_all


@pytest.mark.parametrize("name", ["faststart.mp4", "hevc.mp4", "h264.flv", "clip.gif", "mjpeg.avi"])
def test_damage_is_told(tmp_path: Path, name: str) -> None:
    told = damage_all(tmp_path, {name: FORMATS[name]})
    assert told.wrong == []
    assert told.warned + told.refused + len(told.silent) == len(DAMAGES)
    # Noise within a picture may look like a picture.
    allowed = {"hevc.mp4, noise 2"}
    assert set(told.silent) <= allowed


def test_every_file_that_was_cut_is_told(tmp_path: Path) -> None:
    names = ("fragmented.mp4", "h264.mkv", "h264.ts", "wmv2.asf", "vp8.ogv", "clip.apng")
    told = damage_all(tmp_path, {name: FORMATS[name] for name in names})
    assert told.wrong == [] and not [line for line in told.silent if "cut at" in line]
