"""DINOv2 and SigLIP → 24×24 features per frame, by the stock transformers classes.

Two things are unlike the stock use of these models, because the released connector was trained so:

* DINOv2's position grid (37×37) is resized once with ``scale_factor = 27.1/37``; transformers' own resize to
  ``size = 27`` gives other numbers
  (pinned by ``tests/test_towers.py::test_position_grid_is_resized_by_the_released_factor``).
* SigLIP's features are the last encoder layer's output *before* the post-layernorm
  (pinned by ``tests/test_towers.py::test_siglip_features_come_before_the_post_layernorm``).
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import Dinov2Config, Dinov2Model, SiglipVisionConfig, SiglipVisionModel

from longvu_cli.errors import NotACheckpoint, WeightsDamaged
from longvu_cli.interpolation import resize_grid
from longvu_cli.preprocess import TowerInput, normalise

SIGLIP_PREFIX = "vision_model."
# Beside a tower's config: how its pixels are normalised.
PIXELS_FILE = "preprocessor_config.json"


class Tower(nn.Module):
    """One vision tower: square uint8 pixels → features on the connector's grid.

    Args:
        model: the stock model.
        tower_input: size and normalisation of its input.
        grid_side: side of the grid that is handed on (24).
    """

    def __init__(self, *, model: nn.Module, tower_input: TowerInput, grid_side: int) -> None:
        super().__init__()
        self.model = model
        self.input = tower_input
        self.grid_side = grid_side

    @torch.inference_mode()
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Features of some frames.

        Args:
            pixels: [frames, side, side, 3] uint8, on the tower's device.

        Returns:
            [frames, grid_side², channels].
        """
        parameter = next(self.model.parameters())
        return resize_grid(self._patches(normalise(pixels, self.input, parameter.dtype)), self.grid_side)

    @property
    def layers(self) -> nn.ModuleList:
        """The layers of the encoder, which are all alike."""
        raise NotImplementedError

    def _patches(self, pixels: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


class Dinov2Tower(Tower):
    """Last hidden state after the final LayerNorm, without the CLS token."""

    model: Any

    @property
    def layers(self) -> nn.ModuleList:
        """The layers of the encoder, which are all alike."""
        layers: nn.ModuleList = self.model.encoder.layer
        return layers

    def _patches(self, pixels: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.model(pixels).last_hidden_state
        return hidden[:, 1:]


class SiglipTower(Tower):
    """Last encoder layer's output; post-layernorm and pooling head are not run."""

    model: Any

    @property
    def layers(self) -> nn.ModuleList:
        """The layers of the encoder, which are all alike."""
        layers: nn.ModuleList = self.model.encoder.layers
        return layers

    def _patches(self, pixels: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.model.encoder(inputs_embeds=self.model.embeddings(pixels)).last_hidden_state
        return hidden


def dinov2_config(folder: Path) -> Dinov2Config:
    """The stock config of a DINOv2 folder.

    Raises:
        NotACheckpoint: there is none, or it describes another model.
    """
    config = Dinov2Config(**_config_values(folder, "dinov2"))
    _require_heads(config.num_attention_heads, folder)
    return config


def dinov2_layers(folder: Path) -> object:
    """How many layers a DINOv2 folder says it has; its stock config lists them all, however many they are."""
    return _config_values(folder, "dinov2").get("num_hidden_layers", Dinov2Config().num_hidden_layers)


def siglip_config(folder: Path) -> SiglipVisionConfig:
    """The stock config of the vision half of a SigLIP folder (the hub's folder describes both halves).

    Raises:
        NotACheckpoint: there is none, or it describes another model.
    """
    values = _config_values(folder, "siglip", "siglip_vision_model")
    config = SiglipVisionConfig(**{**values.get("vision_config", values), "vision_use_head": False})
    _require_heads(config.num_attention_heads, folder)
    return config


def dinov2_tower(
    folder: Path,
    weights: dict[str, torch.Tensor],
    *,
    resolution: int,
    grid_side: int,
    device: torch.device,
    dtype: torch.dtype,
) -> Dinov2Tower:
    """Build the DINOv2 tower from a folder's config and its tensors.

    Args:
        resolution: side of its input in pixels (378).

    Raises:
        NotACheckpoint: the folder describes another model.
        WeightsDamaged: tensors are missing, unexpected or of the wrong shape.
    """
    config = dinov2_config(folder)
    model = load_stock_model(Dinov2Model, config, weights, device=device, dtype=dtype, name=str(folder))
    patches = resolution // _side(config.patch_size, folder)
    grid = model.embeddings.position_embeddings
    model.embeddings.position_embeddings = nn.Parameter(resize_position_grid(grid, patches), requires_grad=False)
    return Dinov2Tower(model=model, tower_input=_tower_input(folder, resolution), grid_side=grid_side)


def siglip_tower(
    folder: Path, weights: dict[str, torch.Tensor], *, grid_side: int, device: torch.device, dtype: torch.dtype
) -> SiglipTower:
    """Build the SigLIP tower from a folder's config and its tensors; those of the text half and the head are left out.

    Raises:
        NotACheckpoint: the folder describes another model.
        WeightsDamaged: tensors are missing, unexpected or of the wrong shape.
    """
    config = siglip_config(folder)
    wanted = {name: tensor for name, tensor in weights.items() if is_siglip_feature_tensor(name)}
    model = load_stock_model(SiglipVisionModel, config, wanted, device=device, dtype=dtype, name=str(folder))
    return SiglipTower(
        model=model, tower_input=_tower_input(folder, _side(config.image_size, folder)), grid_side=grid_side
    )


def is_siglip_feature_tensor(name: str) -> bool:
    """Whether a tensor of a SigLIP checkpoint belongs to the part that makes the features."""
    return name.startswith(SIGLIP_PREFIX) and not name.startswith(f"{SIGLIP_PREFIX}head.")


def resize_position_grid(embeddings: torch.Tensor, patches: int) -> torch.Tensor:
    """Resize DINOv2's position embeddings for ``patches`` × ``patches``, the way the released models did.

    Quirk: bicubic by ``scale_factor = (patches + 0.1) / grid``, not by size, in float32.

    Args:
        embeddings: [1, 1 + grid², channels], the CLS row first.

    Returns:
        [1, 1 + patches², channels], in the input's type.
    """
    cls_row, grid_rows = embeddings[:, :1], embeddings[:, 1:]
    side = math.isqrt(grid_rows.shape[1])
    grid = grid_rows.float().transpose(1, 2).reshape(1, -1, side, side)
    scale = (patches + 0.1) / side
    resized = functional.interpolate(grid, scale_factor=(scale, scale), mode="bicubic", align_corners=False)
    rows = resized.flatten(2).transpose(1, 2).to(embeddings.dtype)
    return torch.cat((cls_row, rows), dim=1)


def load_stock_model(
    model_class: Any,
    config: Any,
    weights: dict[str, torch.Tensor],
    *,
    device: torch.device,
    dtype: torch.dtype,
    name: str,
) -> Any:
    """Build a stock vision model and load its tensors strictly (transformers renames old tensor names itself).

    Raises:
        WeightsDamaged: tensors are missing, unexpected or of the wrong shape.
    """
    try:
        model, info = model_class.from_pretrained(
            None, config=config, state_dict=weights, dtype=dtype, device_map=device, output_loading_info=True
        )
    except RuntimeError as error:
        raise WeightsDamaged(f"the tensors of {name} do not fit its config.json: {error}") from error
    for kind in ("missing", "unexpected", "mismatched"):
        if names := sorted(str(key) for key in info[f"{kind}_keys"]):
            raise WeightsDamaged(f"{name} has {len(names)} {kind} tensors: {', '.join(names[:3])}")
    model.requires_grad_(False)
    return model.eval()


def _config_values(folder: Path, *model_types: str) -> dict[str, Any]:
    values = _json(folder / "config.json")
    if values.get("model_type") not in model_types:
        raise NotACheckpoint(
            f"{folder} holds a {values.get('model_type')!r} model where a {model_types[0]} tower is needed"
        )
    return values


def _tower_input(folder: Path, side: int) -> TowerInput:
    values = _json(folder / PIXELS_FILE)
    try:
        return TowerInput(side=side, mean=_triple(values["image_mean"]), std=_triple(values["image_std"]))
    except (KeyError, TypeError, ValueError) as error:
        raise NotACheckpoint(f"{folder}/{PIXELS_FILE} does not say how pixels are normalised") from error


def _require_heads(count: int, folder: Path) -> None:
    if count < 1:
        raise NotACheckpoint(f"{folder}/config.json speaks of {count} attention heads", hint="choose another tower")


def _side(size: object, folder: Path) -> int:
    if not isinstance(size, int) or size < 1:
        raise NotACheckpoint(f"{folder}/config.json has a size of {size!r} where one number is needed")
    return size


def _triple(values: list[float]) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def _json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotACheckpoint(f"there is no {path.name} in {path.parent}") from None
    except (OSError, ValueError) as error:
        raise NotACheckpoint(f"{path} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise NotACheckpoint(f"{path} is no JSON object")
    return values
