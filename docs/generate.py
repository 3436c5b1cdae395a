#!/usr/bin/env python3
"""Writes ``commands.md`` beside this file from the command itself; ``tests/test_reference.py`` compares them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from longvu_cli.cli.command_tree import Argument, Command, Kind, Option, commands, root
from longvu_cli.cli.config_file import VARIABLE as CONFIG_VARIABLE
from longvu_cli.cli.errors import BUG, INTERRUPTED, OK, SOME_FAILED, TERMINATED, USAGE, exit_code
from longvu_cli.errors import DeviceError, VideoError, WeightsError
from longvu_cli.folders import VARIABLE as CACHE_VARIABLE

FILE = "commands.md"

_INTRODUCTION = f"""# Commands

This file is written by `docs/generate.py` from the commands themselves. `longvu --help` and `longvu COMMAND --help`
say the same; `longvu --version` prints the version, and `longvu --install-completion` makes the shell complete it all.

An option with an environment variable is also a key of the config file: the variable without `LONGVU_`, in small
letters (`LONGVU_MAX_NEW_TOKENS`: `max_new_tokens`). A flag wins over the variable, that over the config file, and that
over the default; `longvu config show COMMAND` tells where each value comes from. An empty variable counts as none.

Two variables belong to no option: `{CONFIG_VARIABLE}` names the config file (empty: none), and `{CACHE_VARIABLE}` the
folder of the features of videos. Weights obey the variables of the Hugging Face hub (`HF_HOME`, `HF_HUB_CACHE`,
`HF_ENDPOINT`, `HF_TOKEN`, `HF_HUB_OFFLINE`, …), and colours `NO_COLOR`.
"""


def exit_codes() -> list[tuple[str, str]]:
    """Code → what it means."""
    return [
        (str(OK), "success"),
        (str(BUG), "an unexpected error: a bug; or output that cannot be written"),
        (str(USAGE), "usage: contradictory or unusable options, a question that leaves no room"),
        (str(exit_code(VideoError(""))), "the video cannot be read, or has no frames"),
        (str(exit_code(WeightsError(""))), "the weights are missing, damaged, gated, or not to be had offline"),
        (
            str(exit_code(DeviceError(""))),
            "no suitable device, out of memory, no room for temporary files, or no server that answers; nothing that "
            "`doctor` could run",
        ),
        (str(SOME_FAILED), "some of several videos or rows failed"),
        (f"{INTERRUPTED}, {TERMINATED}", "interrupted, terminated (or the terminal was closed)"),
    ]


def reference() -> str:
    """The whole file."""
    known = list(commands(root()))
    lines = [_INTRODUCTION]
    lines += [f"* [`longvu {command.name}`](#longvu-{'-'.join(command.words)})" for command in known]
    lines += ["", "## Exit codes", "", "| code | |", "|---|---|"]
    lines += [f"| {code} | {meaning} |" for code, meaning in exit_codes()]
    for command in known:
        lines += ["", *_section(command)]
    return "\n".join(lines) + "\n"


def _section(command: Command) -> Iterator[str]:
    yield f"## `longvu {command.name}`"
    yield ""
    arguments = "".join(f" {_named(argument)}" for argument in command.arguments)
    yield f"    longvu {command.name} [OPTIONS]{arguments}"
    yield ""
    yield command.help.strip()
    if command.arguments:
        yield ""
        yield from (f"* `{argument.name}`: {argument.help}" for argument in command.arguments)
    yield ""
    yield "| option | default | variable | |"
    yield "|---|---|---|---|"
    for option in command.options:
        default = "needed" if option.required else _default(option)
        variable = f"`{option.variable}`" if option.variable else ""
        yield f"| {_flags(option)} | {default} | {variable} | {_cell(option.help)} |"


def _named(argument: Argument) -> str:
    return argument.name if argument.required else f"[{argument.name}]"


def _flags(option: Option) -> str:
    values = "" if option.kind is Kind.SWITCH else f" {option.metavar or _values(option)}"
    return _cell(", ".join(f"`{flag}{values if flag.startswith('--') else ''}`" for flag in option.flags))


def _values(option: Option) -> str:
    return "|".join(option.choices) if option.choices else {Kind.WHOLE: "N", Kind.NUMBER: "X"}.get(option.kind, "TEXT")


def _default(option: Option) -> str:
    if option.default is None:
        return ""
    text = option.default if isinstance(option.default, str) else json.dumps(option.default)
    return f"`{text}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def main() -> None:
    """Write it."""
    Path(__file__).with_name(FILE).write_text(reference(), encoding="utf-8")


if __name__ == "__main__":
    main()
