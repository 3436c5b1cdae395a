"""Packets → groups of pictures → what has to be decoded of each for the sampled frames.

A group begins at an entry point, a keyframe from which decoding can begin, and ends before the next one. The times of
its packets alone say which of its frames are sampled; the others matter only as far as those are predicted from them.
Whatever is out of the ordinary raises :class:`Irregular`: then every frame is to be decoded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import TypeAlias

from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from longvu_cli.sampling import Sampler

# Only for type checkers is the class generic.
VideoPacket: TypeAlias = "Packet[VideoStream]"

# A longer group is decoded frame by frame rather than held in memory.
MAX_GROUP_PACKETS = 2_000
MAX_GROUP_BYTES = 64_000_000

# H.264 and HEVC: types of NAL units.
_H264_SLICES, _H264_IDR, _H264_SEI = range(1, 6), 5, 6
_HEVC_SLICES, _HEVC_ENTRIES = range(32), range(16, 22)
_RECOVERY_POINT = 6


@dataclass(frozen=True)
class Clock:
    """Seconds by presentation times.

    Attributes:
        first_pts: presentation time of the first frame of the file.
        time_base: seconds of a unit.
    """

    first_pts: int
    time_base: float

    def time_s(self, pts: int) -> float:
        """Seconds after the first frame of the file."""
        return self.seconds(pts - self.first_pts)

    def seconds(self, units: int) -> float:
        """Seconds of a stretch of time."""
        return units * self.time_base


class Irregular(Exception):
    """The packets do not say reliably which frames will be shown when."""


@dataclass(frozen=True)
class Group:
    """Packets in decoding order, the first of them an entry point.

    Packets with an earlier presentation time than the first, its leading pictures, are predicted from the group before
    and shown in its time.
    """

    packets: tuple[VideoPacket, ...]

    @property
    def entry_pts(self) -> int:
        """Presentation time of the entry point."""
        return presentation_time(self.packets[0])

    def leading(self) -> list[VideoPacket]:
        """The packets shown before the entry point."""
        return [packet for packet in self.packets if presentation_time(packet) < self.entry_pts]

    def trailing(self) -> list[VideoPacket]:
        """The entry point and the packets shown after it."""
        return [packet for packet in self.packets if presentation_time(packet) >= self.entry_pts]


@dataclass(frozen=True)
class SampledFrame:
    """A frame that is sampled: its presentation time, in the stream's unit and in seconds, and how often."""

    pts: int
    time_s: float
    count: int


@dataclass(frozen=True)
class GroupPlan:
    """What is wanted of a group.

    Attributes:
        packets: what is to be decoded for it, in decoding order: nothing after the last packet that is needed.
        sampled: in the order of display.
        end_s: seconds after the first frame of the file at which the video ends; None: it goes on, or later frames are
            not of interest.
    """

    packets: tuple[VideoPacket, ...]
    sampled: tuple[SampledFrame, ...]
    end_s: float | None


def presentation_time(packet: VideoPacket) -> int:
    """In the stream's time base.

    Raises:
        Irregular: the packet has none.
    """
    if packet.pts is None:
        raise Irregular
    return packet.pts


class GroupReader:
    """Takes groups off a stream of packets; what was read but not taken can be had back.

    Args:
        packets: those of one stream in decoding order; the last may be empty or None, for the decoder to be drained.
        is_entry: whether decoding can begin at a packet.
        is_damaged: whether something went wrong with reading so far.
        is_sound: whether a packet's own lengths add up.
    """

    def __init__(
        self,
        packets: Iterator[VideoPacket | None],
        is_entry: Callable[[VideoPacket], bool],
        is_damaged: Callable[[], bool],
        is_sound: Callable[[VideoPacket], bool] = lambda _: True,
    ) -> None:
        self._packets = packets
        self._is_sound = is_sound
        self._is_entry = is_entry
        self._is_damaged = is_damaged
        self._held: list[VideoPacket] = []
        self._drains: list[VideoPacket | None] = []

    def next(self) -> Group | None:
        """The next group; None at the end.

        Raises:
            Irregular: a packet is damaged, has no time, or changes the decoder; the group is too long; or the first
                packet is no entry point.
        """
        size = sum(packet.size for packet in self._held)
        for packet in self._packets:
            if packet is None or _is_empty(packet):
                self._drains.append(packet)
                continue
            self._held.append(packet)
            self._refuse_irregular(packet)
            if self._is_entry(packet):
                if len(self._held) > 1:
                    return self._take(len(self._held) - 1)
            elif len(self._held) == 1:
                raise Irregular
            size += packet.size
            if len(self._held) > MAX_GROUP_PACKETS or size > MAX_GROUP_BYTES:
                raise Irregular
        if self._is_damaged():
            raise Irregular
        return self._take(len(self._held))

    def rest(self) -> Iterator[VideoPacket | None]:
        """All packets that were not taken."""
        return chain(self._held, self._packets, self._drains)

    def _refuse_irregular(self, packet: VideoPacket) -> None:
        changes_decoder = packet.has_sidedata("new_extradata") or packet.has_sidedata("param_change")
        is_odd = not packet.size or packet.pts is None or packet.is_corrupt or changes_decoder
        # Most packets are never decoded: what is wrong with them would not be noticed.
        if is_odd or self._drains or self._is_damaged() or not self._is_sound(packet):
            raise Irregular

    def _take(self, count: int) -> Group | None:
        taken, self._held = self._held[:count], self._held[count:]
        return Group(tuple(taken)) if taken else None


