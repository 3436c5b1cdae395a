"""The client of a server, against real ones and against what is none."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import PARITY
from serving.served import Scripted, Served, serving

from longvu_cli.client import Client, RemoteChunk
from longvu_cli.config import GenerationOptions, SamplingOptions
from longvu_cli.errors import (
    LongVUError,
    NoFrames,
    ServerBusy,
    ServerRefused,
    ServerUnreachable,
    UsageError,
    VideoNotFound,
)
from longvu_cli.longvu import LongVU
from longvu_cli.records import answer_record
from longvu_cli.serving.asking import asking
from longvu_cli.serving.worker import Task

CLIP = PARITY / "one_frame.mkv"
QUESTION = "What is it?"
OPTIONS = {"max_new_tokens": 3, "fps": 2.0}


def ask(address: str, video: Path = CLIP, *, token: str | None = None, **options: Any) -> list[RemoteChunk]:
    with Client(address, token=token) as client:
        return list(client.ask(str(video), QUESTION, options))


@pytest.fixture(scope="module")
def served(qwen: LongVU, shared_folder: Path) -> Iterator[Served]:
    with serving(asking(qwen), folders=(shared_folder,), max_upload_bytes=100_000) as running:
        yield running


@pytest.fixture(scope="module")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the server may read, with a clip."""
    folder = tmp_path_factory.mktemp("shared")
    (folder / "clip é.mkv").write_bytes(CLIP.read_bytes())
    return folder


@pytest.mark.parametrize("shared", [True, False])
def test_the_answer_is_that_of_the_model(served: Served, qwen: LongVU, shared_folder: Path, shared: bool) -> None:
    video = shared_folder / "clip é.mkv" if shared else CLIP
    uploads = served.metric('longvu_requests_total{path="/v1/files",status="200"}')
    chunks = ask(served.address, video, **OPTIONS)
    answer = qwen.answer(
        video, QUESTION, sampling=SamplingOptions(fps=2.0), generation=GenerationOptions(max_new_tokens=3)
    )
    *_, last = chunks
    assert last.answer is not None
    assert "".join(chunk.text for chunk in chunks) == last.answer.text == answer.text
    expected = answer_record("serve", answer)
    same = ("question", "answer", "token_ids", "finish_reason", "model", "compression", "evidence", "prompt")
    assert {key: last.answer.record[key] for key in same} == json.loads(
        json.dumps({key: expected[key] for key in same})
    )
    assert last.answer.record["settings"]["fps"] == 2.0
    assert last.answer.tokens == answer.compression.statistics.tokens
    # Uploaded, and deleted again, or neither.
    more = served.metric('longvu_requests_total{path="/v1/files",status="200"}') - uploads
    assert (more, served.metric("longvu_upload_bytes")) == (0 if shared else 2, 0)


