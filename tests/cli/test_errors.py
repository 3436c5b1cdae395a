import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cli.conftest import Longvu
from cli.running import PATIENCE_S, QUESTION, TINY, Ran, environment, run, start
from longvu_cli import errors
from longvu_cli.cli.errors import exit_code
from longvu_cli.errors import DeviceOutOfMemory, LongVUError, NonFiniteLogits
from longvu_cli.longvu import LongVU

SHORT = "--max-new-tokens=4"


def all_errors(kind: type[LongVUError] = LongVUError) -> Iterator[type[LongVUError]]:
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield child
            yield from all_errors(child)


@pytest.mark.parametrize("kind", list(all_errors()))
def test_every_error_has_one_of_the_documented_codes(kind: type[LongVUError]) -> None:
    codes = {"UsageError": 2, "VideoError": 3, "WeightsError": 4, "DeviceError": 5, "UnexpectedError": 1}
    branch = next(parent.__name__ for parent in kind.__mro__ if parent.__name__ in codes)
    assert exit_code(kind("what happened")) == codes[branch]


CASES: dict[str, tuple[int, str, tuple[str, ...]]] = {
    "unknown option": (2, "UsageError", ("ask", "{clip}", QUESTION, "--recpie=paper")),
    "unknown command": (2, "UsageError", ("aks", "{clip}", QUESTION)),
    "no question": (2, "UsageError", ("ask", "{clip}")),
    "no video": (2, "UsageError", ("describe",)),
    "bad choice": (2, "UsageError", ("ask", "{clip}", QUESTION, "--recipe=own")),
    "bad number": (2, "UsageError", ("ask", "{clip}", QUESTION, "--fps=fast")),
    "number out of range": (2, "UsageError", ("ask", "{clip}", QUESTION, "--fps=0")),
    "threshold out of range": (2, "UsageError", ("ask", "{clip}", QUESTION, "--dino-threshold=1.1")),
    "end before start": (2, "UsageError", ("ask", "{clip}", QUESTION, "--start=3", "--end=2")),
    "greedy top-p": (2, "UsageError", ("ask", "{clip}", QUESTION, "--top-p=0.5")),
    "quiet and verbose": (2, "UsageError", ("ask", "{clip}", QUESTION, "-q", "-v")),
    "no such model": (2, "UsageError", ("ask", "{clip}", QUESTION, "--model=8b")),
    "revision of a folder": (2, "UsageError", ("ask", "{clip}", QUESTION, "--revision=v1")),
    "question too long": (2, "QuestionTooLong", ("ask", "{clip}", QUESTION, "--context-length=50")),
    "missing video": (3, "VideoNotFound", ("ask", "{tmp}/missing.mp4", QUESTION)),
    "no video at all": (3, "NotAVideo", ("ask", "{tmp}/text.mp4", QUESTION)),
    "a folder": (3, "VideoNotFound", ("stats", "{tmp}")),
    "after its end": (3, "NoFrames", ("ask", "{clip}", QUESTION, "--start=1:00")),
    "missing folder": (4, "WeightsNotFound", ("ask", "{clip}", QUESTION, "--model={tmp}/missing")),
    "no checkpoint": (4, "NotACheckpoint", ("ask", "{clip}", QUESTION, "--model={tmp}")),
    "no tower": (4, "NotACheckpoint", ("ask", "{clip}", QUESTION, "--dinov2={tmp}")),
    "offline": (4, "HubUnreachable", ("ask", "{clip}", QUESTION, "--model=org/none", "--offline")),
    "no such GPU": (5, "DeviceUnavailable", ("ask", "{clip}", QUESTION, "--device=cuda:99")),
    "no such device": (5, "DeviceUnavailable", ("ask", "{clip}", QUESTION, "--device=tpu")),
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "text.mp4").write_text("no video")
    return tmp_path


@pytest.mark.parametrize("name", CASES)
def test_an_error_is_one_line_on_stderr(longvu: Longvu, clip: Path, place: Path, name: str) -> None:
    code, _, arguments = CASES[name]
    ran = longvu(*(argument.format(clip=clip, tmp=place) for argument in arguments))
    assert (ran.code, ran.out) == (code, "")
    assert ran.err.startswith("longvu: error: ")
    assert ran.err.count("\n") == 1
    assert ran.err.endswith("\n")
    assert "Traceback" not in ran.err


