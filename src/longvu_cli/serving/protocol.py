"""HTTP/1.1 with an end to waiting for clients that neither speak nor listen, and with errors in our own form."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import h11
from fastapi.responses import JSONResponse
from uvicorn.protocols.http.h11_impl import H11Protocol

from longvu_cli.serving.failures import Failure
from longvu_cli.serving.options import Patience

_NO_REQUEST = Failure(400, "BadHTTP", "what came is no request of HTTP/1.1")
_CROWDED = Failure(503, "TooManyConnections", "there are too many connections", "try again a little later")


class _Closing(asyncio.Transport):
    """A connection that is closed in a way of its own.

    Args:
        close: closes it; called once.
    """

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        super().__init__()
        self._transport = transport
        self._close = close
        self._is_closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._is_closed:
            self._transport.write(data)

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._close()

    def abort(self) -> None:
        self._transport.abort()

    def is_closing(self) -> bool:
        return self._is_closed or self._transport.is_closing()

    def resume_reading(self) -> None:
        self._transport.resume_reading()


def patient_protocol(patience: Patience, *, connections: int) -> type[asyncio.Protocol]:
    """The protocol for a server; uvicorn itself waits for ever for the rest of a head, and for a reader.

    Args:
        connections: more at a time are turned away.
    """

    class PatientProtocol(H11Protocol):
        """Closes the connection of a client that takes too long."""

        _speaks: asyncio.TimerHandle | None = None
        _listens: asyncio.TimerHandle | None = None
        _is_over = False

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self.transport = _Closing(transport, lambda: self._part(transport))
            if len(self.connections) > connections:
                self.app = JSONResponse(_CROWDED.body(), _CROWDED.status, {"connection": "close", "retry-after": "10"})
            self._wait_to_speak()

        def data_received(self, data: bytes) -> None:
            if self._is_over:
                return
            super().data_received(data)
            self._wait_to_speak()

        def connection_lost(self, exc: Exception | None) -> None:
            for timer in (self._speaks, self._listens):
                if timer is not None:
                    timer.cancel()
            super().connection_lost(exc)

        def shutdown(self) -> None:
            if self._is_over:
                self.transport.abort()
            else:
                super().shutdown()

        def send_400_response(self, msg: str) -> None:
            body = json.dumps(_NO_REQUEST.body()).encode()
            headers = [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
                (b"connection", b"close"),
            ]
            if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):  # no answer has begun
                for event in (
                    h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
                    h11.Data(data=body),
                    h11.EndOfMessage(),
                ):
                    self.transport.write(self.conn.send(event) or b"")
            self.transport.close()

        def pause_writing(self) -> None:
            super().pause_writing()
            if self._listens is None:
                self._listens = self.loop.call_later(patience.send_s, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            if self._listens is not None:
                self._listens.cancel()
                self._listens = None

        def _wait_to_speak(self) -> None:
            """The timer runs while a head is incomplete, or a body that nobody needs any more keeps coming."""
            answered = self.cycle is not None and self.cycle.response_complete
            is_due = self.conn.their_state is h11.IDLE or (self.conn.their_state is h11.SEND_BODY and answered)
            if not is_due and self._speaks is not None and not self._is_over:
                self._speaks.cancel()
                self._speaks = None
            elif is_due and self._speaks is None and not self.transport.is_closing():
                self._speaks = self.loop.call_later(patience.headers_s, self.transport.abort)

        def _part(self, transport: asyncio.Transport) -> None:
            """Close, but not on a client that still speaks: it would hear of a reset, and not what it was told."""
            if transport.is_closing() or self.conn.their_state not in (h11.SEND_BODY, h11.ERROR):
                transport.close()
                return
            self._is_over = True
            if self.cycle is not None and not self.cycle.response_complete:
                self.cycle.disconnected = True
                self.cycle.message_event.set()
            self.flow.resume_reading()
            transport.write_eof()
            if self._speaks is None:
                self._speaks = self.loop.call_later(patience.headers_s, transport.abort)

    return PatientProtocol
