"""First stage: the two towers of the tiny model learn to see, from labels of every patch.

Trained from answers alone, towers of this size learn little; taught what is where first, and then frozen (as the
released towers are), they let everything after them learn in minutes.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional
from torch.utils.data import IterableDataset, get_worker_info
from transformers import Dinov2Config, Dinov2Model, SiglipVisionConfig, SiglipVisionModel

from longvu_cli.preprocess import TowerInput, normalise
from longvu_cli.towers import SIGLIP_PREFIX, resize_position_grid
from longvu_cli.training.world_pictures import SIDE, Camera168, Shown, patch_labels, shown
from longvu_cli.world.story import STYLES, Camera, Scene, Split, story
from longvu_cli.world.things import COLOURS, FURNITURE, THINGS

PATCH = 14
PATCHES = SIDE // PATCH
WIDTH, LAYERS, HEADS = 192, 4, 6
SIGLIP_INPUT = TowerInput(side=SIDE, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
DINOV2_INPUT = TowerInput(side=SIDE, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))

_NAMES = (*THINGS, *FURNITURE)
_COLOURS = tuple(COLOURS)
# Share of pictures that are taken from long stories, which have cards.
_STORY_SECONDS = (1, 12, 12, 40)
_CARDS = 0.2


@dataclass(frozen=True)
class LabelledFrames:
    """Pictures with labels.

    Attributes:
        drawing, colour: [f, PATCHES²], 0 for none.
        style: [f].
    """

    frames: Shown
    drawing: npt.NDArray[np.int64]
    colour: npt.NDArray[np.int64]
    style: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.frames)


class LabelledPictures(IterableDataset[LabelledFrames]):
    """Endless batches of single pictures. ``run`` tells the draws of one run from those of another."""

    def __init__(self, *, batch: int, run: int) -> None:
        super().__init__()
        self._batch, self._run = batch, run

    def __iter__(self) -> Iterator[LabelledFrames]:
        info = get_worker_info()
        chance = np.random.default_rng([self._run, 0 if info is None else info.id, 1])
        while True:
            yield self._one(chance)

    def _one(self, chance: np.random.Generator) -> LabelledFrames:
        draw = random.Random(int(chance.integers(2**63)))
        moments: list[tuple[Scene, Camera]] = []
        while len(moments) < self._batch:
            told = story(Split.TRAIN.seed(draw.randrange(2**40)), draw.choice(_STORY_SECONDS))
            times = [draw.uniform(0, told.seconds) for _ in range(2)]
            if told.cards and draw.random() < 4 * _CARDS:
                times.append(draw.choice(told.cards).start_s)
            moments += [(told.scene_at(t), told.camera_at(t)) for t in times]
        moments = moments[: self._batch]
        labels = np.stack([patch_labels(*moment, PATCHES, _NAMES, _COLOURS) for moment in moments])
        flat = labels.reshape(len(moments), -1, 2)
        return LabelledFrames(
            frames=shown(moments, chance),
            drawing=np.ascontiguousarray(flat[..., 0]),
            colour=np.ascontiguousarray(flat[..., 1]),
            style=np.array([STYLES.index(scene.style) for scene, _ in moments], np.int64),
        )


class TowerPair(nn.Module):
    """Both towers with heads that name what each patch and each picture shows."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.dinov2 = Dinov2Model(dinov2_config())
        self.siglip = SiglipVisionModel(siglip_config())
        self.heads = nn.ModuleDict({name: _Heads(WIDTH) for name in ("dinov2", "siglip")})
        self._camera = Camera168(device)
        self.to(device)

    def forward(self, batch: LabelledFrames) -> dict[str, torch.Tensor]:
        """Losses and accuracies of one batch."""
        pixels = self._camera.film(batch.frames)
        device = pixels.device
        drawing, colour, style = (
            torch.from_numpy(labels).to(device) for labels in (batch.drawing, batch.colour, batch.style)
        )
        results: dict[str, torch.Tensor] = {}
        losses = []
        for name, features in (
            ("dinov2", self.dinov2(normalise(pixels, DINOV2_INPUT, torch.float32)).last_hidden_state[:, 1:]),
            ("siglip", self._siglip_features(normalise(pixels, SIGLIP_INPUT, torch.float32))),
        ):
            named, coloured, styled = self.heads[name](features)
            losses += [
                _patch_loss(named, drawing),
                _patch_loss(coloured, colour),
                0.3 * functional.cross_entropy(styled, style),
            ]
            there = drawing > 0
            results[f"{name}_drawing"] = (named.argmax(-1) == drawing)[there].float().mean().detach()
            results[f"{name}_colour"] = (coloured.argmax(-1) == colour)[there].float().mean().detach()
            results[f"{name}_style"] = (styled.argmax(-1) == style).float().mean().detach()
        return {"loss": torch.stack(losses).sum(), **results}

    def _siglip_features(self, pixels: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.siglip.encoder(inputs_embeds=self.siglip.embeddings(pixels)).last_hidden_state
        return features

    def save(self, folder: Path) -> None:
        """Write both towers in the form of their hub repositories: ``dinov2/`` and ``siglip/``."""
        dinov2 = {name: tensor.detach().cpu() for name, tensor in self.dinov2.state_dict().items()}
        name = "embeddings.position_embeddings"
        dinov2[name] = position_grid_for(dinov2[name], PATCHES)
        # Only the part that makes the features is trained; the loader asks for the layer after it, too.
        siglip = {f"{SIGLIP_PREFIX}{name}": t.detach().cpu() for name, t in self.siglip.state_dict().items()}
        _write_tower(folder / "dinov2", self.dinov2.config.to_dict(), dinov2, DINOV2_INPUT)
        _write_tower(folder / "siglip", self.siglip.config.to_dict(), siglip, SIGLIP_INPUT)


def dinov2_config() -> Dinov2Config:
    """The tiny DINOv2."""
    return Dinov2Config(
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        mlp_ratio=4,
        image_size=SIDE,
        patch_size=PATCH,
        use_swiglu_ffn=False,
        use_mask_token=False,
    )


def siglip_config() -> SiglipVisionConfig:
    """The tiny SigLIP."""
    return SiglipVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        image_size=SIDE,
        patch_size=PATCH,
        vision_use_head=False,
    )


