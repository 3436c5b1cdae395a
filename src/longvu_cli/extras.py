"""Packages that are installed on request only."""

from __future__ import annotations

from importlib import import_module

from longvu_cli.errors import ExtraNotInstalled


def require_matplotlib(what: str, *, extra: str) -> None:
    """Notice that something cannot be drawn, best before there are hours of work to show in it.

    Args:
        what: is to be drawn: "the plot".
        extra: of this package, which brings it.

    Raises:
        ExtraNotInstalled: matplotlib is not there.
    """
    try:
        import_module("matplotlib")
    except ImportError:
        raise ExtraNotInstalled(
            f"{what} needs matplotlib, which is not installed", hint=f"run: pip install 'longvu-cli[{extra}]'"
        ) from None
