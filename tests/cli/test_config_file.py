import json
from pathlib import Path
from typing import Any

import platformdirs
import pytest
import typer
from typer.core import TyperGroup

from cli.conftest import Longvu
from cli.running import QUESTION
from longvu_cli.cli import config_file
from longvu_cli.cli.app import app
from longvu_cli.cli.command_tree import commands


def root() -> TyperGroup:
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    return group


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty config file that LONGVU_CONFIG names."""
    file = tmp_path / "config.toml"
    file.touch()
    monkeypatch.setenv("LONGVU_CONFIG", str(file))
    return file


def settings(longvu: Longvu, clip: Path, *flags: str, command: str = "stats") -> Any:
    """The settings that a run ended up with."""
    words = (QUESTION, "--max-new-tokens=1") if command == "ask" else ()
    ran = longvu(command, clip, *words, *flags, "--json")
    assert ran.code == 0, ran
    return json.loads(ran.out)["settings"]


def test_a_flag_wins_over_the_environment_and_that_over_the_config_file(
    longvu: Longvu, clip: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert settings(longvu, clip)["stc_threshold"] == 0.8
    config.write_text("stc_threshold = 0.1\n")
    assert settings(longvu, clip)["stc_threshold"] == 0.1
    monkeypatch.setenv("LONGVU_STC_THRESHOLD", "0.2")
    assert settings(longvu, clip)["stc_threshold"] == 0.2
    assert settings(longvu, clip, "--stc-threshold=0.3")["stc_threshold"] == 0.3


def test_every_kind_of_value(longvu: Longvu, clip: Path, config: Path) -> None:
    config.write_text(
        'recipe = "paper"\ncontext-length = 4000\nfps = 2\nstart = "0:01"\nend = 3.5\n'
        "frame_position_encoding = true\nno-cache = true\n"
    )
    ran = longvu("stats", clip, "--json")
    record = json.loads(ran.out)
    wanted = {"recipe": "paper", "context_length": 4000, "fps": 2.0, "start_s": 1.0, "end_s": 3.5}
    assert record["settings"] | wanted == record["settings"]
    assert record["settings"]["frame_position_encoding"] is True
    assert record["cache"]["features"] == "off"
    assert record["compression"]["frames"]["sampled"] == 5


def test_the_part_for_one_command_wins_over_the_common_one(longvu: Longvu, clip: Path, config: Path) -> None:
    config.write_text("stc_threshold = 0.1\nstats = false\n[ask]\nstc_threshold = 0.2\nmax_new_tokens = 1\n")
    assert settings(longvu, clip)["stc_threshold"] == 0.1
    assert settings(longvu, clip, command="ask")["stc_threshold"] == 0.2


def test_output_flags_can_be_configured(longvu: Longvu, clip: Path, config: Path) -> None:
    config.write_text("json = true\nmax_new_tokens = 1\n")
    ran = longvu("ask", clip, QUESTION)
    assert json.loads(ran.out)["settings"]["max_new_tokens"] == 1
    config.write_text("quiet = true\nmax_new_tokens = 1\n")
    assert longvu("ask", clip, QUESTION).err == ""
    config.write_text("stats = false\nmax_new_tokens = 1\n")
    assert longvu("ask", clip, QUESTION).err == ""
    assert longvu("ask", clip, QUESTION, "--stats").err.startswith("frames ")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("colour = 3", "colour"),
        ("[ask]\nsped = 1", "sped"),
        ("[chatt]\nfps = 1", "chatt"),
        ("fps = [1, 2]", "fps"),
        ("ask = 3", "ask"),
        ('video = "a.mp4"', "video"),
        ("self = 1", "self"),
    ],
)
def test_an_unknown_key_is_named(longvu: Longvu, clip: Path, config: Path, text: str, key: str) -> None:
    config.write_text(text)
    ran = longvu("ask", clip, QUESTION)
    assert (ran.code, ran.out) == (2, "")
    assert f"'{key}'" in ran.err
    assert str(config) in ran.err
    assert ran.err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "named"), [('fps = "fast"', "fps"), ('recipe = "own"', "recipe"), ("end = -1", "end")]
)
def test_an_unusable_value_is_a_usage_error(longvu: Longvu, clip: Path, config: Path, text: str, named: str) -> None:
    config.write_text(text)
    ran = longvu("ask", clip, QUESTION)
    assert (ran.code, ran.out) == (2, "")
    assert named in ran.err


@pytest.mark.parametrize("content", [b"fps = ", b"\xff\xfe", b"fps = 1\nfps = 2"])
def test_a_malformed_file_is_a_usage_error(longvu: Longvu, clip: Path, config: Path, content: bytes) -> None:
    config.write_bytes(content)
    ran = longvu("ask", clip, QUESTION)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"longvu: error: the config file {config} cannot be read: ")


def test_a_file_that_was_named_has_to_exist(longvu: Longvu, clip: Path, config: Path) -> None:
    config.unlink()
    assert longvu("ask", clip, QUESTION).code == 2


@pytest.mark.parametrize("command", ["ask", "describe", "stats"])
def test_help_is_given_whatever_the_file_holds(longvu: Longvu, config: Path, command: str) -> None:
    config.write_text("colour = 3")
    ran = longvu(command, "--help")
    assert ran.code == 0
    assert ran.out.startswith(f"Usage: longvu {command} ")


def test_the_file_lies_where_platformdirs_says(
    longvu: Longvu, clip: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("LONGVU_CONFIG")
    monkeypatch.setattr(platformdirs, "user_config_path", lambda name: tmp_path / name)
    assert config_file.path() == tmp_path / "longvu" / "config.toml"
    assert settings(longvu, clip)["stc_threshold"] == 0.8
    (tmp_path / "longvu").mkdir()
    (tmp_path / "longvu" / "config.toml").write_text("stc_threshold = 0.4\n")
    assert settings(longvu, clip)["stc_threshold"] == 0.4
    monkeypatch.setenv("LONGVU_CONFIG", "")
    assert config_file.path() is None
    assert settings(longvu, clip)["stc_threshold"] == 0.8


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('fps = "fast"', "'fps' = 'fast', which is not a number"),
        ("fps = true", "'fps' = True, which is not a number"),
        ("model = 3", "'model' = 3, which is not a text"),
        ("offline = 1", "'offline' = 1, which is not true or false"),
        ("max_new_tokens = 1.5", "'max_new_tokens' = 1.5, which is not a whole number"),
        ("workers = true", "'workers' = True, which is not a whole number"),
        ('recipe = "own"', "'recipe' = 'own', which is not released or paper"),
        ("start = 00:01:00", "'start' = datetime.time(0, 1), which is not a number or a text"),
        ("[stats]\nretry_failed = true", "[stats] 'retry_failed', which is no option"),
        ('[stats]\nfps = "fast"', "[stats] 'fps' = 'fast', which is not a number"),
    ],
)
def test_a_value_of_another_kind_is_told_whatever_the_command(
    longvu: Longvu, clip: Path, config: Path, text: str, told: str
) -> None:
    config.write_text(text)
    for arguments in (("ask", clip, QUESTION), ("cache", "path")):
        ran = longvu(*arguments)
        assert (ran.code, ran.out) == (2, "")
        assert ran.err.startswith(f"longvu: error: the config file {config} has {told}")
        assert ran.err.count("\n") == 1


def test_a_common_key_reaches_the_commands_that_have_it(longvu: Longvu, config: Path) -> None:
    config.write_text("quiet = true\nretry_failed = true\n[cache]\njson = true\n[eval]\ntrials = 1\n")
    ran = longvu("cache", "list")
    assert (json.loads(ran.out)["command"], ran.err) == ("cache list", "")
    nested = config_file.defaults(root())
    assert nested["batch"] == {"retry_failed": True, "quiet": True}
    assert nested["eval"]["needle"] == {"trials": 1, "quiet": True}
    assert nested["cache"]["prune"] == {"quiet": True, "json": True}
    assert nested["stats"] == {"quiet": True}


def test_the_key_of_an_option_is_its_flag_and_its_variable() -> None:
    """Every option of the commands that load a model can be set in all three ways."""
    wanted = {"ask", "batch", "chat", "demo", "describe", "plan", "report", "stats"}
    for command in commands(root()):
        for option in command.options:
            long = max(option.flags[0], *option.flags, key=lambda flag: flag.startswith("--") * 2 - ("no-" in flag))
            if command.name in wanted:
                assert option.variable is not None, f"{command.name} {long} has no environment variable"
            if option.variable is not None:
                assert option.variable == f"LONGVU_{long[2:].replace('-', '_').upper()}", f"{command.name} {long}"


def test_a_section_may_be_for_one_command_of_several(longvu: Longvu, config: Path) -> None:
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text('[eval]\nanchor = "middle"\n[eval.needle]\nanchor = "change"\ndepths = 3\n')
    told = {
        name: {
            option["key"]: option["value"]
            for option in json.loads(longvu("config", "show", "eval", name, "--json").out)["options"]
        }
        for name in ("needle", "mlvu")
    }
    assert (told["needle"]["anchor"], told["needle"]["depths"]) == ("change", 3)
    assert told["mlvu"]["anchor"] == "middle"
    config.write_text("[eval.mlvu]\ndepths = 3\n")
    ran = longvu("config", "show", "eval", "mlvu")
    assert (ran.code, "[eval.mlvu] 'depths', which is no option" in ran.err) == (2, True)
