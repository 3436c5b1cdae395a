"""HTTP/1.1 with an end to waiting for clients that neither speak nor listen."""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from longvu_cli.serving.options import Patience


def patient_protocol(patience: Patience) -> type[asyncio.Protocol]:
    """The protocol for a server; uvicorn itself waits for ever for the rest of a head, and for a reader."""

    class PatientProtocol(H11Protocol):
        """Closes the connection of a client that takes too long."""

        _speaks: asyncio.TimerHandle | None = None
        _listens: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._wait_to_speak()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._wait_to_speak()

        def connection_lost(self, exc: Exception | None) -> None:
            for timer in (self._speaks, self._listens):
                if timer is not None:
                    timer.cancel()
            super().connection_lost(exc)

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
            if not is_due and self._speaks is not None:
                self._speaks.cancel()
                self._speaks = None
            elif is_due and self._speaks is None and not self.transport.is_closing():
                self._speaks = self.loop.call_later(patience.headers_s, self.transport.abort)

    return PatientProtocol
