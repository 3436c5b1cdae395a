"""LongVU: answers questions about videos of any length, with the compression of arXiv:2410.17434.

    >>> from longvu_cli import LongVU
    >>> LongVU.from_pretrained("3b").answer("movie.mp4", "Where is the cup?").text  # doctest: +SKIP

The names below are the public API. They are imported when they are first used, so that ``import longvu_cli`` (and with
it ``longvu --help``) does not wait for torch.
"""

from __future__ import annotations

__version__ = "0.1.0"

# As type checkers know it: typing itself would be the slowest part of the start.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from longvu_cli.config import (
        CompressionOptions,
        DecodingOptions,
        GenerationOptions,
        ModelOptions,
        PromptOptions,
        SamplingOptions,
    )
    from longvu_cli.errors import LongVUError
    from longvu_cli.evidence import Evidence, Moment
    from longvu_cli.longvu import LongVU
    from longvu_cli.results import Answer, Chunk, Compression
    from longvu_cli.weights import Part

__all__ = [
    "Answer",
    "Chunk",
    "Compression",
    "CompressionOptions",
    "DecodingOptions",
    "Evidence",
    "GenerationOptions",
    "LongVU",
    "LongVUError",
    "ModelOptions",
    "Moment",
    "Part",
    "PromptOptions",
    "SamplingOptions",
]

_HOMES = {
    "Answer": "results",
    "Chunk": "results",
    "Compression": "results",
    "CompressionOptions": "config",
    "DecodingOptions": "config",
    "Evidence": "evidence",
    "GenerationOptions": "config",
    "LongVU": "longvu",
    "LongVUError": "errors",
    "ModelOptions": "config",
    "Moment": "evidence",
    "Part": "weights",
    "PromptOptions": "config",
    "SamplingOptions": "config",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