@pytest.mark.parametrize("name", CASES)
def test_an_error_with_json_is_one_record_on_stdout(longvu: Longvu, clip: Path, place: Path, name: str) -> None:
    code, kind, arguments = CASES[name]
    ran = longvu(*(argument.format(clip=clip, tmp=place) for argument in arguments), "--json")
    assert (ran.code, ran.err) == (code, "")
    assert ran.out.count("\n") == 1
    record = json.loads(ran.out)
    assert set(record) == {"schema_version", "error"}
    assert record["schema_version"] == 1
    assert set(record["error"]) == {"type", "message", "hint"}
    assert record["error"]["type"] == kind
    assert record["error"]["message"]
    assert isinstance(record["error"]["hint"], str)


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException, pieces: tuple[str, ...] = ()) -> None:
    """Let generation end with an error after some pieces of an answer."""

    def made(tokenizer: object, ids: Iterator[int]) -> Iterator[tuple[int, str]]:
        yield from zip(ids, pieces, strict=False)
        raise error

    monkeypatch.setattr("longvu_cli.longvu.decode_stream", made)


@pytest.mark.parametrize(("error", "code"), [(DeviceOutOfMemory("full", hint="less"), 5), (NonFiniteLogits("NaN"), 5)])
def test_an_error_of_the_device_while_answering(
    longvu: Longvu, clip: Path, monkeypatch: pytest.MonkeyPatch, error: LongVUError, code: int
) -> None:
    fail_with(monkeypatch, error)
    hint = f"; {error.hint}" if error.hint else ""
    ran = longvu("ask", clip, QUESTION)
    assert (ran.code, ran.out, ran.err) == (code, "", f"longvu: error: {error.message}{hint}\n")


