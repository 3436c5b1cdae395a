"""A file → sampled frames with their times, whatever the file: it is parsed and decoded in a process of its own.

::

    video_file.py        is there a regular file at all?
    isolation.py         the decoding processes, seen from here
    decoding_server.py   one of them, seen from within
    source.py            the file, opened and decoded
    text_track.py        the lines of a text track in it
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Self

from PIL import Image

from longvu_cli.config import DecodingOptions, SamplingOptions
from longvu_cli.cues import Cue
from longvu_cli.errors import BadSubtitles, DecodingFailed, UsageError, VideoNotFound
from longvu_cli.frames import Frame, Source, VideoInfo
from longvu_cli.isolation import IsolatedCues, IsolatedSource, is_available
from longvu_cli.sampling import thinned
from longvu_cli.subtitles import parse_cues
from longvu_cli.video_file import printable, readable_file

__all__ = ["Frame", "Video", "VideoInfo", "save_frames", "subtitle_cues", "text_track"]

DEFAULT_SAMPLING = SamplingOptions()
DEFAULT_DECODING = DecodingOptions()


class Video:
    """An opened video file; a context manager.

    Args:
        path: a regular file.
        sampling: which moments are looked at.
        decoding: how; the frames are the same whatever the choice. By default the file is opened, probed and decoded
            in a process of its own: see :class:`~longvu_cli.config.DecodingOptions`.

    Raises:
        DecodingFailed: the decoding process crashed, hung, or needed more memory than it may have.
        DeviceUnavailable: the GPU's decoder was asked for, and there is none or it does not know the codec.
        VideoNotFound: there is no readable, regular, non-empty file.
        NotAVideo: its format is not accepted.
        NoVideoStream: it has no video stream.
        NoFrames: no frame could be decoded, or they are too large.
    """

    def __init__(
        self,
        path: str | Path,
        sampling: SamplingOptions = DEFAULT_SAMPLING,
        decoding: DecodingOptions = DEFAULT_DECODING,
    ) -> None:
        file = readable_file(path)
        self._path = str(path)
        self._source = _source(file, sampling, decoding)
        self._sampling = sampling
        if sampling.thin_above:
            self._sampling = thinned(sampling, self._source.expected_frames())
            if self._sampling != sampling:
                self._source.close()
                self._source = _source(file, self._sampling, decoding)
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
            DecodingFailed: the decoding process crashed, hung, or needed more memory than it may have.
            NoFrames: the video ends before the range that was asked for.
            RuntimeError: the frames were already asked for.
        """
        if self._started:
            raise RuntimeError("the frames of a video can be read once; open it again")
        self._started = True
        return self._source.frames()

    @property
    def sampling(self) -> SamplingOptions:
        """Which moments are looked at: at a lower rate than was asked for, where there were too many of them."""
        return self._sampling

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


def save_frames(
    path: str | Path,
    sampling: SamplingOptions,
    indices: Collection[int],
    folder: Path,
    decoding: DecodingOptions = DEFAULT_DECODING,
) -> list[Path]:
    """Decode again and write some of the sampled frames as PNG files, upright and in full size.

    Args:
        path: the video.
        sampling: as in the first pass; ``indices`` count the frames sampled with it.
        indices: which sampled frames, from 0.
        folder: where ``000012.png`` and so on are written; made if need be.
        decoding: how; the frames are the same whatever the choice.

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
        with Video(path, sampling, decoding) as video:
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


def text_track(path: str | Path, decoding: DecodingOptions = DEFAULT_DECODING) -> tuple[Cue, ...]:
    """The lines of the video's own text track, in the order of the file; none where it has none.

    Raises:
        VideoError: see :class:`Video`.
    """
    file = readable_file(path)
    if decoding.isolated and is_available():
        with closing(IsolatedCues(file, "track", decoding)) as track:
            return tuple(track.cues())
    from longvu_cli.text_track import track_cues

    return tuple(track_cues(file, lambda: None))


def subtitle_cues(path: str | Path, decoding: DecodingOptions = DEFAULT_DECODING) -> tuple[Cue, ...]:
    """The lines of a file of subtitles, in order of time.

    Raises:
        BadSubtitles: it cannot be read, or is no such file.
    """
    try:
        file = readable_file(path)
    except VideoNotFound as error:
        raise BadSubtitles(f"the subtitles cannot be read: {error.message}", hint="check the path") from error
    if not (decoding.isolated and is_available()):
        return parse_cues(file)
    try:
        with closing(IsolatedCues(file, "subtitles", decoding)) as read:
            return tuple(read.cues())
    except DecodingFailed as error:
        raise BadSubtitles(
            f"{printable(str(path))} could not be read as subtitles, and was given up",
            hint="the file is damaged or malicious; write it anew",
        ) from error


def _source(file: Path, sampling: SamplingOptions, decoding: DecodingOptions) -> Source:
    if decoding.isolated and is_available():
        return IsolatedSource(file, sampling, decoding)
    from longvu_cli.source import open_source  # FFmpeg is not needed here otherwise

    return open_source(file, sampling, decoding)
