"""What workers are told before they have rows. Who only hands out rows imports this, and no model."""

from __future__ import annotations

from dataclasses import dataclass

from longvu_cli.config import DecodingOptions, ModelOptions


@dataclass(frozen=True)
class Assignment:
    """What all workers of an engine are told.

    Attributes:
        command: as the records have it.
        cached: whether features of videos are kept, in the user's own folder.
    """

    command: str
    model: ModelOptions
    decoding: DecodingOptions
    cached: bool
