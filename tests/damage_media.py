"""Damage files of many formats in ways that are known, and count what is told of it.

    python tests/damage_media.py

Each file is cut at every tenth, and gets holes, noise and missing stretches; those of which neither an error nor a
warning tells are listed. No container or decoder notices everything: what stays silent here is known, not wanted.
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from media import picture, steady, write_video

from longvu_cli.errors import DecodingFailed, VideoError
from longvu_cli.video import Video

_VP9 = {"codec": "libvpx-vp9", "options": {"cpu-used": "8", "deadline": "realtime"}}
_HEVC = {"codec": "libx265", "options": {"x265-params": "log-level=none"}}
_FASTSTART, _FRAGMENTED = {"movflags": "faststart"}, {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
FORMATS: dict[str, dict[str, Any]] = {
    "index_last.mp4": {},
    "faststart.mp4": {"container_options": _FASTSTART},
    "fragmented.mp4": {"container_options": _FRAGMENTED},
    "hevc.mp4": {**_HEVC, "container_options": _FASTSTART},
    "av1.mp4": {"codec": "libsvtav1", "options": {"preset": "12"}, "container_options": _FASTSTART},
    "prores.mov": {"codec": "prores_ks", "pixel_format": "yuv422p10le", "container_options": _FASTSTART},
    "h264.mkv": {},
    "hevc.mkv": _HEVC,
    "ffv1.mkv": {"codec": "ffv1", "pixel_format": "bgr0"},
    "vp9.webm": _VP9,
    "h264.ts": {},
    "h264.flv": {"ticks": 1000},
    "mpeg4.avi": {"codec": "mpeg4", "ticks": 10},
    "mjpeg.avi": {"codec": "mjpeg", "pixel_format": "yuvj420p", "ticks": 10},
    "wmv2.asf": {"codec": "wmv2", "ticks": 1000},
    "vp8.ogv": {"codec": "libvpx", "container": "ogg"},
    "clip.gif": {"codec": "gif", "pixel_format": "rgb8", "ticks": 100},
    "clip.apng": {"codec": "apng", "pixel_format": "rgb24", "ticks": 100},
}
Damage = Callable[[bytearray, random.Random], None]


def cut(tenths: int) -> Damage:
    def damage(data: bytearray, dice: random.Random) -> None:
        del data[len(data) * tenths // 10 | 1 :]

    return damage


def hole(data: bytearray, dice: random.Random) -> None:
    at = dice.randrange(len(data) // 4, len(data) * 3 // 4)
    data[at : at + 2_000] = bytes(len(data[at : at + 2_000]))


def noise(data: bytearray, dice: random.Random) -> None:
    at = dice.randrange(len(data) // 4, len(data) * 3 // 4)
    data[at : at + 120] = dice.randbytes(120)


def missing(data: bytearray, dice: random.Random) -> None:
    at = dice.randrange(len(data) // 4, len(data) * 3 // 4)
    del data[at : at + 1_000]


DAMAGES: dict[str, Damage] = {
    **{f"cut at {tenths}/10": cut(tenths) for tenths in range(1, 10)},
    **{f"hole {number}": hole for number in range(3)},
    **{f"noise {number}": noise for number in range(3)},
    **{f"missing {number}": missing for number in range(3)},
}


@dataclass
class Told:
    """What became of the damaged files.

    Attributes:
        warned: read, with a warning.
        refused: an error of one sentence.
        silent: which were read without a word.
        wrong: good files with a warning, and ends that are not documented.
    """

    warned: int = 0
    refused: int = 0
    silent: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def make(folder: Path, formats: Mapping[str, dict[str, Any]]) -> Iterator[Path]:
    """A few seconds of numbered pictures with some grain, in every format."""
    dice = random.Random(0)
    grain = [picture(number) // 2 + picture(dice.randrange(4096)) // 4 for number in range(40)]
    for name, settings in formats.items():
        yield write_video(folder / name, steady(40), pictures=grain, **settings)


def warnings_of(path: Path) -> tuple[str, ...]:
    with Video(path) as video:
        for _ in video.frames():
            pass
        return video.info.warnings


def damage_all(folder: Path, formats: Mapping[str, dict[str, Any]]) -> Told:
    """Make, damage and read."""
    told = Told()
    for path in make(folder, formats):
        if warnings_of(path):
            told.wrong.append(f"{path.name}: {warnings_of(path)}")
        whole = path.read_bytes()
        for what, damage in DAMAGES.items():
            data = bytearray(whole)
            damage(data, random.Random(f"{path.name} {what}"))
            path.write_bytes(data)
            try:
                if warnings_of(path):
                    told.warned += 1
                else:
                    told.silent.append(f"{path.name}, {what}")
            except DecodingFailed as error:
                told.wrong.append(f"{path.name}, {what}: {error.message}")
            except VideoError:
                told.refused += 1
    return told


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="longvu-damage-") as folder:
        told = damage_all(Path(folder), FORMATS)
    sys.stdout.write(
        f"{len(FORMATS)} formats, {len(FORMATS) * len(DAMAGES)} damaged files: {told.warned} read with a warning, "
        f"{told.refused} refused, {len(told.silent)} read without a word\n"
    )
    sys.stdout.writelines(f"silent: {line}\n" for line in told.silent)
    sys.stdout.writelines(f"wrong: {line}\n" for line in told.wrong)
    sys.exit(1 if told.wrong else 0)


if __name__ == "__main__":
    main()
