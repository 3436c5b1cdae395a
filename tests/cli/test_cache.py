import json
import os
import time
from pathlib import Path

import pytest

from cli.conftest import Longvu


@pytest.fixture
def filled(longvu: Longvu, clip: Path, busy: Path, fresh_cache: Path) -> Path:
    """A cache with the features of two clips, one of which was used two days ago."""
    for video, age in ((clip, 0), (busy, 2 * 86_400)):
        before = set(fresh_cache.glob("*"))
        assert longvu("stats", video, "-q").code == 0
        (fresh,) = set(fresh_cache.glob("*")) - before
        os.utime(fresh, (time.time() - age,) * 2)
    return fresh_cache


def test_the_cache_is_listed_and_pruned(longvu: Longvu, clip: Path, busy: Path, filled: Path) -> None:
    ran = longvu("cache", "list")
    lines = ran.out.splitlines()
    assert ran.code == 0
    assert lines[0].split() == ["used", "size", "frames", "kept", "video"]
    assert [line.split()[-1] for line in lines[1:]] == [str(clip), str(busy)]
    assert lines[2].startswith("2 d ago") and "12 of 12" in lines[2]
    total = sum(path.stat().st_size for path in filled.iterdir())
    assert ran.err == f"longvu: 2 entries, {total / 1000:.1f} kB, in {filled}\n"

    record = json.loads(longvu("cache", "list", "--json").out)
    assert (record["path"], record["bytes"], len(record["entries"])) == (str(filled), total, 2)
    assert record["entries"][1]["frames"] == {"sampled": 12, "kept": 12}
    assert record["entries"][1]["video"]["path"] == str(busy)

    ran = longvu("cache", "prune", "--older-than", "3d")
    assert (ran.code, ran.out) == (0, "0 entries removed, 0 B freed\n")
    pruned = json.loads(longvu("cache", "prune", "--older-than=36h", "--json").out)
    assert pruned["removed"] == [record["entries"][1]["key"]]
    assert pruned["bytes_freed"] + pruned["bytes_left"] == total
    assert longvu("cache", "prune", "--max-size", "1kB").out.startswith("1 entry removed, ")
    assert list(filled.iterdir()) == []


def test_a_video_whose_features_went_is_looked_at_again(longvu: Longvu, clip: Path, fresh_cache: Path) -> None:
    def used() -> str:
        return str(json.loads(longvu("stats", clip, "--json").out)["cache"]["features"])

    assert (used(), used()) == ("miss", "hit")
    assert longvu("cache", "prune", "--all").code == 0
    assert used() == "miss"


def test_the_folder_is_told(longvu: Longvu, fresh_cache: Path) -> None:
    assert longvu("cache", "path").out == f"{fresh_cache}\n"
    assert json.loads(longvu("cache", "path", "--json").out)["path"] == str(fresh_cache)
    empty = longvu("cache", "list")
    assert (empty.code, empty.out, empty.err) == (0, "", f"longvu: 0 entries, 0 B, in {fresh_cache}\n")


def test_names_of_files_are_shown_without_control_characters(longvu: Longvu, fresh_cache: Path, clip: Path) -> None:
    odd = clip.with_name("a\x1b[31m.mp4")
    odd.write_bytes(clip.read_bytes())
    longvu("stats", odd, "-q")
    assert "a\\x1b[31m.mp4" in longvu("cache", "list").out


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        ((), "--max-size"),
        (("--max-size", "much"), "5GB"),
        (("--max-size", "-1"), "-1"),
        (("--max-size", "5i"), "5GB"),
        (("--older-than", "30"), "30d"),
        (("--older-than", "soon"), "30d"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(
    longvu: Longvu, fresh_cache: Path, flags: tuple[str, ...], word: str
) -> None:
    ran = longvu("cache", "prune", *flags)
    assert (ran.code, ran.out) == (2, "")
    assert word in ran.err
    assert ran.err.count("\n") == 1
