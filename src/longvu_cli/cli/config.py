"""``longvu config``: where the options come from."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from longvu_cli.cli import config_file
from longvu_cli.cli.command_tree import Command, Option, commands, root
from longvu_cli.cli.errors import OK
from longvu_cli.cli.groups import command_group
from longvu_cli.cli.options import with_flags
from longvu_cli.cli.output import Output
from longvu_cli.cli.text import neutralise
from longvu_cli.errors import UsageError
from longvu_cli.whole_file import whole_file

if TYPE_CHECKING:
    from rich.table import Table

_DEFAULT, _FILE, _ENVIRONMENT = "default", "config file", "environment"
# What is never shown.
_SECRETS = ("token",)
_SET = "set"

config_app = command_group("The config file, and where each option comes from.")


def path(output: Output) -> int:
    """Print where the config file is. `LONGVU_CONFIG` names another, or with an empty value none."""
    file = config_file.path()
    if output.options.json:
        output.record(_record("config path", file))
    elif file is not None:
        output.line(neutralise(str(file)))
    if file is None:
        output.note("the config file is switched off: LONGVU_CONFIG is empty")
    elif not file.is_file():
        output.note("there is no such file yet; `longvu config init` makes one")
    return OK


def show(
    output: Output,
    words: Annotated[
        list[str] | None, typer.Argument(help="A command, such as ask or eval needle [ask].", metavar="COMMAND...")
    ] = None,
) -> int:
    """Show the value of each option of a command, and where it comes from.

    A flag wins over an environment variable (an empty one counts as none), that over the config file, and that over
    the default.
    """
    group = root()
    command = _named(group, words or ["ask"])
    file = config_file.path()
    values = _values(command, config_file.defaults(group))
    if output.options.json:
        output.record(
            {
                **_record("config show", file),
                "for": command.name,
                "options": [
                    {"key": row.option.key, "value": row.value, "source": row.source, "variable": row.option.variable}
                    for row in values
                ],
            }
        )
        return OK
    output.print(_table(values))
    if file is not None and not file.is_file():
        output.note(f"there is no config file {file}")
    return OK


def init(
    output: Output,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
) -> int:
    """Write a config file with every key, its meaning and its default, all commented out."""
    file = config_file.path()
    if file is None:
        raise UsageError("the config file is switched off: LONGVU_CONFIG is empty", hint="unset it, or name a file")
    if os.path.lexists(file) and not force:
        raise UsageError(f"{file} is there already, and was left as it is", hint="add --force to write over it")
    try:
        _write(file, config_file.template(root()))
    except OSError as error:
        raise UsageError(
            f"{file} cannot be written: {error.strerror}", hint="name another file with LONGVU_CONFIG"
        ) from error
    if output.options.json:
        output.record(_record("config init", file))
    else:
        output.line(neutralise(str(file)))
    return OK


@dataclass(frozen=True)
class _Row:
    option: Option
    value: Any
    source: str


def _named(group: TyperGroup, words: Sequence[str]) -> Command:
    known = {command.words: command for command in commands(group) if command.by_key()}
    command = known.get(tuple(words))
    if command is None:
        raise UsageError(
            f"{' '.join(words)!r} is no command with options of its own",
            hint=f"choose one of {', '.join(command.name for command in known.values())}",
        )
    return command


def _values(command: Command, nested: dict[str, Any]) -> list[_Row]:
    """What each option would be without a flag.

    Raises:
        UsageError: an environment variable or the config file has a value that the option does not take.
    """
    for word in command.words:
        nested = nested.get(word, {})
    context = typer.Context(command.handle, info_name=command.words[-1], default_map=nested)
    parameters = {parameter.name: parameter for parameter in command.handle.params}
    rows = []
    for option in command.by_key().values():
        parameter = parameters[option.parameter]
        given, source = parameter.consume_value(context, {})
        try:
            value = parameter.process_value(context, given)
        except typer.TyperException as error:
            where = option.variable if source.name == "ENVIRONMENT" else "the config file"
            raise UsageError(f"{where}: {error.format_message()}", hint=f"see `longvu {command.name} --help`") from None
        names = {"ENVIRONMENT": _ENVIRONMENT, "DEFAULT_MAP": _FILE}
        shown = _SET if value is not None and option.key in _SECRETS else _plain(value)
        rows.append(_Row(option, shown, names.get(source.name, _DEFAULT)))
    return rows


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [str(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float) else str(value)


def _record(command: str, file: Path | None) -> dict[str, Any]:
    from longvu_cli.records import SCHEMA_VERSION

    exists = file is not None and file.is_file()
    return {
        "schema_version": SCHEMA_VERSION,
        "command": command,
        "path": None if file is None else str(file),
        "exists": exists,
    }


def _table(rows: Sequence[_Row]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for name in ("option", "value", "from"):
        table.add_column(name, overflow="fold")
    for row in rows:
        source = f"{_ENVIRONMENT}: {row.option.variable}" if row.source == _ENVIRONMENT else row.source
        table.add_row(row.option.key, _shown(row.value), source)
    return table


def _shown(value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, list):
        return neutralise(", ".join(value))
    return str(value).lower() if isinstance(value, bool) else neutralise(str(value))


def _write(file: Path, text: str) -> None:
    """All at once, so that no half of it is ever read."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(file, private=True) as aside:
        aside.write_text(text, encoding="utf-8")


config_app.command("path")(with_flags(path))
config_app.command("show")(with_flags(show))
config_app.command("init")(with_flags(init))
