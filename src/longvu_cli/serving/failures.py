"""Errors as a server tells them: a status, and OpenAI's form of an error, with our hint."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from longvu_cli.errors import (
    DeviceOutOfMemory,
    LongVUError,
    UsageError,
    VideoError,
    VideoNotFound,
)

_KINDS = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
# The first that fits.
_STATUSES: tuple[tuple[type[LongVUError], int], ...] = (
    (UsageError, 400),
    (VideoNotFound, 404),
    (VideoError, 422),
    (DeviceOutOfMemory, 422),
)
_SERVER_ERROR = 500
_RETRY = "x-should-retry"


@dataclass(frozen=True)
class Failure:
    """An error on its way to a client.

    Attributes:
        code: tells kinds apart: the name of the error's class, or of what the server refused.
        param: the field of the request that is wrong.
    """

    status: int
    code: str
    message: str
    hint: str = ""
    param: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def calling(self, file: Path, name: str) -> Failure:
        """The same, with what the client calls a file in place of its name here."""

        def told(text: str) -> str:
            return text.replace(str(file), name).replace(file.name, name)

        return replace(self, message=told(self.message), hint=told(self.hint))

    def body(self) -> dict[str, Any]:
        """OpenAI's form; ``hint`` is ours."""
        kind = _KINDS.get(self.status, "invalid_request_error" if self.status < _SERVER_ERROR else "server_error")
        message = f"{self.message}; {self.hint}" if self.hint else self.message
        error = {"message": message, "type": kind, "param": self.param, "code": self.code}
        return {"error": {**error, "sentence": self.message, "hint": self.hint}}


class Refused(Exception):
    """A request that is answered with a failure."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def refused(status: int, code: str, message: str, *, hint: str = "", param: str | None = None) -> Refused:
    """A refusal."""
    return Refused(Failure(status, code, message, hint, param))


def failure_of(error: LongVUError) -> Failure:
    """How an error of the library is told. The same request would fail again, which clients that retry are told."""
    status = next((status for kind, status in _STATUSES if isinstance(error, kind)), _SERVER_ERROR)
    headers = {_RETRY: "false"} if status >= _SERVER_ERROR else {}
    return Failure(status, type(error).__name__, error.message, error.hint, headers=headers)


def unexpected(error: Exception) -> Failure:
    """An error that no one thought of. What it says stays here: it may speak of things that are no client's."""
    return Failure(
        _SERVER_ERROR,
        "UnexpectedError",
        f"an unexpected error, which is a bug in longvu: {type(error).__name__}",
        headers={_RETRY: "false"},
    )