def _is_empty(packet: VideoPacket) -> bool:
    return not packet.size and packet.pts is None and packet.dts is None


@dataclass(frozen=True)
class PlannedGroup:
    """A group, what is wanted of it, and the sampler as it stood before."""

    group: Group
    plan: GroupPlan
    before: Sampler


class GroupPlanner:
    """Plans the groups of a video one after the other, looking one group ahead.

    Args:
        reader: stands before the first packet.
        sampler: stands at the first moment.
        clock: tells seconds by presentation times.
        first_pts: presentation time of the first frame; None: any, the reader stands somewhere inside the file.
    """

    def __init__(self, reader: GroupReader, sampler: Sampler, clock: Clock, first_pts: int | None) -> None:
        self.sampler = sampler
        self._reader = reader
        self._clock = clock
        self._first_pts = first_pts
        self._current: Group | None = None
        self._following: Group | None = None
        self._begun = False

    def next(self) -> PlannedGroup | None:
        """The next group; None where nothing more is sampled.

        Raises:
            Irregular: every frame is to be decoded from here on.
        """
        if not self._begun:
            self._begin()
        if self._current is None or self.sampler.finished:
            return None
        if self._following is None:
            self._following = self._reader.next()
        before = self.sampler.copy()
        planned = PlannedGroup(self._current, plan(self._current, self._following, self.sampler, self._clock), before)
        self._current, self._following = self._following, None
        return planned

    def rest(self) -> Iterator[VideoPacket | None]:
        """The packets of all that was not planned, without pictures that were shown before."""
        current = [] if self._current is None else self._current.trailing() if self._begun else self._current.packets
        following = [] if self._following is None else self._following.packets
        return chain(current, following, self._reader.rest())

    def _begin(self) -> None:
        self._current = self._reader.next()
        self._following = self._reader.next()
        # Of a single group little can be left out, and it cannot be divided among several decoders.
        if self._current is None or self._following is None:
            raise Irregular
        shown = [presentation_time(packet) for packet in self._current.packets if not packet.is_discard]
        if self._first_pts is not None and min(shown, default=None) != self._first_pts:
            raise Irregular
        self._begun = True


def plan(group: Group, following: Group | None, sampler: Sampler, clock: Clock) -> GroupPlan:
    """Which frames shown from the entry point of one group to that of the next are sampled, and what they need.

    Args:
        following: the next group; None: there is none.
        sampler: is moved on.
        clock: tells seconds by presentation times.

    Raises:
        Irregular: the groups overlap, two frames have one time, or nothing says how long the last one stays.
    """
    leading = [] if following is None else following.leading()
    shown = sorted((packet for packet in [*group.trailing(), *leading] if not packet.is_discard), key=presentation_time)
    if not shown:
        raise Irregular
    times = [presentation_time(packet) for packet in shown]
    bounds = [*times, times[-1] + _duration(shown[-1]) if following is None else following.entry_pts]
    if times[0] < group.entry_pts or any(after <= before for before, after in pairwise(bounds)):
        raise Irregular
    sampled, end_s = [], None
    for pts, after in pairwise(bounds):
        is_last = following is None and pts == times[-1]
        if is_last and not sampler.finished:
            end_s = clock.time_s(pts) + clock.seconds(after - pts)
        count = sampler.take(clock.time_s(after)) if end_s is None else sampler.take_last(end_s)
        if count > 0:
            sampled.append(SampledFrame(pts, clock.time_s(pts), count))
    available = group.trailing() if following is None else [*group.trailing(), *following.packets]
    return GroupPlan(_needed(available, {frame.pts for frame in sampled}), tuple(sampled), end_s)


