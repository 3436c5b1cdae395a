"""A file → sampled frames with their times.

A chain of generators: packets → decoded frames → frames with times → frames on display at the sampled moments →
upright RGB. Each link holds one or two frames, so the memory needed does not depend on the length of the video.

The file is not trusted: only regular files of listed formats are opened, durations are measured, errors are caught
around each packet, and what was wrong is said in ``VideoInfo.warnings``.
"""

from __future__ import annotations

import errno
import math
import os
import re
import stat
import struct
import warnings
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, dropwhile
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, cast

import av
import av.error
import numpy as np
import numpy.typing as npt
from av.container import InputContainer
from av.format import Flags as FormatFlags
from av.packet import Packet
from av.sidedata.sidedata import SideData
from av.stream import Discard, Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from PIL import ExifTags, Image, ImageOps

from longvu_cli.config import SamplingOptions
from longvu_cli.errors import NoFrames, NotAVideo, NoVideoStream, UsageError, VideoNotFound

Pixels = npt.NDArray[np.uint8]

DEFAULT_SAMPLING = SamplingOptions()

# Ten hours at one frame per second fit; after that the distance between samples doubles again and again.
MAX_FRAMES = 40_000
# One frame that stays on display is sampled this often at most (an hour at one frame per second).
MAX_REPEATS = 3_600
# 8k video has 33 megapixels; a frame of more is refused before it is decoded.
MAX_PIXELS = 40_000_000

# Containers whose clock may start anew (MPEG-TS) are taken to have done so after a silence of this many seconds.
_LONGEST_SILENCE_S = 60.0
# Frames that step back by less than this come out of order (damaged streams) and are left out; by more, and the clock
# has started anew.
_LARGEST_DISORDER_S = 2.0
# Time bases are rounded (to whole milliseconds in Matroska): a frame this much late still counts as on display.
_TOLERANCE_S = 0.002
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


@dataclass(frozen=True)
class VideoInfo:
    """What a file says of itself and, once its frames were read, what was found.

    Attributes:
        path: the path as it was given.
        duration_s: seconds; what the header says until all frames were read, then as measured; None: unknown, or a
            still.
        width, height: pixels of a frame as shown, after rotation.
        fps: mean rate of the stream in frames per second; None: unknown, or a still.
        rotation: clockwise degrees that were applied: 0, 90, 180 or 270.
        codec: the codec's name, such as ``h264``.
        is_still: whether the file is a single picture.
        warnings: sentences about what was wrong; complete once all frames were read.
    """

    path: str
    duration_s: float | None
    width: int
    height: int
    fps: float | None
    rotation: int
    codec: str
    is_still: bool
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Frame:
    """A sampled frame.

    Attributes:
        index: number among the sampled frames, from 0.
        time_s: presentation time in seconds, minus that of the first frame of the file.
        pixels: [H, W, 3] uint8 RGB, upright. A frame that is sampled repeatedly shares one array.
    """

    index: int
    time_s: float
    pixels: Pixels


class Video:
    """An opened video file; a context manager.

    Args:
        path: a regular file.
        sampling: which moments are looked at.

    Raises:
        VideoNotFound: there is no readable, regular, non-empty file.
        NotAVideo: its format is not accepted.
        NoVideoStream: it has no video stream.
        NoFrames: no frame could be decoded, or they are too large.
    """

    def __init__(self, path: str | Path, sampling: SamplingOptions = DEFAULT_SAMPLING) -> None:
        file = _readable_file(path)
        _refuse_git_lfs_pointer(file)
        self._path = str(path)
        self._source: _Source = _StillSource(file, sampling) if _is_still(file) else _StreamSource(file, sampling)
        self._started = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def frames(self) -> Iterator[Frame]:
        """The sampled frames, all of one size, decoded as they are asked for. One pass.

        Sample i is the frame on display ``start_s + i / fps`` seconds after the first frame of the file; there is at
        least one.

        Raises:
            NoFrames: the video ends before the range that was asked for.
            RuntimeError: the frames were already asked for.
        """
        if self._started:
            raise RuntimeError("the frames of a video can be read once; open it again")
        self._started = True
        return self._source.frames()

    @property
    def info(self) -> VideoInfo:
        """Values of the header at first; duration and warnings as measured once :meth:`frames` is exhausted."""
        return self._source.info(self._path)

    @property
    def expected_frames(self) -> int | None:
        """About how many frames will be sampled, judging by the header; None: unknown or implausible."""
        return self._source.expected_frames()

    def close(self) -> None:
        """Let go of the file."""
        self._source.close()


