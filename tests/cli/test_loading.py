import sys
from pathlib import Path
from typing import Any

import pytest

from cli.conftest import Longvu
from cli.running import QUESTION, QWEN
from longvu_cli.cli.bars import Bar
from longvu_cli.hub import DownloadPlan
from longvu_cli.longvu import LongVU
from longvu_cli.variants import Footprint
from longvu_cli.weights import Part

SHORT = "--max-new-tokens=2"


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the library was asked with; it loads the tiny checkpoint whatever the model, after a download."""
    heard: dict[str, Any] = {"download": 0}
    original = LongVU.from_pretrained.__func__  # type: ignore[attr-defined]

    def load(cls: type[LongVU], model: str, **settings: Any) -> LongVU:
        size = heard["download"]
        settings["on_download"](DownloadPlan("org/model", ("a",), size, size, Path("/there")))
        heard.update(settings)
        return original(cls, str(QWEN), **settings)

    monkeypatch.setattr(LongVU, "from_pretrained", classmethod(load))
    return heard


@pytest.mark.parametrize(
    ("size", "told"),
    [(100_000_000, ""), (100_000_001, "longvu: downloading 0.10 GB of org/model to /there\n")],
)
def test_a_download_of_more_than_100_mb_is_announced(
    longvu: Longvu, clip: Path, settings: dict[str, Any], size: int, told: str
) -> None:
    settings["download"] = size
    assert longvu("stats", clip).err == told
    assert longvu("stats", clip, "-q").err == ""


def test_the_chosen_model_is_said_before_anything_is_fetched(
    longvu: Longvu, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("longvu_cli.longvu.free_memory", lambda device: 64 * 2**30)
    told = "longvu: --model auto takes 7b, the largest that fits the free memory of the device\n"
    ran = longvu("ask", clip, QUESTION, "--no-stats", "-m", "auto", "--offline", "--device=cpu")
    assert ran.code == 4
    assert ran.err.startswith(told + "longvu: error: ")
    assert told not in longvu("ask", clip, QUESTION, "-q", "-m", "auto", "--offline", "--device=cpu").err


def test_verbose_names_the_model(longvu: Longvu, clip: Path) -> None:
    told = f"longvu: model qwen from {QWEN} (float32 on cpu)\n"
    assert longvu("ask", clip, QUESTION, SHORT, "--no-stats", "-v").err == told
    assert longvu("ask", clip, QUESTION, SHORT, "--no-stats").err == ""


def test_only_what_the_command_needs_is_loaded(longvu: Longvu, clip: Path, settings: dict[str, Any]) -> None:
    parts = []
    for command in (("stats", clip), ("stats", clip, QUESTION), ("ask", clip, QUESTION, SHORT)):
        longvu(*command)
        parts.append(settings["part"])
    assert parts == [Part.VISION, Part.QUESTION, Part.ANSWER]


def test_a_bar_for_downloads_is_drawn_at_a_terminal_alone(
    longvu: Longvu, clip: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    longvu("stats", clip)
    assert settings["tqdm_class"] is None
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(type(sys.stderr), "isatty", lambda self: True)
    longvu("stats", clip)
    assert settings["tqdm_class"] is Bar
    longvu("stats", clip, "-q")
    assert settings["tqdm_class"] is None


def test_what_a_user_should_know_of_the_checkpoint_is_a_warning(
    longvu: Longvu, clip: Path, checkpoint_copy: Path
) -> None:
    config = checkpoint_copy / "config.json"
    config.write_text(config.read_text().replace('"image_token_len": 144', '"image_token_len": 576'))
    ran = longvu("ask", clip, QUESTION, SHORT, "--no-stats", "-m", checkpoint_copy)
    assert ran.code == 0
    assert ran.err.startswith("longvu: warning: config.json says image_token_len 576")


def test_auto_never_falls_back_to_tiny(longvu: Longvu, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from longvu_cli.config import Quantization
    from longvu_cli.weights import VARIANTS

    needed = Footprint.of(VARIANTS["1b"]).needed_bytes(torch.float32, Quantization.NONE)
    monkeypatch.setattr("longvu_cli.longvu.free_memory", lambda device: needed - 1)
    ran = longvu("ask", clip, QUESTION, "-m", "auto", "--device=cpu")
    assert (ran.code, ran.out) == (5, "")
    assert ran.err.startswith("longvu: error: no model fits: 1b needs about ")
