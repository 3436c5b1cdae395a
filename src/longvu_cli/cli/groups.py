"""Commands that are groups of commands: ``longvu models list``, ``longvu cache prune``."""

from __future__ import annotations

import typer


def command_group(help: str) -> typer.Typer:
    """A group that shows its help when no command of it is named."""
    group = typer.Typer(
        invoke_without_command=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        help=help,
    )

    @group.callback()
    def show_help(context: typer.Context) -> None:
        if context.invoked_subcommand is None:
            typer.echo(context.get_help())

    show_help.__doc__ = help
    return group
