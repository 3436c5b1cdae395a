import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from longvu_cli.cli.output import Output, OutputOptions
from longvu_cli.errors import UsageError, VideoNotFound

MODES = {
    "human": OutputOptions(),
    "json": OutputOptions(json=True),
    "quiet": OutputOptions(quiet=True),
    "verbose": OutputOptions(verbose=True),
    "no stats": OutputOptions(stats=False),
    "json quiet": OutputOptions(json=True, quiet=True),
}


class Stream(io.StringIO):
    """A stream that knows whether it is a terminal, and what was flushed."""

    def __init__(self, *, terminal: bool = False) -> None:
        super().__init__()
        self.terminal = terminal
        self.flushed = ""

    def isatty(self) -> bool:
        return self.terminal

    def flush(self) -> None:
        self.flushed = self.getvalue()


@dataclass
class Shown:
    output: Output
    out: Stream
    err: Stream


def showing(options: OutputOptions, *, terminal: bool = False) -> Shown:
    out, err = Stream(terminal=terminal), Stream(terminal=terminal)
    return Shown(Output(options, out=out, err=err), out, err)


def answer(output: Output) -> None:
    output.answer_text("On the ")
    output.answer_text("")
    output.answer_text("table.")
    output.answer_end()
    output.answer_end()


def headings(output: Output) -> None:
    output.answer_heading("a.mp4", first=True)
    output.answer_text("One.")
    output.answer_end()
    output.answer_heading("b.mp4", first=False)


NOT_FOUND = VideoNotFound("there is no file a.mp4", hint="check the path")
RECORD = {"schema_version": 1, "error": {"type": "VideoNotFound", "message": NOT_FOUND.message, "hint": NOT_FOUND.hint}}
TOLD = "longvu: error: there is no file a.mp4; check the path\n"

