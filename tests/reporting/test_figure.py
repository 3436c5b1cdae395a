"""figure.py: a picture of the right size with the right colours, and nothing else written over."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from longvu_cli.config import CompressionOptions
from longvu_cli.errors import ExtraNotInstalled, UsageError
from longvu_cli.longvu import LongVU
from longvu_cli.reporting.figure import DPI, figure_panels, require_figure, write_figure
from longvu_cli.results import Compression


@pytest.fixture(scope="module")
def compression(qwen: LongVU, parity: Path) -> Compression:
    return qwen.compress(
        parity / "short_window.mkv", "Where is the cup?", compression=CompressionOptions(context_length=900)
    )


def count(pixels: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((np.abs(pixels - np.array(colour)).sum(axis=2) < 12).sum())


def test_a_panel_for_everything_there_is_to_show(compression: Compression, tmp_path: Path) -> None:
    write_figure(compression, tmp_path / "plot.png")
    assert [path.name for path in tmp_path.iterdir()] == ["plot.png"]
    with Image.open(tmp_path / "plot.png") as image:
        assert (image.format, image.size) == ("PNG", (9 * DPI, round(3 * 2.2 * DPI)))
        pixels = np.asarray(image.convert("RGB")).astype(int)
    tokens = compression.statistics.tokens
    # Bars of the waterfall: what is left of each step, and what went, are to each other as the tokens.
    left, gone = count(pixels[660:], (0x1F, 0x6F, 0x69)), count(pixels[660:], (0xDC, 0xD7, 0xCC))
    steps = (tokens.dense, tokens.after_temporal, tokens.after_query, tokens.visual)
    assert left / gone == pytest.approx(sum(steps) / (steps[0] - steps[-1]), rel=0.1)


def test_what_is_not_known_has_no_panel(compression: Compression) -> None:
    assert figure_panels(compression) == ("similarity", "relevance", "tokens")
    assert figure_panels(replace(compression, question=None)) == ("similarity", "tokens")
    unknown = replace(compression.timeline, similarity=(None,) * 12)
    assert figure_panels(replace(compression, timeline=unknown)) == ("relevance", "tokens")


def test_a_still_and_a_video_without_a_question_are_drawn(qwen: LongVU, parity: Path, tmp_path: Path) -> None:
    for name in ("still_image_landscape.png", "one_frame.mkv"):
        write_figure(qwen.compress(parity / name), tmp_path / "plot.png")
        assert (tmp_path / "plot.png").stat().st_size > 5_000


def test_a_plot_takes_the_place_of_a_picture_only(compression: Compression, tmp_path: Path) -> None:
    require_figure(tmp_path / "plot.png")
    write_figure(compression, tmp_path / "plot.png")
    require_figure(tmp_path / "plot.png")
    (tmp_path / "plot.png").write_text("mine")
    for name, problem in (
        ("plot.png", "no PNG"),
        ("plot.svg", "does not end in .png"),
        ("no/plot.png", "no such folder"),
    ):
        with pytest.raises(UsageError, match=problem):
            require_figure(tmp_path / name)


def test_a_folder_in_its_place_is_told_and_nothing_is_left(compression: Compression, tmp_path: Path) -> None:
    (tmp_path / "plot.png").mkdir()
    with pytest.raises(UsageError, match="cannot be written"):
        require_figure(tmp_path / "plot.png")
    with pytest.raises(UsageError, match="cannot be written"):
        write_figure(compression, tmp_path / "plot.png")
    assert [path.name for path in tmp_path.iterdir()] == ["plot.png"]


def test_without_matplotlib_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ExtraNotInstalled, match="needs matplotlib") as error:
        require_figure(tmp_path / "plot.png")
    assert error.value.hint == "run: pip install 'longvu-cli[eval]'"
