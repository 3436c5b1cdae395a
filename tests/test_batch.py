from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from batch_worker import DEFAULTS
from killing import kill_again_and_again

from longvu_cli.batch import Batch, Tally
from longvu_cli.engines.plain import Plain
from longvu_cli.errors import DeviceOutOfMemory, LongVUError, VideoNotFound
from longvu_cli.identity import video_digest, weights_digest
from longvu_cli.manifest import Row, read_manifest
from longvu_cli.result_file import ResultFile
from longvu_cli.result_stream import ResultStream

WORKER = Path(__file__).with_name("batch_worker.py")


class Place:
    """A folder with videos, a manifest and results, and a model that notes what it is asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.output = folder / "out.jsonl"
        self.asked: list[int] = []
        self.errors: dict[str, LongVUError] = {}

    def video(self, name: str, content: str) -> str:
        (self.folder / name).write_text(content)
        return str(self.folder / name)

    def answer(self, row: Row) -> dict[str, Any]:
        self.asked.append(row.number)
        if row.question in self.errors:
            raise self.errors[row.question]
        if not os.path.exists(row.video):
            raise VideoNotFound("no such file")
        return {"schema_version": 1, "answer": row.question.upper()}

    def run(
        self, *rows: object, model: str = "fake", retry_failed: bool = False, seen: Callable[[Tally], None] = print
    ) -> Tally:
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        manifest = read_manifest("\n".join(lines).encode(), "m.jsonl", DEFAULTS)
        self.asked.clear()
        with ResultFile(self.output) as results:
            batch = Batch(manifest, results, engine=Plain(model, 8192, self.answer), on_progress=seen)
            return batch.run(retry_failed=retry_failed)

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.output.read_text().splitlines()]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_each_row_is_answered_once(place: Place) -> None:
    video = place.video("a", "a")
    rows = [{"video": video, "question": question, "id": question} for question in "xyz"]
    tally = place.run(*rows)
    assert (tally.total, tally.answered, tally.done, tally.failures) == (3, 3, 3, 0)
    assert [(r["row"], r["id"], r["answer"]) for r in place.records()] == [(1, "x", "X"), (2, "y", "Y"), (3, "z", "Z")]
    assert len({r["key"] for r in place.records()}) == 3
    before = place.output.read_bytes()
    again = place.run(*rows)
    assert (again.found, again.answered, place.asked) == (3, 0, [])
    assert place.output.read_bytes() == before


def test_a_row_is_its_content_its_question_its_model_and_its_settings(place: Place) -> None:
    row = {"video": place.video("a", "a"), "question": "x"}
    place.run(row)
    os.utime(place.folder / "a", (1, 1))
    copied = {**row, "video": place.video("copy", "a")}
    assert place.run(row, {**row, "id": "other"}, {**row, "temperature": 0}, copied).answered == 0
    assert place.run(row, {**row, "question": "y"}).answered == 1
    assert place.run(row, {**row, "max_new_tokens": 5}).answered == 1
    assert place.run(row, model="other").answered == 1
    place.video("a", "b")
    assert place.run(row).answered == 1


def test_the_same_row_twice_has_one_result(place: Place) -> None:
    row = {"video": place.video("a", "a"), "question": "x"}
    tally = place.run(row, row, {**row, "video": place.video("copy", "a")})
    assert (tally.answered, tally.repeated, tally.done, len(place.records())) == (1, 2, 3, 1)


def test_rows_of_a_video_are_done_together(place: Place) -> None:
    a, b = place.video("a", "a"), place.video("b", "b")
    place.run(*({"video": video, "question": q} for q in "xy" for video in (a, b)))
    assert place.asked == [1, 3, 2, 4]


def test_a_failed_row_is_a_result_and_the_others_go_on(place: Place) -> None:
    video = place.video("a", "a")
    place.errors["y"] = DeviceOutOfMemory("full", hint="less")
    rows = [*({"video": video, "question": q} for q in "xyz"), "{"]
    tally = place.run(*rows)
    assert (tally.answered, tally.failed, tally.failures) == (2, 2, 2)
    failed = {r["row"]: r for r in place.records() if "error" in r}
    assert failed[2]["error"] == {"type": "DeviceOutOfMemory", "message": "full", "hint": "less"}
    assert (failed[2]["video"], failed[2]["question"]) == ({"path": video}, "y")
    assert failed[4]["error"]["type"] == "BadRow"
    again = place.run(*rows)
    assert (again.found, again.failures, place.asked) == (4, 2, [])


def test_failed_rows_are_tried_again_on_demand(place: Place) -> None:
    rows = [{"video": place.video("a", "a"), "question": q} for q in "xyz"]
    place.errors = {"y": DeviceOutOfMemory("full"), "z": DeviceOutOfMemory("full")}
    place.run(*rows)
    del place.errors["y"]
    tally = place.run(*rows, retry_failed=True)
    assert (place.asked, tally.answered, tally.failures) == ([2, 3], 1, 1)
    assert [(r["row"], "error" in r) for r in place.records()] == [(1, False), (2, False), (3, True)]


def test_a_video_that_was_missing_and_is_there_now(place: Place) -> None:
    rows = [{"video": str(place.folder / name), "question": "x"} for name in "ab"]
    assert place.run(*rows).failures == 2
    place.video("a", "a")
    assert (place.run(*rows).failures, place.asked) == (1, [1])
    assert [(r["row"], "error" in r) for r in place.records()] == [(2, True), (1, False)]


def test_a_video_that_was_bad_and_has_other_content_now(place: Place) -> None:
    row = {"video": place.video("a", "half"), "question": "x"}
    place.errors["x"] = DeviceOutOfMemory("full")
    place.run(row)
    place.errors.clear()
    place.video("a", "whole")
    assert place.run(row).failures == 0
    assert ["error" in r for r in place.records()] == [False]


def test_subtitles_are_part_of_a_row(place: Place) -> None:
    video, file = place.video("a.mp4", "a"), place.folder / "said.srt"
    row = {"video": video, "question": "x", "subtitles": str(file)}
    beside = {"video": video, "question": "x", "subtitles": "auto"}
    place.errors["x"] = DeviceOutOfMemory("full")
    place.run(row)
    place.errors.clear()
    file.write_text("1")
    # What was wrong may have been the file; the earlier error is gone.
    assert place.run(row, beside).failures == 0
    assert [(r["row"], "error" in r) for r in place.records()] == [(1, False), (2, False)]
    assert place.run(row, beside).answered == 0
    file.write_text("2")
    assert (place.run(row, beside).answered, place.asked) == (1, [1])
    (place.folder / "a.srt").write_text("3")
    assert (place.run(row, beside).answered, place.asked) == (1, [2])


def test_a_line_of_the_manifest_that_was_mended(place: Place) -> None:
    row = {"video": place.video("a", "a"), "question": "x"}
    bad = {**row, "fps": "fast"}
    place.run(bad, "{")
    tally = place.run(row, "{")
    assert (tally.answered, tally.found, tally.failures) == (1, 1, 1)
    assert [(r["row"], "error" in r) for r in place.records()] == [(2, True), (1, False)]


def test_an_interruption_keeps_what_is_finished(place: Place) -> None:
    rows = [{"video": place.video("a", "a"), "question": q} for q in "xyz"]

    def interrupted(tally: Tally) -> None:
        if tally.done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        place.run(*rows, seen=interrupted)
    assert [r["row"] for r in place.records()] == [1, 2]
    assert sorted(os.listdir(place.folder)) == ["a", "out.jsonl"]
    assert place.run(*rows).answered == 1


def test_the_time_left_is_that_of_the_rows_left_at_the_speed_so_far() -> None:
    assert Tally(total=10, found=4).seconds_left is None
    assert Tally(total=10, found=4, answered=1, elsewhere=1, seconds=6).seconds_left == 12


def test_a_stream_of_results_knows_what_it_has_written() -> None:
    written: list[str] = []
    row = json.dumps({"video": "a", "question": "x"})
    manifest = read_manifest(f"{row}\n{row}\n[]".encode(), "-", DEFAULTS)
    batch = Batch(manifest, ResultStream(written.append), engine=Plain("", 8192, lambda row: {"answer": "y"}))
    tally = batch.run()
    assert (tally.answered, tally.repeated, tally.failed, tally.failures) == (1, 1, 1, 1)
    assert [json.loads(line)["row"] for line in written] == [3, 1]


def test_a_digest_of_weights_is_about_their_content(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"weights" * 10)
    one, two = tmp_path / "one", tmp_path / "two"
    (one / "README.md").write_text("no weights")
    os.utime(two / "model.safetensors", (1, 1))
    assert weights_digest(one) == weights_digest(two)
    (two / "model.safetensors").write_bytes(b"wEights" * 10)
    assert weights_digest(one) != weights_digest(two)


def test_only_a_regular_file_has_a_digest(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert video_digest(str(tmp_path / "pipe")) is video_digest(str(tmp_path)) is video_digest("\0") is None


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_again_and_again_every_result_is_there_once(place: Place, workers: int) -> None:
    videos = [place.video(str(number), str(number)) for number in range(4)]
    rows = [{"video": videos[number % 4], "question": f"q{number}"} for number in range(98)]
    rows += [{"video": "missing", "question": "x"}, {"video": videos[0], "question": "x", "fps": 0}]
    manifest, log = place.folder / "m.jsonl", place.folder / "log"
    manifest.write_text("\n".join(map(json.dumps, rows)))
    arguments = [sys.executable, WORKER, manifest, place.output, log, "0.02"]
    outcome = kill_again_and_again(
        lambda: subprocess.Popen(arguments), place.output, log, kills=20, workers=workers, seconds=0.08
    )
    assert outcome.kills == 20
    assert sorted(record["row"] for record in outcome.records) == list(range(1, 101))
    assert len({record["key"] for record in outcome.records}) == 100
    assert sum("error" in record for record in outcome.records) == 2
    assert outcome.redone <= outcome.kills
    assert not [name for name in os.listdir(place.folder) if name.startswith("out.jsonl.")]


def test_two_workers_share_the_videos(place: Place) -> None:
    videos = [place.video(str(number), str(number)) for number in range(4)]
    manifest, log = place.folder / "m.jsonl", place.folder / "log"
    rows = [{"video": video, "question": f"q{number}"} for video in videos for number in range(6)]
    manifest.write_text("\n".join(map(json.dumps, rows)))
    arguments = [sys.executable, WORKER, manifest, place.output, log, "0.1"]
    processes = [subprocess.Popen(arguments) for _ in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert sorted(map(int, log.read_text().split())) == list(range(1, 25))
    assert len(place.records()) == 24
