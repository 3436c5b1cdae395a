"""``longvu batch``."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from longvu_cli.cli.engines import open_engine, verify_engine
from longvu_cli.cli.errors import OK, SOME_FAILED
from longvu_cli.cli.options import (
    OUTPUT,
    AnswerFlags,
    CacheFlags,
    CompressionFlags,
    ContextFlags,
    CoverageFlags,
    EngineFlags,
    ModelFlags,
    VideoFlags,
    option,
)
from longvu_cli.cli.output import Output, OutputFailed
from longvu_cli.errors import LongVUError, UsageError

if TYPE_CHECKING:
    from longvu_cli.batch import Tally
    from longvu_cli.result_stream import Results

_STDIN = "-"
# Where nothing can be animated, how often a line says how far it is.
_NOTE_EVERY_S = 60.0


def batch(
    output: Output,
    manifest: Annotated[
        str, typer.Argument(help="JSON lines or CSV with video and question; - is stdin.", metavar="MANIFEST")
    ],
    results: Annotated[
        Path | None,
        option(
            "--output",
            "-o",
            panel=OUTPUT,
            metavar="FILE",
            help="Add the results to this file, which makes the work resumable [stdout, which does not].",
        ),
    ] = None,
    retry_failed: Annotated[
        bool,
        option("--retry-failed", panel=OUTPUT, help="Drop the errors in the output file, and try their rows again."),
    ] = False,
    *,
    model: ModelFlags,
    moments: VideoFlags,
    compression: CompressionFlags,
    cache: CacheFlags,
    answer: AnswerFlags,
    context: ContextFlags,
    covering: CoverageFlags,
    engine: EngineFlags,
) -> int:
    """Answer many questions about many videos, with one load of the model.

    Each line of MANIFEST is a JSON object with `video` and `question`; `id` and the options of video, compression and
    answer (`fps`, `start`, `max_new_tokens` …) may follow, and win over the flags. Or it is CSV with these columns.

    Each result is a line of JSON. With --output the same command goes on where it was cut off, and several of them
    share the work: a row is identified by the content of its video, the question, the model and the settings, and is
    answered once. A row that fails has its error for a result; it is tried again when it or its video changes, or
    with --retry-failed. The exit code is 6 if any result is an error.

    With --engine processes or ray, several models answer at a time, each on its own GPU; the largest videos come first,
    and the results, which are the same, in any order. A row whose process dies goes to another, three times at most.
    """
    from longvu_cli.manifest import Settings, read_manifest

    if retry_failed and results is None:
        raise UsageError("--retry-failed needs --output", hint="name the file of the earlier results")
    verify_engine(engine, model, shared=results is not None)
    defaults = Settings(
        moments.options(), compression.options(), answer.options(), context.options(), covering.options()
    )
    content = _read(manifest)
    rows = read_manifest(content, manifest if manifest == _STDIN else os.path.abspath(manifest), defaults)
    with (
        _open_results(results, output) as opened,
        open_engine(
            "batch",
            output,
            engine=engine,
            model=model,
            cache=cache,
            decoding=moments.decoding(),
            shared=results is not None,
        ) as answering,
    ):
        from longvu_cli.batch import Batch

        teller = Teller(output)
        work = Batch(rows, opened, engine=answering, on_progress=teller.progress, on_failure=teller.failure)
        with output.progress(), told_as_output(results):
            tally = work.run(retry_failed=retry_failed)
    _conclude(tally, results, output)
    return SOME_FAILED if tally.failures else OK


def _read(manifest: str) -> bytes:
    if manifest == _STDIN:
        return sys.stdin.buffer.read()
    try:
        return Path(manifest).read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(f"the manifest {manifest} cannot be read: {reason}", hint="check the path") from error


@contextmanager
def _open_results(path: Path | None, output: Output) -> Iterator[Results]:
    if path is None:
        from longvu_cli.result_stream import ResultStream

        yield ResultStream(output.line)
        return
    try:
        from longvu_cli.result_file import ResultFile
    except ModuleNotFoundError as error:
        raise UsageError(
            "--output needs file locks that this system does not have", hint="leave it out: results go to stdout"
        ) from error
    with ResultFile(path) as opened:
        yield opened


@contextmanager
def told_as_output(path: Path | None) -> Iterator[None]:
    """What keeps a result from being written ends everything: there would be nothing to show for the work."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputFailed(f"{path} cannot be written: {error.strerror}; what is in it is whole") from error


class Teller:
    """Says how far it is: in a bar, or in a line from time to time."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._said = time.monotonic()

    def progress(self, tally: Tally) -> None:
        """At the beginning, and after each row."""
        left = "" if tally.seconds_left is None else duration(tally.seconds_left)
        self._output.on_rows(tally.done, tally.total, left)
        if not self._output.animated and time.monotonic() - self._said >= _NOTE_EVERY_S:
            self._said = time.monotonic()
            self._output.note(f"{tally.done} of {tally.total} rows" + (f", {left} left" if left else ""))

    def failure(self, number: int, error: LongVUError) -> None:
        """After a row that failed; with ``--json`` its record is enough."""
        if not self._output.options.json:
            self._output.error_text(error, path=f"row {number}")


def duration(seconds: float) -> str:
    """``4 s``, ``12 min``, ``3 h 05 min``: about as exact as a guess can be."""
    whole = max(1, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes = round(whole / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _conclude(tally: Tally, results: Path | None, output: Output) -> None:
    counts = {
        "answered": tally.answered,
        "failed": tally.failed,
        "found done": tally.found,
        "done by others": tally.elsewhere,
        "the same as another": tally.repeated,
    }
    parts = [f"{count} {name}" for name, count in counts.items() if count]
    kept = tally.failures - tally.failed
    parts += [f"{kept} of the earlier results {'is an error' if kept == 1 else 'are errors'}"] if kept > 0 else []
    rows = "1 row" if tally.total == 1 else f"{tally.total} rows"
    output.note(f"{rows}: {', '.join(parts)}" + (f"; results in {results}" if results else ""))
