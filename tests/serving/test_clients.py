"""Clients that are slow, that go away, and that are too many; answers come from a script, and when a test says so."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest
from conftest import PARITY

from longvu_cli.errors import NoFrames
from longvu_cli.results import Answer
from longvu_cli.serving.options import Patience
from longvu_cli.serving.worker import Outcome, Task
from serving.served import PATIENCE_S, Scripted, Served, question, raw, request_bytes, serving

CLIP = PARITY / "one_frame.mkv"
QUICK = Patience(headers_s=0.3, body_s=0.3, send_s=0.3, heartbeat_s=0.1, grace_s=5.0)


def until(holds: Callable[[], bool]) -> None:
    """Wait for something that is about to be."""
    end = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.01)


def echo(task: Task) -> Iterator[str]:
    yield from ("You said: ", task.question)


@pytest.fixture
def scripted(an_answer: Answer) -> Scripted:
    return Scripted(an_answer, echo)


def answer_of(response: httpx2.Response) -> str:
    assert response.status_code == 200
    return str(response.json()["choices"][0]["message"]["content"])


def test_a_full_queue_turns_away_and_says_when_to_come_back(scripted: Scripted) -> None:
    with serving(scripted, queue=3, folders=(CLIP.parent,)) as served, ThreadPoolExecutor(200) as pool:
        running = pool.submit(served.post, question(CLIP, "first"))
        assert scripted.begun.wait(PATIENCE_S)
        others = [pool.submit(served.post, question(CLIP, f"number {number}")) for number in range(199)]
        until(lambda: sum(other.done() for other in others) == 196)
        scripted.go_on.set()
        answers = {number: other.result() for number, other in enumerate(others)}
        assert answer_of(running.result()) == "You said: first"
        told = {number: answer for number, answer in answers.items() if answer.status_code == 200}
        assert len(told) == 3
        assert all(answer_of(answer) == f"You said: number {number}" for number, answer in told.items())
        for answer in answers.values():
            if answer.status_code != 200:
                assert (answer.status_code, answer.json()["error"]["type"]) == (429, "rate_limit_error")
                assert int(answer.headers["retry-after"]) >= 1
        assert answer_of(served.post(question(CLIP, "later"))) == "You said: later"


def test_one_that_goes_away_frees_its_place(scripted: Scripted) -> None:
    with serving(scripted, queue=1, folders=(CLIP.parent,)) as served, ThreadPoolExecutor() as pool:
        first = pool.submit(served.post, question(CLIP, "first"))
        assert scripted.begun.wait(PATIENCE_S)
        with raw(served) as waiting:
            waiting.sendall(request_bytes(json.dumps(question(CLIP, "second")).encode()))
            until(lambda: served.metric("longvu_waiting") == 1)
            assert served.post(question(CLIP, "third")).status_code == 429
        until(lambda: served.metric("longvu_waiting") == 0)
        fourth = pool.submit(served.post, question(CLIP, "fourth"))
        until(lambda: served.metric("longvu_waiting") == 1)
        scripted.go_on.set()
        assert [answer_of(job.result()) for job in (first, fourth)] == ["You said: first", "You said: fourth"]
        assert [task.question for task in scripted.tasks] == ["first", "fourth"]
        assert sorted(done.outcome for done in served.done) == [Outcome.ANSWERED, Outcome.ANSWERED, Outcome.CANCELLED]


@pytest.mark.parametrize("stream", [False, True])
def test_the_answer_of_one_that_goes_away_stops(an_answer: Answer, stream: bool) -> None:
    def endless(task: Task) -> Iterator[str]:
        while task.question == "endless":
            yield "on "
            time.sleep(0.001)
        yield "end"

    scripted = Scripted(an_answer, endless)
    scripted.go_on.set()
    with serving(scripted, folders=(CLIP.parent,)) as served:
        with raw(served) as client:
            client.sendall(request_bytes(json.dumps(question(CLIP, "endless", stream=stream)).encode()))
            assert scripted.begun.wait(PATIENCE_S)
            received = b""
            while stream and b"data: " not in received:
                received += client.recv(1000)
        assert scripted.stopped.wait(PATIENCE_S)
        assert answer_of(served.post(question(CLIP, "another"))) == "end"
        assert [done.outcome for done in served.done] == [Outcome.CANCELLED, Outcome.ANSWERED]


def test_one_that_goes_away_while_the_video_is_watched(scripted: Scripted) -> None:
    with serving(scripted, folders=(CLIP.parent,)) as served:
        with raw(served) as client:
            client.sendall(request_bytes(json.dumps(question(CLIP)).encode()))
            assert scripted.begun.wait(PATIENCE_S)
        assert scripted.stopped.wait(PATIENCE_S)


def test_one_that_does_not_read_holds_nothing_back(an_answer: Answer) -> None:
    def much(task: Task) -> Iterator[str]:
        for _ in range(5000 if task.question == "much" else 1):
            yield "word " * 200

    scripted = Scripted(an_answer, much)
    scripted.go_on.set()
    with serving(scripted, patience=QUICK, folders=(CLIP.parent,)) as served, raw(served, receive_bytes=4096) as client:
        client.sendall(request_bytes(json.dumps(question(CLIP, "much", stream=True)).encode()))
        assert scripted.begun.wait(PATIENCE_S)
        # The model is done with it although nobody reads, and the next one has its answer.
        assert answer_of(served.post(question(CLIP, "little"))) == "word " * 200
        assert [done.outcome for done in served.done] == [Outcome.ANSWERED, Outcome.ANSWERED]
        # The server lets go of the connection, with most of the answer unsent.
        received = b""
        with suppress(ConnectionError):
            time.sleep(5 * QUICK.send_s)
            while piece := client.recv(65536):
                received += piece
        assert b"data: [DONE]" not in received
        assert len(received) < 5_000_000


def test_heads_and_bodies_that_do_not_come(scripted: Scripted) -> None:
    scripted.go_on.set()
    with serving(scripted, patience=QUICK, folders=(CLIP.parent,)) as served:
        for beginning in (b"", b"POST /v1/chat/compl", b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Long: "):
            with raw(served) as client:
                client.sendall(beginning)
                assert closed_without_a_word(client)
        with raw(served) as client:
            client.sendall(request_bytes(b'{"messages": ', length=1000))
            assert client.recv(1000).startswith(b"HTTP/1.1 408 ")
        with raw(served) as client:
            client.sendall(request_bytes(b'{"messages": ', length=1000))
            client.shutdown(socket.SHUT_WR)
        assert answer_of(served.post(question(CLIP))) == "You said: What is it?"


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET /health HTTP/1.1\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n",
        b"GET /" + b"a" * 200_000,
    ],
)
def test_what_is_no_request_is_told_in_our_form(scripted: Scripted, sent: bytes) -> None:
    with serving(scripted) as served, raw(served) as client:
        client.sendall(sent)
        head, _, body = told(client).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json")
        assert json.loads(body)["error"]["code"] == "BadHTTP"
        assert served.bugs == []


def test_a_body_that_says_it_is_too_large_is_not_waited_for(scripted: Scripted) -> None:
    with serving(scripted, patience=Patience(body_s=10_000), max_body_bytes=1000) as served, raw(served) as client:
        client.sendall(request_bytes(b"", length=1001))
        assert client.recv(1000).startswith(b"HTTP/1.1 413 ")


def test_one_that_goes_on_sending_hears_why_it_is_refused(scripted: Scripted) -> None:
    """A connection that is closed while something comes is reset, and what was sent to the client is lost with it."""
    with serving(scripted, max_body_bytes=1000) as served, raw(served) as client:
        client.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
            b"Content-Length: 40000000\r\n\r\n"
        )
        for _ in range(40):
            client.sendall(b" " * 1_000_000)
        assert told(client).startswith(b"HTTP/1.1 413 ")


def test_one_that_goes_on_sending_for_ever_is_let_go(scripted: Scripted) -> None:
    patience = Patience(headers_s=0.3)
    with serving(scripted, patience=patience, max_body_bytes=1000) as served, raw(served) as client:
        client.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
            b"Content-Length: 40000000000\r\n\r\n"
        )
        end = time.monotonic() + PATIENCE_S
        with pytest.raises(ConnectionError):
            while time.monotonic() < end:
                client.sendall(b" " * 100_000)


def test_a_body_that_is_none_is_not_waited_for_nor_is_who_stays_after_it(scripted: Scripted) -> None:
    patience = Patience(headers_s=10_000, body_s=10_000, grace_s=10_000)
    gone = 'longvu_requests_total{path="/v1/chat/completions",status="499"}'
    with socket.socket() as client, serving(scripted, patience=patience) as served:
        client.connect(served.place)
        client.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}"
        )
        until(lambda: served.metric(gone) == 1)


def test_too_many_connections_are_told_so(scripted: Scripted) -> None:
    scripted.go_on.set()
    with serving(scripted, connections=1, folders=(CLIP.parent,)) as served:
        with raw(served):
            response = served.post(question(CLIP))
            assert (response.status_code, response.json()["error"]["code"]) == (503, "TooManyConnections")
            assert response.headers["retry-after"] == "10"
        until(lambda: served.post(question(CLIP)).status_code == 200)


def told(client: socket.socket) -> bytes:
    """All that comes until the server closes."""
    received = b""
    while piece := client.recv(100_000):
        received += piece
    return received


def closed_without_a_word(client: socket.socket) -> bool:
    try:
        return client.recv(1000) == b""
    except ConnectionError:
        return True


def test_a_stream_that_waits_shows_that_it_lives(scripted: Scripted) -> None:
    with serving(scripted, patience=QUICK, folders=(CLIP.parent,)) as served, raw(served) as client:
        client.sendall(request_bytes(json.dumps(question(CLIP, stream=True)).encode()))
        received = b""
        while received.count(b": working\n\n") < 2:
            received += client.recv(1000)
        scripted.go_on.set()
        while b"data: [DONE]" not in received:
            received += client.recv(1000)
        assert received.startswith(b"HTTP/1.1 200 ")


def test_an_error_before_a_stream_has_a_status_and_later_is_told_in_it(an_answer: Answer) -> None:
    def failing(task: Task) -> Iterator[str]:
        if task.question == "late":
            yield "So "
        raise NoFrames("no frame of it can be decoded", hint="convert it")

    scripted = Scripted(an_answer, failing)
    scripted.go_on.set()
    with serving(scripted, folders=(CLIP.parent,)) as served:
        early = served.post(question(CLIP, "early", stream=True))
        assert (early.status_code, early.json()["error"]["code"]) == (422, "NoFrames")
        late = served.post(question(CLIP, "late", stream=True))
        assert late.status_code == 200
        *_, failure, end = [line for line in late.text.splitlines() if line]
        assert end == "data: [DONE]"
        assert json.loads(failure.removeprefix("data: "))["error"]["sentence"] == "no frame of it can be decoded"
        with served.client() as client, pytest.raises(Exception, match="no frame of it"):
            list(client.chat.completions.create(model="tiny", stream=True, **question(CLIP, "late")))


def test_a_bug_is_a_status_and_not_the_end(an_answer: Answer) -> None:
    def broken(task: Task) -> Iterator[str]:
        if task.question == "broken":
            raise ZeroDivisionError("of a path: /secret")
        yield "fine"

    scripted = Scripted(an_answer, broken)
    scripted.go_on.set()
    with serving(scripted, folders=(CLIP.parent,)) as served:
        response = served.post(question(CLIP, "broken"))
        assert (response.status_code, response.headers["x-should-retry"]) == (500, "false")
        assert "ZeroDivisionError" in response.text and "secret" not in response.text
        assert "ZeroDivisionError: of a path" in served.bugs[0]
        assert answer_of(served.post(question(CLIP))) == "fine"


def test_the_end_finishes_what_is_at_work_and_sends_home_who_waits(scripted: Scripted) -> None:
    with ThreadPoolExecutor() as pool:
        with serving(scripted, folders=(CLIP.parent,)) as served:
            working = pool.submit(served.post, question(CLIP, "first"))
            assert scripted.begun.wait(PATIENCE_S)
            waiting = pool.submit(served.post, question(CLIP, "second"))
            until(lambda: served.metric("longvu_waiting") == 1)
            served.server.stop()
            response = waiting.result(PATIENCE_S)
            assert (response.status_code, response.json()["error"]["code"]) == (503, "ServerEnding")
            scripted.go_on.set()
        assert answer_of(working.result()) == "You said: first"


@pytest.mark.parametrize("stream", [False, True])
def test_the_end_does_not_wait_for_ever(
    scripted: Scripted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    errors: list[Future[httpx2.Response]] = []
    patience = Patience(grace_s=0.5, heartbeat_s=0.1)
    others = set(threading.enumerate())
    with ThreadPoolExecutor() as pool:
        with serving(scripted, patience=patience, folders=(CLIP.parent,)) as served:
            with served.client() as client:
                client.files.create(file=CLIP, purpose="user_data")
            assert len(list(tmp_path.rglob("file-*"))) == 1
            errors.append(pool.submit(served.post, question(CLIP, stream=stream)))
            assert scripted.begun.wait(PATIENCE_S)
        response = errors[0].result()
        assert "ServerEnding" in response.text
        assert response.status_code == (200 if stream and ": working" in response.text else 503)
    assert scripted.stopped.wait(PATIENCE_S)
    assert list(tmp_path.iterdir()) == []
    assert not any(thread.name == "longvu-model" for thread in set(threading.enumerate()) - others)


def test_a_token_is_asked_for(scripted: Scripted) -> None:
    scripted.go_on.set()
    with serving(scripted, token="open sesame", folders=(CLIP.parent,)) as served:
        for headers in ({}, {"authorization": "Bearer open sesam"}, {"authorization": "open sesame"}):
            response = served.post(question(CLIP), headers=headers)
            assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")
            assert "sesame" not in response.text
        assert served.http.get("/metrics").status_code == 401
        assert served.http.get("/health").status_code == 200
        # With a token it may have any name, behind a proxy for instance.
        shown = {"authorization": "Bearer open sesame", "host": "longvu.example.com", "origin": "https://example.com"}
        assert served.post(question(CLIP), headers=shown).status_code == 200
        with served.client("open sesame") as client:
            assert [model.id for model in client.models.list()] == ["tiny"]


def test_without_a_token_only_names_of_this_machine_are_answered_to(scripted: Scripted, served_names: Served) -> None:
    for headers in ({"host": "example.com"}, {"host": "127.0.0.1.example.com"}, {"origin": "http://example.com"}):
        response = served_names.post(question(CLIP), headers=headers)
        assert (response.status_code, response.json()["error"]["code"]) == (403, "ForeignHost")
    for headers in ({"host": "localhost:1"}, {"host": "[::1]:8417"}, {"origin": "http://localhost:3000"}):
        assert served_names.post(question(CLIP), headers=headers).status_code == 200


@pytest.fixture
def served_names(scripted: Scripted) -> Iterator[Served]:
    scripted.go_on.set()
    with serving(scripted, folders=(CLIP.parent,)) as served:
        yield served
