"""What the compression made of a video for a question, as the record of the answer has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Reduction:
    """Frames and tokens, before and after.

    Attributes:
        sampled, kept: frames.
        before: tokens of the kept frames, before spatial token compression.
        after: tokens that the language model read.
        cut: of those that went last, those that went for lack of room only.
    """

    sampled: int
    kept: int
    before: int
    after: int
    cut: int


def reduction_of(record: Mapping[str, Any]) -> Reduction:
    """That of an answer.

    Args:
        record: of the answer (``records.answer_record``).
    """
    measured = record["compression"]
    frames, tokens = measured["frames"], measured["tokens"]
    return Reduction(
        sampled=frames["sampled"],
        kept=frames["kept"],
        before=tokens["after_query"],
        after=tokens["visual"],
        cut=measured["truncated_tokens"],
    )
