"""The routes: requests come in, go to the worker, and answers go out."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from longvu_cli.errors import VideoError
from longvu_cli.serving.access import OPEN, Gate
from longvu_cli.serving.body import ClientGone, body_pieces, whole_body
from longvu_cli.serving.failures import Failure, Refused, failure_of, refused, unexpected
from longvu_cli.serving.metrics import Counted, Metrics
from longvu_cli.serving.options import ServingOptions
from longvu_cli.serving.paths import AllowedPaths, NamedPath, NamedUpload, Reference
from longvu_cli.serving.reading import read_asked
from longvu_cli.serving.replies import OWNER, Reply, health_record, model_record, upload_record
from longvu_cli.serving.schema import read_request
from longvu_cli.serving.streams import HeldStream, answer_stream, first_event, whole_answer
from longvu_cli.serving.uploads import Uploads
from longvu_cli.serving.worker import Task, Worker
from longvu_cli.video_file import readable_file

# Of the form around an upload.
_FORM_BYTES = 100_000
# The status of a response that nobody is there to read.
_CLIENT_GONE = 499


class Service:
    """What the routes do.

    Args:
        name: of the model.
    """

    def __init__(self, name: str, options: ServingOptions, worker: Worker, uploads: Uploads, metrics: Metrics) -> None:
        self._name = name
        self._options = options
        self._worker = worker
        self._uploads = uploads
        self._metrics = metrics
        self._paths = AllowedPaths(options.folders)
        self._created = int(time.time())

    async def chat(self, request: Request) -> Response:
        """Answer a question, at once or as a stream."""
        options = self._options
        body = await whole_body(request, most_bytes=options.max_body_bytes, patience=options.patience)
        chat = read_request(body)
        self._require_model(chat.model)
        asked = read_asked(chat, options.defaults, longest_answer=options.longest_answer)
        with ExitStack() as held:
            path, shown = self._located(asked.video, held)
            called = None if isinstance(asked.video, NamedPath) else shown
            job = self._worker.submit(Task(path, asked.question, asked.history, asked.settings, called))
            held.callback(self._worker.cancel, job)
            reply = Reply(self._name, shown)
            if not chat.stream:
                return JSONResponse(reply.whole(await whole_answer(job, request)))
            heartbeat_s = options.patience.heartbeat_s
            first = await first_event(job, request, timeout_s=heartbeat_s)
            if isinstance(first, Failure):
                raise Refused(first)
            with_usage = chat.stream_options is not None and chat.stream_options.include_usage
            stream = answer_stream(job, reply, first, heartbeat_s=heartbeat_s, with_usage=with_usage)
            return HeldStream(stream, held.pop_all())

    async def models(self) -> Response:
        """The list of the one model."""
        return JSONResponse({"object": "list", "data": [model_record(self._name, self._created)]})

    async def model(self, name: str) -> Response:
        """The model, by its name."""
        self._require_model(name)
        return JSONResponse(model_record(self._name, self._created))

    async def upload(self, request: Request) -> Response:
        """Keep a file."""
        most = self._options.max_upload_bytes + _FORM_BYTES
        pieces = body_pieces(request, most_bytes=most, patience=self._options.patience)
        kept = await self._uploads.receive(request.headers.get("content-type", ""), pieces)
        return JSONResponse(upload_record(kept))

    async def uploaded(self, name: str) -> Response:
        """What is known of an upload."""
        return JSONResponse(upload_record(self._uploads.get(name)))

    async def remove(self, name: str) -> Response:
        """Let an upload go."""
        self._uploads.remove(name)
        return JSONResponse({"id": name, "object": "file", "deleted": True})

    async def health(self) -> Response:
        """Whether questions are answered."""
        worker = self._worker
        record = health_record(
            model=self._name, is_alive=worker.is_alive, waiting=worker.waiting, is_working=worker.is_working
        )
        return JSONResponse(record, 200 if worker.is_alive else 503)

    async def metrics(self) -> Response:
        """What was counted."""
        return Response(self._metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    def _require_model(self, name: str | None) -> None:
        if name not in (None, "", OWNER, self._name):
            raise refused(404, "NoSuchModel", f"the model here is {self._name}", param="model")

    def _located(self, reference: Reference, held: ExitStack) -> tuple[Path, str]:
        """The file that is meant, which stays while it is held, and what the client calls it."""
        if isinstance(reference, NamedPath):
            return _existing(self._paths.resolve(reference)), reference.path
        if isinstance(reference, NamedUpload):
            upload = self._uploads.hold(reference.id)
        else:
            upload = self._uploads.hold_sent_along(reference.base64)
        held.callback(self._uploads.release, upload)
        return upload.path, upload.filename


def _existing(path: Path) -> Path:
    """The file, whose absence is not worth a place in the queue."""
    try:
        return readable_file(path)
    except VideoError as error:
        raise Refused(failure_of(error)) from None


def make_app(service: Service, metrics: Metrics, token: str | None, on_bug: Callable[[str], None]) -> FastAPI:
    """The application.

    Args:
        on_bug: hears where an unexpected error came from.
    """
    # No pages: they would load scripts from elsewhere.
    app = FastAPI(title="longvu", openapi_url=None, docs_url=None, redoc_url=None)
    app.add_api_route("/v1/chat/completions", service.chat, methods=["POST"])
    app.add_api_route("/v1/models", service.models, methods=["GET"])
    app.add_api_route("/v1/models/{name:path}", service.model, methods=["GET"])
    app.add_api_route("/v1/files", service.upload, methods=["POST"])
    app.add_api_route("/v1/files/{name}", service.uploaded, methods=["GET"])
    app.add_api_route("/v1/files/{name}", service.remove, methods=["DELETE"])
    app.add_api_route(OPEN, service.health, methods=["GET"])
    app.add_api_route("/metrics", service.metrics, methods=["GET"])

    async def tell_refusal(_: Request, error: Exception) -> Response:
        assert isinstance(error, Refused), "it is registered for these"
        return _told(error.failure)

    async def tell_no_route(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException), "it is registered for these"
        return _told(Failure(error.status_code, "NoSuchRoute", str(error.detail)))

    async def let_go(_: Request, error: Exception) -> Response:
        return Response(status_code=_CLIENT_GONE)

    async def tell_bug(_: Request, error: Exception) -> Response:
        on_bug("".join(traceback.format_exception(error)))
        return _told(unexpected(error))

    app.add_exception_handler(Refused, tell_refusal)
    app.add_exception_handler(HTTPException, tell_no_route)
    app.add_exception_handler(ClientGone, let_go)
    app.add_exception_handler(Exception, tell_bug)
    app.add_middleware(Gate, token=token)
    app.add_middleware(Counted, metrics=metrics)
    return app


def _told(failure: Failure) -> Response:
    return JSONResponse(failure.body(), failure.status, failure.headers)
