"""Servers for tests: on a free port of this machine, in a thread of this process."""

from __future__ import annotations

import json
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx2
from openai import OpenAI

from longvu_cli.results import Answer, Chunk
from longvu_cli.serving.options import Patience, ServingOptions
from longvu_cli.serving.server import Server, address_of, bind
from longvu_cli.serving.worker import Ask, Done, Progress, Task

# How long something may take that takes no time at all, on a machine that does other things.
PATIENCE_S = 300


@dataclass
class Served:
    """A server that runs.

    Attributes:
        http: a client of it, with room for many requests at a time.
        done: what became of each question.
        bugs: where unexpected errors came from.
    """

    address: str
    server: Server
    http: httpx2.Client
    done: list[Done] = field(default_factory=list)
    bugs: list[str] = field(default_factory=list)

    @property
    def place(self) -> tuple[str, int]:
        """For sockets."""
        host, _, port = self.address.removeprefix("http://").rpartition(":")
        return host, int(port)

    def client(self, token: str = "none") -> OpenAI:
        """OpenAI's own client; to be closed."""
        return OpenAI(base_url=f"{self.address}/v1", api_key=token, max_retries=0, timeout=PATIENCE_S)

    def post(self, body: object, **settings: Any) -> httpx2.Response:
        """A question as it is."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.http.post("/v1/chat/completions", content=content, **settings)

    def metric(self, name: str) -> float:
        """The value of a metric."""
        lines = self.http.get("/metrics").text.splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} ")), 0.0)


def _where(thread: threading.Thread) -> str:
    """Where a thread is."""
    frame = None if thread.ident is None else sys._current_frames().get(thread.ident)
    return "".join(traceback.format_stack(frame))


@contextmanager
def serving(ask: Ask, *, patience: Patience | None = None, **options: Any) -> Iterator[Served]:
    """Serve while the block runs; at its end everything has to end by itself."""
    chosen = ServingOptions(patience=patience or Patience(grace_s=5.0), **options)
    done: list[Done] = []
    bugs: list[str] = []
    with (
        closing(bind("127.0.0.1", 0)) as opened,
        Server(ask, "tiny", chosen, on_done=done.append, on_bug=bugs.append) as server,
    ):
        thread = threading.Thread(target=server.run, args=(opened,))
        # Who connects before the thread listens waits for it.
        opened.listen()
        thread.start()
        address = address_of(opened)
        # Making a client takes longer than most requests.
        many = httpx2.Limits(max_connections=300, keepalive_expiry=1.0)
        with httpx2.Client(base_url=address, timeout=PATIENCE_S, limits=many, trust_env=False) as http:
            try:
                yield Served(address, server, http, done, bugs)
            finally:
                server.stop()
                thread.join(PATIENCE_S)
                assert not thread.is_alive(), f"the server does not end: {_where(thread)}"


def question(video: str | Path, text: str = "What is it?", **more: Any) -> dict[str, Any]:
    """The body of a request."""
    url = video if isinstance(video, str) else video.as_uri()
    content = [{"type": "video_url", "video_url": {"url": url}}, {"type": "text", "text": text}]
    return {"messages": [{"role": "user", "content": content}], **more}


class Scripted:
    """Answers without a model.

    Attributes:
        begun: set when a question is taken up.
        go_on: what every answer waits for.
        stopped: set when an answer is left unfinished.
        tasks: what was asked.
    """

    def __init__(self, like: Answer, pieces: Callable[[Task], Iterator[str]]) -> None:
        self.begun = threading.Event()
        self.go_on = threading.Event()
        self.stopped = threading.Event()
        self.tasks: list[Task] = []
        self._like = like
        self._pieces = pieces

    def __call__(self, task: Task, on_progress: Progress) -> Generator[Chunk, None, None]:
        self.tasks.append(task)
        self.begun.set()
        text = ""
        try:
            while not self.go_on.wait(0.01):
                on_progress("encode", 1, None)
            for piece in self._pieces(task):
                text += piece
                yield Chunk(text=piece, token_id=1)
            yield Chunk(text="", token_id=None, answer=replace(self._like, text=text))
        except BaseException:
            self.stopped.set()
            raise


@contextmanager
def raw(served: Served, *, receive_bytes: int | None = None) -> Iterator[socket.socket]:
    """A connection on which a test says what it likes."""
    with socket.socket() as connection:
        if receive_bytes is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        connection.settimeout(PATIENCE_S)
        connection.connect(served.place)
        yield connection


def request_bytes(body: bytes, *, length: int | None = None) -> bytes:
    """A question as it goes over the wire."""
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body) if length is None else length}\r\n\r\n"
    )
    return head.encode() + body
