"""``longvu serve``."""

from __future__ import annotations

import importlib.util
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from longvu_cli.cli.errors import OK
from longvu_cli.cli.loading import load_model
from longvu_cli.cli.options import (
    SERVER,
    AnswerFlags,
    CacheFlags,
    CompressionFlags,
    ModelFlags,
    Token,
    VideoFlags,
    option,
)
from longvu_cli.cli.output import Output
from longvu_cli.cli.quantities import parse_size
from longvu_cli.errors import ExtraNotInstalled

if TYPE_CHECKING:
    from longvu_cli.manifest import Settings
    from longvu_cli.records import Record
    from longvu_cli.results import ModelInfo
    from longvu_cli.serving.options import ServingOptions
    from longvu_cli.serving.worker import Done

# Import name → distribution.
_PACKAGES = {
    "fastapi": "fastapi",
    "prometheus_client": "prometheus-client",
    "pydantic": "pydantic",
    "python_multipart": "python-multipart",
    "uvicorn": "uvicorn",
}


@dataclass(frozen=True)
class ServeFlags:
    """How the server is reached, and what it allows."""

    host: Annotated[
        str,
        option("--host", panel=SERVER, help="Listen at this address; any but this machine's own needs a token."),
    ] = "127.0.0.1"
    port: Annotated[int, option("--port", panel=SERVER, help="Listen at this port; 0 takes one that is free.")] = 8417
    token: Token = None
    allow_path: Annotated[
        list[Path] | None,
        option(
            "--allow-path",
            panel=SERVER,
            metavar="DIR",
            help="Clients may name videos in this folder and below it; can be repeated [none: uploads only].",
        ),
    ] = None
    queue: Annotated[
        int, option("--queue", panel=SERVER, help="Requests that may wait for the model; more are turned away.")
    ] = 16
    max_upload: Annotated[
        int,
        option("--max-upload", panel=SERVER, parser=parse_size, metavar="SIZE", help="Largest video that is taken."),
    ] = 2 * 10**9
    longest_answer: Annotated[
        int, option("--longest-answer", panel=SERVER, help="Tokens that a request may ask for.")
    ] = 2048

    def options(self, defaults: Settings) -> ServingOptions:
        """As the library takes them."""
        from longvu_cli.serving.options import ServingOptions

        return ServingOptions(
            host=self.host,
            port=self.port,
            token=self.token,
            folders=tuple(self.allow_path or ()),
            queue=self.queue,
            max_upload_bytes=self.max_upload,
            longest_answer=self.longest_answer,
            defaults=defaults,
        )


def serve(
    output: Output,
    *,
    model: ModelFlags,
    serving: ServeFlags,
    moments: VideoFlags,
    compression: CompressionFlags,
    cache: CacheFlags,
    answer: AnswerFlags,
) -> int:
    """Answer questions over HTTP, in the form of OpenAI's chat completions, with the model loaded once.

    POST /v1/chat/completions takes a question with a video: a path within --allow-path, the id of an upload
    (POST /v1/files), or a data: URL. GET /v1/models, /health and /metrics (Prometheus). The options of video,
    compression and answer hold for what a request does not say. `longvu ask --server URL` is a client.

    It listens to this machine only; any other --host needs a token. Ctrl-C ends it: the answer that is being made is
    finished if it takes no longer than ten seconds, and uploads are removed.
    """
    _require_packages()
    from longvu_cli.manifest import Settings

    options = serving.options(Settings(moments.options(), compression.options(), answer.options()))
    from longvu_cli.serving.asking import asking
    from longvu_cli.serving.server import Server, address_of, bind

    with closing(bind(options.host, options.port)) as opened:
        loaded = load_model(model, "ANSWER", output, cache, moments.decoding())
        teller = _Teller(output)
        name = loaded.info.name
        with Server(asking(loaded), name, options, on_done=teller.done, on_bug=output.trace) as server:
            server.listen(opened)
            address = address_of(opened)
            output.note(f"{name} answers at {address}/v1; Ctrl-C ends it")
            for folder in options.folders:
                output.detail(f"videos may be named in {folder}")
            output.record(_record(address, loaded.info))
            server.run(opened)
    return OK


def _require_packages() -> None:
    missing = [name for module, name in _PACKAGES.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise ExtraNotInstalled(
            f"the server needs {' and '.join(missing)}, which is not installed",
            hint="run: pip install 'longvu-cli[serve]'",
        )


def _record(address: str, model: ModelInfo) -> Record:
    from longvu_cli.records import SCHEMA_VERSION

    told = {**asdict(model), "notices": list(model.notices)}
    return {"schema_version": SCHEMA_VERSION, "command": "serve", "url": address, "model": told}


class _Teller:
    """Says with ``--verbose`` what became of each question."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def done(self, done: Done) -> None:
        """After each, whichever way it ended."""
        self._output.detail(
            f"{done.outcome} after {done.waited_s:.1f} s in the queue and {done.worked_s:.1f} s of work"
        )
