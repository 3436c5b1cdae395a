"""A server from its socket to its end."""

from __future__ import annotations

import asyncio
import math
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType, TracebackType
from typing import Self

import uvicorn
from fastapi import FastAPI

from longvu_cli.errors import UsageError
from longvu_cli.serving.app import Service, make_app
from longvu_cli.serving.metrics import Metrics
from longvu_cli.serving.options import ServingOptions
from longvu_cli.serving.protocol import patient_protocol
from longvu_cli.serving.uploads import Uploads
from longvu_cli.serving.worker import Ask, Done, Worker

# To tell clients, at the end of the grace, that they get no answer.
_FAREWELL_S = 3
_ENDINGS = ("SIGINT", "SIGTERM", "SIGHUP")


def _unheard(*_: object) -> None:
    """The default of every callback."""


def bind(host: str, port: int) -> socket.socket:
    """A socket at an address, which does not listen yet.

    Raises:
        UsageError: the address is taken, or none of this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        opened = socket.socket(family, kind, protocol)
        try:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            opened.bind(address)
        except OSError:
            opened.close()
            raise
    except OSError as error:
        raise UsageError(
            f"--host {host} --port {port} cannot be listened at: {error.strerror}", hint="choose another port, or 0"
        ) from error
    return opened


def address_of(opened: socket.socket) -> str:
    """Where a socket is reached, for clients: ``http://127.0.0.1:8417``."""
    host, port = opened.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Server:
    """A server that answers with one model. A context manager; :meth:`run` serves until it is told to end.

    Args:
        ask: what answers tasks (``asking(model)``).
        name: of the model.
        on_done: hears of every question that was dealt with, in some thread.
        on_bug: hears where an unexpected error came from, in some thread.
    """

    def __init__(
        self,
        ask: Ask,
        name: str,
        options: ServingOptions,
        *,
        on_done: Callable[[Done], None] = _unheard,
        on_bug: Callable[[str], None] = _unheard,
    ) -> None:
        metrics = Metrics()

        def done(ended: Done) -> None:
            metrics.done(ended)
            on_done(ended)

        self._held = ExitStack()
        self._worker = Worker(ask, queue=options.queue, grace_s=options.patience.grace_s, on_done=done, on_bug=on_bug)
        self._uploads = Uploads(max_file_bytes=options.max_upload_bytes, max_bytes=options.most_uploaded_bytes)
        metrics.watch("waiting", "Requests in the queue", lambda: self._worker.waiting)
        metrics.watch("working", "Whether the model is at work", lambda: self._worker.is_working)
        metrics.watch("upload_bytes", "Bytes of uploads that are kept", lambda: self._uploads.size)
        service = Service(name, options, self._worker, self._uploads, metrics)
        self._server = _Uvicorn(make_app(service, metrics, options.token, on_bug), options, self._worker)

    def __enter__(self) -> Self:
        self._held.enter_context(self._uploads)
        self._held.enter_context(self._worker)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held.close()

    def listen(self, opened: socket.socket) -> None:
        """From here on a client is no longer refused: it waits until :meth:`run` begins."""
        opened.listen(self._server.config.backlog)

    def run(self, opened: socket.socket) -> None:
        """Serve at a socket, until :meth:`stop`, or until a signal comes, which then goes on to who handled it before.

        Raises:
            KeyboardInterrupt: by SIGINT, where Python's own handler is in place.
        """
        self._server.run([opened])

    def stop(self) -> None:
        """Take no more requests, finish the answers that are being made, and end; from any thread."""
        self._server.should_exit = True


class _Uvicorn(uvicorn.Server):
    """Sends home who waits when it ends: only the answer that is being made is waited for, and not for ever."""

    def __init__(self, app: FastAPI, options: ServingOptions, worker: Worker) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=patient_protocol(options.patience, connections=options.connections),
                ws="none",
                loop="asyncio",
                lifespan="off",
                # The log of uvicorn would go to whatever streams the process has.
                log_config=None,
                log_level="critical",
                access_log=False,
                proxy_headers=False,
                server_header=False,
                # Who waits for an answer is told that none comes before that.
                timeout_graceful_shutdown=math.ceil(options.patience.grace_s) + _FAREWELL_S,
            )
        )
        self._grace_s = options.patience.grace_s
        self._worker = worker
        self._heard: list[int] = []

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """While it serves, a signal makes it end in order; after that, who handled the signal before gets it."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        endings = [number for number in signal.Signals if number.name in _ENDINGS]
        # In the background of a script or under nohup, some are ignored, and stay so.
        heard = [number for number in endings if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, self.handle_exit) for number in heard}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if self._heard:
            signal.raise_signal(self._heard[0])

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._heard.append(sig)
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._worker.refuse()
        end = asyncio.get_running_loop().call_later(self._grace_s, self._worker.give_up)
        try:
            await super().shutdown(sockets)
        finally:
            end.cancel()
