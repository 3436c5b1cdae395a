"""Write a checkpoint of full size with random weights, in the released form: for measuring speed and memory.

    python bench/random_checkpoint.py OUT --config CONFIG.json --tokenizer FOLDER

The tokenizer is that of any tiny checkpoint: speed does not depend on what the words mean.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import Dinov2Config, Dinov2Model, SiglipVisionConfig, SiglipVisionModel

from longvu_cli.config import ModelConfig
from longvu_cli.loading import CONNECTOR_PREFIX, build_connector, language_model_shapes

SIGLIP = {
    "model_type": "siglip_vision_model",
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "image_size": 384,
    "patch_size": 14,
}
DINOV2 = {
    "model_type": "dinov2",
    "hidden_size": 1536,
    "num_hidden_layers": 40,
    "num_attention_heads": 24,
    "mlp_ratio": 4,
    "use_swiglu_ffn": True,
    "image_size": 518,
    "patch_size": 14,
}
MEANS = {"siglip": ([0.5] * 3, [0.5] * 3), "dinov2": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])}
SHARD_BYTES = 4 * 2**30


def random_tensor(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Weights as a trained model has them: norms near one, the rest small."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if ("norm" in name and name.endswith("weight")) or "lambda1" in name:
        return torch.ones(shape, dtype=torch.bfloat16)
    return (torch.randn(shape, device=device, dtype=torch.bfloat16) * 0.02).cpu()


def write_sharded(shapes: dict[str, tuple[int, ...]], folder: Path) -> None:
    shards: list[dict[str, torch.Tensor]] = [{}]
    size, index = 0, {}
    for name, shape in shapes.items():
        tensor = random_tensor(name, shape)
        if size + tensor.nbytes > SHARD_BYTES:
            flush(shards[-1], folder, len(shards), index)
            shards[-1].clear()
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += tensor.nbytes
    flush(shards[-1], folder, len(shards), index)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


def flush(tensors: dict[str, torch.Tensor], folder: Path, number: int, index: dict[str, str]) -> None:
    file = f"model-{number:05}.safetensors"
    save_file(tensors, folder / file, metadata={"format": "pt"})
    index.update(dict.fromkeys(tensors, file))


def write_tower(model: torch.nn.Module, values: dict[str, object], kind: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    prefix = "vision_model." if kind == "siglip" else ""
    tensors = {prefix + name: random_tensor(name, tuple(t.shape)) for name, t in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(values))
    mean, std = MEANS[kind]
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": mean, "image_std": std}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--config", type=Path, required=True, help="config.json of a released checkpoint")
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder of any checkpoint of the same family")
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    config = ModelConfig.from_file(arguments.config)
    shutil.copy(arguments.config, folder / "config.json")
    for file in arguments.tokenizer.glob("*token*.json"):
        shutil.copy(file, folder)
    with torch.device("meta"):
        connector = build_connector(config, siglip_width=1152, dinov2_width=1536)
        siglip = SiglipVisionModel(SiglipVisionConfig(**SIGLIP))
        dinov2 = Dinov2Model(Dinov2Config(**DINOV2))
    shapes = {f"{CONNECTOR_PREFIX}{name}": tuple(t.shape) for name, t in connector.state_dict().items()}
    write_sharded({**language_model_shapes(config), **shapes}, folder)
    write_tower(siglip, SIGLIP, "siglip", folder / "siglip")
    write_tower(dinov2, DINOV2, "dinov2", folder / "dinov2")


if __name__ == "__main__":
    main()