def save_frames(path: str | Path, sampling: SamplingOptions, indices: Collection[int], folder: Path) -> list[Path]:
    """Decode again and write some of the sampled frames as PNG files, upright and in full size.

    Args:
        path: the video.
        sampling: as in the first pass; ``indices`` count the frames sampled with it.
        indices: which sampled frames, from 0.
        folder: where ``000012.png`` and so on are written; made if need be.

    Returns:
        The files, by index.

    Raises:
        UsageError: the folder cannot be written to, or the video has no such sampled frame.
        VideoError: see :class:`Video`.
    """
    wanted = set(indices)
    written: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not wanted:
            return written
        with Video(path, sampling) as video:
            for frame in video.frames():
                if frame.index in wanted:
                    target = folder / f"{frame.index:06d}.png"
                    Image.fromarray(frame.pixels).save(target)
                    written.append(target)
                if frame.index >= max(wanted):
                    break
    except OSError as error:
        raise UsageError(
            f"frames cannot be written to {printable(str(folder))}: {error.strerror or error}",
            hint="name a folder that can be written to",
        ) from error
    if len(written) < len(wanted):
        raise UsageError(f"the video has only {len(written)} of the {len(wanted)} frames that were to be saved")
    return written


def printable(text: str) -> str:
    """The text with control, direction and other unprintable characters written as escapes (``\\x1b``)."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
    )


class _Source(Protocol):
    """What :class:`Video` needs of a file: a still picture or a stream of frames."""

    def frames(self) -> Iterator[Frame]: ...

    def info(self, path: str) -> VideoInfo: ...

    def expected_frames(self) -> int | None: ...

    def close(self) -> None: ...


# ------------------------------------------------------------------------------------------ the file


def _readable_file(path: str | Path) -> Path:
    """The absolute path of a regular, non-empty file that may be read; a pipe or device is never opened."""
    name = printable(str(path))
    try:
        status = Path(path).stat()
        if stat.S_ISDIR(status.st_mode):
            raise VideoNotFound(f"{name} is a directory", hint="name a video file")
        if not stat.S_ISREG(status.st_mode):
            raise VideoNotFound(f"{name} is not a regular file", hint="save the video to a file first")
        with Path(path).open("rb"):
            pass
    except (OSError, ValueError) as error:
        raise _not_found(path, name, error) from None
    if status.st_size == 0:
        raise VideoNotFound(f"{name}: the file is empty")
    return Path(os.path.abspath(path))


def _not_found(path: str | Path, name: str, error: OSError | ValueError) -> VideoNotFound:
    # pathlib writes `//` as `/`. The address is not repeated: it may hold a password.
    if re.match(r"[a-z][a-z0-9+.-]+:/", str(path), re.IGNORECASE) or "://" in str(path):
        return VideoNotFound("URLs are not supported", hint="download the video and name the file")
    if isinstance(error, ValueError):
        return VideoNotFound(f"{name}: no such file (the name holds a null character)")
    if isinstance(error, PermissionError):
        return VideoNotFound(f"{name}: permission denied", hint="check who may read the file and its folder")
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return VideoNotFound(f"{name}: no such file", hint="check the path")
    if error.errno == errno.ELOOP:
        return VideoNotFound(f"{name}: its symbolic links form a loop")
    return VideoNotFound(f"{name} cannot be read: {error.strerror}")


def _head(file: Path, size: int = 256) -> bytes:
    with file.open("rb") as stream:
        return stream.read(size)


def _refuse_git_lfs_pointer(file: Path) -> None:
    if _head(file).startswith(b"version https://git-lfs"):
        raise NotAVideo(f"{printable(file.name)} is not a video but a Git LFS pointer to one", hint="run: git lfs pull")


# ------------------------------------------------------------------------------------------ still pictures


def _is_still(file: Path) -> bool:
    """Whether the bytes begin like a picture; an animated PNG is left to FFmpeg."""
    head = _head(file)
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return b"acTL" not in head
    return head.startswith(b"\xff\xd8\xff") or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")


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
    clock_jumps: int = 0
    assumed_rate: float | None = None
    fitted_into: tuple[int, int] | None = None
    capped: bool = False
    ends_early: bool = False

    def warnings(self) -> Iterator[str]:
        if self.corrupt_packets:
            packets = "1 corrupt packet" if self.corrupt_packets == 1 else f"{self.corrupt_packets} corrupt packets"
            yield f"{packets}: frames are missing or damaged"
        if self.ends_early:
            yield "the file ends early: it seems to have been cut off"
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


@dataclass(frozen=True)
class _Display:
    """A decoded frame and the seconds, counted from the first frame of the file, between which it is on display."""

    start_s: float
    end_s: float
    picture: VideoFrame
    orientation: _Orientation


class _StreamSource:
    """The best video stream of a file, decoded with FFmpeg."""

    def __init__(self, file: Path, sampling: SamplingOptions) -> None:
        self._file = file
        self._sampling = sampling
        self._findings = _Findings()
        self._measured_s: float | None = None
        self._sought = False
        self._open()

    def _open(self) -> None:
        """Open the file and decode its first frame, which fixes the origin of time and the size of the frames."""
        name = printable(self._file.name)
        self._container = _open_container(self._file)
        try:
            self._stream, self._choice = _choose_stream(self._container, name)
            context = self._stream.codec_context
            _refuse_large_frame(context.width, context.height, name)
            context.thread_type = "AUTO"
            context.options = {"max_pixels": str(MAX_PIXELS)}
            self._decoded = self._decode()
            first = next(self._decoded, None)
            if first is None:
                raise NoFrames(f"{name}: no frame could be decoded", hint="check that the file plays elsewhere")
        except BaseException:
            self._container.close()
            raise
        self._first = first
        self._orientation = _Orientation.of_frame(first) or _Orientation()
        self._size = self._orientation.shown_size(first.width, first.height)
        self._time_base = float(self._stream.time_base or 0)
        flags = self._container.format.flags
        self._clock_may_restart = bool(flags & cast(int, FormatFlags.ts_discont.value))
        has_timestamps = not flags & cast(int, FormatFlags.no_timestamps.value)
        self._rate = self._stream.average_rate if has_timestamps else self._stream.guessed_rate
        self._header_s = self._header_duration_s()

    def frames(self) -> Iterator[Frame]:
        displays = self._displays(self._frames_from_start())
        shown: _Display | None = None
        for index, display in enumerate(_on_display(displays, self._sampling, self._findings)):
            if display is not shown:
                pixels = self._upright_pixels(display.picture, display.orientation)
                shown = display
            yield Frame(index=index, time_s=display.start_s, pixels=pixels)
        if shown is None:
            raise NoFrames(
                f"the video ends after {self._measured_s or 0:.1f} s, before --start {self._sampling.start_s:g}",
                hint="choose an earlier start",
            )

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
        )

    def expected_frames(self) -> int | None:
        if self._header_s is None:
            return None
        end = self._header_s if self._sampling.end_s is None else min(self._header_s, self._sampling.end_s)
        frames = math.ceil((end - self._sampling.start_s - _TOLERANCE_S) * self._sampling.fps)
        return frames if 0 < frames <= MAX_FRAMES else None

    def close(self) -> None:
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

    def _decode(self) -> Iterator[VideoFrame]:
        """All frames from where the container stands."""
        for packet in self._packets():
            try:
                decoded = self._stream.decode(packet)
            except av.FFmpegError:
                self._findings.corrupt_packets += 1
                continue
            for frame in decoded:
                self._findings.corrupt_packets += frame.is_corrupt
                yield frame

    def _packets(self) -> Iterator[Packet[VideoStream] | None]:
        """The stream's packets and, last, one that drains the decoder."""
        count, last_is_cut, read_errors = 0, False, 0
        while True:
            try:
                for packet in self._container.demux(self._stream):
                    if packet.size:
                        count, last_is_cut = count + 1, packet.is_corrupt
                    yield packet
                break
            except av.error.InterruptedError:
                # A signal came in. Its handler has run and did not raise, so the read goes on.
                continue
            except av.FFmpegError:
                self._findings.corrupt_packets += 1
                read_errors += 1
                if read_errors > _MAX_READ_ERRORS:
                    yield None
                    break
        self._findings.ends_early = last_is_cut or self._lacks_packets(count) or _matroska_is_cut(self._file)

    def _lacks_packets(self, count: int) -> bool:
        """Whether the index of an MP4 lists packets that the file does not hold."""
        is_mp4 = self._container.format.name == _SEEKABLE_FORMATS[0]
        return is_mp4 and not self._sought and count < len(self._stream.index_entries)

    def _frames_from_start(self) -> Iterator[VideoFrame]:
        """Decoded frames from a keyframe at or before the start of the range; all of them where seeking fails."""
        start_s = self._sampling.start_s
        if self._container.format.name not in _SEEKABLE_FORMATS or self._first.pts is None:
            return chain([self._first], self._decoded)
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
        return chain([self._first], self._decoded)

    def _seek(self, time_s: float) -> Iterator[VideoFrame] | None:
        """Decoded frames from a keyframe at or before a time; None where no such keyframe is found."""
        self._findings, self._sought = _Findings(), True
        first_pts = cast(int, self._first.pts)
        try:
            self._container.seek(first_pts + int(time_s / self._time_base), stream=self._stream)
        except av.FFmpegError:
            return None
        # Frames shown before the keyframe may lack the ones that they were predicted from.
        frames = dropwhile(lambda frame: not frame.key_frame, self._decode())
        keyframe = next(frames, None)
        if keyframe is None or keyframe.pts is None or (keyframe.pts - first_pts) * self._time_base > time_s:
            return None
        return chain([keyframe], frames)

    def _displays(self, frames: Iterator[VideoFrame]) -> Iterator[_Display]:
        """Frames with the time that each is on display: up to the next one, or for the duration of the last."""
        start_s, interval, orientation = 0.0, 0.0, self._orientation
        previous: VideoFrame | None = None
        for frame, time_s in self._timed(frames):
            if previous is not None:
                interval = time_s - start_s
                yield _Display(start_s, time_s, previous, orientation)
            # An orientation may come with key frames only: it holds until the next one.
            orientation = _Orientation.of_frame(frame) or orientation
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
        first_pts, nominal_s = _timestamp(self._first) or 0, 1 / self._nominal_rate()
        origin, before, time_s = 0.0, 0.0, 0.0
        is_first = True
        for frame in frames:
            pts = _timestamp(frame)
            if pts is None:
                self._findings.assumed_rate = self._nominal_rate()
                clock = before if is_first else before + nominal_s
            else:
                clock = (pts - first_pts) * self._time_base
            if not is_first and self._is_jump(clock - before):
                self._findings.clock_jumps += 1
                origin = clock - (time_s + nominal_s)
            if clock - origin >= time_s or is_first:
                time_s, before, is_first = max(time_s, clock - origin), clock, False
                yield frame, time_s

    def _is_jump(self, step_s: float) -> bool:
        return step_s < -_LARGEST_DISORDER_S or (self._clock_may_restart and step_s > _LONGEST_SILENCE_S)

    def _upright_pixels(self, frame: VideoFrame, orientation: _Orientation) -> Pixels:
        """[H, W, 3] of the size of the first frame."""
        if orientation.shown_size(frame.width, frame.height) == self._size:
            return orientation.upright(_rgb(frame, frame.width, frame.height))
        self._findings.fitted_into = self._size
        return _fit(frame, orientation, self._size)


