import json
import re
import tomllib
from pathlib import Path
from typing import Any

import platformdirs
import pytest
import typer
from typer.core import TyperGroup

from cli.conftest import Longvu
from cli.running import TINY
from longvu_cli.cli import config_file
from longvu_cli.cli.app import app
from longvu_cli.cli.command_tree import commands


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the config file of this user would be; it is not there yet."""
    monkeypatch.delenv("LONGVU_CONFIG")
    for name in TINY:
        monkeypatch.delenv(name)
    monkeypatch.setattr(platformdirs, "user_config_path", lambda name: tmp_path / "new")
    return tmp_path / "new" / "config.toml"


def shown(longvu: Longvu, *words: str) -> dict[str, tuple[Any, str]]:
    """Key → value and where it comes from."""
    ran = longvu("config", "show", *words, "--json")
    assert ran.code == 0, ran
    return {option["key"]: (option["value"], option["source"]) for option in json.loads(ran.out)["options"]}


def test_show_says_which_of_them_wins(longvu: Longvu, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(longvu)["fps"] == (1.0, "default")
    config.parent.mkdir()
    config.write_text('fps = 2\nmodel = "3b"\nno-cache = true\n[stats]\nfps = 3\n')
    assert shown(longvu)["fps"] == (2.0, "config file")
    assert shown(longvu, "stats")["fps"] == (3.0, "config file")
    assert shown(longvu)["no_cache"] == (True, "config file")
    monkeypatch.setenv("LONGVU_FPS", "4")
    monkeypatch.setenv("LONGVU_MODEL", "")  # an empty one counts as none
    assert shown(longvu, "stats")["fps"] == (4.0, "environment")
    assert shown(longvu)["model"] == ("3b", "config file")
    assert shown(longvu, "eval", "needle")["trials"] == (3, "default")
    lines = {line.split()[0]: line.split()[1:] for line in longvu("config", "show").out.splitlines()}
    assert lines["fps"] == ["4.0", "environment:", "LONGVU_FPS"]
    assert lines["model"] == ["3b", "config", "file"]
    assert lines["seed"] == ["not", "set", "default"]


def test_what_show_says_is_what_a_command_does(
    longvu: Longvu, config: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.parent.mkdir()
    tiny = "".join(f'{name.removeprefix("LONGVU_").lower()} = "{value}"\n' for name, value in TINY.items())
    config.write_text(f'{tiny}stc_threshold = 0.5\nend = "0:03"\n[stats]\ndino_threshold = 0.7\n')
    monkeypatch.setenv("LONGVU_FPS", "2")
    told = shown(longvu, "stats")
    settings = json.loads(longvu("stats", clip, "--json").out)["settings"]
    for key in ("stc_threshold", "dino_threshold", "fps", "temperature", "anchor", "recipe", "seed"):
        assert told[key][0] == settings[key], key
    assert told["end"] == (settings["end_s"], "config file")


def test_init_writes_every_key_with_its_default(longvu: Longvu, config: Path) -> None:
    ran = longvu("config", "init")
    assert (ran.code, ran.out, ran.err) == (0, f"{config}\n", "")
    assert [path.name for path in config.parent.iterdir()] == ["config.toml"]
    before = shown(longvu)
    text = config.read_text()
    assert {source for _, source in before.values()} == {"default"}, "nothing is set by it"
    config.write_text(re.sub(r"^#(\w+ = )", r"\1", text, flags=re.MULTILINE))
    after = shown(longvu)
    assert {key: value for key, (value, _) in after.items()} == {key: value for key, (value, _) in before.items()}
    assert {key for key, (_, source) in after.items() if source == "default"} == {
        key for key, (value, _) in before.items() if value is None
    }
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    named = set(re.findall(r"^#(\w+) = |^# (\w+) is not set", text, flags=re.MULTILINE))
    assert {first or second for first, second in named} == {
        key for command in commands(group) for key in command.by_key()
    }
    values = tomllib.loads(config.read_text())
    nested = config_file.defaults(group)
    for command in commands(group):
        own = nested
        for word in command.words:
            own = own[word]
        for option in command.by_key().values():
            # A key of the common part may have another default for one command only: then its section has it.
            assert own.get(option.parameter) == option.default, f"{command.name} {option.key} {values}"


def test_init_never_overwrites_unasked(longvu: Longvu, config: Path) -> None:
    config.parent.mkdir()
    config.write_text("mine = 1\n")  # not even readable as a config file
    ran = longvu("config", "init")
    assert (ran.code, ran.out) == (2, "")
    assert "add --force" in ran.err
    assert config.read_text() == "mine = 1\n"
    assert longvu("config", "init", "--force").code == 0
    assert config.read_text() == config_file.template(typer.main.get_command(app))  # type: ignore[arg-type]


def test_a_folder_that_cannot_be_made_is_told(longvu: Longvu, config: Path, tmp_path: Path) -> None:
    (tmp_path / "new").touch()
    ran = longvu("config", "init")
    assert ran.code == 2
    assert ran.err.startswith(f"longvu: error: {config} cannot be written: ")


def test_the_path_is_told(longvu: Longvu, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = longvu("config", "path")
    assert (ran.code, ran.out) == (0, f"{config}\n")
    assert "`longvu config init` makes one" in ran.err
    assert json.loads(longvu("config", "path", "--json").out)["exists"] is False
    longvu("config", "init")
    assert longvu("config", "path").err == ""
    monkeypatch.setenv("LONGVU_CONFIG", "")
    ran = longvu("config", "path")
    assert (ran.code, ran.out) == (0, "")
    assert "switched off" in ran.err
    assert longvu("config", "init").code == 2
    assert shown(longvu)["fps"] == (1.0, "default")


@pytest.mark.parametrize("words", [("nothing",), ("models",), ("eval",), ("ask", "more")])
def test_show_knows_the_commands(longvu: Longvu, config: Path, words: tuple[str, ...]) -> None:
    ran = longvu("config", "show", *words)
    assert (ran.code, ran.out) == (2, "")
    assert "choose one of " in ran.err


def test_show_tells_what_no_option_takes(longvu: Longvu, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text("colour = 1\n")
    ran = longvu("config", "show")
    assert (ran.code, ran.out) == (2, "")
    assert "'colour'" in ran.err
    config.write_text('end = "never"\n')
    ran = longvu("config", "show")
    assert (ran.code, ran.out) == (2, "")
    assert "the config file: " in ran.err and "never" in ran.err
    config.write_text("")
    monkeypatch.setenv("LONGVU_FPS", "fast")
    ran = longvu("config", "show")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("longvu: error: LONGVU_FPS: ")
    assert longvu("config", "path").code == 0


def test_values_are_shown_without_control_characters(longvu: Longvu, config: Path) -> None:
    config.parent.mkdir()
    config.write_text('model = "a\\u001b[31m"\n')
    assert "a\\x1b[31m" in longvu("config", "show").out
