"""The body of a request: no larger, and no slower, than it may be."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from starlette.requests import Request

from longvu_cli.serving.failures import refused
from longvu_cli.serving.options import Patience
from longvu_cli.serving.uploads import too_large


class ClientGone(Exception):
    """The client has closed the connection."""


async def body_pieces(request: Request, *, most_bytes: int, patience: Patience) -> AsyncIterator[bytes]:
    """The body, as it comes.

    Raises:
        Refused: it is too large, or comes too slowly.
        ClientGone: the client went away in the middle.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > most_bytes:
        raise too_large(most_bytes)
    began, size, more = time.monotonic(), 0, True
    while more:
        until = began + patience.body_s + size / patience.slowest_bytes_per_s
        try:
            message = await asyncio.wait_for(request.receive(), max(0.0, until - time.monotonic()))
        except TimeoutError:
            raise refused(408, "TooSlow", "the body of the request comes too slowly") from None
        if message["type"] == "http.disconnect":
            raise ClientGone
        data = message.get("body", b"")
        size += len(data)
        if size > most_bytes:
            raise too_large(most_bytes)
        more = message.get("more_body", False)
        if data:
            yield data


async def whole_body(request: Request, *, most_bytes: int, patience: Patience) -> bytes:
    """The body at once; raises the same."""
    pieces = [piece async for piece in body_pieces(request, most_bytes=most_bytes, patience=patience)]
    return b"".join(pieces)


async def gone(request: Request) -> None:
    """Returns when the client has closed the connection; the body has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
