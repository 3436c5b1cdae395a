"""What the commands of ``longvu eval`` share."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from longvu_cli.cli.options import ModelFlags
from longvu_cli.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table

# The model that has learnt the synthetic world, which the videos show.
_MODEL = "tiny"


@dataclass(frozen=True)
class EvaluatedModelFlags(ModelFlags):
    """Which model is evaluated."""

    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            envvar="LONGVU_MODEL",
            show_envvar=False,
            rich_help_panel="Model",
            help="tiny, which knows the world of these videos; auto, 7b, 3b, 1b, a hub repository, or a folder.",
        ),
    ] = _MODEL


def words(text: str) -> list[str]:
    """A list as options have it, separated by commas."""
    return [word.strip() for word in text.split(",") if word.strip()]


def require_file_locks(what: str) -> None:
    """Refuse what several processes may share where they cannot.

    Raises:
        UsageError: the system has no file locks.
    """
    if importlib.util.find_spec("fcntl") is None:
        raise UsageError(f"{what} needs file locks that this system does not have", hint="use Linux or macOS")


def plain_table(first: str, *others: str) -> Table:
    """A table without lines; all columns but the first are numbers."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="right")
    return table
