"""The commands and their options as data, read from the Typer app itself: for the config file and the reference."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperArgument, TyperGroup, TyperOption

# Every environment variable of an option begins so; the rest, in small letters, is its key in the config file.
PREFIX = "LONGVU_"


class Kind(Enum):
    """What a value of an option is; the texts are for sentences."""

    SWITCH = "true or false"
    WHOLE = "a whole number"
    NUMBER = "a number"
    PARSED = "a number or a text"
    """The option has a parser of its own: for times, for instance."""
    CHOICE = "one of its choices"
    TEXTS = "a list of texts"
    TEXT = "a text"


@dataclass(frozen=True)
class Argument:
    """A positional argument."""

    name: str
    help: str
    required: bool


@dataclass(frozen=True)
class Option:
    """An option of one command.

    Attributes:
        parameter: what Typer calls it.
        flags: ``--stats``, ``--no-stats``, ``-q``.
        variable: its environment variable; None: it has none, and is no key of the config file either.
        choices: for ``Kind.CHOICE``.
        default: None where nothing is the default.
        panel: the heading that the help has it under.
    """

    parameter: str
    flags: tuple[str, ...]
    metavar: str | None
    variable: str | None
    kind: Kind
    choices: tuple[str, ...]
    default: bool | int | float | str | None
    required: bool
    help: str
    panel: str

    @property
    def key(self) -> str | None:
        """What the config file calls it."""
        return None if self.variable is None else self.variable.removeprefix(PREFIX).lower()

    def accepts(self, value: object) -> bool:
        """Whether a value of the config file is of the right kind."""
        match self.kind:
            case Kind.SWITCH:
                return isinstance(value, bool)
            case Kind.WHOLE:
                return isinstance(value, int) and not isinstance(value, bool)
            case Kind.NUMBER:
                return isinstance(value, int | float) and not isinstance(value, bool)
            case Kind.PARSED:
                return isinstance(value, int | float | str) and not isinstance(value, bool)
            case Kind.CHOICE:
                return value in self.choices
            case Kind.TEXTS:
                return isinstance(value, list) and all(isinstance(item, str) for item in value)
            case Kind.TEXT:
                return isinstance(value, str)


@dataclass(frozen=True)
class Command:
    """A command that does something.

    Attributes:
        words: ``("models", "list")``.
        handle: Typer's own.
    """

    words: tuple[str, ...]
    help: str
    arguments: tuple[Argument, ...]
    options: tuple[Option, ...]
    handle: Any

    @property
    def name(self) -> str:
        """As it is typed after ``longvu``."""
        return " ".join(self.words)

    def by_key(self) -> dict[str, Option]:
        """The options that the config file may set, by key."""
        return {option.key: option for option in self.options if option.key is not None}


def root() -> TyperGroup:
    """The whole of ``longvu``."""
    # The app imports the commands, and some of them this module.
    from longvu_cli.cli.app import app

    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup), "the app has several commands"
    return group


def commands(group: TyperGroup, words: tuple[str, ...] = ()) -> Iterator[Command]:
    """Every command under a group, in the order of the help."""
    for name, handle in group.commands.items():
        if isinstance(handle, TyperGroup):
            yield from commands(handle, (*words, name))
        else:
            yield _command((*words, name), handle)


def _command(words: tuple[str, ...], handle: Any) -> Command:
    return Command(
        words=words,
        help=handle.help or "",
        arguments=tuple(
            Argument(parameter.metavar or parameter.name.upper(), parameter.help or "", parameter.required)
            for parameter in handle.params
            if isinstance(parameter, TyperArgument)
        ),
        options=tuple(_option(parameter) for parameter in handle.params if isinstance(parameter, TyperOption)),
        handle=handle,
    )


def _option(parameter: TyperOption) -> Option:
    kind = _kind(parameter)
    choices = parameter.type_descriptor.choices if kind is Kind.CHOICE else None
    variable = parameter.envvar
    return Option(
        parameter=parameter.name,
        flags=(*parameter.opts, *parameter.secondary_opts),
        metavar=parameter.metavar,
        variable=variable if isinstance(variable, str) else None,
        kind=kind,
        choices=tuple(str(_plain(choice)) for choice in choices or ()),
        default=_plain(parameter.default),
        required=parameter.required,
        help=parameter.help or "",
        panel=parameter.rich_help_panel or "Options",
    )


def _kind(parameter: TyperOption) -> Kind:
    descriptor = parameter.type_descriptor
    if descriptor.parameter_info.parser is not None:
        return Kind.PARSED
    if descriptor.is_list:
        return Kind.TEXTS
    if descriptor.choices is not None:
        return Kind.CHOICE
    kinds: dict[Any, Kind] = {bool: Kind.SWITCH, int: Kind.WHOLE, float: Kind.NUMBER}
    return kinds.get(descriptor.annotation, Kind.TEXT)


def _plain(value: Any) -> bool | int | float | str | None:
    """As TOML and JSON have it."""
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, Path):
        return str(value)
    return value if isinstance(value, bool | int | float | str) else None
