import json
import re
from pathlib import Path
from typing import Any

import pytest
import typer

from cli.conftest import Longvu
from cli.running import QUESTION
from longvu_cli.cli.options import parse_time, with_usual_values
from longvu_cli.config import ModelOptions
from longvu_cli.errors import HubUnreachable
from longvu_cli.longvu import LongVU

# What scripts may rely on.
SHARED = {
    *("--model", "-m", "--dinov2", "--siglip", "--revision", "--offline", "--device", "--dtype", "--quantize"),
    *("--recipe", "--orientation", "--context-length", "--dino-threshold", "--stc-threshold"),
    *("--fps", "--start", "--end", "--max-new-tokens", "--temperature", "--top-p", "--seed", "--no-cache"),
    *("--json", "--quiet", "-q", "--verbose", "-v", "--stats", "--no-stats"),
}


def options_in(help_text: str) -> set[str]:
    """The options at the beginnings of the lines of a help text."""
    heads = re.findall(r"^  ((?:--?[a-z][\w-]*(?:, | / )?)+)", help_text, re.MULTILINE)
    return set(re.findall(r"--?[a-z][\w-]*", " ".join(heads)))


@pytest.mark.parametrize("command", ["ask", "describe", "stats"])
def test_every_shared_option_is_there(longvu: Longvu, command: str) -> None:
    ran = longvu(command, "--help")
    assert (ran.code, ran.err) == (0, "")
    assert SHARED - options_in(ran.out) == set()
    assert longvu(command, "-h").out == ran.out


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("ask a.mp4 Where? --evidence", "ask a.mp4 Where? --evidence=3"),
        ("ask --evidence a.mp4 Where?", "ask --evidence=3 a.mp4 Where?"),
        ("ask --evidence 5 a.mp4 Where?", "ask --evidence 5 a.mp4 Where?"),
        ("ask --evidence=5 a.mp4", "ask --evidence=5 a.mp4"),
        ("ask --evidence -1 a.mp4", "ask --evidence -1 a.mp4"),
        ("ask --evidence --json", "ask --evidence=3 --json"),
        ("ask -- a.mp4 --evidence", "ask -- a.mp4 --evidence"),
        ("", ""),
    ],
)
def test_a_number_of_moments_that_is_left_out(words: str, completed: str) -> None:
    assert with_usual_values(words.split()) == completed.split()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("90", 90), ("1.5", 1.5), ("1:30", 90), ("01:30.25", 90.25), ("1:02:03", 3723), ("90:00", 5400), (7, 7)],
)
def test_a_time(text: str | float, seconds: float) -> None:
    assert parse_time(text) == seconds


