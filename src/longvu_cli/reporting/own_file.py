"""Files of a user's own naming, which take the place of nothing but their own kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from longvu_cli.errors import UsageError

# As much of a file as tells its kind.
_BEGINNING_BYTES = 1_000


def require_own_file(target: Path, shown: str, *, kind: str, is_own: Callable[[bytes], bool]) -> None:
    """Notice early that a file cannot be written, or would take the place of something else.

    Args:
        shown: how errors call it.
        kind: what may be there: "report".
        is_own: whether the beginning of a file is that of this kind.

    Raises:
        UsageError: its folder is missing, or there is a file of another kind.
    """
    if not target.parent.is_dir():
        raise UsageError(f"{shown} cannot be written: there is no such folder", hint="make the folder first")
    try:
        with target.open("rb") as stream:
            beginning = stream.read(_BEGINNING_BYTES)
    except FileNotFoundError:
        return
    except OSError as error:
        raise unwritable(shown, error) from error
    if not is_own(beginning):
        raise UsageError(f"{shown} is there already, and no {kind}", hint="name another file, or remove it")


def unwritable(shown: str, error: OSError) -> UsageError:
    """What a user is told of a file that cannot be written."""
    return UsageError(f"{shown} cannot be written: {error.strerror or error}", hint="name another file")
