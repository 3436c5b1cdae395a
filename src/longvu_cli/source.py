"""A file → sampled frames with their times.

A chain of generators: packets → decoded frames → frames with times → frames on display at the sampled moments →
upright RGB. Each link holds one or two frames, so the memory needed does not depend on the length of the video.

The file is not trusted: only regular files of listed formats are opened, durations are measured, errors are caught
around each packet, and what was wrong is said in ``VideoInfo.warnings``.
"""

from __future__ import annotations

import math
import struct
import threading
import warnings
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, dropwhile, islice, repeat
from pathlib import Path
from typing import cast

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.format import Flags as FormatFlags
from av.stream import Discard, Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from PIL import ExifTags, Image, ImageOps

from longvu_cli.config import Decoder, DecodingOptions, SamplingOptions
from longvu_cli.cut_off import seems_cut_off
from longvu_cli.decoder_log import REFERENCES
from longvu_cli.errors import DeviceUnavailable, NoFrames, NotAVideo, NoVideoStream
from longvu_cli.frames import MAX_PIXELS, Frame, Pixels, Source, VideoInfo
from longvu_cli.group_decoder import GroupDecoder, Picture
from longvu_cli.groups import (
    Clock,
    GroupPlan,
    GroupPlanner,
    GroupReader,
    Irregular,
    PlannedGroup,
    VideoPacket,
    entry_test,
    soundness_test,
)
from longvu_cli.nvdec import nvdec, require_nvdec
from longvu_cli.pixels import Orientation, fit, rgb
from longvu_cli.sampling import MAX_FRAMES, TOLERANCE_S, Sampler
from longvu_cli.side_by_side import Channel, Workers, cores
from longvu_cli.video_file import beginning, printable

Beat = Callable[[], None]
# How many errors FFmpeg has told so far, by the name of the decoder or format that did.
ErrorCounts = Callable[[], Counter[str]]

# Containers whose clock may start anew (MPEG-TS) are taken to have done so after a silence of this many seconds.
_LONGEST_SILENCE_S = 60.0
# Frames that step back by less than this come out of order (damaged streams) and are left out; by more, and the clock
# has started anew.
_LARGEST_DISORDER_S = 2.0
# The rate of an elementary stream that states none.
_ASSUMED_RATE = 25.0
_HIGHEST_RATE = 240.0
# An interval up to this length says something about how long the last frame stays.
_LONGEST_INTERVAL_S = 10.0
# Unreadable stretches of a file before it is given up.
_MAX_READ_ERRORS = 32
# A keyframe at or before the start is looked for this far ahead of it before everything is decoded instead.
_SEEK_MARGINS_S = (0.0, 5.0, 30.0)
# MPEG-TS repeats its clock and tables so often that no file has fewer bytes per second: less, and the clock jumped.
_FEWEST_TS_BYTES_PER_S = 1_000

# No playlists, image sequences, scripts or text renderers: an opened file never leads to another one.
_CONTAINER_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,flv,asf,ogg,h264,hevc,vvc,av1,obu,ivf,mjpeg,"
    "mxf,nut,gif,apng,rm,dv,wtv,vc1,yuv4mpegpipe,mp3,wav,flac,aac"
)
# Where a seek lands on a keyframe of a trustworthy index.
_SEEKABLE_FORMATS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
_STILL_FORMATS = ("PNG", "JPEG", "WEBP")
# A larger file that begins with a JPEG picture has all of it within its beginning.
_MOST_JPEG_BYTES = 50_000_000
# Transfer characteristics of ITU-T H.273 that ordinary screens do not have: PQ (SMPTE ST 2084) and HLG.
_HDR = (16, 18)
# Codecs that do not state a rate themselves, where the container has no timestamps.
_WITHOUT_RATE = ("mjpeg", "av1", "vvc")

# Codecs whose sampled frames were verified to be the same when groups of pictures are decoded on their own.
_GROUPED_CODECS = ("h264", "hevc", "vp9", "av1", "mpeg4", "ffv1")
# Where more frames are sampled, nearly all have to be decoded, and the decoder's own threads do that better.
_FEWEST_FRAMES_PER_SAMPLE = 3
# Packets that may go by before the first frame comes out of the decoder.
_MAX_OPENING_PACKETS = 1_000
_MOST_WORKERS = 16
# Pictures that a decoder holds to predict others from, and those that each further thread of it works on.
_PICTURES_PER_DECODER, _PICTURES_PER_THREAD = 10, 3
# Shares of the memory for decoders, for pictures that wait and for packets that were read ahead.
_DECODERS_SHARE, _WAITING_SHARE, _AHEAD_SHARE = 0.5, 0.25, 0.1
_MAX_BYTES_PER_WORKER = 128_000_000
_USUAL_MEMORY_BYTES = 2_000_000_000
# An index may list the same bytes again and again: what was read may be this many times the file, and a little more.
_MAX_REREADING, _SLACK_BYTES = 4, 1_000_000
_LONGEST_TITLE = 1_000


