"""Errors that FFmpeg tells are counted, and telling them never stops the one who does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from media import steady, write_video

COUNT = """
import sys, av
from longvu_cli.decoder_log import DecoderLog
log = DecoderLog()
assert not log.errors()
with av.open(sys.argv[1]) as container:
    for packet in container.demux(video=0):
        try:
            packet.decode()
        except av.FFmpegError:
            pass
once = log.errors()
assert log.errors() == once
print(sum(once.values()))
"""
FLOOD = """
import os
from longvu_cli.decoder_log import DecoderLog
log = DecoderLog()
for _ in range(200_000):
    try:
        os.write(2, b"[h264 @ 0x55] an error that has the length of an error\\n")
    except BlockingIOError:
        pass
assert set(log.errors()) == {"h264"}
print(log.errors()["h264"])
"""


def run(script: str, *arguments: str) -> int:
    package = str(Path(__file__).parents[1] / "src")
    ran = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={"PYTHONPATH": package},
    )
    assert ran.stderr == ""
    return int(ran.stdout)


def test_a_good_file_has_none_and_a_damaged_one_some(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mkv", steady(30))
    assert run(COUNT, str(path)) == 0
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 500] = b"\xa5" * 500
    path.write_bytes(data)
    assert run(COUNT, str(path)) > 0


def test_a_flood_is_not_waited_for() -> None:
    assert 1_000 < run(FLOOD) < 200_000
