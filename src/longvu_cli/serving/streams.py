"""What becomes of a job for the client that waits for it, and what happens when the client goes away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack

from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from longvu_cli.results import Answer
from longvu_cli.serving.body import ClientGone, gone
from longvu_cli.serving.failures import Failure, Refused
from longvu_cli.serving.replies import ALIVE, Reply, broken
from longvu_cli.serving.worker import Event, Job


async def whole_answer(job: Job, request: Request) -> Answer:
    """The answer, when it is there.

    Raises:
        Refused: it failed.
        ClientGone: the client went away before.
    """
    while not isinstance(event := await first_event(job, request, timeout_s=None), Answer):
        if isinstance(event, Failure):
            raise Refused(event)
    return event


async def first_event(job: Job, request: Request, *, timeout_s: float | None) -> Event | None:
    """The next event, before the response has begun; None: there was none in time.

    Raises:
        ClientGone: the client went away before.
    """
    event, end = asyncio.ensure_future(job.next()), asyncio.ensure_future(gone(request))
    try:
        await asyncio.wait({event, end}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if event.done():
            return event.result()
        if end.done():
            raise ClientGone
        return None
    finally:
        event.cancel()
        end.cancel()


async def answer_stream(
    job: Job, reply: Reply, first: Event | None, *, heartbeat_s: float, with_usage: bool
) -> AsyncIterator[bytes]:
    """The answer as a stream of events, with a sign of life where nothing else comes.

    Args:
        first: the event that was waited for before the response began.
    """
    yield reply.first()
    event = first
    while True:
        match event:
            case None:
                yield ALIVE
            case str():
                yield reply.piece(event)
            case Answer():
                yield reply.last(event, with_usage=with_usage)
                return
            case Failure():
                yield broken(event)
                return
        event = await _next(job, heartbeat_s)


async def _next(job: Job, timeout_s: float) -> Event | None:
    event = asyncio.ensure_future(job.next())
    try:
        await asyncio.wait({event}, timeout=timeout_s)
        return event.result() if event.done() else None
    finally:
        event.cancel()


class HeldStream(StreamingResponse):
    """A stream of events that needs something until its end, whichever way it ends.

    Args:
        held: is closed then.
    """

    media_type = "text/event-stream"

    def __init__(self, content: AsyncIterator[bytes], held: ExitStack) -> None:
        super().__init__(content, headers={"cache-control": "no-cache"})
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        with self._held:
            await super().__call__(scope, receive, send)
