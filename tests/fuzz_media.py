"""Mutate media and read what comes of it: no crash, no hang, no error but those that are documented.

    python tests/fuzz_media.py --files 10000 [--seed 0] [--corpus FOLDER] [--keep FOLDER] [--command 20]

Each file is read through ``Video``, a worker of its own as always; a sample goes through the command as well. Every
file that is not an end as documented is kept, named by its seed, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cli.running import command, environment
from media import picture, steady, write_video
from PIL import Image

from longvu_cli.config import DecodingOptions, SamplingOptions
from longvu_cli.errors import DecodingFailed, VideoError
from longvu_cli.video import Video

BAD_MEDIA = Path(__file__).parents[2] / "shared" / "badmedia"
LONGEST_S = 15.0
# Larger files of the corpus would only make it slow.
MAX_BYTES = 300_000
# Frames of one file that are read; a mutated time stamp may well ask for all of a week.
MAX_FRAMES = 3_000
SAMPLING, DECODING = SamplingOptions(), DecodingOptions()

Mutation = Callable[[bytearray, random.Random], None]


def flip_bits(data: bytearray, dice: random.Random) -> None:
    for _ in range(dice.choice((1, 3, 10, 100))):
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)


def flip_early_bits(data: bytearray, dice: random.Random) -> None:
    """Where the headers are."""
    for _ in range(dice.choice((1, 3, 10))):
        data[dice.randrange(min(len(data), 1_000))] ^= 1 << dice.randrange(8)


def truncate(data: bytearray, dice: random.Random) -> None:
    del data[dice.randrange(1, len(data) + 1) :]


def cut_the_head(data: bytearray, dice: random.Random) -> None:
    del data[: dice.randrange(len(data))]


def splice(data: bytearray, dice: random.Random) -> None:
    """A stretch of the file in another place."""
    start, size = dice.randrange(len(data)), dice.randrange(1, 4_000)
    at = dice.randrange(len(data))
    data[at : at + dice.choice((0, size))] = data[start : start + size]


def overwrite(data: bytearray, dice: random.Random) -> None:
    at, size = dice.randrange(len(data)), dice.choice((1, 4, 16, 200, 4_000))
    filling = dice.choice((b"\0" * size, b"\xff" * size, dice.randbytes(size)))
    data[at : at + size] = filling[: max(0, len(data) - at)]


def edit_a_number(data: bytearray, dice: random.Random) -> None:
    """A field of four bytes, most likely one that says how long or how many."""
    names = (b"moov", b"stsz", b"stco", b"stsc", b"stts", b"ctts", b"mdhd", b"tkhd", b"mvhd", b"elst", b"avcC", b"mdat")
    found = [data.find(name) for name in names if name in data]
    base = dice.choice(found) if found and dice.random() < 0.7 else dice.randrange(len(data))
    at = max(0, base + dice.choice((-4, 4, 8, 12, 16, 20, 24)))
    value = dice.choice((0, 1, 2, 0x7F, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, dice.randrange(1 << 32)))
    data[at : at + 4] = value.to_bytes(4, dice.choice(("big", "little")))


def repeat_a_chunk(data: bytearray, dice: random.Random) -> None:
    start, size = dice.randrange(len(data)), dice.choice((4, 188, 1_000, 10_000))
    data[start:start] = data[start : start + size] * dice.choice((1, 2, 20))


def remove_a_chunk(data: bytearray, dice: random.Random) -> None:
    start = dice.randrange(len(data))
    del data[start : start + dice.choice((1, 4, 188, 1_000, 10_000))]


MUTATIONS: tuple[Mutation, ...] = (
    flip_bits,
    flip_early_bits,
    truncate,
    cut_the_head,
    splice,
    overwrite,
    edit_a_number,
    repeat_a_chunk,
    remove_a_chunk,
)


@dataclass
class Tally:
    """What became of the files.

    Attributes:
        ends: how many ended in which way.
        wrong: one line for each that did not end as documented.
        slowest_s: the longest that one took.
    """

    ends: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    slowest_s: float = 0.0


def mutated(seed: int, corpus: list[Path]) -> tuple[str, bytes]:
    """The same name and bytes for the same seed and corpus."""
    dice = random.Random(seed)
    original = dice.choice(corpus)
    data = bytearray(original.read_bytes())
    for _ in range(dice.choice((1, 1, 1, 2, 4))):
        if data:
            dice.choice(MUTATIONS)(data, dice)
    return f"{seed:06d}{original.suffix}", bytes(data)


def make_corpus(folder: Path) -> list[Path]:
    """A few small files of several kinds."""
    write_video(folder / "a.mp4", steady(40))
    write_video(folder / "b.mkv", steady(40))
    write_video(folder / "c.ts", steady(40))
    write_video(folder / "d.webm", steady(20), codec="libvpx-vp9", options={"cpu-used": "8", "deadline": "realtime"})
    write_video(folder / "e.avi", steady(20), codec="mpeg4", ticks=10)
    write_video(folder / "f.mp4", steady(20), codec="libx265", options={"x265-params": "log-level=none"})
    write_video(folder / "g.mkv", steady(10), codec="ffv1", pixel_format="bgr0")
    write_video(folder / "h.mov", steady(10), container_options={"movflags": "faststart"}, display=(90, False))
    write_video(folder / "i.mp4", steady(20), container_options={"movflags": "frag_keyframe+empty_moov"})
    Image.fromarray(picture(5)).save(folder / "j.png")
    Image.fromarray(picture(5)).save(folder / "k.jpg")
    Image.fromarray(picture(5)).save(folder / "l.webp")
    return sorted(folder.iterdir())


def corpus_of(folder: Path | None, scratch: Path) -> list[Path]:
    """The files of a folder, those of the odd media, or ones made here."""
    chosen = folder or (BAD_MEDIA if BAD_MEDIA.is_dir() else None)
    if chosen is None:
        return make_corpus(scratch)
    files = (file for file in sorted(chosen.iterdir()) if file.suffix not in (".json", ".md"))
    return [file for file in files if 0 < file.stat().st_size < MAX_BYTES]


def read(path: Path) -> str:
    """How reading it ended; anything else is raised."""
    try:
        with Video(path, SAMPLING, DECODING) as video:
            for number, _ in enumerate(video.frames(), start=1):
                if number == MAX_FRAMES:
                    return "many frames"
            return "warned" if video.info.warnings else "read"
    except DecodingFailed as error:
        if "memory" in error.message:
            return "DecodingFailed (memory)"
        raise
    except VideoError as error:
        if not error.message.isprintable():
            raise ValueError(f"the message is not printable: {error.message!r}") from error
        return type(error).__name__


def through_the_command(path: Path, cache: Path) -> str:
    """How the command ended; a wrong way is raised."""
    flags = ["stats", "--model", "tiny", "--json", "--no-cache", "--fps=0.1", "--end=300", path]
    ran = subprocess.run(
        [*command(), *map(str, flags)], env=environment(cache), capture_output=True, text=True, timeout=120, check=False
    )
    if ran.returncode not in (0, 3) or "Traceback" in ran.stderr or ran.stdout.count("\n") != 1:
        raise ValueError(f"exit code {ran.returncode}: {ran.stderr[-200:]!r}")
    json.loads(ran.stdout)
    return f"command: exit code {ran.returncode}"


@contextmanager
def scratch_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="longvu-fuzz-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def fuzz(
    files: int, seed: int, corpus: Path | None, keep: Path | None, *, commands: int = 0, threads: int = 2
) -> Tally:
    """Read ``files`` mutated files, and the first ``commands`` of them through the command as well."""
    tally = Tally()
    with scratch_folder() as scratch:
        (scratch / "corpus").mkdir()
        originals = corpus_of(corpus, scratch / "corpus")

        def judge(number: int) -> tuple[list[str], str, float]:
            name, data = mutated(seed + number, originals)
            path = scratch / name
            path.write_bytes(data)
            ends, wrong = [], ""
            begin = time.monotonic()
            try:
                ends.append(read(path))
                took_s = time.monotonic() - begin
                if took_s > LONGEST_S:
                    wrong = f"{name}: took {took_s:.1f} s"
                if number < commands:
                    ends.append(through_the_command(path, scratch / "cache"))
            except Exception as error:
                took_s = time.monotonic() - begin
                wrong = f"{name}: {type(error).__name__}: {error}"
            if wrong and keep is not None:
                keep.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, keep / name)
            path.unlink()
            return ends, wrong, took_s

        with ThreadPoolExecutor(threads) as pool:
            for ends, wrong, took_s in pool.map(judge, range(files)):
                tally.ends.update(ends)
                tally.wrong.extend([wrong] if wrong else [])
                tally.slowest_s = max(tally.slowest_s, took_s)
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--corpus", type=Path, help="by default the odd media, or ones made here")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-finds"), help="where files that went wrong are kept")
    parser.add_argument("--command", type=int, default=0, help="how many go through the command as well")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    begin = time.monotonic()
    tally = fuzz(
        options.files, options.seed, options.corpus, options.keep, commands=options.command, threads=options.threads
    )
    seconds = time.monotonic() - begin
    sys.stdout.write(f"{options.files} files in {seconds:.0f} s, the slowest {tally.slowest_s:.1f} s\n")
    sys.stdout.writelines(f"{count:7d} {end}\n" for end, count in tally.ends.most_common())
    sys.stdout.writelines(f"wrong: {line}\n" for line in tally.wrong)
    sys.exit(1 if tally.wrong else 0)


if __name__ == "__main__":
    main()
