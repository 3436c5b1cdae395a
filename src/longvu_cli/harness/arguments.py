"""What the harness hands over, as values that it has read from text, → the settings of this package."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from longvu_cli.config import (
    CompressionOptions,
    Decoder,
    DecodingOptions,
    DType,
    GenerationOptions,
    ModelOptions,
    Quantization,
    SamplingOptions,
)
from longvu_cli.errors import UsageError
from longvu_cli.manifest import Settings, changed_settings

# The harness's word for what is called model here.
_PRETRAINED = "pretrained"
_MODEL: Mapping[str, type] = {
    _PRETRAINED: str,
    "dinov2": str,
    "siglip": str,
    "revision": str,
    "offline": bool,
    "device": str,
    "dtype": DType,
    "quantize": Quantization,
    "compile": bool,
}
_DECODING: Mapping[str, type] = {"decoder": Decoder, "workers": int}
_NO_CACHE = "no_cache"
_KINDS: Mapping[str, type] = {**_MODEL, **_DECODING, _NO_CACHE: bool}
_SPOKEN = {str: "text", bool: "truth (True or False)", int: "whole number"}
# Of no use beside a task, which says them itself.
_OF_THE_TASK = ("max_new_tokens", "temperature", "top_p", "seed", "choices")

_DEFAULTS = Settings(SamplingOptions(), CompressionOptions(), GenerationOptions())


@dataclass(frozen=True)
class ModelArguments:
    """What ``--model_args`` says.

    Attributes:
        settings: of each answer, except for how it is generated, which the task says.
        no_cache: whether the features of videos are neither used nor kept.
    """

    model: ModelOptions
    decoding: DecodingOptions
    settings: Settings
    no_cache: bool


def model_arguments(values: Mapping[str, object]) -> ModelArguments:
    """Read ``--model_args``. The names are those of the command line's options, with ``pretrained`` for ``model``.

    Raises:
        UsageError: a name is none of them, or a value is none for it.
    """
    for name in _OF_THE_TASK:
        if name in values:
            raise UsageError(f"model_args: {name} is the task's to say", hint="--gen_kwargs changes what a task says")
    known = {name: _checked(name, value, _KINDS[name]) for name, value in values.items() if name in _KINDS}
    model = {name: known[name] for name in _MODEL if name in known and name != _PRETRAINED}
    return ModelArguments(
        model=ModelOptions(model=known.get(_PRETRAINED, ModelOptions.model), **model),
        decoding=DecodingOptions(**{name: known[name] for name in _DECODING if name in known}),
        settings=_settings("model_args", {name: value for name, value in values.items() if name not in _KINDS}),
        no_cache=known.get(_NO_CACHE, False),
    )


def _checked(name: str, value: object, kind: type) -> Any:
    """The value, where it is of the kind: the harness makes numbers and truths of text that looks like them."""
    if issubclass(kind, StrEnum):
        known = {member.value: member for member in kind}
        if value in known:
            return known[str(value)]
        raise UsageError(f"model_args: {name} = {value!r} is none of {', '.join(known)}")
    if type(value) is not kind:
        raise UsageError(f"model_args: {name} = {value!r} is no {_SPOKEN[kind]}")
    return value


def _settings(source: str, values: Mapping[str, object]) -> Settings:
    try:
        return changed_settings(values, _DEFAULTS)
    except ValueError as error:
        raise UsageError(f"{source}: {error}", hint="the names are those of the options of `longvu batch`") from error


@dataclass(frozen=True)
class Generation:
    """How a task wants an answer.

    Attributes:
        until: the answer ends before the first of these texts.
    """

    options: GenerationOptions
    until: tuple[str, ...]


_GREEDY, _SAMPLED = ("max_new_tokens",), ("max_new_tokens", "temperature", "top_p", "seed")
# Ways to generate that this model does not have, and the values that leave them out.
_UNKNOWN_WAYS = {"num_beams": 1, "repetition_penalty": 1, "top_k": 0}


def generation_of(values: Mapping[str, object]) -> Generation:
    """Read a task's ``generation_kwargs``. What it does not say is as in ``longvu ask``: greedy, up to 128 tokens.

    What is meant for other models (``image_aspect_ratio`` …) is not looked at; nor, in a greedy task, is what only
    sampling needs.

    Raises:
        UsageError: a value is out of its range, or asks for a way to generate that this model does not have.
    """
    said = {name: value for name, value in values.items() if value is not None}
    is_sampled = bool(said.get("temperature")) and bool(said.get("do_sample", True))
    for name, idle in _UNKNOWN_WAYS.items():
        if said.get(name, idle) != idle and (is_sampled or name != "top_k"):
            raise UsageError(
                f"generation_kwargs: {name} = {said[name]!r} is not possible with LongVU",
                hint=f"add --gen_kwargs {name}={idle} for answers without it",
            )
    wanted = {name: said[name] for name in (_SAMPLED if is_sampled else _GREEDY) if name in said}
    return Generation(_settings("generation_kwargs", wanted).generation, _until(said.get("until", ())))


def _until(value: object) -> tuple[str, ...]:
    texts = (value,) if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise UsageError(f"generation_kwargs: until = {value!r} is no text, and no list of texts")
    return tuple(text for text in texts if text)


def text_before(pieces: Iterable[str], until: Sequence[str]) -> str:
    """The pieces joined, up to the first of the texts that end it; what comes after it is not waited for."""
    text = ""
    for piece in pieces:
        text += piece
        ends = [at for end in until if (at := text.find(end)) >= 0]
        if ends:
            return text[: min(ends)]
    return text
