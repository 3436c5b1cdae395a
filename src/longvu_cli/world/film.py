"""Stories → ordinary video files, through PyAV."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import av
import torch

from longvu_cli.world.render import FILM_SIDE, Painter, film_frames, scene_arrays
from longvu_cli.world.story import Scene, Story

# Stands in the files' metadata, so that the tiny model can tell what it knows from what it does not.
TITLE = "longvu world"
# Frames that are cut together; scenes are kept painted as long as they are in use.
_BATCH = 32


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
        stream = container.add_stream("libx264", rate=fps, options={"crf": str(crf), "preset": "veryfast"})
        stream.width = stream.height = FILM_SIDE
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = 10 * fps
        for pixels in pictures(story, fps=fps):
            frame = av.VideoFrame.from_ndarray(pixels.numpy(), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def pictures(story: Story, *, fps: int = 5) -> Iterator[torch.Tensor]:
    """Every frame of the film: [FILM_SIDE, FILM_SIDE, 3] uint8, one by one."""
    painter = Painter(torch.device("cpu"))
    painted: dict[Scene, torch.Tensor] = {}
    moments = iter(number / fps for number in range(story.seconds * fps))
    while batch := list(islice(moments, _BATCH)):
        scenes = [story.scene_at(moment) for moment in batch]
        missing = [scene for scene in dict.fromkeys(scenes) if scene not in painted]
        if missing:
            painted = {scene: painted[scene] for scene in dict.fromkeys(scenes) if scene in painted}
            painted |= dict(zip(missing, painter.paint(scene_arrays(missing)), strict=True))
        canvas = torch.stack([painted[scene] for scene in scenes])
        yield from film_frames(canvas, [story.camera_at(moment) for moment in batch])
