"""How fast frames come out of video files, as ratios of one interleaved run.

    python bench/decoding.py CLIP... [--fps 1] [--repeats 3] [--decord-python PYTHON] [--json OUT.json]

Each way of decoding runs in a process of its own, one after the other, again and again: wall time, CPU time (user and
system) and the largest memory are medians. The first way is what the others are measured against:

* decord: every frame decoded, full-size RGB, padded and resized by Pillow for both towers (where a Python has decord)
* plain: the same with PyAV and all threads
* ffmpeg: every frame decoded by the ``ffmpeg`` program, none converted
* ours-decode: ``Video.frames``
* ours: ``Video.frames`` and ``square_pixels`` in a pool of threads, as the pipeline does it

CPU time and memory of ours are those of both processes, the one that asks and the one that decodes. Memory is what
comes on top of the imported modules of the one that asks; of the one that decodes, all.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

SIDES = {384: (127, 127, 127), 378: (123, 116, 103)}


def main() -> None:
    """Measure each clip, or be one of the measured processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--fps", type=float, default=1.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--decord-python", help="a Python that has decord, numpy and pillow")
    parser.add_argument("--json", type=Path, help="write the medians here")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        WAYS[arguments.way](arguments.clips[0], arguments.fps)
        return
    results = {str(clip): measure(clip, arguments) for clip in arguments.clips}
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2))


def measure(clip: Path, arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Medians of each way for one clip; prints them as they are there."""
    commands = {name: [sys.executable, __file__, str(clip), "--way", name] for name in WAYS if name != "decord"}
    if arguments.decord_python:
        commands = {"decord": [arguments.decord_python, __file__, str(clip), "--way", "decord"], **commands}
    if shutil.which("ffmpeg"):
        commands["ffmpeg"] = ["ffmpeg", "-v", "error", "-i", str(clip), "-map", "0:v:0", "-f", "null", "-"]
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
    for _ in range(arguments.repeats):
        for name, command in commands.items():
            more = [] if name == "ffmpeg" else ["--fps", str(arguments.fps)]
            runs[name].append(run([*command, *more]))
    medians = {
        name: {key: statistics.median(run[key] for run in several) for key in several[0]}
        for name, several in runs.items()
    }
    first = next(iter(medians.values()))
    print(f"\n{clip.name} at {arguments.fps:g} fps")
    print(f"{'':18}{'wall s':>8}{'x':>6}{'CPU s':>8}{'of':>6}{'MB':>7}")
    for name, found in medians.items():
        faster, share = first["wall_s"] / found["wall_s"], found["cpu_s"] / first["cpu_s"]
        print(
            f"{name:18}{found['wall_s']:8.2f}{faster:6.2f}{found['cpu_s']:8.2f}{share:6.2f}{found['rss_mb']:7.0f}",
            flush=True,
        )
    return medians


def run(command: list[str]) -> dict[str, float]:
    """One process: seconds, and its largest memory."""
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    told = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed")
    wall, cpu = time.perf_counter() - begin, usage.ru_utime + usage.ru_stime
    memory = usage.ru_maxrss / 1024
    if told.strip():
        wall, cpu, memory = json.loads(told)
    return {"wall_s": wall, "cpu_s": cpu, "rss_mb": memory}


class Timed:
    """Prints the seconds of its block, and the memory (MB) that it took.

    Args:
        helper: a process whose children work for the block.
    """

    def __init__(self, helper: Any = None) -> None:
        self._helper = helper

    def __enter__(self) -> None:
        self._memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        self._wall, self._cpu = time.perf_counter(), cpu_seconds(self._helper)

    def __exit__(self, *_: object) -> None:
        wall = time.perf_counter() - self._wall
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - self._memory
        cpu = cpu_seconds(self._helper) - self._cpu
        if self._helper is not None:
            # What it and its children took at most is known when it has ended.
            end_server()
            memory += resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        print(json.dumps([wall, cpu, memory]))


def end_server() -> None:
    """End the process that starts the decoding ones."""
    from longvu_cli.isolation import server

    server(os.getpid()).close()


def cpu_seconds(helper: Any) -> float:
    """User and system time of this process, of another one and of the children that it has waited for."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    if helper is None:
        return usage.ru_utime + usage.ru_stime
    while helper.children():
        time.sleep(0.001)
    return usage.ru_utime + usage.ru_stime + sum(helper.cpu_times()[:4])


def square(pixels, side: int):
    """Padded and resized in full size."""
    import numpy as np
    from PIL import Image

    height, width = pixels.shape[:2]
    long_side = max(height, width)
    canvas = Image.new("RGB", (long_side, long_side), SIDES[side])
    canvas.paste(Image.fromarray(pixels), ((long_side - width) // 2, (long_side - height) // 2))
    return np.asarray(canvas.resize((side, side), Image.Resampling.BICUBIC))


def our_squares(pixels) -> list:
    """For both towers, as the library does it."""
    from longvu_cli.preprocess import TowerInput, square_pixels

    towers = [
        TowerInput(side, tuple((level + 0.5) / 255 for level in fill), (1.0, 1.0, 1.0)) for side, fill in SIDES.items()
    ]
    return [square_pixels(pixels, tower) for tower in towers]


def squares(pixels) -> list:
    """For both towers."""
    return [square(pixels, side) for side in SIDES]


def with_decord(clip: Path, fps: float) -> None:
    """Every frame is decoded: a reader that is asked for frames in order seeks only where it has to."""
    import decord
    import PIL.Image  # noqa: F401

    with Timed():
        reader = decord.VideoReader(str(clip), ctx=decord.cpu(0), num_threads=1)
        step = max(round(reader.get_avg_fps() / fps), 1)
        for number in range(len(reader)):
            frame = reader.next()
            if number % step == 0:
                squares(frame.asnumpy())


def with_plain_pyav(clip: Path, fps: float) -> None:
    """Every frame is decoded, by as many threads as the decoder likes."""
    import av
    import PIL.Image  # noqa: F401

    with Timed(), av.open(str(clip)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        step = max(round(float(stream.average_rate) / fps), 1)
        for number, frame in enumerate(container.decode(stream)):
            if number % step == 0:
                squares(frame.to_ndarray(format="rgb24"))


def with_ours(clip: Path, fps: float, *, resize: bool = True) -> None:
    """By the library, as the pipeline does it. The process that decodes is ready, as it is when a model was loaded."""
    import psutil

    import longvu_cli.preprocess  # noqa: F401
    from longvu_cli.config import SamplingOptions
    from longvu_cli.isolation import server
    from longvu_cli.video import Video

    Video(clip).close()
    with Timed(psutil.Process(server(os.getpid()).process.pid)), Video(clip, SamplingOptions(fps=fps)) as video:
        pixels = (frame.pixels for frame in video.frames())
        for _ in resized(pixels) if resize else pixels:
            pass


def resized(frames: Iterable) -> Iterator[list]:
    """A few frames at a time, as the pipeline does it."""
    workers = os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:
        pending: deque[Future[list]] = deque()
        for pixels in frames:
            pending.append(pool.submit(our_squares, pixels))
            if len(pending) > workers:
                yield pending.popleft().result()
        for future in pending:
            yield future.result()


WAYS = {
    "decord": with_decord,
    "plain": with_plain_pyav,
    "ours-decode": lambda clip, fps: with_ours(clip, fps, resize=False),
    "ours": with_ours,
}

if __name__ == "__main__":
    main()
