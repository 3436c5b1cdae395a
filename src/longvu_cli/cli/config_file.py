"""The config file: options that someone always wants, as TOML.

::

    # ~/.config/longvu/config.toml
    model = "3b"
    quantize = "4bit"

    [stats]            # for one command only
    model = "7b"

Which keys there are is read from the commands: each option that has an environment variable is one.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from typer.core import TyperGroup

from longvu_cli.cli.command_tree import Command, Kind, Option, commands
from longvu_cli.errors import UsageError

# Names another file, or with an empty value none.
VARIABLE = "LONGVU_CONFIG"
# The command whose defaults the common part of a new file shows.
_COMMON = "ask"


def path() -> Path | None:
    """Where the config file is; None: it is switched off."""
    named = os.environ.get(VARIABLE)
    if named is not None:
        return Path(named) if named else None
    from platformdirs import user_config_path

    return user_config_path("longvu") / "config.toml"


def defaults(group: TyperGroup) -> dict[str, Any]:
    """The defaults that the config file gives to the options of all commands, nested as Typer takes them.

    Raises:
        UsageError: the file is malformed, or has a key that is no option, or a value of another kind.
    """
    file = path()
    if file is None or not (file.is_file() or VARIABLE in os.environ):
        return {}
    values = _read(file)
    known = list(commands(group))
    sections = {name: values.pop(name) for name in group.commands if isinstance(values.get(name), dict)}
    _check(file, "", values, known)
    inner: dict[tuple[str, ...], dict[str, Any]] = {}
    for name, section in sections.items():
        for command in known:
            if command.words[0] == name and len(command.words) > 1 and isinstance(section.get(command.words[1]), dict):
                inner[command.words] = section.pop(command.words[1])
                _check(file, f"[{'.'.join(command.words)}] ", inner[command.words], [command])
        _check(file, f"[{name}] ", section, [command for command in known if command.words[0] == name])
    nested: dict[str, Any] = {}
    for command in known:
        merged = {
            **_normal(values),
            **_normal(sections.get(command.words[0], {})),
            **_normal(inner.get(command.words, {})),
        }
        place = nested
        for word in command.words:
            place = place.setdefault(word, {})
        place |= {option.parameter: merged[key] for key, option in command.by_key().items() if key in merged}
    return nested


def template(group: TyperGroup) -> str:
    """A config file with every key, its meaning and its default, all commented out."""
    known = list(commands(group))
    common = next(command for command in known if command.name == _COMMON)
    lines = [
        "# The config file of longvu. Take the # away before a key to set it.",
        "# A flag wins over an environment variable, and that over this file. See `longvu config show`.",
    ]
    lines += _described(common.by_key())
    shown = common.by_key()
    # A command whose name is a key, too (`stats`), can have no section beside it: its keys come before all sections.
    for name in sorted(group.commands, key=lambda name: name not in shown):
        those = [command for command in known if command.words[0] == name]
        own = {key: option for command in those for key, option in command.by_key().items() if _agree(those, key)}
        section = [] if name in shown else [f"[{name}]"]
        lines += _section(name, section, _other(own, shown))
        for command in those:
            apart = {key: option for key, option in command.by_key().items() if key not in own}
            lines += _section(command.name, [f"[{'.'.join(command.words)}]"], _other(apart, shown))
    return "\n".join(lines) + "\n"


def _agree(those: Sequence[Command], key: str) -> bool:
    """Whether the commands that have a key, all have the same default for it."""
    return len({repr(command.by_key()[key].default) for command in those if key in command.by_key()}) == 1


def _other(options: Mapping[str, Option], common: Mapping[str, Option]) -> dict[str, Option]:
    """Without those that are as in the common part."""
    return {
        key: option for key, option in options.items() if key not in common or option.default != common[key].default
    }


def _section(name: str, heading: Sequence[str], options: Mapping[str, Option]) -> list[str]:
    return ["", f"# For `longvu {name}` only.", *heading, *_described(options)] if options else []


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"the config file {file} cannot be read: {error}", hint="mend it, or unset LONGVU_CONFIG"
        ) from error


def _normal(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key.replace("-", "_"): value for key, value in values.items()}


def _check(file: Path, section: str, values: Mapping[str, Any], known: Iterable[Command]) -> None:
    """Refuse what no command could take."""
    options: dict[str, list[Option]] = {}
    for command in known:
        for key, option in command.by_key().items():
            options.setdefault(key, []).append(option)
    for key, value in values.items():
        meant = options.get(key.replace("-", "_"))
        if meant is None:
            raise UsageError(
                f"the config file {file} has {section}{key!r}, which is no option", hint="see `longvu config init`"
            )
        if not any(option.accepts(value) for option in meant):
            raise UsageError(
                f"the config file {file} has {section}{key!r} = {value!r}, which is not {_wanted(meant[0])}",
                hint="see `longvu config init`",
            )


def _wanted(option: Option) -> str:
    return " or ".join(option.choices) if option.kind is Kind.CHOICE else option.kind.value


def _described(options: Mapping[str, Option]) -> list[str]:
    lines: list[str] = []
    for panel in dict.fromkeys(option.panel for option in options.values()):
        lines += ["", f"# --- {panel} ---"]
        for key, option in options.items():
            if option.panel == panel:
                lines += _line(key, option)
    return lines


def _line(key: str, option: Option) -> list[str]:
    choices = f" ({' | '.join(option.choices)})" if option.choices else ""
    if option.default is None:
        return [f"# {option.help}{choices}", f"# {key} is not set: {option.kind.value}"]
    return [f"# {option.help}{choices}", f"#{key} = {json.dumps(option.default, ensure_ascii=False)}"]
