"""The plain engine against processes and Ray: the same results, with a worker killed on the way, and the wall time.

    python bench/scale_out.py FOLDER [--films 40] [--longest 40] [--engines processes ray launcher]
    python bench/scale_out.py FOLDER --model w1 --device auto --engines processes launcher

Films of the drawn world, of 4 to `--longest` seconds (log-uniform), are asked two questions each by `longvu batch`,
without the feature cache: with the tiny model on the CPU, one thread per process, or with another model on GPUs, of
which each worker gets one. Each engine runs with one worker, two, and with two of which one is killed (SIGKILL) once a
quarter of the results is there; the launcher is torchrun, which ends the others of its processes then, so that its
command is run again. Results of every run are compared with those of the plain engine, but for seconds, bytes, the use
of the cache and the number of the GPU. FOLDER keeps the films and the results.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from longvu_cli.world.film import write_film
from longvu_cli.world.questions import questions
from longvu_cli.world.story import Split, story

SHORTEST_S = 4
MEASURED = ("timing_s", "memory", "cache")
LONGVU = Path(sys.executable).with_name("longvu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--films", type=int, default=40)
    parser.add_argument("--longest", type=int, default=40)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--flags", default="--workers=1", help="further ones of `longvu batch`")
    parser.add_argument("--engines", nargs="+", default=["processes", "ray", "launcher"])
    arguments = parser.parse_args()
    manifest, rows = make(arguments.folder, arguments.films, arguments.longest)
    print(f"{arguments.films} films, {rows} questions, {os.cpu_count()} cores")
    flags = [f"--model={arguments.model}", f"--device={arguments.device}", *shlex.split(arguments.flags)]
    plain_s, plain = timed(arguments.folder, manifest, flags, "plain", "plain", 1, kill_at=None)
    print(f"plain: {plain_s:.1f} s")
    others = False
    for engine in arguments.engines:
        seconds = {}
        for name, count, kill_at in (("one", 1, None), ("two", 2, None), ("two, one killed", 2, rows // 4)):
            if engine == "launcher" and count == 1:
                continue
            seconds[name], results = timed(arguments.folder, manifest, flags, name, engine, count, kill_at=kill_at)
            others = others or results != plain
            same = "the results of plain" if results == plain else f"OTHER RESULTS ({differences(plain, results)})"
            print(f"{engine}, {name}: {seconds[name]:.1f} s, {len(results)} results, {same}", flush=True)
        print(f"{engine}: two take {seconds['two'] / seconds.get('one', plain_s):.2f} of the time of one", flush=True)
    sys.exit(others)


def make(folder: Path, films: int, longest: int) -> tuple[Path, int]:
    """Write the films and the manifest, and say how many rows it has."""
    folder.mkdir(parents=True, exist_ok=True)
    chance = random.Random(6)
    rows = []
    for number in range(films):
        seconds = round(SHORTEST_S * (longest / SHORTEST_S) ** chance.random())
        told = story(Split.TEST.seed(number), seconds)
        path = folder / f"{number:03}-{seconds}.mp4"
        if not path.exists():
            write_film(told, path, fps=4)
        asked = questions(told)
        rows += [{"video": str(path), "question": asked[at].text} for at in (0, len(asked) // 2)]
    manifest = folder / "m.jsonl"
    manifest.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return manifest, len(rows)


def timed(
    folder: Path, manifest: Path, flags: list[str], name: str, engine: str, count: int, *, kill_at: int | None
) -> tuple[float, dict[str, Any]]:
    """Seconds of a run to its end, and its results by key.

    Args:
        kill_at: results after which a worker is killed.
    """
    output = folder / f"{engine}-{name.replace(', ', '-').replace(' ', '-')}.jsonl"
    output.unlink(missing_ok=True)
    own = ["batch", manifest, "-o", output, "-q", "--no-cache", *flags]
    command = [LONGVU, *own]
    if engine == "launcher":
        run = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={count}", "--no_python"]
        command = [*run, *command]
    elif engine != "plain":
        command += [f"--engine={engine}", f"--processes={count}"]
    threads = {"OMP_NUM_THREADS": "1"} if "--device=cpu" in flags else {}
    environment = {**os.environ, **threads, "LONGVU_CONFIG": ""}
    begun = time.monotonic()
    while True:
        process = subprocess.Popen(list(map(str, command)), env=environment, stderr=subprocess.DEVNULL)
        if kill_at is not None:
            kill_one(process, output, kill_at)
            kill_at = None
        code = process.wait()
        if code == 0:
            break
        if engine != "launcher":
            sys.exit(f"{engine} ended with {code}")
    records = [json.loads(line) for line in output.read_text().splitlines()]
    results = {one["key"]: comparable(one) for one in records}
    assert len(results) == len(records), "a result is there twice"
    return time.monotonic() - begun, results


def comparable(record: dict[str, Any]) -> dict[str, Any]:
    """What has to be the same whoever answers."""
    kept = {key: value for key, value in record.items() if key not in MEASURED}
    if "model" in kept:
        kept["model"] = {**kept["model"], "device": kept["model"]["device"].partition(":")[0]}
    return kept


def differences(plain: dict[str, Any], results: dict[str, Any]) -> str:
    """How many results are others, and in which fields."""
    odd = [key for key in plain if results.get(key) != plain[key]]
    fields = {
        name for key in odd if key in results for name in plain[key] if results[key].get(name) != plain[key][name]
    }
    return f"{len(odd)} of {len(plain)}, in {', '.join(sorted(fields))}"


def kill_one(process: subprocess.Popen[bytes], output: Path, at: int) -> None:
    """Kill a process with a model when so many results are there."""
    while process.poll() is None and (not output.exists() or output.read_bytes().count(b"\n") < at):
        time.sleep(0.05)
    for child in psutil.Process(process.pid).children(recursive=True):
        line = " ".join(child.cmdline())
        if "process_worker" in line or line.startswith("ray::Actor") or "longvu batch" in line.replace("-q", ""):
            child.kill()
            return
    sys.exit("there is no worker to be killed")


if __name__ == "__main__":
    main()
