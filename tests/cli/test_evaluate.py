import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from needles import FakeHaystack, FakeModel
from PIL import Image

from cli.conftest import Longvu
from cli.running import QWEN
from longvu_cli.cli import evaluate
from longvu_cli.config import ModelOptions
from longvu_cli.evaluation.needle import Method
from longvu_cli.feature_cache import FeatureCache
from longvu_cli.longvu import LongVU

GRID = ("--frames=10,40", "--depths=3", "--trials=2", "--long-from=20")
QUESTIONS = 48


def knows(method: Method, frames: int, at: int) -> bool:
    """The default finds all; without STC the last of long videos is lost; uniform frames find the middle only."""
    if method is Method.WITHOUT_STC:
        return frames == 10 or at < 27
    return method is not Method.UNIFORM or 0 < at < frames - 1


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> FakeModel:
    """Is loaded in place of any model, and its videos are no pictures."""
    fake = FakeModel(knows)
    put(fake, monkeypatch)
    return fake


def put(fake: FakeModel, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ModelOptions, FeatureCache]]:
    loaded: list[tuple[str, ModelOptions, FeatureCache]] = []

    def load(cls: type[LongVU], name: str, *, options: ModelOptions, cache: FeatureCache, **_: Any) -> FakeModel:
        loaded.append((name, options, cache))
        return fake

    monkeypatch.setattr(LongVU, "from_pretrained", classmethod(load))
    monkeypatch.setattr(evaluate, "_haystacks", lambda: FakeHaystack)
    return loaded


TABLE = """\
frames   trials             default         without-stc       without-query             uniform
10            6   1.00 [0.61, 1.00]   1.00 [0.61, 1.00]   1.00 [0.61, 1.00]   0.33 [0.10, 0.70]
40            6   1.00 [0.61, 1.00]   0.67 [0.30, 0.90]   1.00 [0.61, 1.00]   0.33 [0.10, 0.70]
all          12   1.00 [0.76, 1.00]   0.83 [0.55, 0.95]   1.00 [0.76, 1.00]   0.33 [0.14, 0.61]
chance                         0.25                0.25                0.25                0.25
with 40 frames            pairs   difference   standard error
default − without-stc         6       +0.333            0.211
default − without-query       6       +0.000            0.000
default − uniform             6       +0.667            0.211
"""


def test_the_tables(longvu: Longvu, model: FakeModel, tmp_path: Path) -> None:
    ran = longvu("eval", "needle", *GRID, "--output", tmp_path / "out")
    assert (ran.code, ran.err) == (0, f"longvu: results in {tmp_path / 'out'}\n")
    chance = json.loads((tmp_path / "out" / "needle.json").read_text())["chance"]
    shown = [line.rstrip() for line in ran.out.splitlines()]
    assert shown == TABLE.replace("0.25", f"{chance:.2f}").splitlines()
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["needle.csv", "needle.json", "needle.jsonl", "needle.png"]
    with Image.open(tmp_path / "out" / "needle.png") as image:
        assert image.size == (2130, 540)


def test_the_record(longvu: Longvu, model: FakeModel, tmp_path: Path) -> None:
    ran = longvu("eval", "needle", *GRID, "--output", tmp_path, "--json", "--quiet")
    assert (ran.code, ran.err) == (0, "")
    assert json.loads(ran.out) == json.loads((tmp_path / "needle.json").read_text())


