"""Every odd, broken or hostile file through the command: the exit code, the one line, the warnings, nothing else."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli.conftest import Longvu
from longvu_cli import isolation
from longvu_cli.longvu import LongVU
from longvu_cli.tiny_world import FOREIGN

BAD_MEDIA = Path(__file__).parents[3] / "shared" / "badmedia"
# Files on which a sentence is due although the manifest asks for none.
MAY_WARN = {"raw.h264", "two_videos.mkv", "hevc10_hdr.mp4", "ts_cut_head.ts"}
LONGEST_S = 10.0
# Two hours with 1,800 different pictures: half a minute on two idle cores. DINOv2 alone needs 8 s of products for them.
FEWER = {"long_2h.mp4": ("--fps=0.01",)}
# Of this process and of the one that decodes, together.
MOST_BYTES = 3_000_000_000

pytestmark = pytest.mark.skipif(not BAD_MEDIA.is_dir(), reason="the files are not here")


def entries() -> list[Any]:
    if not BAD_MEDIA.is_dir():
        return []
    manifest = json.loads((BAD_MEDIA / "manifest.json").read_text(encoding="utf-8"))
    return [pytest.param(entry, id=f"{number}-{entry['group']}") for number, entry in enumerate(manifest)]


def make_unreadable(path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    shutil.copy(BAD_MEDIA / "plain.mp4", path)
    path.chmod(0)


def make_sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 8 << 30)


SPECIAL: dict[str, Callable[[Path], object]] = {
    "a_directory.mp4": Path.mkdir,
    "missing.mp4": lambda path: None,
    "unreadable.mp4": make_unreadable,
    "fifo.mp4": os.mkfifo,
    "fifo-endless": os.mkfifo,
    "dev_zero.mp4": lambda path: path.symlink_to("/dev/zero"),
    "dev_urandom.mp4": lambda path: path.symlink_to("/dev/urandom"),
    "dangling.mp4": lambda path: path.symlink_to("nowhere"),
    "loop.mp4": lambda path: path.symlink_to(path.name),
    "link_ok.mp4": lambda path: path.symlink_to(BAD_MEDIA / "control.mp4"),
    "sparse_8g.mp4": make_sparse,
}


def place(entry: dict[str, Any], folder: Path) -> str:
    """Make the file that an entry is about; what the command is given."""
    name: str = entry["name"]
    if "://" in name:
        return name
    path = folder / Path(name).name
    if entry["group"] == "special":
        SPECIAL[path.name](path)
    else:
        shutil.copy(BAD_MEDIA / ("plain.mp4" if entry["group"] == "name" else name), path)
    return str(path)


@pytest.fixture
def loaded_once(monkeypatch: pytest.MonkeyPatch, kept: dict[object, LongVU]) -> None:
    """The tiny model is loaded for the first of the files only."""
    original = LongVU.from_pretrained.__func__  # type: ignore[attr-defined]

    def load(cls: type[LongVU], model: str = "auto", **settings: Any) -> LongVU:
        if settings["part"] not in kept:
            kept[settings["part"]] = original(cls, model, **settings)
        return kept[settings["part"]]

    monkeypatch.setattr(LongVU, "from_pretrained", classmethod(load))


@pytest.fixture(scope="module")
def kept() -> dict[object, LongVU]:
    return {}


@pytest.mark.parametrize("entry", entries())
@pytest.mark.usefixtures("loaded_once")
def test_manifest(
    entry: dict[str, Any],
    longvu: Longvu,
    tiny_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kept: dict[object, LongVU],
) -> None:
    for name in ("LONGVU_DINOV2", "LONGVU_SIGLIP"):
        monkeypatch.delenv(name)
    video = place(entry, tmp_path)
    if not kept:
        # Loading the model is no part of what the file costs.
        longvu("stats", f"--model={tiny_folder}", "--no-cache", BAD_MEDIA / "control.mp4")
    begin = time.monotonic()
    ran = longvu(
        "stats", f"--model={tiny_folder}", "--no-cache", "--json", *FEWER.get(Path(video).name, ()), "--", video
    )
    took_s = time.monotonic() - begin
    lines = [line for line in ran.err.splitlines() if line != f"longvu: warning: {FOREIGN}"]
    record = json.loads(ran.out)
    assert ran.code in entry["exit"], ran.err
    assert took_s < LONGEST_S
    assert ran.out.count("\n") == 1 and ran.out.isascii()
    assert "Traceback" not in ran.out + ran.err and "S3CRET" not in ran.out + ran.err
    assert ran.err.replace("\n", "").isprintable()
    if ran.code:
        assert lines == [] and set(record) == {"schema_version", "error"}
        assert re.search(entry["message"] or "", record["error"]["message"], re.IGNORECASE)
        return
    fewest, most = entry["frames"]
    assert fewest <= record["compression"]["frames"]["sampled"] <= most
    warnings = record["video"]["warnings"]
    assert len(lines) == len(warnings) and all(line.startswith("longvu: warning: ") for line in lines)
    assert all(sentence in line for sentence, line in zip(warnings, lines, strict=True))
    if entry["warning"] is not None:
        assert re.search(entry["warning"], " ".join(warnings), re.IGNORECASE)
    elif Path(video).name not in MAY_WARN:
        assert warnings == []


def test_none_of_them_took_much_memory() -> None:
    # A process that has ended, with those that it waited for, is counted.
    isolation.server(os.getpid()).close()
    isolation.server.cache_clear()
    peaks = [resource.getrusage(who).ru_maxrss * 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    assert sum(peaks) < MOST_BYTES


@pytest.mark.parametrize("entry", [entry for entry in entries() if entry.values[0]["exit"] == [3]])
def test_without_json_a_failure_is_one_line(entry: dict[str, Any], longvu: Longvu, tmp_path: Path) -> None:
    ran = longvu("ask", "--", place(entry, tmp_path), "What is shown?")
    assert (ran.code, ran.out) == (3, "")
    assert ran.err.startswith("longvu: error: ") and ran.err.count("\n") == 1
    assert re.search(entry["message"], ran.err, re.IGNORECASE) and "S3CRET" not in ran.err
    assert ran.err.strip("\n").isprintable()