def _open_container(file: Path) -> InputContainer:
    name = printable(file.name)
    while True:
        try:
            return av.open(
                f"file:{file}",
                "r",
                options={"max_pixels": str(MAX_PIXELS)},
                container_options={"protocol_whitelist": "file", "format_whitelist": _CONTAINER_FORMATS},
                metadata_errors="backslashreplace",
            )
        except av.error.InterruptedError:
            # A signal came in. Its handler has run and did not raise, so opening is tried again.
            continue
        except av.FFmpegError as error:
            hint = "accepted are mp4, mov, mkv, webm, avi, ts and the like, and png, jpg and webp pictures"
            if _head(file)[4:8] == b"ftyp":
                hint = "it begins like an mp4 file, but its index is missing or damaged: it may have been cut off"
            raise NotAVideo(f"{name} is not a video", hint=hint) from error


def _choose_stream(container: InputContainer, name: str) -> tuple[VideoStream, tuple[str, ...]]:
    """The best video stream and, where there was a choice, a sentence that says so; the others are not read."""
    pictures = Disposition.attached_pic | Disposition.timed_thumbnails
    streams = [stream for stream in container.streams.video if not stream.disposition & pictures]
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


def _matroska_is_cut(file: Path) -> bool:
    """Whether the file is shorter than its Matroska segment says; a segment of unknown size is not."""
    head = _head(file)
    at = head.find(b"\x18\x53\x80\x67")
    if not head.startswith(b"\x1a\x45\xdf\xa3") or at < 0 or at + 12 > len(head) or head[at + 4] == 0:
        return False
    # A size is a number of 1 to 8 bytes; the leading zero bits of the first say how many follow. All ones: unknown.
    length = 9 - head[at + 4].bit_length()
    value_bits = 7 * length
    size = int.from_bytes(head[at + 4 : at + 4 + length]) & ((1 << value_bits) - 1)
    return size != (1 << value_bits) - 1 and file.stat().st_size < at + 4 + length + size


