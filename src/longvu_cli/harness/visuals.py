"""What a task shows → the one file that this model looks at."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from longvu_cli.errors import NotAVideo, UsageError

# Names of the frames of a video that a task has as pictures in a folder.
_PICTURES = (".jpg", ".jpeg", ".png")


@contextmanager
def as_file(visuals: Sequence[object], *, fps: float) -> Iterator[Path]:
    """A video or picture file as it is; a picture in memory as a file; several as a video of which all are looked at.

    A folder of pictures is several, in the order of their names (part of MVBench has its videos so).

    Args:
        visuals: what the task's ``doc_to_visual`` gives: paths, or pictures of PIL.
        fps: looks per second; each picture lasts from one look to the next.

    Raises:
        UsageError: there is nothing to see, more than one file, pictures of several sizes, or something else.
        NotAVideo: a picture in a folder cannot be read.
    """
    pictures = [visual for visual in visuals if isinstance(visual, Image.Image)]
    with tempfile.TemporaryDirectory(prefix="longvu-") as folder:
        match visuals:
            case [str() | Path() as path] if Path(path).is_dir():
                yield _video_of(_pictures_in(Path(path)), Path(folder), fps=fps)
            case [str() | Path() as path]:
                yield Path(path)
            case [Image.Image() as picture]:
                still = Path(folder, "picture.png")
                picture.convert("RGB").save(still)
                yield still
            case [Image.Image(), *_] if len(pictures) == len(visuals):
                yield _video_of(pictures, Path(folder), fps=fps)
            case _:
                kinds = ", ".join(type(visual).__name__ for visual in visuals) or "nothing"
                raise UsageError(
                    f"the task shows {kinds}, and LongVU looks at one video, one picture, or the frames of a video",
                    hint="choose a task of such questions",
                )


def _pictures_in(folder: Path) -> Iterator[Image.Image]:
    for path in sorted(path for path in folder.iterdir() if path.suffix.lower() in _PICTURES):
        try:
            with Image.open(path) as picture:
                shown = picture.convert("RGB")
        except OSError as error:
            raise NotAVideo(f"{path} is no picture that can be read: {error}") from error
        yield shown


def _video_of(pictures: Iterable[Image.Image], folder: Path, *, fps: float) -> Path:
    """Without loss, since the model is to see what the task shows."""
    path = folder / "frames.mkv"
    size: tuple[int, int] | None = None
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=Fraction(fps).limit_denominator(100_000))
        stream.pix_fmt = "bgr0"
        for picture in pictures:
            if size is None:
                stream.width, stream.height = size = picture.size
            if picture.size != size:
                raise UsageError(
                    "the task shows pictures of several sizes, which are no frames of a video",
                    hint="choose a task that shows one video or one picture",
                )
            frame = av.VideoFrame.from_ndarray(np.asarray(picture.convert("RGB")), format="rgb24")
            container.mux(stream.encode(frame))
        if size is not None:
            container.mux(stream.encode(None))
    if size is None:
        raise UsageError("the task shows a folder without pictures", hint="look whether its data is complete")
    return path