def _unheard() -> None:
    """Nobody watches."""


def _unlogged() -> Counter[str]:
    """Nobody listens to what FFmpeg tells."""
    return Counter()


def open_source(
    file: Path,
    sampling: SamplingOptions,
    decoding: DecodingOptions,
    beat: Beat = _unheard,
    errors: ErrorCounts = _unlogged,
) -> Source:
    """Open a file and read what is needed to know its first frame.

    Args:
        file: absolute path of a regular file.
        beat: called whenever something got done: a packet was read or decoded.
        errors: how many errors FFmpeg has told so far; of some damage there is no other sign.

    Raises:
        DeviceUnavailable: the GPU's decoder was asked for, and there is none or it does not know the codec.
        NotAVideo: its format is not accepted.
        NoVideoStream: it has no video stream.
        NoFrames: no frame could be decoded, or they are too large.
        MemoryError: it needs more memory than there is.
    """
    _refuse_git_lfs_pointer(file)
    return _StillSource(file, sampling) if _is_still(file) else _StreamSource(file, sampling, decoding, beat, errors)


def _refuse_git_lfs_pointer(file: Path) -> None:
    if beginning(file).startswith(b"version https://git-lfs"):
        raise NotAVideo(f"{printable(file.name)} is not a video but a Git LFS pointer to one", hint="run: git lfs pull")


# ------------------------------------------------------------------------------------------ still pictures


def _is_still(file: Path) -> bool:
    """Whether the bytes begin like a picture; an animated PNG is left to FFmpeg."""
    head = beginning(file)
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return b"acTL" not in head
    if head.startswith(b"\xff\xd8\xff"):
        return not _is_motion_jpeg(file)
    return head[:4] == b"RIFF" and head[8:12] == b"WEBP"


def _is_motion_jpeg(file: Path) -> bool:
    """Whether JPEG pictures stand one behind the other, and the first does not say that the others are its own.

    Cameras write a second picture (a preview, the other eye's, a map of brightness) and list it in a segment ``MPF``.
    """
    head = beginning(file, _MOST_JPEG_BYTES)
    end = head.find(b"\xff\xd9\xff\xd8\xff")
    return end > 0 and b"MPF\0" not in head[:end]


class _StillSource:
    """A single picture, opened with Pillow."""

    # Clockwise degrees by EXIF orientation; the mirrored ones are counted without their mirror.
    _ROTATIONS: Mapping[int, int] = {3: 180, 4: 180, 5: 90, 6: 90, 7: 270, 8: 270}

    def __init__(self, file: Path, sampling: SamplingOptions) -> None:
        name = printable(file.name)
        if sampling.start_s > 0:
            raise NoFrames(f"{name} is a single picture: it has no later moments", hint="leave --start out")
        with warnings.catch_warnings():
            # Pillow warns of large pictures; the limit below is the one that counts.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            try:
                with Image.open(file, formats=_STILL_FORMATS) as image:
                    self._codec = str(image.format).lower()
                    _refuse_large_frame(image.width, image.height, name)
                    if self._codec == "webp" and image.n_frames > 1:  # type: ignore[attr-defined]
                        raise NotAVideo(f"{name}: animated webp is not supported", hint="convert it to mp4")
                    self._rotation = self._ROTATIONS.get(image.getexif().get(ExifTags.Base.Orientation, 1), 0)
                    self._pixels = _pixels_of_image(ImageOps.exif_transpose(image))
            except Image.DecompressionBombError:
                raise NoFrames(_too_large(name)) from None
            except (OSError, SyntaxError, ValueError, struct.error) as error:
                raise NoFrames(f"{name}: no frame could be decoded (the picture is damaged)") from error

    def frames(self) -> Iterator[Frame]:
        yield Frame(index=0, time_s=0.0, pixels=self._pixels)

    def info(self, path: str) -> VideoInfo:
        height, width, _ = self._pixels.shape
        return VideoInfo(path, None, width, height, None, self._rotation, self._codec, True, ())

    def expected_frames(self) -> int | None:
        return 1

    def close(self) -> None:
        """Nothing is open."""


