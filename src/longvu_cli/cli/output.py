"""What the user sees: one object that knows whether people, scripts or nobody is reading.

stdout carries the answer or the JSON, nothing else; everything more goes to stderr.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from longvu_cli.cli.text import neutralise
from longvu_cli.errors import LongVUError, UnexpectedError, UsageError
from longvu_cli.video_file import without_passwords, without_secrets

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from longvu_cli.records import Record

_STAGES = {"encode": "watching"}
_ROWS = "rows"
_ANSWER_KEEPS = "\n\t"


@dataclass(frozen=True)
class OutputOptions:
    """How much is shown, and in which form.

    Attributes:
        json: records in place of text.
        quiet: nothing on stderr but errors.
        verbose: also which model and settings, and the tracebacks of bugs.
        stats: the compression summary after an answer.
    """

    json: bool = False
    quiet: bool = False
    verbose: bool = False
    stats: bool = True

    def verify(self) -> None:
        """Refuse a contradiction; not when made, so that the refusal can be shown in the form that was asked for."""
        if self.quiet and self.verbose:
            raise UsageError("--quiet and --verbose contradict each other", hint="leave one of them out")


class Output:
    """Writes for one command.

    Args:
        options: what to show.
        out, err: where to; the process's own streams unless a test says otherwise.
    """

    def __init__(self, options: OutputOptions, *, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self.options = options
        self._out = out or sys.stdout
        self._err = err or sys.stderr
        self._progress: Progress | None = None
        self._mid_line = False
        self._answering = False
        self._warned: set[str] = set()

    @property
    def animated(self) -> bool:
        """Whether bars may move: only for a person at a terminal that can do it."""
        return not self.options.quiet and self._err.isatty() and not self.err_console().is_dumb_terminal

    @property
    def at_terminal(self) -> bool:
        """Whether what goes to stderr is seen in a terminal, able or not."""
        return self._err.isatty()

    # --- stdout ---

    def answer_text(self, text: str) -> None:
        """Part of an answer, at once; nothing with ``--json``, whose record holds the whole."""
        if self.options.json or (self._answering and not text):
            return
        self._answering = True
        self._write(neutralise(text, keep=_ANSWER_KEEPS))

    def answer_heading(self, path: str, *, first: bool) -> None:
        """Which of several videos the next answer is about."""
        if not self.options.json:
            self._write(f"{'' if first else chr(10)}==> {neutralise(without_secrets(path))} <==\n")

    def question(self, text: str, *, first: bool) -> None:
        """Which of several questions the next answer is to."""
        if not self.options.json:
            self._write(f"{'' if first else chr(10)}> {neutralise(text)}\n")

    def answer_end(self) -> None:
        """Finish the answer's line."""
        if not self.options.json and self._mid_line:
            self._write("\n")
        self._answering = False

    def record(self, record: Record) -> None:
        """A record, as one line of JSON, flushed."""
        if self.options.json:
            self._write(f"{json.dumps(record, allow_nan=False)}\n")

    def line(self, text: str) -> None:
        """A line that is the result itself, whatever the form, flushed."""
        self._write(f"{text}\n")

    @property
    def width(self) -> int:
        """Characters of a line of stdout, for what may be arranged in more than one way."""
        return self._console(self._out).width

    def print(self, *renderables: object) -> None:
        """Rich text or tables to stdout, for commands whose result they are."""
        console = self._console(self._out)
        with _full_disk_is_told():
            for renderable in renderables:
                console.print(renderable)

    # --- stderr ---

    def note(self, text: str) -> None:
        """Something worth knowing."""
        if not self.options.quiet:
            self._say(text)

    def detail(self, text: str) -> None:
        """Something for ``--verbose``."""
        if self.options.verbose:
            self._say(text)

    def warning(self, text: str) -> None:
        """Something that may make the result less than it seems."""
        if not self.options.quiet:
            self._say(f"warning: {text}")

    def warning_once(self, text: str) -> None:
        """What holds for many videos; their records have it for each."""
        if text not in self._warned:
            self._warned.add(text)
            self.warning(text)

    def summary(self, *renderables: object) -> None:
        """The statistics after an answer."""
        if self.options.stats:
            self.explanation(*renderables)

    def explanation(self, *renderables: object) -> None:
        """What was asked for besides an answer."""
        if not self.options.quiet:
            console = self.err_console()
            for renderable in renderables:
                console.print(renderable, soft_wrap=not console.is_terminal)

    def show(self, *renderables: object) -> None:
        """What someone at a terminal has just asked to see, beside the answers."""
        console = self.err_console()
        for renderable in renderables:
            console.print(renderable, soft_wrap=not console.is_terminal)

    def error(self, error: LongVUError, *, path: str | None = None) -> None:
        """One sentence and the next thing to try; with ``--json`` a record on stdout."""
        self.answer_end()
        if self.options.json:
            from longvu_cli.records import error_record

            self.record(error_record(error, path=path))
            return
        self.error_text(error, path=path)

    def error_text(self, error: LongVUError, *, path: str | None = None) -> None:
        """The sentence on stderr, whatever the form of the output."""
        where = f"{without_secrets(path)}: " if path is not None and path not in error.message else ""
        self._say(f"error: {where}{error.message}" + (f"; {error.hint}" if error.hint else ""))

    def bug(self, error: Exception, trace: str) -> None:
        """Something that should not have happened."""
        self.answer_end()
        self.error(UnexpectedError.of(error))
        self.trace(trace)

    def trace(self, trace: str) -> None:
        """Where a bug came from, for ``--verbose``."""
        if self.options.verbose:
            self._err.write(neutralise(trace, keep="\n"))

    def interrupted(self) -> None:
        """Leave the terminal tidy."""
        self.answer_end()

    @contextmanager
    def progress(self) -> Iterator[None]:
        """Show a bar while the block runs, when :attr:`animated`."""
        if not self.animated:
            yield
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self.err_console(), transient=True) as self._progress:
            try:
                yield
            finally:
                self._progress = None

    def on_progress(self, stage: str, done: int, total: int | None) -> None:
        """The library's progress callback."""
        if self._progress is None:
            return
        description = _STAGES.get(stage, stage)
        task = self._task(self._progress, description)
        # Headers may promise too little; a bar beyond its end would be a lie.
        self._progress.update(task, completed=done, total=None if total is None else max(done, total))

    def on_rows(self, done: int, total: int, left: str) -> None:
        """How many of several questions are done, and how long the others will take."""
        if self._progress is None:
            return
        task = self._progress.tasks[0].id if self._progress.tasks else self._progress.add_task(_ROWS)
        description = f"{_ROWS}, {left} left" if left else _ROWS
        self._progress.update(task, completed=done, total=total, description=description)

    def stop_progress(self) -> None:
        """Take the bar away, before an answer starts to stream over it."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def close(self) -> None:
        """Flush, so that a closed pipe or a full disk is noticed while it can still be told."""
        self._out.flush()

    def err_console(self) -> Console:
        """A rich console on stderr that takes no text for markup."""
        return self._console(self._err)

    @staticmethod
    def _console(stream: TextIO) -> Console:
        from longvu_cli.cli.console import console

        return console(stream)

    @staticmethod
    def _task(progress: Progress, description: str) -> TaskID:
        known = [task.id for task in progress.tasks if task.description == description]
        return known[0] if known else progress.add_task(description, total=None)

    def _write(self, text: str) -> None:
        self._mid_line = True  # should a signal arrive before it is known
        with _full_disk_is_told():
            self._out.write(text)
            self._out.flush()
        self._mid_line = not text.endswith("\n")

    def _say(self, text: str) -> None:
        text = without_passwords(text)
        if self._progress is not None:
            self._progress.console.print(f"longvu: {neutralise(text)}", soft_wrap=True)
            return
        self._err.write(f"longvu: {neutralise(text)}\n")
        self._err.flush()


@contextmanager
def _full_disk_is_told() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputFailed(f"the output cannot be written: {error.strerror}") from error


class OutputFailed(LongVUError):
    """The answer cannot be written (a full disk, for instance)."""
