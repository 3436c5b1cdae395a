"""Asking a server (``longvu serve``) instead of a model of one's own; nothing here needs torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from typing import Any, Self, TypeVar

import httpx2

from longvu_cli.errors import (
    LongVUError,
    ServerBusy,
    ServerRefused,
    ServerUnreachable,
    UnexpectedError,
    UsageError,
)
from longvu_cli.records import Record
from longvu_cli.results import Timing
from longvu_cli.serving.options import is_loopback
from longvu_cli.statistics import FrameCounts, TokenCounts
from longvu_cli.video_file import printable, readable_file

Value = TypeVar("Value")

_DONE = "[DONE]"
# A stream has a sign of life four times as often.
_PATIENCE = httpx2.Timeout(60.0, connect=10.0)
# The record of a video with many frames is one event.
_MOST_EVENT_BYTES = 10**8
# What a server says that cannot read the file itself, or has another one of its name.
_ELSEWHERE = ("PathNotAllowed", "OtherFile")
_COMPLETIONS, _FILES = "/v1/chat/completions", "/v1/files"


@dataclass(frozen=True)
class RemoteAnswer:
    """What a server says of an answer, at its end.

    Attributes:
        record: all of it, as ``longvu ask --json`` prints it.
        choice: the letter of the option that the answer means, if there were options.
    """

    record: Record
    text: str
    frames: FrameCounts
    tokens: TokenCounts
    truncated_tokens: int
    timing: Timing
    warnings: tuple[str, ...]
    notices: tuple[str, ...]
    choice: str | None


@dataclass(frozen=True)
class RemoteChunk:
    """A piece of a streamed answer; the last one carries what is known of the whole."""

    text: str
    answer: RemoteAnswer | None = None


class Client:
    """Asks one server. A context manager, which closes the connections.

    Args:
        address: ``http://127.0.0.1:8417``, with ``/v1`` or without.

    Raises:
        UsageError: it is no address of a server.
    """

    def __init__(self, address: str, *, token: str | None = None) -> None:
        base = address.rstrip("/").removesuffix("/v1")
        try:
            url = httpx2.URL(base)
        except httpx2.InvalidURL:
            url = httpx2.URL("")
        if url.scheme not in ("http", "https") or not url.host:
            raise UsageError(f"--server {printable(address)} is no address", hint="write http://127.0.0.1:8417")
        self._name = printable(str(url.copy_with(userinfo=b"")))
        self._is_here = is_loopback(url.host)
        self._http = httpx2.Client(
            base_url=url,
            headers={} if token is None else {"authorization": f"Bearer {token}"},
            timeout=_PATIENCE,
            # A proxy would look for a server on its own machine.
            trust_env=not self._is_here,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def ask(self, video: str, question: str, options: Mapping[str, Any]) -> Generator[RemoteChunk, None, None]:
        """Ask about a file of this machine, and stream the answer.

        A server on this machine is given the path. Where it may not read it, and everywhere else, the file is
        uploaded, and removed when the answer is there.

        Args:
            options: as a row of ``longvu batch`` has them.

        Raises:
            VideoNotFound: there is no such file.
            ServerUnreachable, ServerBusy, ServerRefused: no answer comes of it.
            LongVUError: what the server's model says.
        """
        path = readable_file(video)
        if self._is_here:
            status = path.stat()
            named = {"url": path.as_uri(), "bytes": status.st_size, "modified_ns": status.st_mtime_ns}
            try:
                yield from self._stream(named, question, options)
                return
            except _Elsewhere:
                pass  # nothing was answered yet
        with self._uploaded(str(path)) as name:
            yield from self._stream({"url": name}, question, options)

    @contextmanager
    def _uploaded(self, path: str) -> Iterator[str]:
        """A copy of a file at the server, by its id."""
        with self._told(), open(path, "rb") as file:
            response = self._http.post(
                _FILES,
                files={"file": (os.path.basename(path).encode(errors="replace").decode(), file)},
                data={"purpose": "user_data"},
            )
        if response.is_error:
            raise _error_of(response, self._name)
        name = _read(lambda: str(response.json()["id"]), self._name)
        try:
            yield name
        finally:
            with suppress(httpx2.HTTPError):  # it goes with the server, then
                self._http.delete(f"{_FILES}/{name}")

    def _stream(
        self, address: Mapping[str, Any], question: str, options: Mapping[str, Any]
    ) -> Generator[RemoteChunk, None, None]:
        content = [{"type": "video_url", "video_url": address}, {"type": "text", "text": question}]
        body = {**options, "messages": [{"role": "user", "content": content}], "stream": True}
        with self._told(), self._http.stream("POST", _COMPLETIONS, json=body) as response:
            if response.is_error:
                response.read()
                raise _error_of(response, self._name)
            for event in httpx2.EventSource(response, max_event_size=_MOST_EVENT_BYTES):
                if event.data == _DONE:
                    return
                yield self._chunk(event)
            raise ServerUnreachable(f"{self._name} broke off in the middle of the answer", hint="ask again")

    def _chunk(self, event: httpx2.ServerSentEvent) -> RemoteChunk:
        def read() -> RemoteChunk:
            piece: Any = event.json()
            if "error" in piece:
                raise _error_in(piece["error"], None, self._name)
            text = str(piece["choices"][0]["delta"].get("content") or "")
            return RemoteChunk(text, _answer_of(piece["longvu"]) if "longvu" in piece else None)

        return _read(read, self._name)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What goes wrong on the way, as an error of ours."""
        try:
            yield
        except httpx2.SSEError as error:
            raise _no_server_of_ours(self._name) from error
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            raise ServerUnreachable(
                f"no server answers at {self._name}", hint="start one with `longvu serve`, or check the address"
            ) from error
        except httpx2.TimeoutException as error:
            raise ServerUnreachable(f"{self._name} does not go on", hint="see what the server is doing") from error
        except httpx2.HTTPError as error:
            raise ServerUnreachable(f"{self._name} broke off", hint="see whether it still runs") from error


