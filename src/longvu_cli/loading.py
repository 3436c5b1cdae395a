"""Folders → modules: the parts of a checkpoint, built from its config and loaded strictly by name."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerFast
from transformers.utils import logging

from longvu_cli.checkpoint import CONFIG_FILE, KEY_POSITIONS, Checkpoint, image_token_len_of
from longvu_cli.compilation import compile_decoder, compile_layers, require_compiler
from longvu_cli.config import ModelConfig, Quantization
from longvu_cli.device import free_memory, is_out_of_memory, out_of_memory_is_an_error
from longvu_cli.errors import LongVUError, NotACheckpoint
from longvu_cli.language_model import LanguageModel, stock_class, stock_config
from longvu_cli.pipeline import Vision
from longvu_cli.placement import place_decoder
from longvu_cli.prompt import load_tokenizer
from longvu_cli.sva import Connector
from longvu_cli.towers import (
    PIXELS_FILE,
    dinov2_config,
    dinov2_layers,
    dinov2_tower,
    is_siglip_feature_tensor,
    siglip_config,
    siglip_tower,
)
from longvu_cli.variants import LAYERS_PREFIX, Footprint, does_not_fit, require_fit
from longvu_cli.warm_up import warming_up
from longvu_cli.weights import EMBEDDINGS, Part, Weights

# The released names of the connector's tensors are those of the module with this in front.
CONNECTOR_PREFIX = "model."
_OTHER = "check that the config and the weights are of the same checkpoint, or choose another"


@dataclass(frozen=True)
class Modules:
    """What was loaded.

    Attributes:
        embeddings: the language model's input embeddings; None for ``Part.VISION``.
        language_model: only for ``Part.ANSWER``.
        vision_files: the files that the towers and the connector come from.
        notices: what a user should know about the checkpoint.
        devices: those that hold a part of it; the towers and the connector are on the first.
    """

    config: ModelConfig
    tokenizer: PreTrainedTokenizerFast
    vision: Vision
    embeddings: nn.Embedding | None
    language_model: LanguageModel | None
    vision_files: tuple[Path, ...]
    notices: tuple[str, ...]
    devices: tuple[torch.device, ...]


def load_modules(
    weights: Weights,
    part: Part,
    *,
    device: torch.device,
    dtype: torch.dtype,
    quantize: Quantization,
    compile: bool = False,
    others: tuple[torch.device, ...] = (),
) -> Modules:
    """Load the parts that are needed; nothing is loaded before every tensor name and shape has been compared.

    Args:
        compile: have layers compiled when they are first used. Quantised ones stay as they are.
        others: further GPUs, which hold layers of the language model where ``device`` is too small for all.

    Raises:
        NotACheckpoint: a folder describes another kind of model.
        WeightsNotFound: a weight file is missing.
        WeightsDamaged: tensors are missing, unexpected or of the wrong shape.
        DeviceOutOfMemory: the model does not fit.
        DeviceUnavailable: nothing can be compiled here.
    """
    if compile:
        require_compiler(device)
    with _odd_configs(weights):
        modules = _load(weights, part, devices=(device, *others), dtype=dtype, quantize=quantize)
    if compile:
        compile_layers(modules.vision.dinov2.layers)
        compile_layers(modules.vision.siglip.layers)
        if modules.language_model is not None and quantize is Quantization.NONE:
            compile_decoder(modules.language_model.decoder)
    return modules


def _load(
    weights: Weights, part: Part, *, devices: tuple[torch.device, ...], dtype: torch.dtype, quantize: Quantization
) -> Modules:
    device = devices[0]
    checkpoint = Checkpoint.open(weights.checkpoint)
    config, notices = _reconciled(ModelConfig.from_file(weights.checkpoint / CONFIG_FILE), checkpoint)
    towers = (Checkpoint.open(weights.siglip), Checkpoint.open(weights.dinov2))
    _require_layers(config.language_model.get("num_hidden_layers"), checkpoint)
    _require_layers(config.connector_depth, checkpoint)
    _require_layers(siglip_config(weights.siglip).num_hidden_layers, towers[0])
    _require_layers(dinov2_layers(weights.dinov2), towers[1])
    connector = _connector_on_meta(config, weights)
    decoder = _decoder_on_meta(config)
    language_shapes = _shapes(decoder)
    connector_shapes = {f"{CONNECTOR_PREFIX}{name}": tuple(t.shape) for name, t in connector.state_dict().items()}
    checkpoint.check({**language_shapes, **connector_shapes})
    tokenizer = load_tokenizer(weights.checkpoint)
    places = None
    if part is Part.ANSWER and device.type == "cuda":
        footprint, vision_parameters = _footprint(weights.name, language_shapes, connector_shapes, *towers)
        places = _places(
            decoder, footprint, devices, beside=vision_parameters * dtype.itemsize, dtype=dtype, quantize=quantize
        )
    with out_of_memory_is_an_error(device, "loading the model"), _no_progress_bars():
        tensors = checkpoint.read(connector_shapes, device=device, dtype=dtype)
        connector.load_state_dict(
            {name.removeprefix(CONNECTOR_PREFIX): tensor for name, tensor in tensors.items()}, assign=True
        )
        vision = _vision(weights, towers, config, connector.eval().requires_grad_(False), device, dtype)
        embeddings, language_model = None, None
        if part is Part.QUESTION:
            table = checkpoint.read([EMBEDDINGS], device=device, dtype=dtype)[EMBEDDINGS]
            embeddings = nn.Embedding.from_pretrained(table)
        if part is Part.ANSWER:
            # Quantised layers, and those for several devices, pass through the host's memory; all others go straight
            # to the device.
            straight = quantize is Quantization.NONE and places is None
            place = device if straight else torch.device("cpu")
            with warming_up(vision):
                weights_of_decoder = checkpoint.read(language_shapes, device=place)
            language_model = LanguageModel.load(
                config,
                weights_of_decoder,
                device=device,
                dtype=dtype,
                quantize=quantize,
                places=places,
            )
            embeddings = language_model.embeddings
    files = [
        *checkpoint.files_of(connector_shapes),
        *(file for tower in towers for file in tower.files_of(tower.names)),
    ]
    files += [folder / CONFIG_FILE for folder in (weights.checkpoint, weights.siglip, weights.dinov2)]
    files += [folder / PIXELS_FILE for folder in (weights.siglip, weights.dinov2)]
    used = devices[:1] if places is None else tuple(one for one in devices if one in {device, *places.values()})
    return Modules(config, tokenizer, vision, embeddings, language_model, tuple(files), notices, used)


def _places(
    decoder: Any,
    footprint: Footprint,
    devices: tuple[torch.device, ...],
    *,
    beside: int,
    dtype: torch.dtype,
    quantize: Quantization,
) -> dict[str, torch.device] | None:
    """Which GPU holds which part of the decoder; None: the first holds all.

    Raises:
        DeviceOutOfMemory: it does not fit.
    """
    free = [free_memory(device) for device in devices]
    if len(devices) == 1 or footprint.needed_bytes(dtype, quantize) <= free[0]:
        require_fit(footprint, free[0], dtype=dtype, quantize=quantize, device=str(devices[0]))
        return None
    numbers = place_decoder(decoder, free, beside=beside, dtype=dtype, quantize=quantize)
    if numbers is None:
        together = f"{', '.join(map(str, devices))} together"
        raise does_not_fit(footprint, sum(free), dtype=dtype, quantize=quantize, device=together)
    return {part: devices[number] for part, number in numbers.items()}


def _require_layers(count: object, checkpoint: Checkpoint) -> None:
    """Refuse a number of layers that nobody could build, before anyone tries: every layer has tensors."""
    if not isinstance(count, int) or not 0 < count <= len(checkpoint.names):
        raise NotACheckpoint(
            f"the config.json of {checkpoint.folder} speaks of {count!r} layers, and its weights have "
            f"{len(checkpoint.names)} tensors",
            hint=_OTHER,
        )


@contextmanager
def _odd_configs(weights: Weights) -> Iterator[None]:
    """Say which model cannot be built, whatever transformers and PyTorch raise over values that they did not expect."""
    try:
        yield
    except LongVUError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:200]
        raise NotACheckpoint(
            f"no model can be built from the config files of {weights.source} and its towers: "
            f"{type(error).__name__}: {reason}",
            hint=_OTHER,
        ) from error


def build_connector(config: ModelConfig, *, siglip_width: int, dinov2_width: int) -> Connector:
    """The connector that a config describes, with uninitialised parameters on the current default device."""
    return Connector(
        siglip_width=siglip_width,
        dinov2_width=dinov2_width,
        width=config.vision_hidden_size,
        hidden_size=config.hidden_size,
        depth=config.connector_depth,
        query_side=config.high_side,
        key_side=config.key_side,
    )


def language_model_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the decoder's tensors, without making any."""
    return _shapes(_decoder_on_meta(config))


