"""The tiny model knows one world only: telling clips of it from other videos."""

from __future__ import annotations

from longvu_cli.results import ModelInfo
from longvu_cli.video import VideoInfo
from longvu_cli.weights import TINY, tiny_folder
from longvu_cli.world.title import TITLE

FOREIGN = "the tiny model knows only the drawn world that it was trained in, and this is no clip of it: expect nonsense"


def is_foreign(model: ModelInfo, video: VideoInfo) -> bool:
    """Whether the bundled tiny model was shown something that it cannot know.

    Clips of its world say so in their title. A folder of the user's own that is called "tiny" is another model.
    """
    is_bundled = (model.name, model.source) == (TINY, str(tiny_folder()))
    return is_bundled and not (video.title or "").startswith(TITLE)
