"""Make the clip of `longvu demo` anew from its story, with a sheet of its pictures to look at.

    python bench/make_demo.py src/longvu_cli/tiny/demo.mp4 [--sheet sheet.png]

The package has the story (`longvu_cli/demo_story.py`), since the right answers to the demo's questions follow from it;
the clip is made once and kept. All questions about it are printed with their answers.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image, ImageDraw

from longvu_cli.config import SamplingOptions
from longvu_cli.demo_story import demo_story
from longvu_cli.video import Video
from longvu_cli.world.film import write_film
from longvu_cli.world.questions import questions

FPS, CRF = 4, 28
COLUMNS, SIDE, EVERY_S = 10, 160, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--sheet", type=Path, help="also write a picture with a frame of each fourth second")
    parser.add_argument("--crf", type=int, default=CRF)
    arguments = parser.parse_args()
    story = demo_story()
    arguments.clip.parent.mkdir(parents=True, exist_ok=True)
    write_film(story, arguments.clip, fps=FPS, crf=arguments.crf)
    print(f"{arguments.clip}: {arguments.clip.stat().st_size / 1e6:.2f} MB")
    if arguments.sheet:
        write_sheet(arguments.clip, arguments.sheet)
    for question in questions(story):
        print(f"{question.kind:10} {question.text}  {question.answer}")


def write_sheet(clip: Path, target: Path) -> None:
    with Video(clip, SamplingOptions(fps=1.0)) as video:
        frames = [frame for frame in video.frames() if frame.index % EVERY_S == 1]
    rows = -(-len(frames) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * SIDE, rows * SIDE))
    for number, frame in enumerate(frames):
        small = Image.fromarray(frame.pixels).resize((SIDE, SIDE))
        ImageDraw.Draw(small).text((4, 2), f"{frame.time_s:.0f} s", fill="black")
        sheet.paste(small, (number % COLUMNS * SIDE, number // COLUMNS * SIDE))
    sheet.save(target)


if __name__ == "__main__":
    main()
