"""frame_store.py: fused grids in memory, and beyond a limit in a file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from longvu_cli.errors import NoScratchSpace
from longvu_cli.frame_store import FrameStore


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("held", [0, 1, 5, 1000])
def test_every_row_comes_back_as_it_was(held: int, dtype: torch.dtype) -> None:
    grids = torch.randn(23, 4, 6, generator=torch.Generator().manual_seed(0)).to(dtype)
    with FrameStore(memory_bytes=held * grids[0].nbytes) as store:
        for part in grids.split(7):
            store.append(part)
        for rows in (torch.arange(23), torch.tensor([22, 0, 5, 5]), torch.tensor([4])):
            assert torch.equal(store.take(rows), grids[rows])
        with pytest.raises(IndexError, match="row 23 of 23"):
            store.take(torch.tensor([23]))


def test_a_row_may_be_read_between_two_appended_ones() -> None:
    grids = torch.arange(24.0).reshape(6, 2, 2)
    with FrameStore(memory_bytes=grids[0].nbytes) as store:
        store.append(grids[:3])
        assert torch.equal(store.take(torch.tensor([1])), grids[1:2])
        store.append(grids[3:])
        assert torch.equal(store.take(torch.arange(6)), grids)


def test_memory_does_not_grow_beyond_the_limit_and_no_file_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    grid = torch.zeros(1, 64, 64)
    with FrameStore(memory_bytes=3 * grid.nbytes) as store:
        for _ in range(50):
            store.append(grid)
        assert len(vars(store)["_held"]) == 3
        assert not list(tmp_path.iterdir())
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_told_and_the_store_closes() -> None:
    grid = torch.zeros(1, 8, 8)
    with FrameStore(memory_bytes=0) as store:
        store.append(grid)
        assert store._file is not None
        full = os.open("/dev/full", os.O_RDWR)
        os.dup2(full, store._file.fileno())
        os.close(full)
        with pytest.raises(NoScratchSpace, match="No space left on device") as error:
            store.append(grid)
        assert "TMPDIR" in error.value.hint