def _decoder_on_meta(config: ModelConfig) -> Any:
    with torch.device("meta"):
        return stock_class(config)(stock_config(config))  # type: ignore[arg-type]


def _shapes(decoder: Any) -> dict[str, tuple[int, ...]]:
    shapes = {name: tuple(tensor.shape) for name, tensor in decoder.state_dict().items()}
    if decoder.config.tie_word_embeddings:
        del shapes["lm_head.weight"]
    return shapes


def _reconciled(config: ModelConfig, checkpoint: Checkpoint) -> tuple[ModelConfig, tuple[str, ...]]:
    """The config with the number of queries that the weights were trained with.

    Quirk: early downloads of the 1b checkpoint carry ``image_token_len`` 576 by mistake.
    Pinned by ``tests/test_loading.py::test_a_wrong_image_token_len_is_corrected_and_said``.
    """
    shapes = {name: checkpoint.shape(name) for name in (KEY_POSITIONS,) if name in checkpoint.names}
    tokens = image_token_len_of(shapes, config)
    if tokens == config.image_token_len:
        return config, ()
    notice = (
        f"config.json says image_token_len {config.image_token_len}, but the weights were trained with {tokens}: "
        f"{tokens} is used"
    )
    return config.with_image_token_len(tokens), (notice,)


