"""needle_figure.py: a picture of the right size, with the right colours in the right places."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from needles import FakeHaystack, FakeModel
from PIL import Image

from longvu_cli.errors import ExtraNotInstalled
from longvu_cli.evaluation.needle import Method, NeedleOptions, NeedleReport, NeedleTest
from longvu_cli.evaluation.needle_figure import DPI, figure_inches, write_figure


def report(tmp_path: Path, methods: tuple[Method, ...]) -> NeedleReport:
    """Everything is found but in the last part of the videos of 1,600 frames."""
    options = NeedleOptions(frames=(100, 400, 1600), depths=4, trials=1, methods=methods)
    model = FakeModel(lambda method, frames, at: frames < 1600 or at < 1000)
    return NeedleTest(options, model, FakeHaystack, results=tmp_path / "needle.jsonl", folder=tmp_path).run()


@pytest.mark.parametrize("methods", [tuple(Method), (Method.UNIFORM,)])
def test_a_heat_map_per_method_side_by_side(tmp_path: Path, methods: tuple[Method, ...]) -> None:
    path = tmp_path / "needle.png"
    write_figure(report(tmp_path, methods), path)
    width, height = figure_inches(len(methods))
    with Image.open(path) as image:
        assert (image.format, image.size) == ("PNG", (round(width * DPI), round(height * DPI)))
        pixels = np.asarray(image.convert("RGB")).astype(int)
    # Ten cells of each map are green, and the two at the lower right are red.
    right, wrong = (np.abs(pixels - colour).sum(axis=2) < 12 for colour in ((0x1A, 0x98, 0x50), (0xD7, 0x30, 0x27)))
    assert right.sum() == pytest.approx(10 * wrong.sum() / 2, rel=0.15)
    assert np.median(np.nonzero(wrong)[0]) > np.median(np.nonzero(right)[0])


def test_without_matplotlib_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = report(tmp_path, (Method.DEFAULT,))
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ExtraNotInstalled, match="needs matplotlib") as error:
        write_figure(made, tmp_path / "needle.png")
    assert error.value.hint == "run: pip install 'longvu-cli[eval]'"


def test_it_needs_no_display_and_leaves_matplotlib_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)
    write_figure(report(tmp_path, (Method.DEFAULT,)), tmp_path / "needle.png")
    assert "matplotlib.pyplot" not in sys.modules
