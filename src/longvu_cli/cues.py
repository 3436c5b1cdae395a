"""A line of subtitles with its time."""

from __future__ import annotations

from dataclasses import dataclass

# Of one file; an hour of talk has about a thousand lines.
MOST_CUES = 50_000
# What is longer is cut.
LONGEST_CUE = 2_000


@dataclass(frozen=True)
class Cue:
    """A line of subtitles.

    Attributes:
        start_s, end_s: when it is shown, in seconds after the beginning of the video.
        text: as it stands in the file, with whatever marks it up.
    """

    start_s: float
    end_s: float
    text: str