def test_another_file_of_the_same_name_is_not_asked_about(
    served: Served, shared_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the server is at the other end of a tunnel."""
    video = shared_folder / "clip é.mkv"
    real = Path.stat

    def another(path: Path, **settings: Any) -> Any:
        status = real(path, **settings)
        if path != video or threading.current_thread() is not threading.main_thread():
            return status
        return type("Status", (), {"st_mode": status.st_mode, "st_size": status.st_size, "st_mtime_ns": 1})()

    monkeypatch.setattr(Path, "stat", another)
    uploads = served.metric('longvu_requests_total{path="/v1/files",status="200"}')
    assert ask(served.address, video, max_new_tokens=1)[-1].answer is not None
    assert served.metric('longvu_requests_total{path="/v1/files",status="200"}') == uploads + 2


def test_errors_of_the_server_are_those_of_the_library(served: Served, tmp_path: Path) -> None:
    with pytest.raises(NoFrames, match="the video ends after") as failure:
        ask(served.address, start=900)
    assert failure.value.hint == "choose an earlier start"
    with pytest.raises(UsageError, match="is not after --start"):
        ask(served.address, start=2, end=1)
    with pytest.raises(VideoNotFound, match="no such file"):
        ask(served.address, tmp_path / "none.mp4")
    large = tmp_path / "large.mp4"
    large.write_bytes(bytes(250_000))
    with pytest.raises(ServerRefused, match="too large"):
        ask(served.address, large)


def test_a_token(qwen: LongVU) -> None:
    with serving(asking(qwen), token="sesame") as served:
        for wrong in (None, "sesam"):
            with pytest.raises(ServerRefused, match="the token is missing or wrong") as refusal:
                ask(served.address, token=wrong)
            assert "sesam" not in str(refusal.value) + refusal.value.hint
        assert ask(f"{served.address}/v1/", token="sesame", max_new_tokens=1)[-1].answer is not None


def test_a_server_that_is_busy(scripted: Scripted) -> None:
    with serving(scripted, queue=1, folders=(CLIP.parent,)) as served:
        threads = [threading.Thread(target=ask, args=(served.address,)) for _ in range(2)]
        threads[0].start()
        assert scripted.begun.wait(60)
        threads[1].start()
        while served.metric("longvu_waiting") < 1:
            pass
        with pytest.raises(ServerBusy, match="1 requests wait already") as busy:
            ask(served.address)
        assert busy.value.hint == "try again in 1 s"
        scripted.go_on.set()
        for thread in threads:
            thread.join(60)


def test_an_error_in_the_middle_of_an_answer(scripted: Scripted) -> None:
    scripted.go_on.set()
    with serving(scripted, folders=(CLIP.parent,)) as served, Client(served.address) as client:
        chunks = client.ask(str(CLIP), "fail", {})
        assert [next(chunks).text, next(chunks).text] == ["", "So "]
        with pytest.raises(NoFrames, match="no frame") as failure:
            next(chunks)
        assert failure.value.hint == "convert it"


@pytest.fixture
def scripted(qwen: LongVU) -> Scripted:
    def say(task: Task) -> Iterator[str]:
        yield "So "
        if task.question == "fail":
            raise NoFrames("no frame of it can be decoded", hint="convert it")

    return Scripted(qwen.answer(CLIP, QUESTION, generation=GenerationOptions(max_new_tokens=1)), say)


# --- what is no server of ours ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["", "ftp://127.0.0.1", "127.0.0.1:8417", "http://", "nonsense"])
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(UsageError, match="is no address"):
        Client(address)


def test_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        with pytest.raises(ServerUnreachable, match=r"no server answers at http://127\.0\.0\.1:"):
            ask(f"http://user:secret@127.0.0.1:{taken.getsockname()[1]}")


def answered(content: bytes, *, status: str = "200 OK", kind: str = "application/json") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content


def events(*data: str) -> bytes:
    return answered("".join(f"data: {item}\n\n" for item in data).encode(), kind="text/event-stream")


PIECE = json.dumps({"choices": [{"delta": {"content": "So "}}]})


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (b"", ServerUnreachable, "broke off"),
        (b"SSH-2.0-OpenSSH\r\n", ServerUnreachable, "broke off"),
        (answered(b"hello"), ServerRefused, "is no server of longvu"),
        (answered(b"hello", status="404 Not Found"), ServerRefused, "is no server of longvu"),
        (answered(b'{"error": "busy"}', status="503 Busy"), ServerRefused, "is no server of longvu"),
        (events("hello"), ServerRefused, "is no server of longvu"),
        (events("[1]"), ServerRefused, "is no server of longvu"),
        (events(json.dumps({"choices": [{"delta": {}}], "longvu": {}})), ServerRefused, "is no server of longvu"),
        (events(PIECE), ServerUnreachable, "in the middle of the answer"),
        (events(PIECE)[:-5], ServerUnreachable, "broke off"),
        (
            answered(
                b'{"error": {"code": "UnexpectedError", "sentence": "a bug", "hint": "", "type": "server_error"}}',
                status="500 Bug",
            ),
            LongVUError,
            "a bug",
        ),
    ],
)
def test_other_servers(answer: bytes, error: type[LongVUError], message: str) -> None:
    with listening(lambda _: answer) as address, pytest.raises(error, match=message) as told:
        ask(address)
    assert type(told.value) is error


@contextmanager
def listening(answer: Callable[[bytes], bytes]) -> Iterator[str]:
    """Something that answers one connection with these bytes."""
    with socket.create_server(("127.0.0.1", 0)) as opened:

        def serve() -> None:
            connection, _ = opened.accept()
            with connection:
                connection.sendall(answer(connection.recv(65536)))
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{opened.getsockname()[1]}"
        thread.join(60)