class _Elsewhere(ServerRefused):
    """The server cannot read the file where it is."""


def _read(read: Callable[[], Value], name: str) -> Value:
    try:
        return read()
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise _no_server_of_ours(name) from error


def _no_server_of_ours(name: str) -> ServerRefused:
    return ServerRefused(f"what answers at {name} is no server of longvu", hint="check the address")


def _answer_of(record: Record) -> RemoteAnswer:
    compression = record["compression"]
    return RemoteAnswer(
        record=record,
        text=str(record["answer"]),
        frames=_made(FrameCounts, compression["frames"]),
        tokens=_made(TokenCounts, compression["tokens"]),
        truncated_tokens=int(compression["truncated_tokens"]),
        timing=_made(Timing, record["timing_s"]),
        warnings=tuple(map(str, record["video"]["warnings"])),
        notices=tuple(map(str, record["notices"])),
        choice=record.get("choice"),
    )


def _made(kind: Callable[..., Value], values: Mapping[str, Any]) -> Value:
    """A dataclass of numbers, from a record that may have more of them."""
    return kind(**{field.name: values[field.name] for field in fields(kind)})  # type: ignore[arg-type]


def _error_of(response: httpx2.Response, name: str) -> LongVUError:
    """The error that a response tells."""
    return _read(lambda: _error_in(response.json()["error"], response.headers.get("retry-after"), name), name)


def _error_in(error: Mapping[str, Any], retry_after: str | None, name: str) -> LongVUError:
    code, sentence, hint = (str(error[key]) for key in ("code", "sentence", "hint"))
    known = {kind.__name__: kind for kind in _kinds(LongVUError)}
    if code in known and known[code] is not UnexpectedError:  # which is the server's, and told as such
        return known[code](sentence, hint=hint)
    if code in _ELSEWHERE:
        return _Elsewhere(sentence, hint=hint)
    if code in ("QueueFull", "ServerEnding"):
        hint = f"try again in {int(retry_after)} s" if retry_after and retry_after.isdecimal() else hint
        return ServerBusy(f"{name}: {sentence}", hint=hint)
    if error.get("type") == "server_error":
        return LongVUError(f"{name}: {sentence}", hint=hint)
    return ServerRefused(f"{name}: {sentence}", hint=hint)


def _kinds(base: type[LongVUError]) -> Iterator[type[LongVUError]]:
    """The public errors under one."""
    for kind in base.__subclasses__():
        if kind.__module__ == base.__module__:
            yield kind
            yield from _kinds(kind)
