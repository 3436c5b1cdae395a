"""What a server counts, in Prometheus's text form."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from longvu_cli.serving.worker import Done

_SECONDS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
_PATHS = ("/v1/chat/completions", "/v1/files", "/v1/models", "/health", "/metrics")


class Metrics:
    """The counters of one server."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = self._counter("requests", "HTTP requests", "path", "status")
        self._answers = self._counter("answers", "Questions that went to the model or its queue", "outcome")
        self._tokens = self._counter("tokens", "Tokens of answered questions", "kind")
        self._frames = self._counter("frames", "Frames of answered questions", "kind")
        self._features = self._counter("features", "Where the features of a video came from", "cache")
        self._waited = self._histogram("wait_seconds", "Time in the queue")
        self._worked = self._histogram("work_seconds", "Time with the model")

    def watch(self, name: str, help: str, value: Callable[[], float]) -> None:
        """Show a value as it is when someone asks."""
        Gauge(f"longvu_{name}", help, registry=self._registry).set_function(value)

    def done(self, done: Done) -> None:
        """A task ended."""
        self._answers.labels(done.outcome).inc()
        self._waited.observe(done.waited_s)
        if done.worked_s:
            self._worked.observe(done.worked_s)
        if done.answer is None:
            return
        compression = done.answer.compression
        statistics = compression.statistics
        self._tokens.labels("text").inc(statistics.text_tokens)
        self._tokens.labels("video").inc(statistics.tokens.visual)
        self._tokens.labels("answer").inc(len(done.answer.token_ids))
        self._frames.labels("sampled").inc(statistics.frames.sampled)
        self._frames.labels("kept").inc(statistics.frames.kept)
        self._features.labels(compression.cache).inc()

    def request(self, path: str, status: int) -> None:
        """A request got its status."""
        known = next((known for known in _PATHS if path == known or path.startswith(f"{known}/")), "other")
        self._requests.labels(known, str(status)).inc()

    def text(self) -> bytes:
        """All of them."""
        return generate_latest(self._registry)

    def _counter(self, name: str, help: str, *labels: str) -> Counter:
        return Counter(f"longvu_{name}", help, labels, registry=self._registry)

    def _histogram(self, name: str, help: str) -> Histogram:
        return Histogram(f"longvu_{name}", help, buckets=_SECONDS, registry=self._registry)


class Counted:
    """Counts requests by their status."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._metrics.request(scope["path"], message["status"])
            await send(message)

        await self._app(scope, receive, counted)