def _duration(packet: VideoPacket) -> int:
    """How long the frame of the last packet stays on display, in the stream's time base."""
    if not packet.duration or packet.duration < 0:
        raise Irregular
    return packet.duration


def _needed(packets: list[VideoPacket], wanted: set[int]) -> tuple[VideoPacket, ...]:
    """The packets up to the last one that is wanted."""
    last = max((number for number, packet in enumerate(packets) if packet.pts in wanted), default=-1)
    return tuple(packets[: last + 1])


# ------------------------------------------------------------------------------------------ entry points


def entry_test(context: VideoCodecContext) -> Callable[[VideoPacket], bool]:
    """What tells whether decoding can begin at a packet, with every frame shown from then on as it should be."""
    is_entry_of = {"h264": _is_h264_entry, "hevc": _is_hevc_entry}.get(context.codec.canonical_name)
    length_size = _length_size(context)

    def is_entry(packet: VideoPacket) -> bool:
        return packet.is_keyframe and (is_entry_of is None or is_entry_of(_units(bytes(packet), length_size)))

    return is_entry


def soundness_test(context: VideoCodecContext) -> Callable[[VideoPacket], bool]:
    """What tells whether the lengths of a packet's NAL units add up to its size, where they have lengths."""
    length_size = _length_size(context) if context.codec.canonical_name in ("h264", "hevc") else 0

    def is_sound(packet: VideoPacket) -> bool:
        if not length_size:
            return True
        data, at = memoryview(packet), 0
        while at + length_size <= len(data):
            at += length_size + int.from_bytes(data[at : at + length_size])
        return at == len(data)

    return is_sound


def may_skip_unreferenced(context: VideoCodecContext) -> bool:
    """Whether frames that the decoder takes for unreferenced are so.

    In HEVC with temporal layers they are so within their own layer only.
    """
    if context.codec.canonical_name != "hevc":
        return True
    extradata = context.extradata or b""
    return len(extradata) > 21 and extradata[0] == 1 and extradata[21] >> 3 & 7 == 1


def _is_h264_entry(units: Iterable[bytes]) -> bool:
    """An IDR picture, or one that a recovery point says is exact at once."""
    for unit in units:
        kind = unit[0] & 31
        if kind == _H264_SEI and _recovers_at_once(unit[1:]):
            return True
        if kind in _H264_SLICES:
            return kind == _H264_IDR
    return False


def _is_hevc_entry(units: Iterable[bytes]) -> bool:
    """An intra random access point: what is shown after it does not depend on what comes before it."""
    kinds = (unit[0] >> 1 & 63 for unit in units)
    return next((kind in _HEVC_ENTRIES for kind in kinds if kind in _HEVC_SLICES), False)


def _recovers_at_once(message: bytes) -> bool:
    """Whether supplemental information holds a recovery point of 0 frames with an exact match."""
    at = 0
    while at + 2 < len(message):
        kind, at = _sei_number(message, at)
        size, at = _sei_number(message, at)
        if kind == _RECOVERY_POINT and at < len(message):
            # The number 0 is coded as a single 1, and the flag follows it.
            return message[at] >> 6 == 0b11
        at += size
    return False


def _sei_number(message: bytes, at: int) -> tuple[int, int]:
    """A number coded as bytes that are added up as long as they are 255, and where it ends."""
    number = 0
    while at < len(message):
        number, at = number + message[at], at + 1
        if message[at - 1] != 255:
            break
    return number, at


def _length_size(context: VideoCodecContext) -> int:
    """Bytes of the length before each NAL unit; 0: start codes stand before them."""
    extradata = context.extradata or b""
    if len(extradata) < 23 and context.codec.canonical_name == "hevc":
        return 0
    if len(extradata) < 7 or extradata[0] != 1:
        return 0
    return (extradata[21] if context.codec.canonical_name == "hevc" else extradata[4]) % 4 + 1


def _units(data: bytes, length_size: int) -> Iterator[bytes]:
    """The beginnings (up to 256 bytes) of the NAL units of a packet that are not empty."""
    at = 0
    while length_size and at + length_size < len(data):
        size = int.from_bytes(data[at : at + length_size])
        at += length_size
        if size:
            yield data[at : at + min(size, 256)]
        at += size
    while not length_size and (at := data.find(b"\0\0\1", at) + 3) > 2:
        if at < len(data):
            yield data[at : at + 256]
