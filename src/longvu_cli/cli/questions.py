"""Questions as they are given on the command line: as text, in a file, or on stdin."""

from __future__ import annotations

import sys
from pathlib import Path

from longvu_cli.cli.text import spoken
from longvu_cli.errors import UsageError

_FILE = "@"
_STDIN = "@-"
# A question that fills the longest context has a hundredth of that.
_MOST_BYTES = 10_000_000


def question_of(argument: str) -> str:
    """The question that an argument stands for: ``@file`` is read, ``@-`` is stdin, ``@@`` begins a text with ``@``.

    Raises:
        UsageError: the file cannot be read, or is no text.
    """
    if argument.startswith(_FILE * 2):
        return spoken(argument[1:])
    if not argument.startswith(_FILE):
        return spoken(argument)
    name = "stdin" if argument == _STDIN else argument[1:]
    try:
        content = sys.stdin.buffer.read(_MOST_BYTES) if argument == _STDIN else _content(Path(name).expanduser())
        # Editors end a file with a line break, which is no part of a question.
        return content.decode("utf-8-sig").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise UsageError(f"the question in {name} is no valid text (UTF-8)", hint="check its encoding") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        hint = "check the path; a question that begins with @ is written with two of them"
        raise UsageError(f"the question in {name} cannot be read: {reason}", hint=hint) from error


def _content(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_MOST_BYTES)
