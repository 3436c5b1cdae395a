"""Moments of a video → short clips of their own, without sound."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import av.error

from longvu_cli.config import DecodingOptions, SamplingOptions
from longvu_cli.errors import UsageError
from longvu_cli.evidence import Moment
from longvu_cli.frames import Frame
from longvu_cli.video import DEFAULT_DECODING, Video
from longvu_cli.video_file import printable

# Seconds shown before and after a moment; of a longer one, the middle is where its relevance is highest.
MARGIN_S, LONGEST_S = 1.0, 30.0
# Frames per second, for a file that does not say its own; and more are not shown.
_USUAL_RATE, _HIGHEST_RATE = 25.0, 30.0
# The longer side of the picture is made no longer than this.
_LONGEST_SIDE = 1280
_QUALITY = {"crf": "23", "preset": "veryfast"}


@dataclass(frozen=True)
class Stretch:
    """Of a video, in seconds after its first frame."""

    start_s: float
    end_s: float


def stretch_around(moment: Moment) -> Stretch:
    """What a clip of a moment shows: the moment with a margin, and no more than ``LONGEST_S`` around its peak."""
    start_s, end_s = max(0.0, moment.start_s - MARGIN_S), moment.end_s + MARGIN_S
    if end_s - start_s > LONGEST_S:
        start_s = min(max(start_s, moment.peak_s - LONGEST_S / 2), end_s - LONGEST_S)
        end_s = start_s + LONGEST_S
    return Stretch(start_s, end_s)


def require_clip_folder(folder: Path) -> None:
    """Make the folder for clips, or notice that it cannot be made.

    Raises:
        UsageError: it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise _unwritable(folder, PermissionError(0, "permission denied"))


def write_clip(path: str | Path, moment: Moment, folder: Path, decoding: DecodingOptions = DEFAULT_DECODING) -> Path:
    """Decode a moment again, and write it as an mp4 (H.264), upright and at most 1280 pixels wide or high.

    The clip appears when it is whole. It never takes the place of a file: where its name is taken, it gets a number.

    Args:
        path: the video.
        folder: where it goes.

    Returns:
        The clip: ``movie-0m42s.mp4``.

    Raises:
        UsageError: the folder cannot be written to.
        VideoError: see :class:`~longvu_cli.video.Video`.
    """
    stretch = stretch_around(moment)
    part = folder / f".longvu-{os.getpid()}-{moment.peak_frame}.part"
    try:
        with Video(path, SamplingOptions(), decoding) as video:
            rate = min(video.info.fps or _USUAL_RATE, _HIGHEST_RATE)
        shown = SamplingOptions(fps=rate, start_s=stretch.start_s, end_s=stretch.end_s)
        with Video(path, shown, decoding) as video:
            _encode(video.frames(), rate, part)
        # Names of files have a longest length.
        return _placed(part, folder, f"{Path(path).stem[:60]}-{_time_in_name(moment.start_s)}")
    except (OSError, av.FFmpegError) as error:
        raise _unwritable(folder, error) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _encode(frames: Iterator[Frame], rate: float, target: Path) -> None:
    with av.open(str(target), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(rate).limit_denominator(1001), options=_QUALITY)
        stream.pix_fmt = "yuv420p"
        for number, frame in enumerate(frames):
            height, width = frame.pixels.shape[:2]
            if number == 0:
                stream.width, stream.height = clip_size(width, height)
            picture = av.VideoFrame.from_ndarray(frame.pixels, format="rgb24")
            scaled = picture.reformat(width=stream.width, height=stream.height, format="yuv420p")
            scaled.pts, scaled.time_base = number, 1 / Fraction(rate).limit_denominator(1001)
            container.mux(stream.encode(scaled))
        container.mux(stream.encode(None))


def clip_size(width: int, height: int) -> tuple[int, int]:
    """(width, height) of a clip: both even, as the encoder wants them, and no side too long."""
    scale = min(1.0, _LONGEST_SIDE / max(width, height))
    return max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2)


def _time_in_name(seconds: float) -> str:
    """``0m42s``, ``1h02m05s``: without colons, which some systems do not allow in names."""
    hours, minutes, rest = (int(seconds) // 3600, int(seconds) // 60 % 60, int(seconds) % 60)
    return f"{hours}h{minutes:02}m{rest:02}s" if hours else f"{minutes}m{rest:02}s"


def _placed(part: Path, folder: Path, stem: str) -> Path:
    """Give a finished file a name that is free."""
    number = 1
    while True:
        target = folder / (f"{stem}.mp4" if number == 1 else f"{stem}-{number}.mp4")
        try:
            # Taken first: another process may be writing clips, too.
            os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        except FileExistsError:
            number += 1
            continue
        os.replace(part, target)
        return target


def _unwritable(folder: Path, error: OSError | av.FFmpegError) -> UsageError:
    return UsageError(
        f"clips cannot be written to {printable(str(folder))}: {error.strerror or error}",
        hint="name a folder that can be written to",
    )