def _connector_on_meta(config: ModelConfig, weights: Weights) -> Connector:
    with torch.device("meta"):
        return build_connector(
            config,
            siglip_width=siglip_config(weights.siglip).hidden_size,
            dinov2_width=dinov2_config(weights.dinov2).hidden_size,
        )


def _footprint(
    name: str,
    language: Mapping[str, tuple[int, ...]],
    connector: Mapping[str, tuple[int, ...]],
    siglip: Checkpoint,
    dinov2: Checkpoint,
) -> tuple[Footprint, int]:
    """The whole, and the parameters of the towers and the connector in it."""
    linear = [shape for tensor, shape in language.items() if tensor.startswith(LAYERS_PREFIX)]
    ends = [shape for tensor, shape in language.items() if not tensor.startswith(LAYERS_PREFIX)]
    vision = list(connector.values())
    vision += [siglip.shape(tensor) for tensor in siglip.names if is_siglip_feature_tensor(tensor)]
    vision += [dinov2.shape(tensor) for tensor in dinov2.names]
    sizes = [sum(map(math.prod, shapes)) for shapes in (linear, ends, vision)]
    return Footprint(name, linear=sizes[0], others=sizes[1] + sizes[2]), sizes[2]


def _vision(
    weights: Weights,
    towers: tuple[Checkpoint, Checkpoint],
    config: ModelConfig,
    connector: Connector,
    device: torch.device,
    dtype: torch.dtype,
) -> Vision:
    siglip_files, dinov2_files = towers
    grid_side = config.high_side * config.key_side
    return Vision(
        siglip=siglip_tower(
            weights.siglip,
            siglip_files.read(filter(is_siglip_feature_tensor, siglip_files.names)),
            grid_side=grid_side,
            device=device,
            dtype=dtype,
        ),
        dinov2=dinov2_tower(
            weights.dinov2,
            dinov2_files.read(dinov2_files.names),
            resolution=config.dinov2_resolution,
            grid_side=grid_side,
            device=device,
            dtype=dtype,
        ),
        connector=connector,
        device=device,
    )


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """transformers draws a bar for each model that it loads; the library prints nothing."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
