"""Packages that are installed on request only."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

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


def require_pyarrow(what: str) -> None:
    """Notice that parquet cannot be read.

    Args:
        what: needs it: "reading test.parquet".

    Raises:
        ExtraNotInstalled: pyarrow is not there.
    """
    try:
        import_module("pyarrow")
    except ImportError:
        raise ExtraNotInstalled(
            f"{what} needs pyarrow, which is not installed", hint="run: pip install 'longvu-cli[eval]'"
        ) from None


def require_ray() -> None:
    """Notice that there is no Ray, without importing it, which takes a while.

    Raises:
        ExtraNotInstalled: it is not there.
    """
    if find_spec("ray") is None:
        raise ExtraNotInstalled(
            "--engine ray needs Ray, which is not installed", hint="run: pip install 'longvu-cli[ray]'"
        )