def _timestamp(frame: VideoFrame) -> int | None:
    """Presentation time in the stream's time base; the decoding time where there is none, as in some AVI files."""
    return frame.dts if frame.pts is None else frame.pts


def _on_display(displays: Iterator[_Display], sampling: SamplingOptions, findings: _Findings) -> Iterator[_Display]:
    """The frame on display at each sampled moment; at least one where the video reaches the range.

    After ``MAX_FRAMES`` samples the distance between them doubles, after half as many again, and so on: even a video of
    a week has little more than twice as many.
    """
    # Samples may be so close together that the usual tolerance would blur them.
    tolerance = min(_TOLERANCE_S, 0.25 / sampling.fps)
    position, stride, allotment = 0, 1, MAX_FRAMES
    left = allotment
    last: _Display | None = None
    for display in displays:
        last = display
        repeats = 0
        while (moment := sampling.start_s + position / sampling.fps) < display.end_s - tolerance:
            if sampling.end_s is not None and moment >= sampling.end_s:
                return
            if repeats == MAX_REPEATS:
                findings.capped = True
                position = math.ceil((display.end_s - tolerance - sampling.start_s) * sampling.fps)
                break
            findings.capped |= stride > 1
            yield display
            repeats += 1
            position += stride
            left -= 1
            if left == 0:
                allotment = max(allotment // 2, 1)
                stride, left = stride * 2, allotment
    if position == 0 and last is not None and sampling.start_s < last.end_s:
        yield last


# ------------------------------------------------------------------------------------------ pixels


@dataclass(frozen=True)
class _Orientation:
    """How decoded pixels are turned upright: rows and columns swapped first, then either axis reversed."""

    transposed: bool = False
    reverse_rows: bool = False
    reverse_columns: bool = False

    @classmethod
    def of_frame(cls, frame: VideoFrame) -> _Orientation | None:
        """From the display matrix, whether it is the container's or the frame's own; None: the frame carries none."""
        data = cast("Mapping[str, SideData]", frame.side_data).get("DISPLAYMATRIX")
        if data is None:
            return None
        # Nine numbers in rows; (x, y) is shown at (a x + c y, b x + d y). Tilted pictures take the nearest right angle.
        a, b, _, c, d, *_ = struct.unpack("=9i", bytes(data))
        if abs(b) + abs(c) > abs(a) + abs(d):
            return cls(transposed=True, reverse_rows=b < 0, reverse_columns=c < 0)
        return cls(reverse_rows=d < 0, reverse_columns=a < 0)

    @property
    def rotation(self) -> int:
        """Clockwise degrees, not counting a mirror."""
        if self.transposed:
            return 270 if self.reverse_rows else 90
        return 180 if self.reverse_rows else 0

    def shown_size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) as shown of a picture as decoded, and the other way round."""
        return (height, width) if self.transposed else (width, height)

    def upright(self, pixels: Pixels) -> Pixels:
        """[H, W, 3] as decoded → as shown."""
        turned = pixels.swapaxes(0, 1) if self.transposed else pixels
        rows, columns = -1 if self.reverse_rows else 1, -1 if self.reverse_columns else 1
        return np.ascontiguousarray(turned[::rows, ::columns])


def _rgb(frame: VideoFrame, width: int, height: int) -> Pixels:
    """[height, width, 3]; an alpha channel is left out, as by other video readers."""
    return cast(Pixels, frame.to_ndarray(width=width, height=height, format="rgb24"))


def _fit(frame: VideoFrame, orientation: _Orientation, size: tuple[int, int]) -> Pixels:
    """The frame, upright, scaled to fit and centred on a black canvas of (width, height)."""
    width, height = size
    shown_width, shown_height = orientation.shown_size(frame.width, frame.height)
    scale = min(width / shown_width, height / shown_height)
    fitted = max(1, round(shown_width * scale)), max(1, round(shown_height * scale))
    pixels = orientation.upright(_rgb(frame, *orientation.shown_size(*fitted)))
    canvas = np.zeros((height, width, 3), np.uint8)
    top, left = (height - fitted[1]) // 2, (width - fitted[0]) // 2
    canvas[top : top + fitted[1], left : left + fitted[0]] = pixels
    return canvas
