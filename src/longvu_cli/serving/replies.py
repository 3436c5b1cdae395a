"""Answers in OpenAI's form, whole or in pieces; ``longvu`` holds what ``longvu ask --json`` prints."""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import dataclass, field
from typing import Any

from longvu_cli.records import SCHEMA_VERSION, Record, answer_record
from longvu_cli.results import Answer
from longvu_cli.serving.failures import Failure
from longvu_cli.serving.uploads import Upload

COMMAND = "serve"
OWNER = "longvu"
DONE = b"data: [DONE]\n\n"
# A line that clients skip.
ALIVE = b": working\n\n"


@dataclass(frozen=True)
class Reply:
    """What the pieces of one answer have in common.

    Attributes:
        video: what the client calls the video.
    """

    model: str
    video: str
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, answer: Answer) -> Record:
        """The answer at once."""
        message = {"role": "assistant", "content": answer.text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": answer.finish_reason.value}
        return {
            **self._head("chat.completion"),
            "choices": [choice],
            "usage": usage(answer),
            "longvu": self._record(answer),
        }

    def first(self) -> bytes:
        """The beginning of a stream."""
        return self._piece({"role": "assistant", "content": ""})

    def piece(self, text: str) -> bytes:
        """A part of the answer."""
        return self._piece({"content": text})

    def last(self, answer: Answer, *, with_usage: bool) -> bytes:
        """The end of a stream."""
        end = self._piece({}, finish_reason=answer.finish_reason.value, longvu=self._record(answer))
        if not with_usage:
            return end + DONE
        return end + event({**self._head("chat.completion.chunk"), "choices": [], "usage": usage(answer)}) + DONE

    def _piece(self, delta: Record, *, finish_reason: str | None = None, **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return event({**self._head("chat.completion.chunk"), "choices": [choice], **more})

    def _head(self, kind: str) -> Record:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def _record(self, answer: Answer) -> Record:
        record = answer_record(COMMAND, answer)
        history = {"turns": answer.history.turns, "dropped": answer.history.dropped}
        return {**record, "video": {**record["video"], "path": self.video}, "conversation": history}


def usage(answer: Answer) -> Record:
    """Tokens that were read and written; those of the video are told apart."""
    statistics = answer.compression.statistics
    read = statistics.text_tokens + statistics.tokens.visual
    written = len(answer.token_ids)
    return {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
        "prompt_tokens_details": {"text_tokens": statistics.text_tokens, "video_tokens": statistics.tokens.visual},
    }


def event(record: Record) -> bytes:
    """An event of a stream."""
    return f"data: {json.dumps(record, allow_nan=False)}\n\n".encode()


def broken(failure: Failure) -> bytes:
    """The end of a stream whose answer failed after it had begun."""
    return event(failure.body()) + DONE


def model_record(name: str, created: int) -> Record:
    """A model, in the list of models."""
    return {"id": name, "object": "model", "created": created, "owned_by": OWNER}


def upload_record(upload: Upload) -> Record:
    """A file that was uploaded."""
    return {
        "id": upload.id,
        "object": "file",
        "bytes": upload.size,
        "created_at": upload.created,
        "filename": upload.filename,
        "purpose": upload.purpose,
        "status": "processed",
    }


def health_record(*, model: str, is_alive: bool, waiting: int, is_working: bool) -> Record:
    """How a server is."""
    return {
        "schema_version": SCHEMA_VERSION,
        "status": "ok" if is_alive else "failed",
        "model": model,
        "waiting": waiting,
        "working": is_working,
    }