@pytest.mark.parametrize("text", ["", "now", "1:60", "1:2:60", "1:60:00", "1:2:3:4", "-1", "1:-2", "1:", ":1", "1m"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="is no time"):
        parse_time(text)


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e999"])
def test_times_that_are_no_numbers_are_refused(longvu: Longvu, clip: Path, text: str) -> None:
    for flag in ("--start", "--end"):
        ran = longvu("stats", clip, f"{flag}={text}")
        assert (ran.code, ran.out) == (2, "")


VARIABLES: dict[str, tuple[str, str, Any]] = {
    "LONGVU_RECIPE": ("paper", "recipe", "paper"),
    "LONGVU_ORIENTATION": ("upright", "orientation", "upright"),
    "LONGVU_CONTEXT_LENGTH": ("4000", "context_length", 4000),
    "LONGVU_DINO_THRESHOLD": ("0.5", "dino_threshold", 0.5),
    "LONGVU_STC_THRESHOLD": ("0.5", "stc_threshold", 0.5),
    "LONGVU_FPS": ("0.5", "fps", 0.5),
    "LONGVU_START": ("0:01", "start_s", 1.0),
    "LONGVU_END": ("2.5", "end_s", 2.5),
    "LONGVU_MAX_NEW_TOKENS": ("2", "max_new_tokens", 2),
    "LONGVU_TEMPERATURE": ("0.5", "temperature", 0.5),
    "LONGVU_SEED": ("3", "seed", 3),
    "LONGVU_TEMPORAL_REDUCTION": ("uniform", "temporal_reduction", "uniform"),
    "LONGVU_ANCHOR": ("middle", "anchor", "middle"),
    "LONGVU_FRAME_POSITION_ENCODING": ("1", "frame_position_encoding", True),
    "LONGVU_STILL": ("video", "still", "video"),
    "LONGVU_QUERY_GUIDED": ("0", "query_guided", False),
    "LONGVU_SPATIAL_COMPRESSION": ("0", "spatial_compression", False),
    "LONGVU_RESOLUTION": ("low", "resolution", "low"),
}


@pytest.mark.parametrize("variable", VARIABLES)
def test_a_setting_from_the_environment(
    longvu: Longvu, clip: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv("LONGVU_MAX_NEW_TOKENS", "1")
    text, name, value = VARIABLES[variable]
    usual = json.loads(longvu("ask", clip, QUESTION, "--json").out)["settings"][name]
    monkeypatch.setenv(variable, text)
    assert json.loads(longvu("ask", clip, QUESTION, "--json").out)["settings"][name] == value
    assert usual != value


def test_top_p_from_the_environment(longvu: Longvu, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGVU_TOP_P", "0.5")
    ran = longvu("ask", clip, QUESTION, "--temperature=1", "--max-new-tokens=1", "--json")
    assert json.loads(ran.out)["settings"]["top_p"] == 0.5


def test_output_flags_from_the_environment(longvu: Longvu, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGVU_MAX_NEW_TOKENS", "1")
    for variable, value in (("LONGVU_QUIET", "1"), ("LONGVU_STATS", "0")):
        with monkeypatch.context() as context:
            context.setenv(variable, value)
            assert longvu("ask", clip, QUESTION).err == ""
    with monkeypatch.context() as context:
        context.setenv("LONGVU_VERBOSE", "1")
        assert longvu("ask", clip, QUESTION).err.startswith("longvu: model qwen from ")
    with monkeypatch.context() as context:
        context.setenv("LONGVU_JSON", "1")
        assert json.loads(longvu("ask", clip, QUESTION).out)["command"] == "ask"
        failed = longvu("ask", clip.parent / "missing.mp4", QUESTION)
        assert json.loads(failed.out)["error"]["type"] == "VideoNotFound"
    with monkeypatch.context() as context:
        context.setenv("LONGVU_NO_CACHE", "1")
        assert json.loads(longvu("ask", clip, QUESTION, "--json").out)["cache"] == {"features": "off"}


@pytest.fixture
def asked_for(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the library was asked to load; nothing is."""
    asked: list[Any] = []

    def refuse(cls: type[LongVU], model: str, *, options: ModelOptions, **_: Any) -> LongVU:
        asked.append((model, options))
        raise HubUnreachable("no")

    monkeypatch.setattr(LongVU, "from_pretrained", classmethod(refuse))
    return asked


MODEL_FLAGS = {
    "model": "org/model",
    "dinov2": "org/dinov2",
    "siglip": "org/siglip",
    "revision": "v2",
    "device": "cuda:1",
    "dtype": "float16",
    "quantize": "4bit",
}


def test_the_model_flags_arrive(longvu: Longvu, clip: Path, asked_for: list[Any]) -> None:
    flags = [f"--{name}={value}" for name, value in MODEL_FLAGS.items()]
    assert longvu("ask", clip, QUESTION, *flags, "--offline").code == 4
    assert asked_for == [("org/model", ModelOptions(**MODEL_FLAGS, offline=True))]


def test_the_model_flags_arrive_from_the_environment(
    longvu: Longvu, clip: Path, asked_for: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**MODEL_FLAGS, "offline": "1"}.items():
        monkeypatch.setenv(f"LONGVU_{name.upper()}", value)
    assert longvu("ask", clip, QUESTION).code == 4
    assert asked_for == [("org/model", ModelOptions(**MODEL_FLAGS, offline=True))]


def test_the_model_is_chosen_by_default(
    longvu: Longvu, clip: Path, asked_for: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MODEL", "DINOV2", "SIGLIP"):
        monkeypatch.delenv(f"LONGVU_{name}")
    longvu("ask", clip, QUESTION)
    assert asked_for == [("auto", ModelOptions())]


def test_short_flags(longvu: Longvu, clip: Path, asked_for: list[Any]) -> None:
    longvu("ask", clip, QUESTION, "-m", "org/other", "-v")
    assert asked_for[0][0] == "org/other"
