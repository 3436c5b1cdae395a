"""A request → what is asked: of which video, after what was said before, and with which settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from longvu_cli.errors import UsageError
from longvu_cli.manifest import Settings, changed_settings
from longvu_cli.prompt import MAX_CHARACTERS
from longvu_cli.serving.failures import Refused, failure_of, refused
from longvu_cli.serving.paths import NamedPath, Reference, reference_of
from longvu_cli.serving.schema import ChatRequest, Message

# Options of a row that a server does not have: they name files, or make several answers of one.
_NOT_SERVED = ("subtitles", "coverage")


@dataclass(frozen=True)
class Asked:
    """What a request asks.

    Attributes:
        history: questions and answers that came before, the oldest first.
    """

    video: Reference
    question: str
    history: tuple[tuple[str, str], ...]
    settings: Settings


def read_asked(request: ChatRequest, defaults: Settings, *, longest_answer: int) -> Asked:
    """What a request asks.

    Raises:
        Refused: it has no question or no video, several videos, a talk that is too long, or an option that cannot be.
    """
    spoken = [message for message in request.messages if message.role in ("user", "assistant")]
    system = [message.text() for message in request.messages if message.role in ("system", "developer")]
    question, history = _turns(spoken)
    before = sum(len(asked) + len(answered) for asked, answered in history)
    if before > MAX_CHARACTERS:
        raise refused(
            400,
            "BadRequest",
            f"what was said before has {before:,} characters, and no more than {MAX_CHARACTERS:,} are read",
            hint="leave the oldest messages out",
            param="messages",
        )
    options = request.options()
    if system:
        if "system" in options:
            raise refused(400, "BadRequest", "there are two system texts", param="system")
        options["system"] = "\n".join(system)
    return Asked(_video(request.messages), question, history, _settings(options, defaults, longest_answer))


def _turns(messages: Sequence[Message]) -> tuple[str, tuple[tuple[str, str], ...]]:
    """The last question, and the turns before it; what a user says in several messages is one question."""
    said: list[tuple[str, list[str]]] = []
    for message in messages:
        if said and said[-1][0] == message.role:
            said[-1][1].append(message.text())
        else:
            said.append((message.role, [message.text()]))
    texts = ["\n".join(text for text in parts if text) for _, parts in said]
    if not said or said[0][0] != "user" or said[-1][0] != "user":
        raise refused(400, "BadRequest", "the messages have to begin and end with the user's", param="messages")
    if not texts[-1].strip():
        raise refused(400, "BadRequest", "the question is empty", param="messages")
    return texts[-1], tuple(zip(texts[:-1:2], texts[1::2], strict=True))


def _video(messages: Sequence[Message]) -> Reference:
    addresses = [address for message in messages for address in message.media()]
    if not addresses or any(address != addresses[0] for address in addresses):
        problem = "there are several videos or pictures" if addresses else "there is no video"
        raise refused(400, "BadRequest", f"{problem}; a conversation is about one", param="messages")
    reference = reference_of(addresses[0].url)
    if isinstance(reference, NamedPath):
        return NamedPath(reference.path, addresses[0].bytes, addresses[0].modified_ns)
    return reference


def _settings(options: dict[str, object], defaults: Settings, longest_answer: int) -> Settings:
    for name in _NOT_SERVED:
        if options.get(name):
            raise refused(400, "Unsupported", f"{name} is not supported by a server", param=name)
    try:
        settings = changed_settings(options, defaults)
    except UsageError as error:
        raise Refused(failure_of(error)) from None
    except ValueError as error:
        raise refused(400, "BadOption", str(error)) from None
    if settings.generation.max_new_tokens > longest_answer:
        raise refused(
            400,
            "BadOption",
            f"{settings.generation.max_new_tokens} tokens are more than this server gives",
            hint=f"{longest_answer} are the most",
            param="max_tokens",
        )
    return settings
