"""A video that a benchmark has as a folder of its frames → a file, whose frames are the same JPEGs, copied."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
from PIL import Image

from longvu_cli.errors import BadBenchmark
from longvu_cli.evaluation.benchmark import Question
from longvu_cli.whole_file import whole_file

_SUFFIXES = (".jpg", ".jpeg")


def filmed(questions: Iterable[Question], folder: Path) -> tuple[Question, ...]:
    """The questions, with a file in place of each folder of pictures; one that is made already is taken as it is.

    A folder that is not there, or holds no pictures, stays as it is: asking about it says so.

    Args:
        folder: for the files.

    Raises:
        BadBenchmark: a picture cannot be read.
        OSError: the files cannot be written.
    """
    return tuple(_filmed(question, folder) for question in questions)


def _filmed(question: Question, folder: Path) -> Question:
    if question.picture_rate is None or not question.video.is_dir():
        return question
    pictures = sorted(path for path in question.video.iterdir() if path.suffix.lower() in _SUFFIXES)
    if not pictures:
        return question
    # Folders of different places may have one name.
    place = hashlib.sha256(str(question.video.absolute()).encode(errors="surrogateescape")).hexdigest()[:8]
    film = folder / f"{question.video.name}-{place}.mkv"
    if not film.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(film) as aside:
            _mux(pictures, aside, rate=question.picture_rate)
    return replace(question, video=film)


def _mux(pictures: Sequence[Path], target: Path, *, rate: float) -> None:
    step = 1 / Fraction(rate).limit_denominator(1000)
    try:
        with Image.open(pictures[0]) as first:
            size = first.size
        # Without the time and the random numbers that the format has otherwise: the same pictures are the same file.
        with av.open(str(target), "w", format="matroska", options={"fflags": "+bitexact"}) as container:
            stream = container.add_stream("mjpeg", rate=1 / step)
            stream.width, stream.height = size
            stream.pix_fmt = "yuvj420p"
            for number, picture in enumerate(pictures):
                packet = av.Packet(picture.read_bytes())
                packet.stream = stream
                packet.time_base = step
                packet.pts = packet.dts = number
                packet.duration = 1
                packet.is_keyframe = True
                container.mux(packet)
    except OSError as error:
        raise BadBenchmark(
            f"the frames in {pictures[0].parent} cannot be read: {error}", hint="get them again"
        ) from error
