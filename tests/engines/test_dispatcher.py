from __future__ import annotations

import json
import queue
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from batch_worker import DEFAULTS

from longvu_cli.batch import Batch, Tally
from longvu_cli.engines.dispatcher import Dispatcher
from longvu_cli.engines.engine import Answered, Failed
from longvu_cli.engines.events import CannotLoad, Died, Event, Loaded, Lost, Noticed, Told, Unreachable, Without
from longvu_cli.errors import (
    DeviceOutOfMemory,
    LongVUError,
    ServerUnreachable,
    UsageError,
    VideoNotFound,
    WeightsNotFound,
    WorkerDied,
)
from longvu_cli.manifest import Row, read_manifest
from longvu_cli.result_file import ResultFile
from longvu_cli.results import ModelInfo

INFO = ModelInfo("fake", "here", None, "float32", "none", "cpu", (), False)
DIED = Died("was killed (SIGKILL)", "last words")


class FakeWorker:
    """Answers at once, in the thread that asks; ``plan`` says what comes of a row, or of the start (row None)."""

    def __init__(self, number: int, place: Place) -> None:
        self.number = number
        self.place = place
        self.told: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self.dismissed = self.gone = False
        place.workers.append(self)
        assert len(place.workers) < 50, "workers are started for ever"
        self.told.put(place.start(self))

    def send(self, row: Row) -> None:
        self.place.given.append((self.number, row.number))
        for event in self.place.answer(self, row):
            self.told.put(event)

    def events(self) -> Iterator[Event]:
        while (event := self.told.get()) is not None:
            yield event
            if isinstance(event, Died | Unreachable):
                return

    def dismiss(self) -> None:
        self.dismissed = True
        self.told.put(None)

    def make_gone(self, within_s: float) -> None:
        assert self.dismissed
        self.gone = True