def _pixels_of_image(image: Image.Image) -> Pixels:
    if image.mode.startswith("I"):
        # Pillow would clip 16-bit grey at 255.
        grey = (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.has_transparency_data:
        return _over_black(np.asarray(image.convert("RGBA")))
    return np.array(image.convert("RGB"))


def _over_black(rgba: Pixels) -> Pixels:
    """[H, W, 4] with straight alpha → [H, W, 3] over a black ground."""
    color, alpha = rgba[..., :3].astype(np.uint16), rgba[..., 3:].astype(np.uint16)
    return ((color * alpha + 127) // 255).astype(np.uint8)


def _refuse_large_frame(width: int, height: int, name: str) -> None:
    if width * height > MAX_PIXELS:
        raise NoFrames(
            _too_large(name, f" ({width}x{height})"), hint=f"scale it to at most {MAX_PIXELS // 1_000_000} megapixels"
        )


def _too_large(name: str, size: str = "") -> str:
    return f"{name}: its frames are too large{size}: no more than {MAX_PIXELS // 1_000_000} megapixels are decoded"


# ------------------------------------------------------------------------------------------ streams


@dataclass
class _Findings:
    """What was wrong with the file, counted while it is read."""

    corrupt_packets: int = 0
    told_errors: int = 0
    flagged_packets: int = 0
    clock_jumps: int = 0
    joins: int = 0
    assumed_rate: float | None = None
    fitted_into: tuple[int, int] | None = None
    capped: bool = False
    ends_early: bool = False
    repeats: bool = False
    changed: bool = False

    def warnings(self) -> Iterator[str]:
        if self.corrupt_packets:
            packets = "1 corrupt packet" if self.corrupt_packets == 1 else f"{self.corrupt_packets} corrupt packets"
            yield f"{packets}: frames are missing or damaged"
        elif (signs := self._signs()) and not self.ends_early:
            yield f"{signs} sign{'s' if signs > 1 else ''} of corrupt data: frames may be missing or damaged"
        if self.ends_early:
            yield "the file ends early: it seems to have been cut off"
        if self.repeats:
            yield "the index is corrupt: it lists the same data again and again; the rest is left out"
        if self.changed:
            yield "the file changed while it was read: try again once it is complete"
        if self.clock_jumps:
            times = "once" if self.clock_jumps == 1 else f"{self.clock_jumps} times"
            yield f"the timestamps jump {times}; the video is taken to go on without a gap"
        if self.assumed_rate is not None:
            yield f"frames without timestamps: {self.assumed_rate:g} frames per second are assumed"
        if self.fitted_into is not None:
            width, height = self.fitted_into
            yield f"the size of the picture changes; later frames are fitted into {width}x{height}"
        if self.capped:
            yield "the number of frames is capped: long stretches are sampled less often"

    def _signs(self) -> int:
        """Errors that were told, and packets that lack a part; one seems to where recordings were joined."""
        return self.told_errors + max(0, self.flagged_packets - self.joins)


@dataclass(frozen=True)
class _Display:
    """A decoded frame and the seconds, counted from the first frame of the file, between which it is on display."""

    start_s: float
    end_s: float
    picture: VideoFrame
    orientation: Orientation


# Seconds after the first frame of the file, and pixels.
_Sample = tuple[float, Pixels]


class _StreamSource:
    """The best video stream of a file, decoded with FFmpeg."""

    def __init__(
        self,
        file: Path,
        sampling: SamplingOptions,
        decoding: DecodingOptions,
        beat: Beat,
        errors: ErrorCounts = _unlogged,
    ) -> None:
        self._beat = beat
        self._errors = errors
        # Decoders begin where not all is there that later pictures refer to, and say so.
        self._in_groups = False
        self._reading = threading.Lock()
        self._file = file
        self._version = _version(file)
        self._sampling = sampling
        self._decoding = decoding
        self._findings = _Findings()
        self._measured_s: float | None = None
        self._reformatter = VideoReformatter()
        self._sought = False
        # Two cores that decode only what is needed are ahead of the GPU's decoder, which decodes everything.
        self._accelerated = decoding.decoder is Decoder.NVDEC
        if self._accelerated:
            require_nvdec()
        self._open()

    def _open(self) -> None:
        """Open the file and decode its first frame, which fixes the origin of time and the size of the frames."""
        name = printable(self._file.name)
        told = self._errors()
        self._container = open_container(self._file, accelerated=self._accelerated)
        self._told_before = self._errors()
        self._told_by_probing = self._told_before - told
        try:
            self._stream, self._choice = _choose_stream(
                self._container, name, is_cut=seems_cut_off(self._file, self._container.format.name)
            )
            context = self._stream.codec_context
            _refuse_large_frame(context.width, context.height, name)
            context.thread_type = "AUTO"
            context.thread_count = self._decoder_threads()
            context.options = {"max_pixels": str(MAX_PIXELS)}
            self._incoming = self._packets()
            opened = self._opened()
            if not opened:
                hint = "try --decoder cpu" if self._accelerated else "check that the file plays elsewhere"
                raise NoFrames(f"{name}: no frame could be decoded", hint=hint)
        except BaseException:
            self._container.close()
            raise
        self._first = first = opened[0]
        self._decoded = chain(opened, self._decode(self._incoming))
        self._orientation = Orientation.of_frame(first) or Orientation()
        self._size = self._orientation.shown_size(first.width, first.height)
        self._time_base = float(self._stream.time_base or 0)
        self._clock = Clock(_timestamp(first) or 0, self._time_base)
        flags = self._container.format.flags
        self._clock_may_restart = bool(flags & cast(int, FormatFlags.ts_discont.value))
        if self._clock_may_restart:
            # Recordings of broadcasts begin in the middle of a picture, which is no damage.
            self._told_before = self._errors()
        has_timestamps = not flags & cast(int, FormatFlags.no_timestamps.value)
        if first.color_trc in _HDR:
            self._choice = (
                *self._choice,
                "the video is HDR: its colours are read without tone mapping",
            )
        if not has_timestamps and context.codec.canonical_name in _WITHOUT_RATE:
            self._findings.assumed_rate = self._nominal_rate()
        average = self._stream.average_rate
        # Some containers give the unit of time for a rate.
        is_plausible = has_timestamps and (average is None or average <= _HIGHEST_RATE)
        self._rate = average if is_plausible else self._stream.guessed_rate
        self._header_s = self._header_duration_s()

    def _opened(self) -> list[VideoFrame]:
        """The first frames that come out of the decoder; the packets that it took are kept."""
        self._opening: list[VideoPacket | None] = []
        for packet in self._incoming:
            if len(self._opening) <= _MAX_OPENING_PACKETS:
                self._opening.append(packet)
            if frames := self._decode_packet(packet):
                return frames
        return []

    def frames(self) -> Iterator[Frame]:
        index = 0
        with closing(self._samples()) as samples:
            while (sample := self._next(samples)) is not None:
                yield Frame(index, *sample)
                index += 1
        self._findings.told_errors = self._told_errors()
        # One that is not there any more was read to its end all the same.
        self._findings.changed = _version(self._file) not in (self._version, None)
        if not index:
            raise NoFrames(
                f"the video ends after {self._measured_s or 0:.1f} s, before --start {self._sampling.start_s:g}",
                hint="choose an earlier start",
            )

    def _told_errors(self) -> int:
        if self._sought:
            # A decoder that begins in the middle of a file misses what came before, and says so.
            return 0
        told = self._errors() - self._told_before
        return sum(count for name, count in told.items() if not (self._in_groups and name.endswith(REFERENCES)))

    def _next(self, samples: Iterator[_Sample]) -> _Sample | None:
        with self._reading:
            return next(samples, None)

    def _samples(self) -> Generator[_Sample, None, None]:
        sampler = Sampler(self._sampling)
        packets = self._packets_in_groups()
        if packets is None:
            return self._samples_of_all(self._frames_from_start(), sampler, self._orientation)
        self._in_groups = True
        is_entry = entry_test(self._stream.codec_context)
        is_sound = soundness_test(self._stream.codec_context)
        reader = GroupReader(packets, is_entry, lambda: self._findings.corrupt_packets > 0, is_sound)
        first_pts = None if self._sought else self._first.pts
        return self._samples_of_groups(GroupPlanner(reader, sampler, self._clock, first_pts))

    # --- every frame decoded

    def _samples_of_all(
        self, frames: Iterator[VideoFrame], sampler: Sampler, orientation: Orientation
    ) -> Generator[_Sample, None, None]:
        """The sampled ones among decoded frames."""
        last: _Display | None = None
        for display in self._displays(frames, orientation):
            last = display
            if (count := sampler.take(display.end_s)) > 0:
                yield from repeat((display.start_s, self._upright_pixels(display)), count)
            self._findings.capped |= sampler.capped
            if sampler.finished:
                return
        if last is not None and sampler.take_last(last.end_s) > 0:
            yield last.start_s, self._upright_pixels(last)

    # --- groups of pictures side by side

    def _packets_in_groups(self) -> Iterator[VideoPacket | None] | None:
        """Packets from an entry point at or before the start of the range; None: every frame is to be decoded."""
        context, rate = self._stream.codec_context, float(self._rate or 0)
        is_suited = (
            self._container.format.name in _SEEKABLE_FORMATS
            and context.codec.canonical_name in _GROUPED_CODECS
            and not self._first.interlaced_frame
            and self._first.pts is not None
            and len(self._opening) <= _MAX_OPENING_PACKETS
            and not self._findings.corrupt_packets
            and not self._told_by_probing
            and self._sampling.fps * _FEWEST_FRAMES_PER_SAMPLE <= rate
        )
        if self._decoding.every_frame or not is_suited:
            return None
        for margin in _SEEK_MARGINS_S:
            if self._sampling.start_s - margin <= 0:
                break
            packets = self._packets_after_seek(self._sampling.start_s - margin)
            if packets is not None:
                return packets
        return None if self._sought else chain(self._opening, self._incoming)

    def _packets_after_seek(self, time_s: float) -> Iterator[VideoPacket | None] | None:
        """Packets from a keyframe at or before a time; None where no such keyframe is found."""
        if not self._go_to(time_s):
            return None
        is_entry = entry_test(self._stream.codec_context)
        packets = dropwhile(lambda packet: packet is not None and not is_entry(packet), self._packets())
        entry = next(packets, None)
        if entry is None or entry.pts is None or self._clock.time_s(entry.pts) > time_s:
            return None
        return chain([entry], packets)

    def _samples_of_groups(self, planner: GroupPlanner) -> Generator[_Sample, None, None]:
        """The sampled frames, decoding no more than they need; from where that is not possible, every frame."""
        ahead: deque[_Ahead] = deque()
        orientation, taken, more = self._orientation, 0, True
        with closing(self._workers()) as workers:
            try:
                while more or ahead:
                    more = more and self._look_ahead(planner, ahead, workers)
                    if not ahead:
                        continue
                    for sample, shown_as in self._samples_of_group(ahead[0]):
                        if shown_as is None and orientation != self._orientation:
                            raise Irregular
                        orientation = shown_as or orientation
                        taken += 1
                        yield sample
                    self._measured_s = ahead.popleft().planned.plan.end_s
                    taken = 0
                self._findings.capped |= planner.sampler.capped
                return
            except Irregular:
                pass
        yield from self._resumed(planner, ahead, taken, orientation)

    def _samples_of_group(self, ahead: _Ahead) -> Iterator[tuple[_Sample, Orientation | None]]:
        """The samples of one group as they come from its worker, with the orientation that they were given."""
        if ahead.channel is None:
            return
        for picture, frame in zip(ahead.channel.results(), ahead.planned.plan.sampled, strict=True):
            for _ in range(frame.count):
                yield (frame.time_s, picture.pixels), picture.orientation

    def _look_ahead(self, planner: GroupPlanner, ahead: deque[_Ahead], workers: Workers[GroupPlan, Picture]) -> bool:
        """Give the workers enough to do; whether there is more."""
        while sum(one.channel is not None for one in ahead) <= workers.count:
            held = sum(packet.size for one in ahead for packet in one.planned.group.packets)
            if ahead and held > self._memory_bytes() * _AHEAD_SHARE:
                break
            planned = planner.next()
            if planned is None:
                return False
            if planned.plan.sampled:
                ahead.append(_Ahead(planned, workers.submit(planned.plan)))
            elif ahead:
                ahead.append(_Ahead(planned, None))
            else:
                self._measured_s = planned.plan.end_s
        return True

    def _workers(self) -> Workers[GroupPlan, Picture]:
        width, height = self._size
        # A GPU has few decoders, and a context of its own costs each worker much memory.
        fitting = int(self._memory_bytes() * _DECODERS_SHARE / (_PICTURES_PER_DECODER * self._picture_bytes()))
        count = 1 if self._accelerated else self._decoding.workers or max(1, min(cores(), _MOST_WORKERS, fitting))
        room = min(_MAX_BYTES_PER_WORKER, int(self._memory_bytes() * _WAITING_SHARE) // count)
        return Workers(count, self._group_decoder, capacity=max(2, room // (3 * width * height)))

    def _memory_bytes(self) -> int:
        return self._decoding.memory_bytes or _USUAL_MEMORY_BYTES

    def _picture_bytes(self) -> float:
        """Of a picture as it is decoded."""
        context = self._stream.codec_context
        depth = context.format.padded_bits_per_pixel if context.format else 0
        return max(1, context.width * context.height) * (depth or 12) / 8

    def _decoder_threads(self) -> int:
        """How many threads of one decoder there is memory for."""
        pictures = self._memory_bytes() * _DECODERS_SHARE / self._picture_bytes() - _PICTURES_PER_DECODER
        return max(1, min(cores(), _MOST_WORKERS, int(pictures / _PICTURES_PER_THREAD)))

    def _group_decoder(self) -> GroupDecoder:
        """A decoder for one thread, set up by opening the file once more.

        Raises:
            Irregular: the file is not there any more; the one that is open can be read on.
        """
        try:
            with open_container(self._file, accelerated=self._accelerated) as container:
                context = cast(VideoStream, container.streams[self._stream.index]).codec_context
        except (NotAVideo, DeviceUnavailable, OSError):
            raise Irregular from None
        context.thread_count = 1
        context.options = {"max_pixels": str(MAX_PIXELS)}
        return GroupDecoder(context, self._orientation, self._size, self._beat)

    def _resumed(
        self, planner: GroupPlanner, ahead: deque[_Ahead], taken: int, orientation: Orientation
    ) -> Iterator[_Sample]:
        """The samples from the first group that is not done, decoding every frame."""
        sampler = ahead[0].planned.before if ahead else planner.sampler
        packets = [one.planned.group.packets for one in ahead]
        if ahead:
            packets[0] = tuple(ahead[0].planned.group.trailing())
        self._stream.codec_context.flush_buffers()
        frames = self._decode(chain(*packets, planner.rest()))
        yield from islice(self._samples_of_all(frames, sampler, orientation), taken, None)

    def info(self, path: str) -> VideoInfo:
        width, height = self._size
        return VideoInfo(
            path=path,
            duration_s=self._header_s if self._measured_s is None else self._measured_s,
            width=width,
            height=height,
            fps=float(self._rate) if self._rate else None,
            rotation=self._orientation.rotation,
            codec=self._stream.codec_context.codec.canonical_name,
            is_still=False,
            warnings=(*self._choice, *self._findings.warnings()),
            title=self._title(),
        )

    def _title(self) -> str | None:
        title = self._container.metadata.get("title")
        return None if title is None else title[:_LONGEST_TITLE]

    def expected_frames(self) -> int | None:
        if self._header_s is None:
            return None
        end = self._header_s if self._sampling.end_s is None else min(self._header_s, self._sampling.end_s)
        frames = math.ceil((end - self._sampling.start_s - TOLERANCE_S) * self._sampling.fps)
        return frames if 0 < frames <= MAX_FRAMES else None

    def close(self) -> None:
        # Another thread may be in the middle of it.
        with self._reading:
            self._container.close()

    def _header_duration_s(self) -> float | None:
        """What the header says, where it is plausible."""
        if not self._container.duration:
            return None
        duration, start = self._container.duration / av.time_base, (self._container.start_time or 0) / av.time_base
        if self._container.format.name == "matroska,webm" and 0 < start < duration:
            # Matroska's duration counts from 0, not from the first frame.
            duration -= start
        if self._clock_may_restart and self._container.size < duration * _FEWEST_TS_BYTES_PER_S:
            return None
        return duration if duration > 0 else None

    def _decode(self, packets: Iterable[VideoPacket | None]) -> Iterator[VideoFrame]:
        """All frames of the packets."""
        for packet in packets:
            yield from self._decode_packet(packet)

    def _decode_packet(self, packet: VideoPacket | None) -> list[VideoFrame]:
        """The frames that come out of the decoder when a packet goes in."""
        self._beat()
        try:
            decoded = self._stream.decode(packet)
        except av.error.MemoryError:
            raise
        except av.FFmpegError:
            self._findings.corrupt_packets += 1
            return []
        self._findings.corrupt_packets += sum(frame.is_corrupt for frame in decoded)
        return decoded

    def _packets(self) -> Iterator[VideoPacket | None]:
        """The stream's packets and, last, one that drains the decoder."""
        count, last_is_cut, read_errors = 0, False, 0
        is_mp4 = self._container.format.name == _SEEKABLE_FORMATS[0]
        bytes_left = self._container.size * _MAX_REREADING + _SLACK_BYTES
        while True:
            try:
                for packet in self._container.demux(self._stream):
                    self._beat()
                    if packet.size:
                        count, last_is_cut = count + 1, packet.is_corrupt
                        self._findings.flagged_packets += last_is_cut
                        bytes_left -= packet.size
                    yield packet
                    if is_mp4 and bytes_left < 0:
                        self._findings.repeats = True
                        yield None
                        return
                break
            except av.error.InterruptedError:
                # A signal came in. Its handler has run and did not raise, so the read goes on.
                continue
            except IndexError:
                # At the end PyAV drains streams, too, that appeared in the middle of the file, which it does not know.
                break
            except av.FFmpegError:
                # A length that is nonsense reads as a lack of memory, too.
                self._findings.corrupt_packets += 1
                read_errors += 1
                if read_errors > _MAX_READ_ERRORS:
                    yield None
                    break
        is_cut = seems_cut_off(self._file, self._container.format.name)
        self._findings.ends_early = last_is_cut or self._lacks_packets(count) or is_cut

    def _lacks_packets(self, count: int) -> bool:
        """Whether the index of an MP4 lists packets that the file does not hold."""
        is_mp4 = self._container.format.name == _SEEKABLE_FORMATS[0]
        return is_mp4 and not self._sought and count < len(self._stream.index_entries)

    def _frames_from_start(self) -> Iterator[VideoFrame]:
        """Decoded frames from a keyframe at or before the start of the range; all of them where seeking fails."""
        start_s = self._sampling.start_s
        if self._container.format.name not in _SEEKABLE_FORMATS or self._first.pts is None:
            return self._decoded
        for margin in _SEEK_MARGINS_S:
            if start_s - margin <= 0:
                break
            found = self._seek(start_s - margin)
            if found is not None:
                return found
        if self._sought:
            self._container.close()
            self._findings, self._sought = _Findings(), False
            self._open()
        return self._decoded

    def _seek(self, time_s: float) -> Iterator[VideoFrame] | None:
        """Decoded frames from a keyframe at or before a time; None where no such keyframe is found."""
        if not self._go_to(time_s):
            return None
        # Frames shown before the keyframe may lack the ones that they were predicted from.
        frames = dropwhile(lambda frame: not frame.key_frame, self._decode(self._packets()))
        keyframe = next(frames, None)
        if keyframe is None or keyframe.pts is None or self._clock.time_s(keyframe.pts) > time_s:
            return None
        return chain([keyframe], frames)

    def _go_to(self, time_s: float) -> bool:
        """Have the container stand at a keyframe, at or before the time if its index is right."""
        self._findings, self._sought = _Findings(), True
        try:
            self._container.seek(self._clock.first_pts + int(time_s / self._time_base), stream=self._stream)
        except av.FFmpegError:
            return False
        return True

    def _displays(self, frames: Iterator[VideoFrame], orientation: Orientation) -> Iterator[_Display]:
        """Frames with the time that each is on display: up to the next one, or for the duration of the last."""
        start_s, interval = 0.0, 0.0
        previous: VideoFrame | None = None
        for frame, time_s in self._timed(frames):
            if previous is not None:
                interval = time_s - start_s
                yield _Display(start_s, time_s, previous, orientation)
            # An orientation may come with key frames only: it holds until the next one.
            orientation = Orientation.of_frame(frame) or orientation
            start_s, previous = time_s, frame
        if previous is not None:
            self._measured_s = start_s + self._last_duration_s(previous, interval)
            yield _Display(start_s, self._measured_s, previous, orientation)

    def _last_duration_s(self, frame: VideoFrame, interval: float) -> float:
        if frame.duration > 0:
            return frame.duration * self._time_base
        return interval if 0 < interval <= _LONGEST_INTERVAL_S else 1 / self._nominal_rate()

    def _nominal_rate(self) -> float:
        rate = float(self._stream.guessed_rate or 0)
        return rate if 0 < rate <= _HIGHEST_RATE else _ASSUMED_RATE

    def _timed(self, frames: Iterator[VideoFrame]) -> Iterator[tuple[VideoFrame, float]]:
        """Frames with their seconds after the first frame of the file, never going back; late frames are left out."""
        first_pts, nominal_s = _timestamp(self._first), 1 / self._nominal_rate()
        origin, before, time_s = 0.0, 0.0, 0.0
        is_first, form = True, _form(self._first)
        for frame in frames:
            pts = _timestamp(frame)
            starts = first_pts is None and pts is not None
            if pts is None:
                self._findings.assumed_rate = self._nominal_rate()
                clock = before if is_first else before + nominal_s
            else:
                first_pts = pts if first_pts is None else first_pts
                clock = (pts - first_pts) * self._time_base
            jumps = not (is_first or starts) and self._is_jump(clock - before)
            if starts or jumps:
                origin = clock - (time_s + nominal_s)
            self._findings.clock_jumps += jumps
            self._findings.joins += jumps or _form(frame) != form
            form = _form(frame)
            if clock - origin >= time_s or is_first:
                time_s, before, is_first = max(time_s, clock - origin), clock, False
                yield frame, time_s

    def _is_jump(self, step_s: float) -> bool:
        return step_s < -_LARGEST_DISORDER_S or (self._clock_may_restart and step_s > _LONGEST_SILENCE_S)

    def _upright_pixels(self, display: _Display) -> Pixels:
        """[H, W, 3] of the size of the first frame."""
        frame, orientation = display.picture, display.orientation
        if orientation.shown_size(frame.width, frame.height) == self._size:
            return orientation.upright(rgb(frame, frame.width, frame.height, self._reformatter))
        self._findings.fitted_into = self._size
        return fit(frame, orientation, self._size)


@dataclass(frozen=True)
class _Ahead:
    """A planned group and where its pictures come from; None: nothing of it is wanted."""

    planned: PlannedGroup
    channel: Channel[Picture] | None


def open_container(file: Path, *, accelerated: bool = False) -> InputContainer:
    """Open a file of an accepted format; nothing that it names is opened.

    Raises:
        DeviceUnavailable: the GPU's decoder does not know the codec.
        NotAVideo: its format is not accepted.
    """
    name = printable(file.name)
    try:
        return _opened_by_name(file, accelerated)
    except RuntimeError as error:
        raise DeviceUnavailable(f"{name}: NVDEC does not decode its codec", hint="use --decoder cpu") from error
    except av.error.MemoryError:
        raise
    except av.FFmpegError as error:
        hint = "accepted are mp4, mov, mkv, webm, avi, ts and the like, and png, jpg and webp pictures"
        if beginning(file)[4:8] == b"ftyp":
            hint = "it begins like an mp4 file, but its index is missing or damaged: it may have been cut off"
        raise NotAVideo(f"{name} is not a video", hint=hint) from error


def _opened_by_name(file: Path, accelerated: bool) -> InputContainer:
    """Open a file by its name; where that fails, without it: to FFmpeg, ``%d.jpg`` is a series of other files."""
    try:
        return _opened(f"file:{file}", {"protocol_whitelist": "file"}, accelerated)
    except av.error.MemoryError:
        raise
    except av.FFmpegError:
        with file.open("rb") as stream:
            # FFmpeg makes a handle of its own of it.
            handle = {"protocol_whitelist": "fd", "fd": str(stream.fileno())}
            return _opened("fd:", handle, accelerated)


def _opened(address: str, protocol: dict[str, str], accelerated: bool) -> InputContainer:
    while True:
        try:
            return av.open(
                address,
                "r",
                options={"max_pixels": str(MAX_PIXELS)},
                hwaccel=nvdec() if accelerated else None,
                container_options={**protocol, "format_whitelist": _CONTAINER_FORMATS},
                metadata_errors="backslashreplace",
            )
        except av.error.InterruptedError:
            # A signal came in. Its handler has run and did not raise, so opening is tried again.
            continue


def _choose_stream(container: InputContainer, name: str, *, is_cut: bool) -> tuple[VideoStream, tuple[str, ...]]:
    """The best video stream and, where there was a choice, a sentence that says so; the others are not read."""
    pictures = Disposition.attached_pic | Disposition.timed_thumbnails
    streams = [stream for stream in container.streams.video if not stream.disposition & pictures]
    if not container.streams.video and (is_cut or not container.streams.get()):
        raise NoVideoStream(
            f"{name} has no video stream that can be read",
            hint="it seems to have been cut off or damaged; copy or download it again",
        )
    if not streams:
        only_covers = ", only cover art" if container.streams.video else ""
        raise NoVideoStream(f"{name} has no video stream{only_covers}", hint="name a file with moving pictures")
    decodable = [stream for stream in streams if stream.codec_context is not None]
    if not decodable:
        raise NoVideoStream(f"{name} has no video stream of a known codec", hint="convert it to H.264 in mp4")
    best = max(decodable, key=_preference)
    for stream in container.streams:
        if stream.index != best.index:
            stream.discard = Discard.all
    if len(streams) == 1:
        return best, ()
    size = f"{best.codec_context.width}x{best.codec_context.height}"
    return best, (f"the file has {len(streams)} video streams; stream {best.index} ({size}) is used",)


def _preference(stream: VideoStream) -> tuple[bool, int]:
    pixels = stream.codec_context.width * stream.codec_context.height
    return bool(stream.disposition & Disposition.default), pixels


def _version(file: Path) -> tuple[int, int, int] | None:
    """What tells a file from a later state of it, or from another in its place; None: it is not there."""
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _form(frame: VideoFrame) -> tuple[int, int, str]:
    """What changes where recordings of different kinds were joined."""
    return frame.width, frame.height, frame.format.name


def _timestamp(frame: VideoFrame) -> int | None:
    """Presentation time in the stream's time base; the decoding time where there is none, as in some AVI files."""
    return frame.dts if frame.pts is None else frame.pts
