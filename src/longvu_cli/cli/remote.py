"""``longvu ask --server``: the same command, answered by a server."""

from __future__ import annotations

from contextlib import closing
from dataclasses import fields
from enum import Enum
from typing import Any

import typer

from longvu_cli.cli.answering import tell_choice, tell_warnings
from longvu_cli.cli.errors import OK
from longvu_cli.cli.options import (
    AnswerFlags,
    ChoiceFlags,
    ClientFlags,
    CompressionFlags,
    ModelFlags,
    OutputFlags,
    SummaryFlags,
)
from longvu_cli.cli.output import Output
from longvu_cli.cli.text import spoken
from longvu_cli.errors import UsageError

_COMMAND = "ask"
_DEFAULT, _TYPED = "DEFAULT", "COMMANDLINE"


def _names(*groups: type[Any]) -> frozenset[str]:
    return frozenset(field.name for group in groups for field in fields(group))


# What goes with the request.
_SENT = _names(CompressionFlags, AnswerFlags, ChoiceFlags) | {"fps", "start", "end", "system", "prompt_template"}
# What is about this side.
_OWN = _names(ClientFlags, OutputFlags, SummaryFlags) | {"video", "question"}
# What is about a model of this machine: as a habit (environment, config file) it may stand, for when one is used.
_OF_A_MODEL_HERE = _names(ModelFlags) | {"decoder", "workers", "no_cache"}


def ask_server(address: str, token: str | None, video: str, question: str, given: typer.Context, output: Output) -> int:
    """Stream the answer of a server, then what it says of it.

    Args:
        given: the command's parameters, and where they are from.
    """
    options = _options(given)
    from longvu_cli.cli.rendering import summary_of
    from longvu_cli.client import Client, RemoteAnswer

    answer: RemoteAnswer | None = None
    with Client(address, token=token) as client, closing(client.ask(video, question, options)) as chunks:
        for chunk in chunks:
            output.answer_text(chunk.text)
            answer = chunk.answer or answer
    assert answer is not None, "a stream that ends well carries the answer"
    output.answer_end()
    tell_warnings(video, answer.warnings, answer.notices, output)
    tell_choice(answer.text, answer.choice, output, has_choices="choices" in options)
    output.summary(summary_of(answer.frames, answer.tokens, answer.truncated_tokens, answer.timing))
    record = answer.record
    output.record({**record, "command": _COMMAND, "video": {**record["video"], "path": video}})
    return OK


def _options(given: typer.Context) -> dict[str, Any]:
    """What was set, by the names that a server has for it.

    Raises:
        UsageError: something was asked for that only a model of this process can do.
    """
    options: dict[str, Any] = {}
    for name, value in given.params.items():
        source = given.get_parameter_source(name)
        if source is None or source.name == _DEFAULT or name in _OWN:
            continue
        if name in _SENT:
            options[name] = _plain(name, value)
        elif source.name == _TYPED or name not in _OF_A_MODEL_HERE:
            raise UsageError(
                f"--{name.replace('_', '-')} does not go together with --server", hint="leave one of them out"
            )
    return options


def _plain(name: str, value: Any) -> Any:
    if name == "choices":
        return list(ChoiceFlags(value).texts())
    if isinstance(value, Enum):
        return value.value
    return spoken(value) if isinstance(value, str) else value
