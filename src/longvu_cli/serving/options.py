"""What a server allows, and for how long."""

from __future__ import annotations

import ipaddress
import math
from dataclasses import dataclass, field
from pathlib import Path

from longvu_cli.config import CompressionOptions, GenerationOptions, SamplingOptions
from longvu_cli.errors import UsageError
from longvu_cli.manifest import Settings

LOOPBACK = "127.0.0.1"
DEFAULT_PORT = 8417


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine only; of names, ``localhost`` alone is believed."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.split("%")[0]).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class Patience:
    """How long clients are waited for, in seconds.

    Attributes:
        headers_s: for the whole head of a request.
        body_s: for a body, with a second more for each ``slowest_bytes_per_s`` that came.
        send_s: until a client that does not read takes something again.
        heartbeat_s: what may pass in a stream without a sign of life; errors that come earlier have a status of their
            own, later ones are told in the stream.
        grace_s: for answers that are being made when the server ends.
    """

    headers_s: float = 15.0
    body_s: float = 30.0
    slowest_bytes_per_s: float = 10_000.0
    send_s: float = 60.0
    heartbeat_s: float = 15.0
    grace_s: float = 10.0


@dataclass(frozen=True)
class ServingOptions:
    """How a server is reached, and what may be asked of it.

    Attributes:
        host, port: where it listens; port 0 takes one that is free.
        token: what a client has to show; None: nothing, which only a loopback address may do without.
        folders: videos may be named by their path within these.
        queue: requests that may wait for the model.
        max_upload_bytes: of one file.
        max_uploads_bytes: of all files together; those not used for longest go first.
        max_body_bytes: of a request that is not an upload; videos may be in it (base64).
        longest_answer: tokens that a request may ask for.
        connections: at a time.
        defaults: hold for what a request does not say.
    """

    host: str = LOOPBACK
    port: int = DEFAULT_PORT
    token: str | None = None
    folders: tuple[Path, ...] = ()
    queue: int = 16
    max_upload_bytes: int = 2 * 10**9
    max_uploads_bytes: int = 10 * 10**9
    max_body_bytes: int = 32 * 10**6
    longest_answer: int = 2048
    connections: int = 1000
    patience: Patience = field(default_factory=Patience)
    defaults: Settings = field(
        default_factory=lambda: Settings(SamplingOptions(), CompressionOptions(), GenerationOptions())
    )

    def __post_init__(self) -> None:
        if self.token is not None and not (self.token.isascii() and self.token.isprintable() and self.token.strip()):
            raise UsageError(
                "the token is empty, or has characters that no header can hold", hint="use letters, digits"
            )
        if self.token is None and not is_loopback(self.host):
            raise UsageError(
                f"--host {self.host} can be reached from other machines, and there is no token",
                hint="set LONGVU_TOKEN, or leave --host out",
            )
        if not 0 <= self.port < 2**16:
            raise UsageError(
                f"--port {self.port} is no port", hint="give a number from 1 to 65535, or 0 for a free one"
            )
        if self.queue < 1:
            raise UsageError(f"--queue {self.queue} leaves no request a place to wait", hint="16 is usual")
        if self.max_upload_bytes < 1:
            raise UsageError(f"--max-upload {self.max_upload_bytes} lets nothing be uploaded", hint="2GB is usual")
        if self.longest_answer < self.defaults.generation.max_new_tokens:
            raise UsageError(
                f"--longest-answer {self.longest_answer} is less than --max-new-tokens, which every request gets",
                hint=f"give at least {self.defaults.generation.max_new_tokens}",
            )
        for folder in self.folders:
            if not folder.is_dir():
                raise UsageError(f"--allow-path {folder} is no folder", hint="name one that is there")

    @property
    def most_uploaded_bytes(self) -> int:
        """Of all files together, and never less than of one."""
        return max(self.max_uploads_bytes, self.max_upload_bytes)


def seconds_shown(seconds: float) -> str:
    """As a header has them: whole, and at least 1."""
    return str(max(1, math.ceil(seconds)))
