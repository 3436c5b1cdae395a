"""A file → the lines of a text track within it. Run where the file cannot do harm, as ``source.py`` is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import av
import av.error
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.subtitles.stream import SubtitleStream
from av.subtitles.subtitle import AssSubtitle

from longvu_cli.cues import LONGEST_CUE, MOST_CUES, Cue
from longvu_cli.errors import NotAVideo
from longvu_cli.source import open_container

# Tracks of pictures (DVD, Blu-ray) cannot be read as text.
_TEXT_CODECS = ("subrip", "srt", "ass", "ssa", "mov_text", "webvtt", "text")


def track_cues(file: Path, beat: Callable[[], None]) -> Iterator[Cue]:
    """The lines of the text track that a player would show first; none where there is no such track.

    Args:
        file: absolute path of a regular file.
        beat: called whenever something got done.

    A file that is no container of an accepted format, such as a picture, has none either.
    """
    try:
        opened = open_container(file)
    except NotAVideo:
        return
    with opened as container:
        stream = _text_stream(container)
        if stream is None:
            return
        origin, count = _origin_s(container), 0
        for packet in container.demux(stream):
            beat()
            if packet.pts is None or not packet.size or count == MOST_CUES:
                continue
            start_s = float(packet.pts * packet.time_base) - origin
            end_s = start_s + float((packet.duration or 0) * packet.time_base)
            for text in _texts(stream, packet):
                count += 1
                yield Cue(start_s, end_s, text[:LONGEST_CUE])


def _text_stream(container: InputContainer) -> SubtitleStream | None:
    streams = [
        stream
        for stream in container.streams.subtitles
        if stream.codec_context is not None and stream.codec_context.name in _TEXT_CODECS
    ]
    return max(streams, key=lambda stream: bool(stream.disposition & Disposition.default), default=None)


def _origin_s(container: InputContainer) -> float:
    """When the video begins, by the clock of the file."""
    video = container.streams.video[0] if container.streams.video else None
    if video is None or video.start_time is None or video.time_base is None:
        return 0.0
    return float(video.start_time * video.time_base)


def _texts(stream: SubtitleStream, packet: Packet[SubtitleStream]) -> Iterator[str]:
    """What FFmpeg makes of a packet: the text of an ASS line, whatever the form of the track."""
    try:
        shown = stream.codec_context.decode2(packet)
    except av.error.MemoryError:
        raise
    except av.FFmpegError:
        return
    for rect in shown or ():
        if isinstance(rect, AssSubtitle):
            yield rect.dialogue.decode(errors="replace")
