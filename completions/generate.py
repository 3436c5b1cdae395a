#!/usr/bin/env python3
"""Writes the completion scripts beside this file; ``tests/cli/test_completions.py`` compares them.

::

    longvu.bash    source it, or put it into bash-completion's folder as ``longvu``
    longvu.zsh     put it into a folder of ``fpath`` as ``_longvu``
    longvu.fish    put it into ``~/.config/fish/completions``
"""

from __future__ import annotations

from pathlib import Path

from typer.completion import get_completion_script

PROGRAM = "longvu"
SHELLS = ("bash", "zsh", "fish")


def scripts() -> dict[str, str]:
    """File name → its content."""
    return {
        f"{PROGRAM}.{shell}": get_completion_script(prog_name=PROGRAM, complete_var="_LONGVU_COMPLETE", shell=shell)
        + "\n"
        for shell in SHELLS
    }


def main() -> None:
    """Write them."""
    for name, content in scripts().items():
        Path(__file__).with_name(name).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
