#!/usr/bin/env python3
"""Kills the real command twenty times in a hundred rows, with one worker and with two; to be run by hand.

Says how often a row was begun a second time, and ends with an error unless every result is there exactly once.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from cli.running import PARITY, TINY, environment
from killing import kill_again_and_again

ROWS, KILLS = 100, 20
# The real command, with a note of each row that is begun.
COMMAND = """
import os, sys
from longvu_cli.cli.app import main
from longvu_cli.longvu import LongVU

log = os.open(sys.argv.pop(1), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
answer = LongVU.answer

def noted(self, video, question, **settings):
    os.write(log, f"{question.split()[-1]}\\n".encode())
    return answer(self, video, question, **settings)

LongVU.answer = noted
main()
"""


def main() -> None:
    """Do it with one worker, then with two."""
    for workers in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            kill_in(Path(folder), workers)


def kill_in(folder: Path, workers: int) -> None:
    """One series of kills."""
    videos = [str(PARITY / name) for name in ("one_frame.mkv", "short_window.mkv", "still_image_landscape.png")]
    rows = [{"video": videos[number % 3], "question": f"What is {number}"} for number in range(ROWS)]
    manifest, output, log = folder / "m.jsonl", folder / "out.jsonl", folder / "log"
    manifest.write_text("\n".join(map(json.dumps, rows)))
    arguments = [sys.executable, "-c", COMMAND, log, "batch", manifest, "-o", output, "-q", "--max-new-tokens=16"]
    outcome = kill_again_and_again(
        lambda: subprocess.Popen(arguments, env=environment(folder, **TINY)),
        output,
        log,
        kills=KILLS,
        workers=workers,
        seconds=0.3,
    )
    done = sorted(record["row"] for record in outcome.records)
    sys.stdout.write(
        f"{workers} worker(s): {outcome.kills} kills ({outcome.torn} in the middle of a line), {len(done)} results, "
        f"{outcome.redone} rows begun again\n"
    )
    assert done == list(range(1, ROWS + 1)), "a result is missing or there twice"
    assert len({record["key"] for record in outcome.records}) == ROWS
    assert outcome.redone <= outcome.kills
    left = [file.name for file in folder.iterdir() if file.name.startswith("out.jsonl.")]
    assert not left, left


if __name__ == "__main__":
    main()
