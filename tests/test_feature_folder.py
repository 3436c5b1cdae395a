import os
import time
from pathlib import Path

import pytest
import torch

from longvu_cli.encoded_video import EncodedVideo
from longvu_cli.feature_cache import FeatureCache
from longvu_cli.feature_folder import CachedVideo, FeatureFolder
from longvu_cli.video import VideoInfo

INFO = VideoInfo("films/a\x1b.mp4", 12.5, 64, 36, None, 90, "h264", False, (), None)


@pytest.fixture
def folder(tmp_path: Path) -> FeatureFolder:
    return FeatureFolder(tmp_path / "features")


def put(folder: FeatureFolder, key: str, age_s: float = 0.0, size: int = 1000) -> Path:
    """An entry of a bit more than four times ``size`` bytes that was last used so long ago."""
    encoded = EncodedVideo(
        times=(0.5, 1.5, 2.5),
        similarity=torch.zeros(3),
        indices=torch.tensor([0, 2]),
        fused=torch.zeros(2, 1, size // 2),
        size=(64, 36),
        image=False,
    )
    FeatureCache(folder.folder).put(key, encoded, INFO)
    path = folder.folder / f"{key}.safetensors"
    used = time.time() - age_s
    os.utime(path, (used, used))
    return path


def keys(folder: FeatureFolder) -> list[str]:
    return [entry.key for entry in folder.entries()]


def test_a_folder_that_is_not_there_is_empty(folder: FeatureFolder) -> None:
    assert folder.entries() == []
    assert folder.prune(everything=True) == []
    assert not folder.folder.exists()


def test_entries_say_what_they_hold_the_last_used_first(folder: FeatureFolder) -> None:
    for age, key in ((20, "b"), (10, "a"), (30, "c")):
        put(folder, key, age)
    assert keys(folder) == ["a", "b", "c"]
    first = folder.entries()[0]
    assert first.content == CachedVideo("films/a\x1b.mp4", 12.5, sampled=3, kept=2)
    assert first.bytes == first.path.stat().st_size
    assert first.used_s == pytest.approx(time.time() - 10, abs=5)  # of a slow machine


@pytest.mark.parametrize("content", [b"", b"noise", b"\xff" * 100])
def test_a_damaged_entry_is_listed_as_such(folder: FeatureFolder, content: bytes) -> None:
    put(folder, "a").write_bytes(content)
    (entry,) = folder.entries()
    assert (entry.content, entry.bytes) == (None, len(content))


def test_what_meets_any_condition_goes(folder: FeatureFolder) -> None:
    for age, key in ((10, "a"), (20, "b"), (3000, "c"), (4000, "d")):
        put(folder, key, age)
    assert [path.stem for path in folder.prune(older_than_s=3500)] == ["d"]
    size = folder.entries()[0].bytes
    assert [path.stem for path in folder.prune(max_bytes=3 * size)] == []
    assert [path.stem for path in folder.prune(max_bytes=3 * size - 1)] == ["c"]
    assert [path.stem for path in folder.prune(max_bytes=size, older_than_s=5)] == ["a", "b"]
    assert keys(folder) == []


def test_all_goes_but_for_what_others_put_there(folder: FeatureFolder) -> None:
    put(folder, "a")
    (folder.folder / "notes.txt").touch()
    (folder.folder / "folder.safetensors").mkdir()
    folder.prune(everything=True)
    assert sorted(path.name for path in folder.folder.iterdir()) == ["folder.safetensors", "notes.txt"]


def test_half_written_entries_go_once_nobody_can_be_at_them(folder: FeatureFolder) -> None:
    put(folder, "a")
    old, new = folder.folder / ".writing-old", folder.folder / ".writing-new"
    for path, age in ((old, 3700), (new, 3500)):
        path.touch()
        os.utime(path, (time.time() - age,) * 2)
    folder.prune(max_bytes=10**9)
    assert (old.exists(), new.exists(), keys(folder)) == (False, True, ["a"])


def test_an_entry_that_another_process_let_go_is_no_error(
    folder: FeatureFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(folder, "a")
    stat = Path.stat

    def vanishing(self: Path, **settings: bool) -> os.stat_result:
        if self == path:
            path.unlink(missing_ok=True)
        return stat(self, **settings)

    monkeypatch.setattr(Path, "stat", vanishing)
    assert folder.entries() == []
    assert folder.prune(everything=True) == []
