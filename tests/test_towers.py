"""towers.py: where the two towers depart from the stock models, and that the folders are read strictly."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from longvu_cli.errors import NotACheckpoint, WeightsDamaged
from longvu_cli.interpolation import resize_grid
from longvu_cli.preprocess import normalise
from longvu_cli.towers import (
    Dinov2Tower,
    SiglipTower,
    dinov2_config,
    dinov2_tower,
    is_siglip_feature_tensor,
    resize_position_grid,
    siglip_config,
    siglip_tower,
)

CPU = torch.device("cpu")
Tensors = dict[str, torch.Tensor]


def tensors_of(folder: Path) -> Tensors:
    return load_file(folder / "model.safetensors")


def dinov2(folder: Path, weights: Tensors | None = None, dtype: torch.dtype = torch.float32) -> Dinov2Tower:
    weights = tensors_of(folder) if weights is None else weights
    return dinov2_tower(folder, weights, resolution=378, grid_side=24, device=CPU, dtype=dtype)


def siglip(folder: Path, weights: Tensors | None = None, dtype: torch.dtype = torch.float32) -> SiglipTower:
    weights = tensors_of(folder) if weights is None else weights
    return siglip_tower(folder, weights, grid_side=24, device=CPU, dtype=dtype)


@pytest.fixture(scope="module")
def towers(parity: Path) -> Path:
    return parity / "towers"


@pytest.fixture
def towers_copy(towers: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(towers, tmp_path / "towers"))


def pixels(side: int, frames: int = 2) -> torch.Tensor:
    return torch.randint(0, 256, (frames, side, side, 3), generator=torch.Generator().manual_seed(side)).byte()


# --- DINOv2 ---------------------------------------------------------------------------------------------------------


def bicubic(grid: torch.Tensor, row: int, column: int, scale: float) -> float:
    """One value of the resized grid: cubic convolution with a = −0.75, half-pixel centres, edges repeated."""
    a, side = -0.75, len(grid)

    def weights(place: int) -> list[tuple[int, float]]:
        centre = (place + 0.5) / scale - 0.5
        low = math.floor(centre)
        taps = []
        for step in range(-1, 3):
            x = abs(centre - (low + step))
            weight = (a + 2) * x**3 - (a + 3) * x**2 + 1 if x <= 1 else a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
            taps.append((min(max(low + step, 0), side - 1), weight))
        return taps

    return sum(down * across * float(grid[top, left]) for top, down in weights(row) for left, across in weights(column))


def test_position_grid_is_resized_by_the_released_factor() -> None:
    table = torch.randn(1, 1 + 37 * 37, 3, generator=torch.Generator().manual_seed(0))
    found = resize_position_grid(table, 27)
    assert found.shape == (1, 730, 3)
    assert torch.equal(found[:, 0], table[:, 0])
    grid = table[0, 1:, 1].reshape(37, 37).double()
    for row, column in ((0, 0), (0, 26), (13, 13), (26, 26), (5, 20), (26, 3)):
        wanted = bicubic(grid, row, column, 27.1 / 37)
        assert float(found[0, 1 + 27 * row + column, 1]) == pytest.approx(wanted, abs=1e-4)
        # Resizing to the size of 27 is something else.
        assert abs(bicubic(grid, row, column, 27 / 37) - wanted) > 1e-3


def test_the_towers_positions_are_the_resized_ones(towers: Path) -> None:
    table = tensors_of(towers / "dinov2")["embeddings.position_embeddings"]
    tower = dinov2(towers / "dinov2")
    assert torch.equal(tower.model.embeddings.position_embeddings, resize_position_grid(table, 27))


def test_positions_are_resized_in_float32_and_keep_their_type() -> None:
    table = torch.randn(1, 1 + 37 * 37, 3, generator=torch.Generator().manual_seed(0)).bfloat16()
    found = resize_position_grid(table, 27)
    assert found.dtype is torch.bfloat16
    assert torch.equal(found, resize_position_grid(table.float(), 27).bfloat16())


def test_dinov2_features_come_after_the_last_layernorm_without_the_class_token(towers: Path) -> None:
    tower = dinov2(towers / "dinov2")
    seen = pixels(378)
    hidden = tower.model(normalise(seen, tower.input, torch.float32)).last_hidden_state
    assert hidden.shape == (2, 730, 48)
    features = tower(seen)
    assert features.shape == (2, 576, 48)
    assert torch.allclose(features, resize_grid(hidden[:, 1:], 24), atol=1e-6)
    weights = tensors_of(towers / "dinov2")
    weights["layernorm.weight"], weights["layernorm.bias"] = torch.zeros(48), torch.full((48,), 7.0)
    assert torch.allclose(dinov2(towers / "dinov2", weights)(seen), torch.full((), 7.0))


# --- SigLIP ---------------------------------------------------------------------------------------------------------


def test_siglip_features_come_before_the_post_layernorm(towers: Path) -> None:
    seen = pixels(384)
    tower = siglip(towers / "siglip")
    features = tower(seen)
    assert features.shape == (2, 576, 40)
    stock = tower.model(normalise(seen, tower.input, torch.float32), output_hidden_states=True)
    assert torch.allclose(features, resize_grid(stock.hidden_states[-1], 24), atol=1e-5)
    assert not torch.allclose(features, resize_grid(stock.last_hidden_state, 24), atol=1e-1)
    # What the post-layernorm is does not matter.
    weights = tensors_of(towers / "siglip")
    weights["vision_model.post_layernorm.weight"] = torch.zeros(40)
    assert torch.equal(siglip(towers / "siglip", weights)(seen), features)


def test_the_head_and_the_text_half_are_left_out(towers: Path) -> None:
    weights = tensors_of(towers / "siglip")
    assert any(name.startswith("vision_model.head.") for name in weights)
    whole = {**weights, "text_model.final_layer_norm.weight": torch.ones(40), "logit_scale": torch.ones(1)}
    tower = siglip(towers / "siglip", whole)
    assert not any("head" in name for name in tower.state_dict())
    assert not is_siglip_feature_tensor("text_model.final_layer_norm.weight")
    assert not is_siglip_feature_tensor("vision_model.head.probe")
    assert is_siglip_feature_tensor("vision_model.post_layernorm.weight")


def test_the_hubs_folder_describes_both_halves(towers_copy: Path) -> None:
    path = towers_copy / "siglip" / "config.json"
    values = json.loads(path.read_text())
    del values["model_type"]
    path.write_text(json.dumps({"model_type": "siglip", "text_config": {"hidden_size": 9}, "vision_config": values}))
    config = siglip_config(towers_copy / "siglip")
    assert (config.hidden_size, config.image_size, config.patch_size) == (40, 384, 14)
    assert siglip(towers_copy / "siglip")(pixels(384, 1)).shape == (1, 576, 40)


# --- both -----------------------------------------------------------------------------------------------------------


def test_the_inputs_are_what_the_folders_say(towers: Path) -> None:
    small, large = dinov2(towers / "dinov2").input, siglip(towers / "siglip").input
    assert (small.side, small.mean, small.std) == (378, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert (large.side, large.mean, large.std) == (384, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def test_frames_do_not_influence_each_other(towers: Path) -> None:
    for tower, side in ((dinov2(towers / "dinov2"), 378), (siglip(towers / "siglip"), 384)):
        seen = pixels(side, 3)
        alone = torch.cat([tower(frame[None]) for frame in seen])
        assert torch.allclose(tower(seen), alone, atol=1e-5)


def test_bfloat16_towers_hand_on_bfloat16(towers: Path) -> None:
    for tower, exact, side in (
        (dinov2(towers / "dinov2", dtype=torch.bfloat16), dinov2(towers / "dinov2"), 378),
        (siglip(towers / "siglip", dtype=torch.bfloat16), siglip(towers / "siglip"), 384),
    ):
        found, wanted = tower(pixels(side, 1)), exact(pixels(side, 1))
        assert found.dtype is torch.bfloat16
        # bfloat16 has 8 bits: a few per cent after two layers.
        assert torch.nn.functional.cosine_similarity(found.float(), wanted, dim=-1).min() > 0.99


def test_no_gradients_are_kept(towers: Path) -> None:
    tower = dinov2(towers / "dinov2")
    assert not any(parameter.requires_grad for parameter in tower.parameters())
    assert not tower.model.training


@pytest.mark.parametrize(("name", "make"), [("dinov2", dinov2), ("siglip", siglip)])
def test_a_missing_tensor_is_named(towers: Path, name: str, make: type) -> None:
    weights = tensors_of(towers / name)
    gone = next(key for key in sorted(weights) if key.endswith("layer.1.norm1.weight") or "1.layer_norm1.weight" in key)
    del weights[gone]
    with pytest.raises(WeightsDamaged, match=r"1 missing tensors: .*1\.(layer_)?norm1\.weight"):
        make(towers / name, weights)


def test_an_unexpected_tensor_is_named(towers: Path) -> None:
    weights = tensors_of(towers / "dinov2") | {"encoder.layer.9.extra": torch.zeros(1)}
    with pytest.raises(WeightsDamaged, match=r"unexpected tensors: .*extra"):
        dinov2(towers / "dinov2", weights)


@pytest.mark.parametrize(
    ("name", "make", "tensor"),
    [("dinov2", dinov2, "layernorm.weight"), ("siglip", siglip, "vision_model.post_layernorm.weight")],
)
def test_a_tensor_of_the_wrong_shape_is_refused(towers: Path, name: str, make: type, tensor: str) -> None:
    weights = tensors_of(towers / name)
    weights[tensor] = torch.zeros(5)
    with pytest.raises(WeightsDamaged):
        make(towers / name, weights)


def test_the_other_towers_folder_is_refused(towers: Path) -> None:
    with pytest.raises(NotACheckpoint, match="'siglip_vision_model' model where a dinov2 tower is needed"):
        dinov2_config(towers / "siglip")
    with pytest.raises(NotACheckpoint, match="'dinov2' model where a siglip tower is needed"):
        siglip_config(towers / "dinov2")


@pytest.mark.parametrize("content", [None, "{", "[]", "{}", '{"image_mean": [1, 2], "image_std": [1, 1, 1]}'])
def test_a_folder_that_does_not_say_how_pixels_are_normalised_is_refused(
    towers_copy: Path, content: str | None
) -> None:
    path = towers_copy / "dinov2" / "preprocessor_config.json"
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    with pytest.raises(NotACheckpoint, match=r"preprocessor_config\.json"):
        dinov2(towers_copy / "dinov2")
