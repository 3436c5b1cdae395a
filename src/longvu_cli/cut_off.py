"""Whether a file was cut off, told from the sizes and marks in its own structure.

A download that broke off often plays without any error up to where it ends. Streams of a format that has no end of its
own (elementary streams, DV) show nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from longvu_cli.video_file import beginning, ending

# A fragmented MP4 of many hours has fewer boxes at its top.
_MOST_BOXES = 100_000
_MP4_BOXES = (
    *(b"ftyp", b"moov", b"moof", b"mdat", b"mfra", b"sidx"),
    *(b"styp", b"free", b"skip", b"wide", b"udta", b"meta"),
)
# An Ogg page has 65,307 bytes at most.
_TWO_OGG_PAGES = 2 * 65_307
_OGG_HEADER, _OGG_LAST_PAGE = 27, 4
_IVF_HEADER, _IVF_FRAME_HEADER = 32, 12
# As many as in an hour at 60 frames per second: it takes less than a second to read their lengths.
_MOST_IVF_FRAMES = 216_000
_TS_SYNC, _TS_PACKETS = 0x47, (188, 192, 204)
_ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_FLV_TAGS = (8, 9, 18)
_UNKNOWN_SIZE = 0xFFFFFF00
# How many times a chroma plane's width and height go into the picture's, and how many such planes there are.
_Y4M_CHROMA = {
    "420": (2, 2, 2),
    "422": (2, 1, 2),
    "411": (4, 1, 2),
    "444": (1, 1, 2),
    "444alpha": (1, 1, 3),
    "mono": (1, 1, 0),
}
_Y4M_COLOURS = re.compile(r"(420|422|411|444alpha|444|mono)(?:jpeg|mpeg2|paldv|p?(\d+))?")
_MOST_Y4M_FRAMES = 216_000


def seems_cut_off(file: Path, container: str) -> bool:
    """Whether the file ends before its structure does; one that is not there any more shows nothing.

    Args:
        container: FFmpeg's name of its format.
    """
    test = _TESTS.get(container)
    try:
        return test is not None and test(file)
    except OSError:
        return False


def _mp4(file: Path) -> bool:
    """Whether a box at the top is longer than what is left, or no box follows on a fragment."""
    size, at, is_fragmented = file.stat().st_size, 0, False
    with file.open("rb") as stream:
        for _ in range(_MOST_BOXES):
            stream.seek(at)
            head = stream.read(16)
            if len(head) < 8:
                return is_fragmented and any(head)
            if head[4:8] not in _MP4_BOXES:
                # Players read no further, either. Behind an index of everything, junk does no harm.
                goes_on = any(head) or any(ending(file, 4_096))
                return is_fragmented and goes_on and not head[4:8].isalnum()
            is_fragmented |= head[4:8] == b"moof"
            length = int.from_bytes(head[:4])
            if length == 1:
                length = int.from_bytes(head[8:16])
            if length < 8:
                # 0: up to the end of the file, however long that is.
                return False
            at += length
            if at > size:
                return True
    return False


def _matroska(file: Path) -> bool:
    """Whether the segment is longer than what is left; one of unknown size is not."""
    head = beginning(file)
    at = head.find(b"\x18\x53\x80\x67")
    if not head.startswith(b"\x1a\x45\xdf\xa3") or at < 0 or at + 12 > len(head) or head[at + 4] == 0:
        return False
    # A size is a number of 1 to 8 bytes; the leading zero bits of the first say how many follow. All ones: unknown.
    length = 9 - head[at + 4].bit_length()
    value_bits = 7 * length
    size = int.from_bytes(head[at + 4 : at + 4 + length]) & ((1 << value_bits) - 1)
    return size != (1 << value_bits) - 1 and file.stat().st_size < at + 4 + length + size


def _avi(file: Path) -> bool:
    head = beginning(file)
    length = int.from_bytes(head[4:8], "little")
    return head[:4] == b"RIFF" and length < _UNKNOWN_SIZE and file.stat().st_size < 8 + length


def _asf(file: Path) -> bool:
    """Whether the file is shorter than it says; a broadcast says nothing."""
    head = beginning(file, 10_000)
    at = head.find(_ASF_FILE_PROPERTIES)
    if at < 0 or len(head) < at + 92 or head[at + 88] & 1:
        return False
    return file.stat().st_size < int.from_bytes(head[at + 40 : at + 48], "little")


def _ogg(file: Path) -> bool:
    """Whether the last page is not whole, or not the last of its stream."""
    tail = ending(file, _TWO_OGG_PAGES)
    at = tail.rfind(b"OggS")
    if at < 0 or at + _OGG_HEADER > len(tail):
        return True
    segments = tail[at + _OGG_HEADER : at + _OGG_HEADER + tail[at + 26]]
    is_whole = len(segments) == tail[at + 26] and at + _OGG_HEADER + len(segments) + sum(segments) <= len(tail)
    return not is_whole or not tail[at + 5] & _OGG_LAST_PAGE


def _gif(file: Path) -> bool:
    """Whether the byte that ends a GIF is missing; some are filled up with zeros behind it."""
    return not ending(file, 4_096).rstrip(b"\0").endswith(b";")


def _apng(file: Path) -> bool:
    return b"IEND" not in ending(file, 4_096)


def _flv(file: Path) -> bool:
    """Whether the last number, which says how long the last tag is, leads to no tag."""
    size = file.stat().st_size
    length = int.from_bytes(ending(file, 4))
    if not 11 <= length <= size - 13:
        return True
    with file.open("rb") as stream:
        stream.seek(size - 4 - length)
        tag = stream.read(4)
    return tag[0] & 0x1F not in _FLV_TAGS or int.from_bytes(tag[1:]) != length - 11


def _ivf(file: Path) -> bool:
    """Whether a frame is longer than what is left."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        head = stream.read(_IVF_HEADER)
        at = int.from_bytes(head[6:8], "little")
        for _ in range(_MOST_IVF_FRAMES):
            if at >= size:
                break
            stream.seek(at)
            at += _IVF_FRAME_HEADER + int.from_bytes(stream.read(4), "little")
    return at > size


