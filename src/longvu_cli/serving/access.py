"""Who may ask: the token, and for a server that needs none, who could only be on this machine."""

from __future__ import annotations

import hmac
from urllib.parse import urlsplit

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from longvu_cli.serving.failures import Failure
from longvu_cli.serving.options import is_loopback

# What may be asked without a token: whether it is alive.
OPEN = "/health"
_BEARER = "bearer "


class Gate:
    """Turns requests away before anything of their body is read.

    Args:
        token: None: none is needed, and only names of this machine are answered to. A web page whose name was made to
            point here (DNS rebinding) still sends its own name, and a page elsewhere its origin.
    """

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        failure = None if scope["type"] != "http" or scope["path"] == OPEN else self._failure(Headers(scope=scope))
        if failure is None:
            await self._app(scope, receive, send)
            return
        response = JSONResponse(failure.body(), failure.status, failure.headers)
        await response(scope, receive, send)

    def _failure(self, headers: Headers) -> Failure | None:
        if self._token is None:
            return None if is_from_here(headers.get("host", ""), headers.get("origin")) else _FOREIGN
        return None if shows_token(headers.get("authorization", ""), self._token) else _UNKNOWN


_UNKNOWN = Failure(
    401,
    "WrongToken",
    "the token is missing or wrong",
    "send it as `Authorization: Bearer TOKEN`",
    headers={"www-authenticate": "Bearer"},
)
_FOREIGN = Failure(
    403,
    "ForeignHost",
    "this server answers to names of its own machine only",
    "ask http://127.0.0.1, or start it with a token",
)


def shows_token(authorization: str, token: str) -> bool:
    """Whether a header holds the token; takes as long for a wrong one whatever it begins with."""
    scheme, shown = authorization[: len(_BEARER)].lower(), authorization[len(_BEARER) :]
    return hmac.compare_digest(shown.strip().encode(), token.encode()) and scheme == _BEARER


def is_from_here(host: str, origin: str | None) -> bool:
    """Whether the names that a request gives for the server, and for the page it is from, are of this machine."""
    return _names_this_machine(f"//{host}") and (origin is None or _names_this_machine(origin))


def _names_this_machine(address: str) -> bool:
    try:
        return is_loopback(urlsplit(address).hostname or "")
    except ValueError:
        return False