class Place:
    """Videos of different sizes, and workers that do as they are told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.workers: list[FakeWorker] = []
        self.given: list[tuple[int, int]] = []
        self.told: list[Told] = []
        self.start: Callable[[FakeWorker], Event] = lambda worker: Loaded(INFO, "same", 8192)
        self.answer: Callable[[FakeWorker, Row], list[Event]] = lambda worker, row: [answered(row)]

    def video(self, name: str, size: int) -> str:
        (self.folder / name).write_text(name * size)
        return str(self.folder / name)

    @contextmanager
    def engine(self, lanes: int) -> Iterator[Dispatcher]:
        with Dispatcher(lambda number: FakeWorker(number, self), lanes, self.told.append) as dispatcher:
            yield dispatcher

    def run(self, *rows: dict[str, Any], lanes: int = 2) -> Tally:
        with self.engine(lanes) as engine:
            return self.work(engine, *rows)

    def work(self, engine: Dispatcher, *rows: dict[str, Any]) -> Tally:
        manifest = read_manifest("\n".join(map(json.dumps, rows)).encode(), "m.jsonl", DEFAULTS)
        with ResultFile(self.folder / "out.jsonl") as results:
            return Batch(manifest, results, engine=engine).run()

    def records(self) -> dict[int, dict[str, Any]]:
        lines = (self.folder / "out.jsonl").read_text().splitlines()
        records = {record["row"]: record for record in map(json.loads, lines)}
        assert len(records) == len(lines)
        return records


def answered(row: Row) -> Answered:
    return Answered(row, {"schema_version": 1, "answer": row.question.upper()})


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def rows(place: Place, videos: int = 4, questions: int = 3) -> list[dict[str, Any]]:
    paths = [place.video(str(number), number + 1) for number in range(videos)]
    return [{"video": path, "question": f"q{number}"} for number in range(questions) for path in paths]


def test_each_row_is_answered_once_and_a_video_stays_with_a_worker(place: Place) -> None:
    tally = place.run(*rows(place))
    assert (tally.answered, tally.done, len(place.records())) == (12, 12, 12)
    of_video: dict[int, set[int]] = {}
    for worker, row in place.given:
        of_video.setdefault((row - 1) % 4, set()).add(worker)
    assert all(len(workers) == 1 for workers in of_video.values())
    assert all(worker.gone for worker in place.workers)


def test_it_says_which_context_its_model_has_before_it_has_rows(place: Place) -> None:
    with place.engine(2) as engine:
        assert (engine.identity, engine.context_length, place.given) == ("same", 8192, [])


def test_the_largest_video_comes_first(place: Place) -> None:
    place.run(*rows(place, questions=1), lanes=2)
    assert place.given[0] == (0, 4)
    assert place.given[-1][1] == 1


def test_there_are_no_more_workers_than_videos(place: Place) -> None:
    place.run(*rows(place, videos=2), lanes=5)
    assert len(place.workers) <= 2
    place.run(*rows(place, videos=2), lanes=5)
    assert len(place.workers) <= 3


def test_the_same_row_twice_is_answered_once(place: Place) -> None:
    video, copy = place.video("a", 3), str(place.folder / "copy")
    Path(copy).write_bytes(Path(video).read_bytes())
    # The first worker keeps its row until the second has found that it is the same.
    tally = place.run(*({"video": path, "question": "x"} for path in (video, copy, video)))
    assert (tally.answered, tally.repeated, len(place.given)) == (1, 2, 1)


def test_the_row_of_a_worker_that_died_goes_to_the_next(place: Place) -> None:
    died: list[int] = []

    def answer(worker: FakeWorker, row: Row) -> list[Event]:
        if row.number == 2 and not died:
            died.append(worker.number)
            return [DIED]
        return [answered(row)]

    place.answer = answer
    tally = place.run(*rows(place))
    assert (tally.answered, tally.failed, len(place.records())) == (12, 0, 12)
    assert [lost.row.number for lost in place.told if isinstance(lost, Lost) and lost.row is not None] == [2]
    assert sum(row == 2 for _, row in place.given) == 2


def test_a_row_that_three_workers_died_at_is_an_error_and_its_video_goes_on(place: Place) -> None:
    place.answer = lambda worker, row: [DIED] if row.number == 1 else [answered(row)]
    tally = place.run(*rows(place))
    assert (tally.answered, tally.failed, len(place.records())) == (11, 1, 12)
    error = place.records()[1]["error"]
    assert (error["type"], "SIGKILL" in error["message"]) == ("WorkerDied", True)
    assert sum(row == 1 for _, row in place.given) == 3


def test_an_error_of_a_row_is_its_result(place: Place) -> None:
    place.answer = lambda worker, row: [Noticed("thin"), Failed(row, VideoNotFound("gone", hint="look"))]
    assert place.run(*rows(place, videos=1, questions=1)).failed == 1
    assert place.records()[1]["error"] == {"type": "VideoNotFound", "message": "gone", "hint": "look"}
    assert Noticed("thin") in place.told


def test_where_all_are_lost_that_is_the_error_and_what_is_finished_is_kept(place: Place) -> None:
    lost = Unreachable(ServerUnreachable("lost"), "last words")
    place.answer = lambda worker, row: [lost] if len(place.given) > 3 else [answered(row)]
    with pytest.raises(ServerUnreachable, match="lost"):
        place.run(*rows(place))
    assert 1 <= len(place.records()) <= 3
    assert not any("error" in record for record in place.records().values())
    assert lost in place.told
    assert all(worker.gone for worker in place.workers)


@pytest.mark.parametrize(
    ("event", "error"),
    [
        (CannotLoad(WeightsNotFound("none")), WeightsNotFound),
        (DIED, WorkerDied),
        (Unreachable(ServerUnreachable("lost"), ""), ServerUnreachable),
    ],
)
def test_a_first_worker_that_cannot_start_is_the_end(place: Place, event: Event, error: type[LongVUError]) -> None:
    place.start = lambda worker: event
    with pytest.raises(error), place.engine(2):
        pass
    assert len(place.workers) == (3 if error is WorkerDied else 1)


@pytest.mark.parametrize(
    ("event", "error"),
    [
        (CannotLoad(DeviceOutOfMemory("full")), DeviceOutOfMemory),
        (Loaded(INFO, "other", 8192), UsageError),
        (DIED, WorkerDied),
    ],
)
def test_another_worker_that_cannot_start_is_done_without(place: Place, event: Event, error: type[LongVUError]) -> None:
    place.start = lambda worker: event if worker.number == 1 else Loaded(INFO, "same", 8192)
    # The first worker is at its first row until the second is given up.
    held: list[Event] = []

    def answer(worker: FakeWorker, row: Row) -> list[Event]:
        if not held:
            held.append(answered(row))
            return []
        return [answered(row)]

    def hear(told: Told) -> None:
        place.told.append(told)
        if isinstance(told, Without):
            place.workers[0].told.put(held[0])

    place.answer = answer
    with Dispatcher(lambda number: FakeWorker(number, place), 2, hear) as engine:
        tally = place.work(engine, *rows(place))
    assert (tally.answered, {worker for worker, _ in place.given}) == (12, {0})
    (without,) = [told for told in place.told if isinstance(told, Without)]
    assert (without.worker, type(without.error)) == (2, error)


def test_when_no_worker_can_start_any_more_that_is_the_error(place: Place) -> None:
    place.answer = lambda worker, row: [DIED]
    place.start = lambda worker: CannotLoad(DeviceOutOfMemory("full")) if place.given else Loaded(INFO, "same", 8192)
    with pytest.raises(DeviceOutOfMemory):
        place.run(*rows(place))
    assert not (place.folder / "out.jsonl.lock").exists()


def test_an_engine_works_off_several_manifests(place: Place) -> None:
    with place.engine(2) as engine:
        assert place.work(engine, *rows(place, questions=1)).answered == 4
        assert place.work(engine, *rows(place, questions=2)).answered == 4
    assert len(place.workers) <= 2


def test_an_interruption_ends_the_workers_and_keeps_what_is_finished(place: Place) -> None:
    def answer(worker: FakeWorker, row: Row) -> list[Event]:
        if len(place.given) > 3:
            raise KeyboardInterrupt
        return [answered(row)]

    place.answer = answer
    with pytest.raises(KeyboardInterrupt):
        place.run(*rows(place))
    assert 1 <= len(place.records()) <= 3
    assert all(worker.gone for worker in place.workers)
    assert not (place.folder / "out.jsonl.lock").exists()
