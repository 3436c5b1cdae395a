"""pixel_store.py: what is put in comes out, and nothing is left."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from longvu_cli.errors import NoScratchSpace
from longvu_cli.pixel_store import PixelStore, Squares


def frame(seed: int) -> Squares:
    numbers = np.random.default_rng(seed)
    return numbers.integers(0, 256, (4, 4, 3), np.uint8), numbers.integers(0, 256, (6, 6, 3), np.uint8)


def test_frames_come_out_in_any_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with PixelStore() as store:
        store.append([frame(0), frame(1), frame(2)])
        store.append([frame(3)])
        store.append([frame(4), frame(5)])
        assert len(store) == 6
        for row, found in zip((5, 0, 3, 3), store.take((5, 0, 3, 3)), strict=True):
            assert all(np.array_equal(one, other) for one, other in zip(found, frame(row), strict=True))
        store.append([frame(6)])
        (last,) = store.take([6])
        assert np.array_equal(last[1], frame(6)[1])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("row", [-1, 2])
def test_a_row_that_is_not_there_is_an_error(row: int) -> None:
    with PixelStore() as store:
        with pytest.raises(IndexError, match=f"row {row} of 0"):
            store.take([row])
        store.append([frame(0), frame(1)])
        with pytest.raises(IndexError, match=f"row {row} of 2"):
            store.take([row])


def test_what_cannot_be_written_is_told_when_more_comes() -> None:
    with PixelStore() as store:
        store.append([frame(0)])
        store.take([0])
        assert store._file is not None
        full = os.open("/dev/full", os.O_RDWR)
        os.dup2(full, store._file.fileno())
        os.close(full)
        store.append([frame(1)])
        with pytest.raises(NoScratchSpace, match="No space left on device") as error:
            store.append([frame(2)])
        assert "TMPDIR" in error.value.hint
