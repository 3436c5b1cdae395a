"""Subtitles → the lines that stand in the prompt.

The form is that of the reference's script for VideoMME: a heading, then a line each, before the question. Each line has
its time here; the reference has none.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from longvu_cli.config import SamplingOptions
from longvu_cli.cues import LONGEST_CUE, MOST_CUES, Cue
from longvu_cli.errors import BadSubtitles
from longvu_cli.moments import clock
from longvu_cli.video_file import printable

AUTO = "auto"
HEADING = "This video's subtitles are listed below:"
_SUFFIXES = (".srt", ".vtt", ".ass", ".ssa")
_HINT = "give a file of type srt, vtt or ass"
_FORMATS = ("srt", "vtt", "ass", "ssa")
_MOST_BYTES = 20_000_000
# What the reference leaves out.
_NOT_SAID = ("[music]", "[applause]")


@dataclass(frozen=True)
class Subtitles:
    """The lines within the range that was asked for.

    Attributes:
        source: the file, or which track of the video.
        lines: as they are to stand in the prompt, in order of time.
    """

    source: str
    lines: tuple[str, ...]


def sidecar(video: Path) -> Path | None:
    """The file of subtitles that lies beside a video: ``movie.srt``, else the first of ``movie.*.srt`` by name.

    Formats are taken in the order srt, vtt, ass, ssa.
    """
    try:
        beside = sorted(video.parent.iterdir())
    except OSError:
        return None
    named = [file for file in beside if file.suffix.lower() in _SUFFIXES and file != video]
    own = [file for file in named if file.stem == video.stem]
    languages = [file for file in named if Path(file.stem).stem == video.stem and file.stem != video.stem]
    for files in (own, languages):
        if files:
            return min(files, key=lambda file: (_SUFFIXES.index(file.suffix.lower()), file.name))
    return None


def parse_cues(path: Path) -> tuple[Cue, ...]:
    """The lines of a file (SubRip, WebVTT, or Advanced SubStation Alpha), in order of time.

    The library's patterns can take hours on a file that is made for it: strangers' files are parsed where they can be
    stopped (``video.subtitle_cues``).

    Raises:
        BadSubtitles: it cannot be read, or is no such file.
    """
    import pysubs2  # few videos come with subtitles, and every decoding process would load it

    name = printable(str(path))
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise BadSubtitles(f"{name} is too large for subtitles", hint=f"{_MOST_BYTES // 1_000_000} MB are the most")
        parsed = pysubs2.SSAFile.from_string(_decoded(path.read_bytes()))
    except (OSError, ValueError) as error:
        reason = printable(str(error.strerror if isinstance(error, OSError) else error))
        raise BadSubtitles(f"the subtitles {name} cannot be read: {reason}", hint="check the file") from error
    except pysubs2.Pysubs2Error:
        raise BadSubtitles(f"{name} holds no subtitles", hint=_HINT) from None
    if parsed.format not in _FORMATS:
        raise BadSubtitles(f"{name} holds no subtitles of a known form", hint=_HINT)
    events = [event for event in parsed if not (event.is_comment or event.is_drawing)]
    cues = [Cue(event.start / 1000, event.end / 1000, event.text[:LONGEST_CUE]) for event in events[:MOST_CUES]]
    return tuple(sorted(cues, key=lambda cue: cue.start_s))


def lines_of(cues: Iterable[Cue], sampling: SamplingOptions) -> tuple[str, ...]:
    """What is said within the range that is looked at: ``[1:05] Good morning.``

    A line that is repeated at once, or that only tells of music or applause, is left out.
    """
    lines: list[str] = []
    before = ""
    for cue in cues:
        if cue.end_s <= sampling.start_s or (sampling.end_s is not None and cue.start_s >= sampling.end_s):
            continue
        text = _plain(cue.text)
        if text and text != before and text.casefold() not in _NOT_SAID:
            # What is shown when the video begins may have begun before, by the clock of the file.
            lines.append(f"[{clock(max(0, int(cue.start_s)))}] {text}")
            before = text
    return tuple(lines)


def fitting(lines: Sequence[str], room: int, count: Callable[[str], int]) -> tuple[str, ...]:
    """As many of the lines, evenly spread, as fit with the heading into a room.

    Args:
        count: a text → the number of its tokens.
    """
    sizes = [count(f"{line}\n") for line in lines]
    room -= count(f"{HEADING}\n")
    # No more can fit than of the shortest: a long film has thousands of lines, and room for a hundred.
    most = sum(total <= room for total in accumulate(sorted(sizes)))
    for number in range(most, 0, -1):
        spread = [position * len(lines) // number for position in range(number)]
        if sum(sizes[position] for position in spread) <= room:
            return tuple(lines[position] for position in spread)
    return ()


def block(lines: Sequence[str]) -> str:
    """What stands before the question; nothing where there are no lines."""
    return "".join(f"{line}\n" for line in (HEADING, *lines)) if lines else ""


def _plain(text: str) -> str:
    """Without markup, on one line. The patterns look at each character once, whatever the text."""
    words = re.sub(r"\{[^{}]*\}", "", text)
    words = re.sub(r"\\[Nnh]", " ", words)
    words = html.unescape(re.sub(r"</?[a-zA-Z][^<>]*>", "", words))
    return printable(" ".join(words.split()))[:LONGEST_CUE]


def _decoded(content: bytes) -> str:
    """Text as it was written: Unicode with a mark of which, UTF-8, or what Windows wrote before."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace")
