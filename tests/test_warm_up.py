"""warm_up.py: what is passed through the modules, and that nothing depends on it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from longvu_cli import warm_up
from longvu_cli.loading import Modules
from longvu_cli.pipeline import BATCH, Vision
from longvu_cli.warm_up import look_at_nothing, warming_up


@pytest.fixture
def vision(load: Callable[..., Modules], parity: Path) -> Vision:
    return load(parity / "qwen").vision


def test_both_towers_and_the_connector_see_a_batch(vision: Vision, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, int]] = []
    for name, module in (("siglip", vision.siglip), ("dinov2", vision.dinov2)):
        module.register_forward_hook(lambda _, inputs, __, name=name: seen.append((name, len(inputs[0]))))
    aggregate = vision.connector.aggregate

    def fused(siglip: torch.Tensor, dinov2: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        seen.append(("connector", len(siglip)))
        return aggregate(siglip, dinov2, mask)

    monkeypatch.setattr(vision.connector, "aggregate", fused)
    look_at_nothing(vision)
    assert seen == [("dinov2", BATCH), ("siglip", BATCH), ("connector", BATCH)]


def test_what_goes_wrong_is_left_to_the_first_real_pass(vision: Vision, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> torch.Tensor:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(vision.connector, "aggregate", full)
    look_at_nothing(vision)


@pytest.mark.parametrize(("device", "times"), [("cpu", 0), ("cuda", 1)])
def test_only_a_gpu_is_warmed_up_and_the_block_ends_after_it(
    vision: Vision, monkeypatch: pytest.MonkeyPatch, device: str, times: int
) -> None:
    threads: list[threading.Thread] = []
    monkeypatch.setattr(warm_up, "look_at_nothing", lambda _: threads.append(threading.current_thread()))
    with warming_up(replace(vision, device=torch.device(device))):
        pass
    assert len(threads) == times
    assert not any(thread is threading.main_thread() or thread.is_alive() for thread in threads)
