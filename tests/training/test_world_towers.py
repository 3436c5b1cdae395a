"""training/world_towers.py: labelled pictures, and towers that are loaded as they were trained."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from longvu_cli.config import Quantization
from longvu_cli.loading import load_modules
from longvu_cli.preprocess import normalise
from longvu_cli.towers import resize_position_grid
from longvu_cli.training import world_towers
from longvu_cli.training.tiny_checkpoint import new_checkpoint
from longvu_cli.training.world import weights_of
from longvu_cli.training.world_pictures import Camera168
from longvu_cli.training.world_towers import (
    DINOV2_INPUT,
    PATCHES,
    SIGLIP_INPUT,
    LabelledFrames,
    LabelledPictures,
    TowerPair,
    position_grid_for,
)
from longvu_cli.weights import Part
from longvu_cli.world.story import STYLES, Split, Story, story
from longvu_cli.world.things import COLOURS, FURNITURE, THINGS

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The towers are so small that more threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def batches(run: int, count: int = 1, batch: int = 12) -> list[LabelledFrames]:
    return list(islice(LabelledPictures(batch=batch, run=run), count))


def test_pictures_come_with_labels() -> None:
    (batch,) = batches(0, batch=60)
    assert len(batch) == 60
    assert batch.drawing.shape == batch.colour.shape == (60, PATCHES**2)
    assert batch.drawing.min() >= 0 and batch.drawing.max() <= len(THINGS) + len(FURNITURE)
    assert batch.colour.min() >= 0 and batch.colour.max() <= len(COLOURS)
    # Things have a colour, furniture has none.
    assert np.array_equal(batch.colour > 0, (batch.drawing > 0) & (batch.drawing <= len(THINGS)))
    assert np.array_equal(batch.style, batch.frames.scenes.style[batch.frames.scene])
    shown = {STYLES[style] for style in batch.style}
    assert {"card", "spotlight"} & shown
    assert len(shown) >= 5
    # Most pictures have something on them.
    assert (batch.drawing > 0).any(axis=1).mean() > 0.9


def test_a_run_always_draws_the_same_and_another_something_else() -> None:
    first, second, other = batches(0, 2), batches(0, 2), batches(1, 2)
    for a, b, c in zip(first, second, other, strict=True):
        assert np.array_equal(a.drawing, b.drawing)
        assert np.array_equal(a.frames.noise, b.frames.noise)
        assert not np.array_equal(a.drawing, c.drawing)
    assert not np.array_equal(first[0].drawing, first[1].drawing)


def test_only_stories_for_training_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []

    def listening(seed: int, seconds: int) -> Story:
        seeds.append(seed)
        return story(seed, seconds)

    monkeypatch.setattr(world_towers, "story", listening)
    batches(0, 3)
    assert len(set(seeds)) > 6
    assert max(seeds) < Split.VALIDATION.seed(0)


def test_towers_learn() -> None:
    torch.manual_seed(0)
    pair = TowerPair(CPU)
    (batch,) = batches(0, batch=4)
    optimizer = torch.optim.AdamW(pair.parameters(), lr=1e-3)
    losses = []
    for _ in range(6):
        values = pair(batch)
        values["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(values["loss"].detach()))
    assert losses[-1] < 0.8 * losses[0]
    shares = {name: float(value) for name, value in values.items() if name != "loss"}
    assert set(shares) == {
        f"{tower}_{what}" for tower in ("dinov2", "siglip") for what in ("drawing", "colour", "style")
    }
    assert all(0 <= share <= 1 for share in shares.values())


@pytest.mark.parametrize("patches", [4, PATCHES])
def test_the_position_grid_survives_the_resize_of_the_loader(patches: int) -> None:
    wanted = torch.randn(1, 1 + patches**2, 5, generator=torch.Generator().manual_seed(1))
    stored = position_grid_for(wanted, patches)
    assert stored.shape == wanted.shape
    assert stored[:, 0].equal(wanted[:, 0])
    # The resize computes in float32.
    torch.testing.assert_close(resize_position_grid(stored, patches), wanted, rtol=0, atol=1e-4)
    assert not torch.allclose(resize_position_grid(wanted, patches), wanted, atol=1e-2)


def test_the_loaded_towers_see_what_the_trained_ones_saw(tmp_path: Path) -> None:
    torch.manual_seed(2)
    pair = TowerPair(CPU).eval()
    pair.save(tmp_path)
    new_checkpoint(tmp_path)
    weights = weights_of(tmp_path)
    modules = load_modules(weights, Part.ANSWER, device=CPU, dtype=torch.float32, quantize=Quantization.NONE)
    (batch,) = batches(3, batch=3)
    pixels = Camera168(CPU).film(batch.frames)
    with torch.no_grad():
        dinov2 = pair.dinov2(normalise(pixels, DINOV2_INPUT, torch.float32)).last_hidden_state[:, 1:]
        siglip = pair._siglip_features(normalise(pixels, SIGLIP_INPUT, torch.float32))
        seen = modules.vision.dinov2(pixels), modules.vision.siglip(pixels)
    torch.testing.assert_close(seen[0], dinov2, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(seen[1], siglip, rtol=1e-3, atol=1e-3)
