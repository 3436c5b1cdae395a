"""What ends a command from outside, for each command: signals, readers that go, full disks, streams that are not there,
and a locale that can hold next to nothing."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from cli.forked import CLOSED, UNREAD, Fork, Forks
from cli.running import PARITY, TINY, Ran, environment
from cli.running import command as longvu

ONE_FRAME, STILL = PARITY / "one_frame.mkv", PARITY / "still_image_landscape.png"
SHORT = "--max-new-tokens=2"
# In every locale: typed as UTF-8.
QUESTION = "Où est la 世?"
COMMANDS: dict[str, list[str]] = {
    "ask": ["ask", "é世.mkv", QUESTION, SHORT],
    "describe": ["describe", "é世.mkv", str(STILL), SHORT],
    "stats": ["stats", "é世.mkv", QUESTION],
    "batch": ["batch", "m.jsonl"],
}
# Work that can be met in the middle: the last video of a command takes very long.
HANG = """
import time
from longvu_cli.longvu import LongVU
prepare, calls = LongVU._prepare, []
def slow(self, *arguments):
    calls.append(1)
    if len(calls) == {videos}:
        open("begun", "w").close()
        time.sleep(100)
    return prepare(self, *arguments)
LongVU._prepare = slow
"""
SIGNALS = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 143}
# Runs at a time.
AT_ONCE = 3


@dataclass(frozen=True)
class Ending:
    """How a run ended.

    Attributes:
        left: every file that was not there before, temporary folders and caches included.
        results: the lines of the results of a batch.
    """

    ran: Ran
    left: set[str]
    results: list[str]


def begin(forks: Forks, folder: Path, command: str, what: str) -> Fork:
    (folder / "tmp").mkdir(parents=True)
    (folder / "é世.mkv").write_bytes(ONE_FRAME.read_bytes())
    rows = [{"video": video, "question": QUESTION, "max_new_tokens": 2} for video in ("é世.mkv", str(STILL))]
    (folder / "m.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    variables = {**environment(folder / "cache", **TINY), "TMPDIR": str(folder / "tmp")}
    arguments = list(COMMANDS[command])
    if what in SIGNALS:
        if command == "batch":
            arguments += ["-o", "out.jsonl"]
        videos = 2 if command in ("describe", "batch") else 1
        return forks.start(folder, arguments, variables, before=HANG.format(videos=videos))
    if what == "ascii":
        # What Python makes of UTF-8 in such a locale.
        arguments = [argument.encode().decode("ascii", "surrogateescape") for argument in arguments]
    stdout = {"full": "/dev/full", "closed": CLOSED, "unread": UNREAD}.get(what)
    stderr = {"no stderr": CLOSED}.get(what)
    encoding = "ascii" if what == "ascii" else "utf-8"
    return forks.start(folder, arguments, variables, stdout=stdout, stderr=stderr, encoding=encoding)


def finish(folder: Path, run: Fork, what: str) -> Ending:
    if what in SIGNALS:
        until = time.monotonic() + 60
        while not (folder / "begun").exists() and time.monotonic() < until:
            time.sleep(0.01)
        run.send(signal.Signals[what])
    ran = run.end(patience=60)
    results = folder / "out.jsonl"
    lines = results.read_text().splitlines() if results.exists() else []
    expected = {"é世.mkv", "m.jsonl", "begun", "out.jsonl"}
    features = set(folder.glob("cache/features/*.safetensors"))
    left = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path not in features}
    return Ending(ran, left - expected, lines)


WHATS = (*SIGNALS, "unread", "closed", "no stderr", "full", "ascii")


@pytest.fixture(scope="module")
def endings(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Ending]:
    """All of them, a few at a time."""
    ended: dict[tuple[str, str], Ending] = {}
    jobs = [(command, what) for command in COMMANDS for what in WHATS]
    with Forks(environment(tmp_path_factory.mktemp("imports"), **TINY)) as forks:
        for start in range(0, len(jobs), AT_ONCE):
            folders = {job: tmp_path_factory.mktemp("run") for job in jobs[start : start + AT_ONCE]}
            runs = {job: begin(forks, folder / "place", *job) for job, folder in folders.items()}
            ended |= {job: finish(folders[job] / "place", run, job[1]) for job, run in runs.items()}
    return ended


Endings = dict[tuple[str, str], Ending]
each_command = pytest.mark.parametrize("command", COMMANDS)


@each_command
@pytest.mark.parametrize("what", WHATS)
def test_nothing_temporary_is_left(endings: Endings, command: str, what: str) -> None:
    assert endings[command, what].left == set()


@each_command
@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal_has_its_code_and_no_words(endings: Endings, command: str, name: str) -> None:
    ran = endings[command, name].ran
    assert ran.code == SIGNALS[name]
    assert [line for line in ran.err.splitlines() if not line.startswith(("frames ", "tokens ", "seconds "))] == []


@pytest.mark.parametrize("name", SIGNALS)
def test_what_was_finished_before_a_signal_is_kept(endings: Endings, name: str) -> None:
    out = endings["describe", name].ran.out
    assert out.startswith("==> é世.mkv <==\n")
    assert out.splitlines()[1]
    assert out.endswith("\n")
    (line,) = endings["batch", name].results
    assert json.loads(line)["row"] == 1


@each_command
@pytest.mark.parametrize("what", ["unread", "closed"])
def test_nobody_who_reads_ends_it_quietly(endings: Endings, command: str, what: str) -> None:
    ran = endings[command, what].ran
    assert (ran.code, ran.out) == (0, "")
    assert "error" not in ran.err and "Traceback" not in ran.err


@each_command
def test_without_stderr_the_result_is_there(endings: Endings, command: str) -> None:
    ran = endings[command, "no stderr"].ran
    assert ran.code == 0
    assert ran.out.endswith("\n")


@each_command
def test_a_full_disk_is_told_in_one_line(endings: Endings, command: str) -> None:
    ran = endings[command, "full"].ran
    assert ran.code == 1
    assert [line for line in ran.err.splitlines() if line.startswith("longvu: error: ")] == [
        "longvu: error: the output cannot be written: No space left on device"
    ]
    assert "Traceback" not in ran.err


@each_command
def test_a_locale_that_holds_ascii_only(endings: Endings, command: str) -> None:
    ran = endings[command, "ascii"].ran
    assert (ran.code, ran.out.isascii(), ran.err.isascii()) == (0, True, True)
    if command == "describe":
        assert ran.out.startswith(r"==> \udcc3\udca9\udce4\udcb8\udc96.mkv <==")
    if command == "batch":
        first = json.loads(ran.out.splitlines()[0])
        assert (first["video"]["path"], first["question"]) == ("é世.mkv", QUESTION)


# --- the same without a fork ----------------------------------------------------------------------------------------


def in_a_shell(folder: Path, words: str, **variables: str) -> Ran:
    """Run ``longvu WORDS`` in a shell: streams are closed, and locales set, before Python starts."""
    line = f"{shlex.join(longvu())} {words}"
    settings = environment(folder / "cache", **TINY) | variables
    ran = subprocess.run(["sh", "-c", line], cwd=folder, env=settings, capture_output=True, check=False)
    return Ran(ran.returncode, ran.stdout.decode(), ran.stderr.decode())


def test_streams_that_are_closed_in_a_shell(tmp_path: Path) -> None:
    for streams in (">&-", "2>&-", ">&- 2>&- <&-"):
        ran = in_a_shell(tmp_path, f"--version {streams}")
        assert (ran.code, ran.err) == (0, "")
    ran = in_a_shell(tmp_path, "batch - <&-")
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "the manifest has no rows" in ran.err


def test_a_question_in_a_c_locale_is_what_was_typed(tmp_path: Path) -> None:
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    ran = in_a_shell(tmp_path, f"ask {ONE_FRAME} '{QUESTION}' {SHORT} --json -q", **plain)
    assert (ran.code, ran.err) == (0, "")
    assert json.loads(ran.out)["question"] == QUESTION
    ran = in_a_shell(tmp_path, f"ask {ONE_FRAME} \"$(printf 'a\\377')\" {SHORT}")
    assert (ran.code, ran.out) == (2, "")
    assert "no valid text (UTF-8)" in ran.err
