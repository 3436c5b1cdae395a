"""The console of the command line. Importing it imports rich: commands do so when they have something to show."""

from __future__ import annotations

from typing import TextIO

from rich.console import Console

# Where there is no terminal to ask for its width, lines are long enough not to be broken.
WIDTH_WITHOUT_TERMINAL = 120


class PlainConsole(Console):
    """A console that takes no text for markup and lets a closed pipe be handled where all errors are."""

    def on_broken_pipe(self) -> None:
        """Called while the error is handled: raise it on, where rich would end the process with status 1."""
        raise BrokenPipeError


def console(stream: TextIO) -> PlainConsole:
    """A console on a stream."""
    width = None if stream.isatty() else WIDTH_WITHOUT_TERMINAL
    return PlainConsole(file=stream, markup=False, highlight=False, emoji=False, width=width)
