"""What ``longvu demo`` asks about the bundled clip."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from longvu_cli.errors import WeightsNotFound
from longvu_cli.prompt import DESCRIBE
from longvu_cli.weights import VARIANTS, tiny_folder

CLIP_FILE = "demo.mp4"


@dataclass(frozen=True)
class DemoQuestion:
    """A question about the clip.

    Attributes:
        kind: of the world's questions (``world/questions.py``).
        about: the kind of thing that it is about; empty where it names none.
    """

    text: str
    kind: str
    about: str = ""


QUESTIONS = (
    DemoQuestion("Where is the cup?", "place", "cup"),
    DemoQuestion("What colour is the cup?", "colour", "cup"),
    DemoQuestion("What colour is the car?", "colour", "car"),
    DemoQuestion("What is shown only briefly?", "needle"),
    DemoQuestion(DESCRIBE, "describe"),
)


def demo_clip() -> Path:
    """The clip that lies beside the tiny model.

    Raises:
        WeightsNotFound: this installation lacks it.
    """
    clip = tiny_folder() / CLIP_FILE
    if not clip.is_file():
        raise WeightsNotFound(
            "the demo's clip is not part of this installation",
            hint=f"install the package anew, or ask one of {', '.join(VARIANTS)} about a video of your own",
        )
    return clip
