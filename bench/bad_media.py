"""Seconds and memory of the real command, a process of its own for each file of a collection of odd and broken media.

    python bench/bad_media.py shared/badmedia

The collection's ``manifest.json`` lists the files; those that are made by the test that uses them are left out here.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COMMANDS = {"stats": (), "ask": ("What is shown?",)}
POLL_S = 0.05
PROGRAM = "from longvu_cli.cli.start import main; main()"


@dataclass(frozen=True)
class Run:
    """One command on one file.

    Attributes:
        expected: whether the exit code is one that the manifest accepts.
        peak_bytes: of all its processes together, shared pages counted once; looked at every :data:`POLL_S`.
    """

    name: str
    command: str
    code: int
    expected: bool
    lines: int
    seconds: float
    peak_bytes: int


def main() -> None:
    """Run them all and print the slowest and the largest."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--begin", type=int, default=0, help="the first entry")
    parser.add_argument("--end", type=int, default=None, help="the entry to stop before")
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    chosen = parser.parse_args()
    entries = json.loads((chosen.folder / "manifest.json").read_text(encoding="utf-8"))[chosen.begin : chosen.end]
    runs: list[Run] = []
    with tempfile.TemporaryDirectory() as scratch:
        for entry in entries:
            path = place(entry, chosen.folder, Path(scratch))
            for command in chosen.commands if path is not None else ():
                runs.append(run(command, entry, path))
                print(json.dumps(vars(runs[-1])), flush=True)
    slowest, largest = max(runs, key=lambda one: one.seconds), max(runs, key=lambda one: one.peak_bytes)
    print(f"{len(runs)} runs, {sum(not one.expected for one in runs)} with another exit code than the manifest's")
    print(
        f"slowest: {slowest.name}, {slowest.seconds:.1f} s · largest: {largest.name}, {largest.peak_bytes / 1e9:.2f} GB"
    )


def place(entry: dict[str, Any], folder: Path, scratch: Path) -> Path | None:
    """The file of an entry, copied under the name that it is about; None: it is none of the collection's."""
    if entry["group"] == "special":
        return None
    source = folder / ("plain.mp4" if entry["group"] == "name" else entry["name"])
    return Path(shutil.copy(source, scratch / Path(entry["name"]).name))


def run(command: str, entry: dict[str, Any], path: Path) -> Run:
    """Run a command on a file."""
    options = ["--model=tiny", "--no-cache", "-q"]
    words = [sys.executable, "-c", PROGRAM, command, *options, "--", str(path), *COMMANDS[command]]
    begin, peak = time.perf_counter(), 0
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            peak = max(peak, sum(proportional_bytes(pid) for pid in family(process.pid)))
            time.sleep(POLL_S)
        seconds = time.perf_counter() - begin
        said = process.stderr.read() if process.stderr else ""
    accepted = process.returncode in entry["exit"] and "Traceback" not in said
    return Run(path.name, command, process.returncode, accepted, said.count("\n"), round(seconds, 2), peak)


def family(pid: int) -> list[int]:
    """A process and those that it started, and so on."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    except OSError:
        return [pid]
    return [pid, *(other for child in children for other in family(int(child)))]


def proportional_bytes(pid: int) -> int:
    """Memory of a process, of shared pages its part; 0: it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


if __name__ == "__main__":
    main()
