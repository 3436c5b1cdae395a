"""Stories → ordinary video files, through PyAV."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import torch

from longvu_cli.world.render import FILM_SIDE, Layers, Painter, film_frames
from longvu_cli.world.story import Story
from longvu_cli.world.title import TITLE


def write_film(story: Story, path: Path, *, fps: int = 5, crf: int = 23) -> None:
    """Write the story as an mp4 (H.264).

    Args:
        fps: frames per second.
        crf: how strongly it is compressed: 18 is hardly, 35 much.

    Raises:
        OSError: the file cannot be written.
    """
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        container.metadata["title"] = f"{TITLE}, seed {story.seed}"
        stream = container.add_stream("libx264", rate=fps, options={"crf": str(crf), "preset": "superfast"})
        stream.width = stream.height = FILM_SIDE
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = 10 * fps
        for pixels in pictures(story, fps=fps):
            frame = av.VideoFrame.from_ndarray(pixels.numpy(), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def pictures(story: Story, *, fps: int = 5) -> Iterator[torch.Tensor]:
    """Every frame of the film: [FILM_SIDE, FILM_SIDE, 3] uint8, one by one."""
    layers = Layers(Painter(torch.device("cpu")))
    for number in range(story.seconds * fps):
        moment = number / fps
        yield from film_frames(layers.paint(story.scene_at(moment))[None], [story.camera_at(moment)])
