"""Kept frames → small pictures for a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from PIL import Image

from longvu_cli.config import DecodingOptions, SamplingOptions
from longvu_cli.frames import Pixels
from longvu_cli.video import DEFAULT_DECODING, Video

# A page has no more pictures than this, nor larger ones.
MOST_THUMBNAILS = 96
_LONGER_SIDE, _QUALITY = 224, 68


def chosen_frames(kept: Sequence[int], wanted: Collection[int], most: int = MOST_THUMBNAILS) -> tuple[int, ...]:
    """Which kept frames are shown: those that are wanted, and as many others, evenly spread, as there is room for.

    Args:
        kept: in order.
        wanted: some of them.
    """
    if len(kept) <= most:
        return tuple(kept)
    others = [index for index in kept if index not in wanted]
    room = min(len(others), max(0, most - len(set(wanted))))
    spread = {others[(2 * number + 1) * len(others) // (2 * room)] for number in range(room)}
    return tuple(sorted(spread | set(wanted)))


def thumbnails(
    path: str | Path,
    sampling: SamplingOptions,
    indices: Collection[int],
    decoding: DecodingOptions = DEFAULT_DECODING,
) -> Mapping[int, str]:
    """Decode again, and make small pictures of some of the sampled frames.

    Args:
        path: the video.
        sampling: as in the first pass; ``indices`` count the frames sampled with it.

    Returns:
        By index, JPEG as data URIs; those that a changed file no longer has are missing.

    Raises:
        VideoError: see :class:`~longvu_cli.video.Video`.
    """
    made: dict[int, str] = {}
    if not indices:
        return made
    with Video(path, sampling, decoding) as video:
        for frame in video.frames():
            if frame.index in indices:
                made[frame.index] = data_uri(frame.pixels)
            if frame.index >= max(indices):
                break
    return made


def data_uri(pixels: Pixels) -> str:
    """[H, W, 3] → a small JPEG as a data URI."""
    image = Image.fromarray(pixels)
    image.thumbnail((_LONGER_SIDE, _LONGER_SIDE), Image.Resampling.BOX)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
