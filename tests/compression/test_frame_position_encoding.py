"""frame_position_encoding.py: eq. 3, term by term."""

from __future__ import annotations

import math

import pytest
import torch

from longvu_cli.compression.frame_position_encoding import frame_position_encoding


def test_every_entry_is_equation_three() -> None:
    times, width = [0, 1, 7, 399], 10
    found = frame_position_encoding(torch.tensor(times), width)
    assert found.shape == (4, width)
    assert found.dtype is torch.float32
    for row, time in zip(found.tolist(), times, strict=True):
        for i in range(width // 2):
            angle = time / 10000 ** (2 * i / width)
            assert row[2 * i] == pytest.approx(math.sin(angle), abs=1e-4)
            assert row[2 * i + 1] == pytest.approx(math.cos(angle), abs=1e-4)


def test_time_zero_alternates_zero_and_one() -> None:
    assert frame_position_encoding(torch.tensor([0]), 6).tolist() == [[0, 1, 0, 1, 0, 1]]


def test_an_odd_width_is_refused() -> None:
    with pytest.raises(ValueError, match="7 is odd"):
        frame_position_encoding(torch.tensor([0]), 7)
