from __future__ import annotations

import io
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli.conftest import Longvu
from cli.running import PARITY, PATIENCE_S, QUESTION, TINY, environment, run, start
from longvu_cli.cli.batch import duration
from longvu_cli.longvu import LongVU

ONE_FRAME = str(PARITY / "one_frame.mkv")
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a manifest of rows, each a dict or a line."""

    def written(*rows: object) -> Path:
        file = tmp_path / "m.jsonl"
        file.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
        return file

    return written


def row(number: int = 0, **more: object) -> dict[str, Any]:
    return {"video": ONE_FRAME, "question": f"What is {number}?", "max_new_tokens": 2, **more}


def records(text: str) -> list[dict[str, Any]]:
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def test_answers_are_those_of_ask_with_one_load(
    longvu: Longvu, clip: Path, write: Write, tmp_path: Path, loads: list[str]
) -> None:
    asked = json.loads(longvu("ask", clip, QUESTION, "--max-new-tokens=4", "--fps=0.5", "--json").out)
    loads.clear()
    manifest = write({"video": str(clip), "question": QUESTION, "fps": 0.5, "id": 7}, row())
    ran = longvu("batch", manifest, "--max-new-tokens=4", "-o", tmp_path / "out.jsonl")
    assert (ran.code, ran.out, len(loads)) == (0, "", 1)
    assert ran.err == f"longvu: 2 rows: 2 answered; results in {tmp_path / 'out.jsonl'}\n"
    first, second = records((tmp_path / "out.jsonl").read_text())
    for field in ("answer", "token_ids", "question", "video", "settings", "model", "compression"):
        assert first[field] == asked[field]
    assert (first["command"], first["row"], first["id"], len(first["key"])) == ("batch", 1, 7, 64)
    assert (second["row"], second["id"], second["settings"]["max_new_tokens"]) == (2, None, 2)
    assert sorted(os.listdir(tmp_path)) == ["m.jsonl", "out.jsonl"]


def test_without_a_file_the_results_are_on_stdout(longvu: Longvu, write: Write, tmp_path: Path) -> None:
    ran = longvu("batch", write(row(1), row(2)), "-q")
    assert (ran.code, ran.err) == (0, "")
    assert [record["row"] for record in records(ran.out)] == [1, 2]
    assert os.listdir(tmp_path) == ["m.jsonl"]


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(row(1)),
        f"video,question,max_new_tokens\n{ONE_FRAME},What is 1?,2",
    ],
)
def test_a_manifest_from_stdin(longvu: Longvu, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    (record,) = records(longvu("batch", "-").out)
    assert (record["question"], len(record["token_ids"])) == ("What is 1?", 2)


def test_a_bad_row_is_its_error_and_the_rest_go_on(longvu: Longvu, write: Write, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    (tmp_path / "bad.mp4").write_text("no video")
    manifest = write(
        row(1),
        "{",
        row(2, video=str(tmp_path / "missing.mp4")),
        row(3, video=str(tmp_path / "bad.mp4")),
        row(4, context_length=50),
        row(5, context_length=10**9),
        row(6, fps="fast"),
        row(7, top_p=0.5),
        row(8),
    )
    ran = longvu("batch", manifest, "-o", output)
    assert (ran.code, ran.out) == (6, "")
    assert ran.err.count("longvu: error: row ") == 7
    assert ran.err.endswith(f"longvu: 9 rows: 2 answered, 7 failed; results in {output}\n")
    kinds = {r["row"]: r["error"]["type"] if "error" in r else None for r in records(output.read_text())}
    assert kinds == {
        1: None,
        2: "BadRow",
        3: "VideoNotFound",
        4: "NotAVideo",
        5: "QuestionTooLong",
        6: "UsageError",
        7: "BadRow",
        8: "BadRow",
        9: None,
    }
    before = output.read_bytes()
    again = longvu("batch", manifest, "-o", output, "--json")
    assert (again.code, again.out) == (6, "")
    assert again.err == f"longvu: 9 rows: 9 found done, 7 of the earlier results are errors; results in {output}\n"
    assert output.read_bytes() == before
    assert longvu("batch", manifest, "-o", output, "--retry-failed", "-q").code == 6
    assert len(records(output.read_text())) == 9


def test_a_bug_in_one_row_is_that_rows_error(
    longvu: Longvu, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = LongVU.answer

    def sometimes(self: LongVU, video: str, question: str, **settings: Any) -> Any:
        if "2" in question:
            raise ZeroDivisionError("oops")
        return original(self, video, question, **settings)

    monkeypatch.setattr(LongVU, "answer", sometimes)
    ran = longvu("batch", write(row(1), row(2), row(3)), "-v", "-o", tmp_path / "out.jsonl")
    assert ran.code == 6
    assert "Traceback" in ran.err
    failed = [r["error"] for r in records((tmp_path / "out.jsonl").read_text()) if "error" in r]
    assert [(error["type"], "ZeroDivisionError: oops" in error["message"]) for error in failed] == [
        ("UnexpectedError", True)
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("{tmp}/missing.jsonl",), "cannot be read: No such file"),
        (("{tmp}",), "cannot be read: Is a directory"),
        (("{tmp}/empty.jsonl",), "has no rows"),
        (("{tmp}/m.jsonl", "-o", "{tmp}"), "is no regular file"),
        (("{tmp}/m.jsonl", "-o", "{tmp}/m.jsonl"), "holds something else"),
        (("{tmp}/m.jsonl", "-o", "{tmp}/missing/out"), "No such file or directory"),
        (("{tmp}/m.jsonl", "--retry-failed"), "--retry-failed needs --output"),
        (("{tmp}/m.jsonl", "--top-p=0.5"), "has no effect"),
    ],
)
def test_what_cannot_begin_is_told_before_the_load(
    longvu: Longvu, write: Write, tmp_path: Path, loads: list[str], arguments: tuple[str, ...], message: str
) -> None:
    write(row())
    (tmp_path / "empty.jsonl").touch()
    before = sorted(os.listdir(tmp_path))
    ran = longvu("batch", *(argument.format(tmp=tmp_path) for argument in arguments))
    assert (ran.code, ran.out, loads) == (2, "", [])
    assert message in ran.err
    assert sorted(os.listdir(tmp_path)) == before


def test_weights_that_are_missing_leave_no_files(longvu: Longvu, write: Write, tmp_path: Path) -> None:
    ran = longvu("batch", write(row()), "-o", tmp_path / "out.jsonl", "-m", tmp_path / "none")
    assert ran.code == 4
    assert os.listdir(tmp_path) == ["m.jsonl"]


def test_how_far_it_is_is_said_from_time_to_time(
    longvu: Longvu, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("longvu_cli.cli.batch._NOTE_EVERY_S", 0.0)
    ran = longvu("batch", write(row(1), row(2)), "-o", tmp_path / "out.jsonl")
    assert ran.err.startswith("longvu: 0 of 2 rows\nlongvu: 1 of 2 rows, 1 s left\nlongvu: 2 of 2 rows")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "1 s"), (59.4, "59 s"), (59.6, "1 min"), (3569, "59 min"), (3599, "1 h 00 min"), (11000, "3 h 03 min")],
)
def test_a_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_an_interruption_is_130_and_keeps_what_is_finished(
    longvu: Longvu, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = LongVU.answer

    def interrupted(self: LongVU, video: str, question: str, **settings: Any) -> Any:
        if "2" in question:
            raise KeyboardInterrupt
        return original(self, video, question, **settings)

    monkeypatch.setattr(LongVU, "answer", interrupted)
    ran = longvu("batch", write(row(1), row(2)), "-o", tmp_path / "out.jsonl")
    assert (ran.code, ran.out, ran.err) == (130, "", "")
    assert [record["row"] for record in records((tmp_path / "out.jsonl").read_text())] == [1]
    assert sorted(os.listdir(tmp_path)) == ["m.jsonl", "out.jsonl"]


# --- processes of their own ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGHUP, 143), (signal.SIGKILL, -9)])
def test_a_signal_keeps_what_is_finished_and_the_next_start_goes_on(
    longvu: Longvu, shared_cache: Path, write: Write, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    rows = [row(number, max_new_tokens=60) for number in range(1, 61)]
    manifest, output = write(*rows), tmp_path / "out.jsonl"
    process = start(["batch", manifest, "-o", output], environment(shared_cache, **TINY))
    try:
        while not output.exists() and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
    assert (process.returncode, out, err) == (code, "", "")
    done = [record["row"] for record in records(output.read_text())]
    assert done == list(range(1, len(done) + 1))
    assert 1 <= len(done) < len(rows)
    if code > 0:
        assert sorted(os.listdir(tmp_path)) == ["m.jsonl", "out.jsonl"]
    output.write_text(output.read_text() + '{"schema_version": 1, "comm')
    ran = longvu("batch", write(*rows), "-o", output)
    left = len(rows) - len(done)
    assert ran.err == f"longvu: 60 rows: {left} answered, {len(done)} found done; results in {output}\n"
    assert [record["row"] for record in records(output.read_text())] == list(range(1, 61))
    assert sorted(os.listdir(tmp_path)) == ["m.jsonl", "out.jsonl"]


def test_two_at_once_answer_each_row_once(shared_cache: Path, write: Write, tmp_path: Path) -> None:
    still = str(PARITY / "still_image_landscape.png")
    rows = [row(number, video=(ONE_FRAME, still)[number % 2], max_new_tokens=20) for number in range(30)]
    arguments = ["batch", write(*rows), "-o", tmp_path / "out.jsonl", "--json"]
    processes = [start(arguments, environment(shared_cache, **TINY)) for _ in range(2)]
    notes = [process.communicate(timeout=PATIENCE_S)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted(r["row"] for r in records((tmp_path / "out.jsonl").read_text())) == list(range(1, 31))
    answered = [int(note.split(" answered")[0].split()[-1]) if " answered" in note else 0 for note in notes]
    assert sum(answered) == 30
    assert sorted(os.listdir(tmp_path)) == ["m.jsonl", "out.jsonl"]


def test_a_full_disk_ends_it_and_keeps_what_is_finished(shared_cache: Path, write: Write, tmp_path: Path) -> None:
    manifest, output, limit = write(row(1), row(2), row(3)), tmp_path / "out.jsonl", 4000

    def little_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    ran = run(["batch", manifest, "-o", output], environment(shared_cache, **TINY), preexec_fn=little_room)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == f"longvu: error: {output} cannot be written: No space left on device; what is in it is whole\n"
    finished = records(output.read_text())
    assert [record["row"] for record in finished] == [1, 2, 3][: len(finished)]
    assert 0 < len(finished) < 3
    assert sorted(os.listdir(tmp_path)) == ["m.jsonl", "out.jsonl"]


def test_a_closed_pipe_ends_it_quietly(shared_cache: Path, write: Write) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    ran = run(["batch", write(row(1), row(2))], environment(shared_cache, **TINY), stdout=writer)
    os.close(writer)
    assert (ran.code, ran.err) == (0, "")


def test_the_decoding_flags_are_those_of_the_batch(
    longvu: Longvu, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[Any] = []
    original = LongVU.from_pretrained.__func__  # type: ignore[attr-defined]

    def load(cls: type[LongVU], *arguments: Any, **settings: Any) -> LongVU:
        heard.append(settings["decoding"])
        return original(cls, *arguments, **settings)

    monkeypatch.setattr(LongVU, "from_pretrained", classmethod(load))
    assert longvu("batch", write(row()), "--workers=3").code == 0
    assert [decoding.workers for decoding in heard] == [3]
