"""A device without memory: smaller batches, said once; then exit code 5 with the numbers and what would fit."""

from __future__ import annotations

import json
import tempfile
from functools import partial
from pathlib import Path

import pytest
import torch

from cli.conftest import Longvu
from cli.running import PARITY, QUESTION
from longvu_cli.adaptive_batch import TRIES
from longvu_cli.frame_store import FrameStore
from longvu_cli.pipeline import BATCH
from longvu_cli.towers import Tower

SHORT = "--max-new-tokens=2"
TOLD = "longvu: warning: cpu ran out of memory: frames now go through the towers 4 at a time\n"


class Memory:
    """What the towers have room for: batches of so many frames; says how often there was none."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.most = BATCH
        self.refused = 0
        forward = Tower.forward

        def little_room(tower: Tower, pixels: torch.Tensor) -> torch.Tensor:
            if len(pixels) > self.most:
                self.refused += 1
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return forward(tower, pixels)

        monkeypatch.setattr(Tower, "forward", little_room)


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Memory:
    return Memory(monkeypatch)


def test_smaller_batches_give_the_same_answer_and_are_said_once(
    longvu: Longvu, busy: Path, clip: Path, memory: Memory
) -> None:
    whole = longvu("describe", busy, busy, SHORT, "--no-stats", "--no-cache")
    memory.most = 5
    ran = longvu("describe", busy, busy, SHORT, "--no-stats", "--no-cache")
    assert (ran.code, ran.out) == (0, whole.out)
    assert ran.err.count(TOLD) == 1
    assert memory.refused == 2


def test_after_three_tries_it_ends_with_the_numbers_and_what_would_fit(
    longvu: Longvu, busy: Path, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.most = 1
    ran = longvu("ask", busy, QUESTION, SHORT, "--no-cache")
    assert (ran.code, ran.out) == (5, "")
    assert memory.refused == TRIES + 1
    assert ran.err.count("\n") == 1
    assert ran.err.startswith("longvu: error: cpu ran out of memory while compressing the video (")
    assert "GiB free of" in ran.err
    assert ran.err.endswith("; frames already went through the towers 2 at a time\n")
    monkeypatch.setattr("longvu_cli.longvu.what_would_fit", lambda memory, **_: "--model 1b would fit")
    assert "; --model 1b would fit; " in longvu("ask", busy, QUESTION, SHORT, "--no-cache").err


def test_in_a_batch_only_that_row_fails(longvu: Longvu, busy: Path, memory: Memory, tmp_path: Path) -> None:
    still = str(PARITY / "one_frame.mkv")
    rows = [{"video": video, "question": QUESTION} for video in (still, str(busy), still)]
    rows[2]["question"] = "What else?"
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    memory.most = 1
    ran = longvu("batch", tmp_path / "m.jsonl", SHORT, "--no-cache")
    assert ran.code == 6
    kinds = {r["row"]: r.get("error", {}).get("type") for r in map(json.loads, ran.out.splitlines())}
    assert kinds == {1: None, 2: "DeviceOutOfMemory", 3: None}


def test_a_full_disk_under_the_temporary_files_is_one_line(
    longvu: Longvu, busy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("longvu_cli.pipeline.FrameStore", partial(FrameStore, memory_bytes=0))
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: Path("/dev/full").open("w+b", 0))  # noqa: SIM115
    ran = longvu("ask", busy, QUESTION, SHORT, "--no-cache")
    assert (ran.code, ran.out) == (5, "")
    assert ran.err.startswith("longvu: error: a temporary file cannot be written or read: No space left on device")
    assert "TMPDIR" in ran.err and ran.err.count("\n") == 1
