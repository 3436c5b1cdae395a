"""Killing workers again and again, and what has to hold afterwards."""

from __future__ import annotations

import json
import random
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATIENCE_S = 600


@dataclass(frozen=True)
class Outcome:
    """What many kills left behind.

    Attributes:
        kills: processes that were killed while they had work.
        torn: kills that left half a line.
        begun: how often each row was begun.
    """

    kills: int
    torn: int
    begun: Counter[str]
    records: Sequence[dict[str, Any]]

    @property
    def redone(self) -> int:
        """Rows that were begun more than once, counted each time."""
        return sum(self.begun.values()) - len(self.begun)


def kill_again_and_again(
    start: Callable[[], subprocess.Popen[Any]], output: Path, log: Path, *, kills: int, workers: int, seconds: float
) -> Outcome:
    """Start workers, kill one a moment after it begun a row, start another in its place; the last are left alone.

    Args:
        seconds: longest time between the sight of progress and the kill.
    """
    chance = random.Random(7)
    running = [start() for _ in range(workers)]
    killed = torn = 0
    while killed < kills:
        _wait_for_progress(running, log)
        time.sleep(chance.uniform(0, seconds))
        victim = running.pop(0)
        victim.kill()
        if victim.wait(PATIENCE_S) == 0:
            break  # it had done everything
        killed += 1
        torn += output.exists() and not output.read_bytes().endswith(b"\n") and output.stat().st_size > 0
        running.append(start())
    for process in running:
        code = process.wait(PATIENCE_S)
        assert code in (0, 6), f"one that was left alone ended with {code}"
    lines = output.read_text().splitlines()
    return Outcome(killed, torn, Counter(log.read_text().split()), [json.loads(line) for line in lines])


def _wait_for_progress(running: Sequence[subprocess.Popen[Any]], log: Path) -> None:
    """Until the next to be killed has had the time to begin a row: a row is begun after all have started."""
    before = _size(log)
    until = time.monotonic() + PATIENCE_S
    while _size(log) == before and running[0].poll() is None and time.monotonic() < until:
        time.sleep(0.002)


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0