def _y4m(file: Path) -> bool:
    """Whether the last picture is not whole; one whose size is not understood shows nothing."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        picture = _y4m_picture_bytes(stream.readline(256).decode("latin-1"))
        if picture is None:
            return False
        at = stream.tell()
        for _ in range(_MOST_Y4M_FRAMES):
            if at >= size:
                break
            stream.seek(at)
            mark = stream.readline(256)
            if not mark.startswith(b"FRAME"):
                return b"FRAME".startswith(mark)
            at += len(mark) + picture
    return at > size


def _y4m_picture_bytes(header: str) -> int | None:
    """How long a picture is, by the first line of the file."""
    fields = {field[:1]: field[1:] for field in header.split()[1:] if field[:1] in "WHC"}
    width, height = fields.get("W", ""), fields.get("H", "")
    colours = _Y4M_COLOURS.fullmatch(fields.get("C", "420jpeg"))
    if colours is None or not (width.isdecimal() and height.isdecimal()):
        return None
    across, down, planes = _Y4M_CHROMA[colours[1]]
    samples = int(width) * int(height) + planes * -(-int(width) // across) * -(-int(height) // down)
    return samples * (2 if colours[2] else 1)


def _mpegts(file: Path) -> bool:
    """Whether the last packet is not whole."""
    tail = ending(file, 20 * max(_TS_PACKETS))
    for length in _TS_PACKETS:
        for start in range(min(length, len(tail))):
            marks = tail[start::length]
            if len(marks) > 2 and all(mark == _TS_SYNC for mark in marks):
                # Of packets of 192 bytes, a time of four bytes comes before the mark.
                before = 4 if length == 192 else 0
                return (len(tail) - start + before) % length != 0
    return False


_TESTS: Mapping[str, Callable[[Path], bool]] = {
    "mov,mp4,m4a,3gp,3g2,mj2": _mp4,
    "matroska,webm": _matroska,
    "avi": _avi,
    "asf": _asf,
    "ogg": _ogg,
    "gif": _gif,
    "apng": _apng,
    "flv": _flv,
    "ivf": _ivf,
    "mpegts": _mpegts,
    "yuv4mpegpipe": _y4m,
}