def test_an_interrupted_run_goes_on(longvu: Longvu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = FakeModel(knows, stop_after=7), FakeModel(knows)
    put(first, monkeypatch)
    assert longvu("eval", "needle", *GRID, "--output", tmp_path).code == 130
    assert len((tmp_path / "needle.jsonl").read_text().splitlines()) == 7
    put(second, monkeypatch)
    ran = longvu("eval", "needle", *GRID, "--output", tmp_path)
    assert (ran.code, len(second.asked)) == (0, QUESTIONS - 7)
    assert ran.err.splitlines()[0] == "longvu: 7 of 48 questions are answered already"


def test_it_says_from_time_to_time_how_far_it_is(
    longvu: Longvu, model: FakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 10_000, 70))
    # The clock of this module alone: event loops of other tests, which wait for a server, have the real one.
    monkeypatch.setattr(evaluate, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    ran = longvu("eval", "needle", *GRID, "--output", tmp_path)
    assert "longvu: 24 of 48 questions, " in ran.err
    assert " min left\n" in ran.err


def test_the_model_is_tiny_and_its_features_are_kept_for_the_run_only(
    longvu: Longvu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MODEL", "DINOV2", "SIGLIP"):
        monkeypatch.delenv(f"LONGVU_{name}")
    loaded = put(FakeModel(knows), monkeypatch)
    assert longvu("eval", "needle", *GRID, "--output", tmp_path).code == 0
    assert longvu("eval", "needle", *GRID, "--output", tmp_path, "-m", "3b", "--device=cpu").code == 0
    assert [(name, options.device) for name, options, _ in loaded] == [("tiny", "auto"), ("3b", "cpu")]
    folders = [cache.folder for _, _, cache in loaded]
    assert not any(folder.parent.exists() for folder in folders)


def test_flags_come_from_the_environment_and_the_config_file(
    longvu: Longvu, model: FakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config.toml"
    config.write_text('trials = 2\ncontext_length = 900\n[eval]\nframes = "10,20"\nmethods = "default, uniform"\n')
    monkeypatch.setenv("LONGVU_CONFIG", str(config))
    monkeypatch.setenv("LONGVU_DEPTHS", "3")
    ran = longvu("eval", "needle", "--output", tmp_path, "--json", "--seed=5")
    settings = json.loads(ran.out)["settings"]
    assert (settings["frames"], settings["depths"], settings["trials"]) == ([10, 20], [0.0, 0.5, 1.0], 2)
    assert (settings["methods"], settings["seed"]) == (["default", "uniform"], 5)
    assert settings["compression"]["context_length"] == 900


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--frames=10,x"], "--frames has 'x', which is no whole number; give them as 100,200,400"),
        (["--frames="], "--frames needs lengths of 2 or more"),
        (["--methods=default,best"], "--methods has 'best', which is none; known are default, without-stc, "),
        (["--trials=0"], "--trials 0 is no positive number"),
        (["--no-query-guided"], "the needle test itself leaves out steps of the compression"),
        (["--max-new-tokens=0"], "--max-new-tokens 0 is no positive number"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_loaded(
    longvu: Longvu, loads: list[str], tmp_path: Path, flags: list[str], message: str
) -> None:
    ran = longvu("eval", "needle", "--output", tmp_path / "out", *flags)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"longvu: error: {message}")
    assert (loads, (tmp_path / "out").exists()) == ([], False)


def test_a_missing_matplotlib_is_told_first(
    longvu: Longvu, loads: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    ran = longvu("eval", "needle", "--output", tmp_path / "out")
    assert (ran.code, loads) == (2, [])
    assert ran.err == (
        "longvu: error: the figure needs matplotlib, which is not installed; run: pip install 'longvu-cli[eval]'\n"
    )


def test_a_folder_that_cannot_be_made_is_told_first(longvu: Longvu, loads: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ran = longvu("eval", "needle", "--output", tmp_path / "file" / "out")
    assert (ran.code, loads) == (2, [])
    assert "is no folder that can be written to" in ran.err


def test_results_that_cannot_be_written_end_it(longvu: Longvu, model: FakeModel, tmp_path: Path) -> None:
    (tmp_path / "needle.csv").mkdir()
    ran = longvu("eval", "needle", *GRID, "--output", tmp_path)
    assert ran.code == 1
    assert f"{tmp_path} cannot be written: " in ran.err


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",)])
def test_help_lists_the_tests(longvu: Longvu, words: tuple[str, ...]) -> None:
    ran = longvu("eval", *words)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("Usage: longvu eval ")
    assert "\n  needle " in ran.out


def test_help_is_given_whatever_the_config_file_holds(
    longvu: Longvu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.toml").write_text("colour = 3")
    monkeypatch.setenv("LONGVU_CONFIG", str(tmp_path / "config.toml"))
    ran = longvu("eval", "needle", "--help")
    assert ran.code == 0
    assert ran.out.startswith("Usage: longvu eval needle ")
    assert longvu("eval", "needle").code == 2


def test_a_real_model_and_real_films(longvu: Longvu, tmp_path: Path) -> None:
    """Random weights find nothing; what is read, and that the towers see a video once per choice of frames, is real."""
    grid = ("--frames=20", "--depths=2", "--trials=1", "--max-new-tokens=2", "--context-length=700")
    ran = longvu("eval", "needle", *grid, "--output", tmp_path, "--json")
    assert ran.code == 0, ran
    record = json.loads(ran.out)
    assert (record["model"]["name"], [score["trials"] for score in record["methods"]]) == (QWEN.name, [2] * 4)
    outcomes = [json.loads(line) for line in (tmp_path / "needle.jsonl").read_text().splitlines()]
    assert [outcome["sampled"] for outcome in outcomes] == [20] * 8
    assert all(outcome["question"].endswith("?") and outcome["visual_tokens"] <= 700 for outcome in outcomes)
    cut = {outcome["depth"]: outcome["needle_tokens"] for outcome in outcomes if outcome["method"] == "without-stc"}
    assert cut[0.0] > 0
    assert cut[1.0] == 0
