"""A request for a chat completion, as OpenAI and the common servers of open models have it.

The options of longvu (``fps``, ``start``, ``recipe`` …, as in a row of ``longvu batch``) stand beside OpenAI's fields.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from longvu_cli.serving.failures import refused

# Messages of a request, and parts of a message: more than any talk has. Meanwhile nobody else is served.
_MOST = 4096
# Characters of what is wrong with a request: it may repeat what stands there.
_LONGEST_PROBLEM = 500


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class Address(_Part):
    """Where a video is: a path, a ``file:`` or ``data:`` URL, or the id of an upload.

    Attributes:
        bytes, modified_ns: of the file that is meant; one on the server that differs is refused.
    """

    url: str
    bytes: int | None = None
    modified_ns: int | None = None


def _as_address(value: object) -> object:
    return {"url": value} if isinstance(value, str) else value


AddressOrText = Annotated[Address, BeforeValidator(_as_address)]


class TextPart(_Part):
    """Words."""

    type: Literal["text"]
    text: str


class VideoUrlPart(_Part):
    """A video, as vLLM and SGLang have it."""

    type: Literal["video_url"]
    video_url: AddressOrText

    def address(self) -> Address:
        """Of the video."""
        return self.video_url


class ImageUrlPart(_Part):
    """A picture, as OpenAI has it."""

    type: Literal["image_url"]
    image_url: AddressOrText

    def address(self) -> Address:
        """Of the picture."""
        return self.image_url


class VideoPart(_Part):
    """A video, as transformers and Qwen have it."""

    type: Literal["video"]
    video: AddressOrText

    def address(self) -> Address:
        """Of the video."""
        return self.video


class File(_Part):
    """A file that was uploaded, or its content."""

    file_id: str | None = None
    file_data: str | None = None


class FilePart(_Part):
    """A file, as OpenAI has it."""

    type: Literal["file"]
    file: File

    def address(self) -> Address:
        """Of the video.

        Raises:
            Refused: neither or both are there.
        """
        given = [value for value in (self.file.file_id, self.file.file_data) if value is not None]
        if len(given) != 1:
            raise refused(400, "BadRequest", "a file has either file_id or file_data", param="messages")
        return Address(url=given[0])


MediaPart = VideoUrlPart | ImageUrlPart | VideoPart | FilePart
Part = Annotated[TextPart | MediaPart, Field(discriminator="type")]


def _as_parts(value: object) -> object:
    return [{"type": "text", "text": value}] if isinstance(value, str) else value


class Message(_Part):
    """What someone said."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[list[Part], Field(max_length=_MOST), BeforeValidator(_as_parts)]

    def text(self) -> str:
        """All words of it."""
        return "\n".join(part.text for part in self.content if isinstance(part, TextPart))

    def media(self) -> list[Address]:
        """All videos and pictures of it."""
        return [part.address() for part in self.content if not isinstance(part, TextPart)]


class StreamOptions(_Part):
    """What a stream holds besides."""

    include_usage: bool = False


class ChatRequest(BaseModel):
    """The body of ``POST /v1/chat/completions``; what is not named here is an option of longvu, or refused."""

    model_config = ConfigDict(strict=True, extra="allow")

    messages: list[Message] = Field(min_length=1, max_length=_MOST)
    model: str | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None

    def options(self) -> dict[str, Any]:
        """The options of longvu in it, by the names that a row of ``longvu batch`` has for them.

        Raises:
            Refused: a field of OpenAI's asks for what is not done here.
        """
        values = {}
        for name, value in (self.model_extra or {}).items():
            if name in _NEUTRAL and value is not None and value != _NEUTRAL[name]:
                raise refused(400, "Unsupported", f"{name} is not supported", param=name)
            if name not in _NEUTRAL and name not in _NO_MATTER:
                values[name] = value
        limits = (self.max_tokens, self.max_completion_tokens, values.pop("max_new_tokens", None))
        given = [limit for limit in limits if limit is not None]
        if any(limit != given[0] for limit in given):
            raise refused(400, "BadRequest", "there are several different limits of tokens", param="max_tokens")
        return {**values, "max_new_tokens": given[0]} if given else values


# Fields of OpenAI's that say nothing about the answer …
_NO_MATTER = frozenset(
    {"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "verbosity"}
)
# … and those of which only this value can be done.
_NEUTRAL: dict[str, object] = {
    "n": 1,
    "stop": [],
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "logit_bias": {},
    "logprobs": False,
    "top_logprobs": 0,
    "tools": [],
    "tool_choice": "none",
    "parallel_tool_calls": True,
    "response_format": {"type": "text"},
    "modalities": ["text"],
}


def read_request(body: bytes) -> ChatRequest:
    """The request in a body.

    Raises:
        Refused: it is no JSON, or has another form.
    """
    try:
        return ChatRequest.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(step) for step in first["loc"])
        problem = f"{where}: {first['msg']}" if where else f"the body is no request: {first['msg']}"
        raise refused(400, "BadRequest", problem[:_LONGEST_PROBLEM], param=where or None) from None