class _Heads(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.drawing = nn.Linear(width, 1 + len(_NAMES))
        self.colour = nn.Linear(width, 1 + len(_COLOURS))
        self.style = nn.Linear(width, len(STYLES))

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        normed = self.norm(features)
        return self.drawing(normed), self.colour(normed), self.style(normed.mean(dim=1))


def _patch_loss(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy in which patches with nothing on them count a fifth."""
    losses = functional.cross_entropy(scores.flatten(0, 1).float(), labels.flatten(), reduction="none")
    weights = torch.where(labels.flatten() > 0, 1.0, 0.2)
    return (losses * weights).sum() / weights.sum()


def position_grid_for(wanted: torch.Tensor, patches: int) -> torch.Tensor:
    """The position embeddings that the loader's resize turns into the ones that were trained.

    Args:
        wanted: [1, 1 + patches², channels].

    Returns:
        The same shape.
    """
    count = patches**2
    unit = torch.eye(count).reshape(1, count, count)
    rows = torch.cat((torch.zeros(1, 1, count), unit), dim=1)
    resize = resize_position_grid(rows.double(), patches)[0, 1:].double()
    solved = torch.linalg.solve(resize, wanted[0, 1:].double())
    return torch.cat((wanted[:, :1], solved[None].to(wanted.dtype)), dim=1)


def _write_tower(
    folder: Path, config: Mapping[str, object], tensors: dict[str, torch.Tensor], tower_input: TowerInput
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    preprocessor = {"image_mean": tower_input.mean, "image_std": tower_input.std}
    for name, values in (("config.json", config), ("preprocessor_config.json", preprocessor)):
        (folder / name).write_text(json.dumps(values, indent=2, sort_keys=True, default=str) + "\n", encoding="utf-8")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