@pytest.mark.parametrize("error", [NonFiniteLogits("NaN"), ZeroDivisionError("oops"), KeyboardInterrupt()])
def test_what_ends_an_answer_half_way_ends_its_line(
    longvu: Longvu, clip: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    fail_with(monkeypatch, error, ("On the ",))
    assert longvu("ask", clip, QUESTION).out == "On the \n"


def test_a_bug_is_one_line_without_a_traceback(longvu: Longvu, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(monkeypatch, ZeroDivisionError("oops"))
    ran = longvu("ask", clip, QUESTION)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("longvu: error: an unexpected error, which is a bug in longvu: ZeroDivisionError: oops; ")
    assert ran.err.count("\n") == 1


def test_a_bug_has_its_traceback_with_verbose(longvu: Longvu, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(monkeypatch, ZeroDivisionError("oops"))
    ran = longvu("ask", clip, QUESTION, "--verbose")
    assert ran.code == 1
    assert "Traceback (most recent call last)" in ran.err
    assert "ZeroDivisionError: oops" in ran.err.splitlines()[-1]


def test_a_bug_with_json_is_a_record(longvu: Longvu, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(monkeypatch, ZeroDivisionError("oops"))
    ran = longvu("ask", clip, QUESTION, "--json")
    assert (ran.code, ran.err) == (1, "")
    error = json.loads(ran.out)["error"]
    assert "ZeroDivisionError: oops" in error["message"]
    assert not error["type"].startswith("_")


def test_a_bug_among_several_videos_is_a_bug(longvu: Longvu, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(monkeypatch, ZeroDivisionError("oops"))
    assert longvu("describe", clip, clip).code == 1


@pytest.mark.parametrize("command", [("ask", "{clip}", QUESTION), ("describe", "{clip}", "{clip}")])
def test_ctrl_c_is_130(longvu: Longvu, clip: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]) -> None:
    fail_with(monkeypatch, KeyboardInterrupt())
    ran = longvu(*(word.format(clip=clip) for word in command), "-q")
    assert ran.code == 130
    assert ran.err == ""


def test_ctrl_c_while_loading_is_130(longvu: Longvu, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(LongVU, "from_pretrained", interrupted)
    ran = longvu("ask", clip, QUESTION)
    assert (ran.code, ran.out, ran.err) == (130, "", "")


# --- processes of their own ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ended(shared_cache: Path, clip: Path) -> dict[str, Ran]:
    """How runs of the real command ended that had something happen to them; they run side by side."""
    variables = environment(shared_cache, **TINY)
    endless = ["ask", clip, QUESTION, "--max-new-tokens=30000"]

    def signalled(number: signal.Signals) -> Ran:
        process = start(endless, variables, bufsize=0, encoding=None)
        begun = os.read(process.stdout.fileno(), 1)
        process.send_signal(number)
        return ran(process, begun)

    def closed_half_way() -> Ran:
        process = start(endless, variables, bufsize=0, encoding=None)
        os.read(process.stdout.fileno(), 1)
        process.stdout.close()
        process.stdout = None
        return ran(process)

    def closed(arguments: list[Any], stream: str) -> Ran:
        reader, writer = os.pipe()
        os.close(reader)
        process = start(arguments, variables, encoding=None, **{stream: writer})
        os.close(writer)
        return ran(process)

    def ran(process: Any, begun: bytes = b"") -> Ran:
        try:
            out, err = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
        return Ran(process.returncode, (begun + (out or b"")).decode(errors="replace"), (err or b"").decode())

    jobs: dict[str, Callable[[], Ran]] = {
        "undisturbed": lambda: ran(start(["ask", clip, QUESTION, SHORT], variables, encoding=None)),
        "interrupted": lambda: signalled(signal.SIGINT),
        "terminated": lambda: signalled(signal.SIGTERM),
        "closed half way": closed_half_way,
        "never read": lambda: closed(["ask", clip, QUESTION, SHORT, "-q", "--json"], "stdout"),
        "never read stats": lambda: closed(["stats", clip], "stdout"),
        "closed stderr": lambda: closed(["ask", clip, QUESTION, SHORT], "stderr"),
    }
    with ThreadPoolExecutor(3) as pool:
        futures = {name: pool.submit(job) for name, job in jobs.items()}
        return {name: future.result() for name, future in futures.items()}


def test_a_run_that_nothing_happens_to(ended: dict[str, Ran], longvu: Longvu, clip: Path) -> None:
    here = longvu("ask", clip, QUESTION, SHORT)
    assert (ended["undisturbed"].code, ended["undisturbed"].out) == (0, here.out)
    assert ended["undisturbed"].err.splitlines()[:2] == here.err.splitlines()[:2]


@pytest.mark.parametrize(("name", "code"), [("interrupted", 130), ("terminated", 143)])
def test_a_signal_ends_the_process_without_a_word(ended: dict[str, Ran], name: str, code: int) -> None:
    assert (ended[name].code, ended[name].err) == (code, "")


@pytest.mark.parametrize("name", ["interrupted", "terminated"])
def test_a_signal_ends_the_line_of_the_answer(ended: dict[str, Ran], name: str) -> None:
    assert ended[name].out.startswith("K")
    assert ended[name].out.endswith("\n")


@pytest.mark.parametrize("name", ["closed half way", "never read", "never read stats"])
def test_a_closed_pipe_ends_quietly(ended: dict[str, Ran], name: str) -> None:
    assert (ended[name].code, ended[name].err) == (0, "")


def test_a_closed_stderr_is_no_bug(ended: dict[str, Ran]) -> None:
    assert ended["closed stderr"].out.startswith("K")
    assert ended["closed stderr"].code == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("flags", [("--json",), ()])
def test_a_full_disk_is_told(tmp_path: Path, flags: tuple[str, ...]) -> None:
    arguments = ["ask", tmp_path / "missing.mp4", QUESTION, *flags] if flags else ["--version"]
    with open("/dev/full", "w") as full:
        ran = run(arguments, environment(tmp_path, **TINY), stdout=full)
    assert ran.code not in (0, 120)
    assert "Traceback" not in ran.err
    assert "No space left on device" in ran.err


def test_the_real_command_tells_an_error(tmp_path: Path) -> None:
    ran = run(["ask", tmp_path / "missing.mp4", QUESTION, "--json"], environment(tmp_path, **TINY))
    assert (ran.code, ran.err) == (3, "")
    assert json.loads(ran.out)["error"]["type"] == "VideoNotFound"


def test_nohup_is_respected(tmp_path: Path) -> None:
    code = (
        "import os, signal\n"
        "from longvu_cli.cli.errors import run\n"
        "from longvu_cli.cli.output import Output, OutputOptions\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "print(run(Output(OutputOptions()), lambda: os.kill(os.getpid(), signal.SIGHUP) or 0))\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
        "print(run(Output(OutputOptions()), lambda: os.kill(os.getpid(), signal.SIGHUP) or 0))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["0", "143"]