# What is said → mode → (stdout, stderr); a mode that is not listed shows what "human" shows.
SAID: dict[str, tuple[Callable[[Output], object], dict[str, tuple[str, str]]]] = {
    "answer": (
        answer,
        {"human": ("On the table.\n", ""), "json": ("", ""), "json quiet": ("", "")},
    ),
    "headings": (
        headings,
        {"human": ("==> a.mp4 <==\nOne.\n\n==> b.mp4 <==\n", ""), "json": ("", ""), "json quiet": ("", "")},
    ),
    "record": (
        lambda output: output.record({"a": "é", "b": None}),
        {
            "human": ("", ""),
            "json": ('{"a": "\\u00e9", "b": null}\n', ""),
            "json quiet": ('{"a": "\\u00e9", "b": null}\n', ""),
        },
    ),
    "note": (
        lambda output: output.note("downloading"),
        {"human": ("", "longvu: downloading\n"), "quiet": ("", ""), "json quiet": ("", "")},
    ),
    "detail": (
        lambda output: output.detail("model 3b"),
        {"human": ("", ""), "verbose": ("", "longvu: model 3b\n")},
    ),
    "warning": (
        lambda output: output.warning("cut short"),
        {"human": ("", "longvu: warning: cut short\n"), "quiet": ("", ""), "json quiet": ("", "")},
    ),
    "summary": (
        lambda output: output.summary("frames [red]6[/red] :boom:"),
        {
            "human": ("", "frames [red]6[/red] :boom:\n"),
            "quiet": ("", ""),
            "no stats": ("", ""),
            "json quiet": ("", ""),
        },
    ),
    "error": (
        lambda output: output.error(NOT_FOUND),
        {
            "human": ("", TOLD),
            "json": (json.dumps(RECORD) + "\n", ""),
            "json quiet": (json.dumps(RECORD) + "\n", ""),
        },
    ),
    "error without a hint": (
        lambda output: output.error(UsageError("no")),
        {
            "human": ("", "longvu: error: no\n"),
            "json": ('{"schema_version": 1, "error": {"type": "UsageError", "message": "no", "hint": ""}}\n', ""),
            "json quiet": ('{"schema_version": 1, "error": {"type": "UsageError", "message": "no", "hint": ""}}\n', ""),
        },
    ),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("said", SAID)
def test_what_is_said_in_each_mode(said: str, mode: str) -> None:
    say, expected = SAID[said]
    shown = showing(MODES[mode])
    say(shown.output)
    assert (shown.out.getvalue(), shown.err.getvalue()) == expected.get(mode, expected["human"])
    assert shown.out.flushed == shown.out.getvalue()


def test_every_piece_of_an_answer_is_flushed() -> None:
    shown = showing(OutputOptions())
    shown.output.answer_text("On ")
    assert shown.out.flushed == "On "


def test_an_error_of_one_of_several_videos_names_it_once() -> None:
    shown = showing(OutputOptions())
    shown.output.error(UsageError("no"), path="b.mp4")
    shown.output.error(NOT_FOUND, path="a.mp4")
    assert shown.err.getvalue() == f"longvu: error: b.mp4: no\n{TOLD}"
    shown = showing(OutputOptions(json=True))
    shown.output.error(NOT_FOUND, path="a.mp4")
    assert json.loads(shown.out.getvalue()) == RECORD | {"video": {"path": "a.mp4"}}


@pytest.mark.parametrize("end", [lambda output: output.error(UsageError("no")), lambda output: output.interrupted()])
def test_a_broken_off_answer_ends_its_line(end: Callable[[Output], None]) -> None:
    shown = showing(OutputOptions(quiet=True))
    shown.output.answer_text("On the")
    end(shown.output)
    assert shown.out.getvalue() == "On the\n"


def test_the_trace_of_a_bug_is_for_verbose_alone() -> None:
    for options, traced in ((OutputOptions(), False), (OutputOptions(verbose=True), True)):
        shown = showing(options)
        shown.output.bug(ZeroDivisionError("oops"), "Traceback: here\n")
        assert "ZeroDivisionError: oops" in shown.err.getvalue()
        assert ("Traceback: here\n" in shown.err.getvalue()) is traced


def test_quiet_and_verbose_contradict_each_other() -> None:
    with pytest.raises(UsageError, match="contradict"):
        OutputOptions(quiet=True, verbose=True).verify()


def test_numbers_that_json_does_not_have_are_refused() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        showing(OutputOptions(json=True)).output.record({"relevance": float("nan")})


def test_tables_on_stdout_hold_no_markup() -> None:
    shown = showing(OutputOptions())
    shown.output.print("[red]codec[/red] :boom:")
    assert shown.out.getvalue() == "[red]codec[/red] :boom:\n"


# --- animation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("terminal", "term", "quiet", "animated"),
    [
        (True, "xterm", False, True),
        (False, "xterm", False, False),
        (True, "dumb", False, False),
        (True, "unknown", False, False),
        (True, "xterm", True, False),
    ],
)
def test_bars_move_only_for_a_person_at_a_terminal(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, term: str, quiet: bool, animated: bool
) -> None:
    monkeypatch.setenv("TERM", term)
    shown = showing(OutputOptions(quiet=quiet), terminal=terminal)
    assert shown.output.animated is animated
    with shown.output.progress():
        shown.output.on_progress("encode", 16, 32)
        shown.output.on_progress("encode", 40, 32)
    assert ("watching" in shown.err.getvalue()) is animated
    assert shown.out.getvalue() == ""
    if not animated:
        assert shown.err.getvalue() == ""


def test_no_colour_where_it_is_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.text import Text

    monkeypatch.setenv("TERM", "xterm-256color")
    shown = showing(OutputOptions(), terminal=True)
    monkeypatch.delenv("NO_COLOR")
    shown.output.summary(Text("frames", style="red"))
    assert "\x1b[31m" in shown.err.getvalue()
    shown = showing(OutputOptions(), terminal=True)
    monkeypatch.setenv("NO_COLOR", "1")
    shown.output.summary(Text("frames", style="red"))
    assert shown.err.getvalue() == "frames\n"


def test_a_bar_never_goes_beyond_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    shown = showing(OutputOptions(), terminal=True)
    with shown.output.progress():
        shown.output.on_progress("encode", 40, 32)
        progress: Any = shown.output._progress
        assert [(task.completed, task.total) for task in progress.tasks] == [(40, 40)]
        shown.output.on_progress("encode", 50, None)
        assert [task.description for task in progress.tasks] == ["watching"]
        shown.output.stop_progress()
        assert shown.output._progress is None
    shown.output.on_progress("encode", 1, 2)  # after its end: nothing


def test_a_message_during_the_bar_is_the_same_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    shown = showing(OutputOptions(), terminal=True)
    with shown.output.progress():
        shown.output.note("downloading \x1b[31m")
    assert "longvu: downloading \\x1b[31m" in shown.err.getvalue()


def test_the_streams_of_the_process_are_the_default(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    output = Output(OutputOptions())
    output.answer_text("yes")
    output.answer_end()
    output.note("no")
    assert tuple(capsys.readouterr()) == ("yes\n", "longvu: no\n")
