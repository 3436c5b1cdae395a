"""How often the tiny model is right about fresh films of its world, through the real command.

    python bench/world_accuracy.py FOLDER [--films 200] [--questions-per-video 2] [--seconds 600] [FLAGS]

Films of the test split (seeds that no training saw) are written as mp4, of 8 to 120 seconds (log-uniform) at 2 to 5
frames per second, or with `--seconds` of one length at 1 frame per second. Their questions go through `longvu batch`;
FLAGS that are not this script's own (`--device`, `--context-length` …) are handed to it. Each film is asked the kinds
of question that were asked least so far. FOLDER gets `results.jsonl`, as batch writes it, and `accuracy.json`; the same
command goes on where it was cut off, and asks anew when the model, the flags or the world have changed. The column
"commonest" is what always giving the commonest right answer of the kind would score.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import random
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

import longvu_cli.world
from longvu_cli.evaluation.drawn_films import Film, questions_about
from longvu_cli.evaluation.proportions import wilson
from longvu_cli.identity import weights_digest
from longvu_cli.weights import TINY, tiny_folder
from longvu_cli.world.questions import KINDS, Question, is_right

SHORTEST_S, LONGEST_S = 8, 120
RATES = (2, 3, 4, 5)
COMMAND = [sys.executable, "-c", "from longvu_cli.cli.app import main; main()"]


@dataclass(frozen=True)
class Asked:
    """A question about a film; the setting tells one model, set of flags and world from another."""

    setting: str
    film: Film
    question: Question

    @property
    def id(self) -> str:
        return f"{self.setting} {self.film.file} {self.question.text}"


@dataclass(frozen=True)
class Scored:
    """A question with what was answered; None: an error."""

    kind: str
    seconds: int
    fps: int
    question: str
    right_answer: str
    answer: str | None
    right: bool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--films", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, help="number of the first test story")
    parser.add_argument("--questions-per-video", type=int, default=2)
    parser.add_argument("--seconds", type=int, help="all films of this length, at 1 frame per second")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--processes", type=int, default=1, help="that answer side by side")
    parser.add_argument("--painters", type=int, default=os.cpu_count() or 1, help="processes that make films")
    parser.add_argument("--keep", action="store_true", help="keep the films")
    arguments, flags = parser.parse_known_args()
    folder: Path = arguments.folder
    (folder / "films").mkdir(parents=True, exist_ok=True)
    begin = time.perf_counter()
    films = [planned(arguments.first + number, arguments.seconds) for number in range(arguments.films)]
    own = setting(arguments.model, flags)
    asked = [Asked(own, one.film, one.question) for one in questions_about(films, arguments.questions_per_video)]
    left = [one for one in asked if one.id not in records(folder)]
    if left:
        make_films(folder, {one.film for one in left}, arguments.painters)
        say(f"{len(asked)} questions, {len(left)} of them to be answered, after {time.perf_counter() - begin:.0f} s")
        answer(folder, left, [f"--model={arguments.model}", *flags], arguments.processes)
    found = records(folder)
    missing = [one for one in asked if one.id not in found]
    if missing:
        sys.exit(f"{len(missing)} of {len(asked)} questions have no result; run it again")
    report = reported([scored(one, found[one.id]) for one in asked], [found[one.id] for one in asked])
    report["arguments"] = {**vars(arguments), "folder": str(folder), "flags": flags}
    (folder / "accuracy.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    show(report)
    if not arguments.keep:
        for file in (folder / "films").glob("*.mp4"):
            file.unlink()


# --- films and questions --------------------------------------------------------------------------------------------


def planned(number: int, seconds: int | None) -> Film:
    """The number decides length and rate."""
    if seconds is not None:
        return Film(number, seconds)
    chance = random.Random(f"film {number}")
    length = round(math.exp(chance.uniform(math.log(SHORTEST_S), math.log(LONGEST_S))))
    return Film(number, length, chance.choice(RATES))


def setting(model: str, flags: Sequence[str]) -> str:
    """A digest of the model, the flags and the world."""
    folder = tiny_folder() if model == TINY else Path(model)
    weights = weights_digest(*(own for name in ("", "dinov2", "siglip") if (own := folder / name).is_dir()))
    world = [file.read_text(encoding="utf-8") for file in sorted(Path(longvu_cli.world.__file__).parent.glob("*.py"))]
    return hashlib.sha256(json.dumps([model, weights, flags, world]).encode()).hexdigest()[:12]


def make_films(folder: Path, films: set[Film], painters: int) -> None:
    """Those that are not there; a film that was cut off has another name."""
    wanted = sorted((film for film in films if not (folder / "films" / film.file).is_file()), key=lambda f: f.number)
    with ProcessPoolExecutor(painters) as pool:
        for number, _ in enumerate(pool.map(partial(make_film, folder), wanted), start=1):
            if number % 50 == 0 or number == len(wanted):
                say(f"{number} of {len(wanted)} films")


def make_film(folder: Path, film: Film) -> None:
    torch.set_num_threads(1)
    film.write(folder / "films" / film.file)


# --- answers --------------------------------------------------------------------------------------------------------


def answer(folder: Path, asked: Sequence[Asked], flags: Sequence[str], processes: int) -> None:
    """Have `longvu batch` answer, in processes that share one output."""
    manifest = folder / "manifest.jsonl"
    films = (folder / "films").resolve()
    rows = [{"video": str(films / one.film.file), "question": one.question.text, "id": one.id} for one in asked]
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    threads = str(max(1, (os.cpu_count() or 1) // processes))
    command = [*COMMAND, "batch", str(manifest), "--output", str(folder / "results.jsonl"), *flags]
    running = [subprocess.Popen(command, env={"OMP_NUM_THREADS": threads, **os.environ}) for _ in range(processes)]
    codes = {process.wait() for process in running}
    if codes - {0, 6}:
        sys.exit(f"longvu batch ended with {sorted(codes)}")


def records(folder: Path) -> dict[str, dict[str, Any]]:
    """The results so far, by id; a line that was cut off is none."""
    file = folder / "results.jsonl"
    if not file.is_file():
        return {}
    lines = [line for line in file.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
    return {record["id"]: record for record in map(json.loads, lines)}


# --- the report -----------------------------------------------------------------------------------------------------


def scored(one: Asked, record: dict[str, Any]) -> Scored:
    given: str | None = record.get("answer")
    return Scored(
        kind=one.question.kind,
        seconds=one.film.seconds,
        fps=one.film.fps,
        question=one.question.text,
        right_answer=one.question.answer,
        answer=given,
        right=given is not None and is_right(one.question, given),
    )


def reported(rows: Sequence[Scored], results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    answered = [record for record in results if "answer" in record]
    return {
        "model": answered[0]["model"] if answered else None,
        "settings": answered[0]["settings"] if answered else None,
        "errors": len(results) - len(answered),
        "median_seconds": statistics.median(record["timing_s"]["total"] for record in answered) if answered else None,
        "overall": share(rows),
        "by_kind": {kind: share(own) for kind in KINDS if (own := [row for row in rows if row.kind == kind])},
        "rows": [asdict(row) for row in rows],
    }


def share(rows: Sequence[Scored]) -> dict[str, Any]:
    right = sum(row.right for row in rows)
    interval = wilson(right, len(rows))
    commonest = Counter(row.right_answer for row in rows).most_common(1)[0][1]
    return {
        "questions": len(rows),
        "right": right,
        "accuracy": right / len(rows),
        "low": interval.low,
        "high": interval.high,
        "commonest": commonest / len(rows),
    }


def show(report: dict[str, Any]) -> None:
    print(f"{'kind':<12}{'questions':>10}{'right':>8}{'accuracy':>10}   {'95 % interval':<16}{'commonest':>10}")
    for kind, own in [*report["by_kind"].items(), ("all", report["overall"])]:
        interval = f"{own['low']:.3f} … {own['high']:.3f}"
        line = f"{kind:<12}{own['questions']:>10}{own['right']:>8}{own['accuracy']:>10.3f}   {interval:<16}"
        print(line + ("" if kind == "all" else f"{own['commonest']:>10.3f}"))
    if report["errors"]:
        print(f"{report['errors']} errors, counted as wrong")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
