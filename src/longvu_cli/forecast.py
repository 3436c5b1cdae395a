"""What an answer about a video will take: frames, regime, tokens, memory and time, before any weight is loaded.

Counts come from the compression's own functions, given the least and the most alike frames that there could be. Memory
is what ``--model auto`` and the refusal of what cannot fit go by. Times are estimates: the operations of each stage,
divided by the matrix rate of this device and by the share of that rate which the stage reaches. The shares of a GPU
were measured on an H100, those of a CPU on two cores (``bench/README.md``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from longvu_cli.calibration import Speed
from longvu_cli.checkpoint import CONFIG_FILE, Checkpoint
from longvu_cli.compression.budget import Budget, Plan, budget, frame_limit, plan, still_plan
from longvu_cli.compression.temporal_reduction import is_thinned, keep_frames, may_be_kept
from longvu_cli.config import (
    RELEASED_FRAME_CAP,
    CompressionOptions,
    LLMFamily,
    ModelConfig,
    Quantization,
    Recipe,
    StillMode,
)
from longvu_cli.frames import VideoInfo
from longvu_cli.pipeline import WAIT_FROM
from longvu_cli.prompt import build_prompt, load_tokenizer
from longvu_cli.released import RELEASED_CONFIGS
from longvu_cli.statistics import Regime, Resolution
from longvu_cli.token_grid import crops
from longvu_cli.towers import dinov2_config, is_siglip_feature_tensor, siglip_config
from longvu_cli.variants import DINOV2_PARAMETERS, SIGLIP_PARAMETERS, Footprint
from longvu_cli.weights import EMBEDDINGS, TINY, VARIANTS, tiny_folder

# Tokens of the conversation around the question, and letters per token, where the tokenizer is not at hand.
_TEMPLATE_TOKENS = {LLMFamily.QWEN2: 21, LLMFamily.LLAMA: 47}
_LETTERS_PER_TOKEN = 4

# Peaks of the host's memory in GiB with the model on a GPU (bench/README.md): quantised weights pass through it.
_HOST_GIB = {
    ("7b", Quantization.NONE): 7.2,
    ("7b", Quantization.NF4): 15.3,
    ("3b", Quantization.NONE): 6.1,
    ("3b", Quantization.NF4): 7.9,
    ("1b", Quantization.NONE): 4.4,
    ("1b", Quantization.NF4): 3.9,
}
# Peak of the process with the tiny model on a CPU (bench/README.md).
_TINY_BYTES = 600_000_000
# Seconds per token of a language model in 4 bits, as measured on an H200: they do not follow from its rates.
_NF4_TOKEN_S = {"7b": 1 / 24, "3b": 1 / 33, "1b": 1 / 36}


@dataclass(frozen=True)
class Shares:
    """The part of the device's matrix rate that each stage reaches, and what a token costs beside reading the weights.

    Attributes:
        token_s: seconds.
        begin_s: seconds until the towers have something to do.
        question_s: seconds for the compression, whatever the video.
    """

    dinov2: float
    siglip: float
    connector: float
    prefill: float
    token_s: float
    begin_s: float = 0.0
    question_s: float = 0.0


# bench/README.md: 5.0, 2.8 and 0.3 ms per frame and 0.4 s for a prompt of 9,900 tokens, beside a product's 785 TFLOP/s.
# The first frames come after 0.6 s, and the compression takes a quarter of a second.
_GPU = Shares(dinov2=0.45, siglip=0.3, connector=0.14, prefill=0.4, token_s=0.007, begin_s=0.6, question_s=0.25)
# bench/README.md: layers of the full widths reach what a large product does; those of the tiny model do not.
_CPU = Shares(dinov2=1.0, siglip=1.0, connector=1.0, prefill=1.0, token_s=0.0)
_CPU_TINY = Shares(dinov2=0.3, siglip=0.3, connector=0.3, prefill=0.3, token_s=0.02)


@dataclass(frozen=True)
class Model:
    """What a forecast has to know of a model.

    Attributes:
        dinov2, siglip, connector: operations per frame.
        read: parameters that are read for each new token.
        text_tokens: ids of the prompt, the video's place not counted; about, where the tokenizer is not at hand.
    """

    name: str
    config: ModelConfig
    footprint: Footprint
    dinov2: float
    siglip: float
    connector: float
    read: int
    text_tokens: int


@dataclass(frozen=True)
class Span:
    """From the least to the most; of frames, or of seconds."""

    low: float
    high: float


@dataclass(frozen=True)
class Counts:
    """What the compression will do to the video.

    Attributes:
        kept: frames that temporal reduction may keep.
        seen_by_siglip: frames that the second tower looks at, which may be more than are kept.
        seen_again: frames that the first tower looks at twice: those that waited until it was known that they stay.
        regimes: those that there may be.
        visual_budget: tokens that there is room for.
        visual_tokens: the most that the language model will read.
    """

    sampled: int
    kept: Span
    seen_by_siglip: Span
    seen_again: Span
    regimes: tuple[Regime, ...]
    text_tokens: int
    visual_budget: int
    visual_tokens: int


@dataclass(frozen=True)
class Times:
    """Seconds, without those for loading the model.

    Attributes:
        first: until a first question is answered in full.
        next: the same for the next one about the video.
    """

    first: Span
    next: Span


def models(question: str) -> list[Model]:
    """The released video models, the largest first, and the tiny one where it is installed."""
    found = [_released(name, config, question) for name, config in RELEASED_CONFIGS.items()]
    if (tiny_folder() / CONFIG_FILE).is_file():
        found.append(_tiny(tiny_folder(), question))
    return found


def counts(model: Model, options: CompressionOptions, video: VideoInfo, sampled: int) -> Counts:
    """What there is to be done, from counts alone.

    Args:
        sampled: frames; 1 for a still.

    Raises:
        UsageError: the options do not go with this model, or its context has no room for the question.
    """
    recipe = options.resolve(model.config)
    room = budget(recipe, model.text_tokens + 1)
    alike, different = (torch.full((sampled,), value) for value in (math.inf, -math.inf))
    high, low = _frame_tokens(recipe, video)
    limit = frame_limit(recipe, room, high_tokens=high, low_tokens=low)
    kept = [len(keep_frames(similarity, recipe, limit=limit)) for similarity in (alike, different)]
    may_be = [int(may_be_kept(similarity, recipe, first=0, limit=limit).sum()) for similarity in (alike, different)]
    again = [_seen_again(count, stay, recipe) for count, stay in zip(may_be, kept, strict=True)]
    plans = [_planned(recipe, room, video, frames) for frames in range(kept[0], kept[1] + 1)]
    return Counts(
        sampled=sampled,
        kept=Span(*kept),
        seen_by_siglip=Span(
            *(RELEASED_FRAME_CAP + late if late else count for count, late in zip(may_be, again, strict=True))
        ),
        seen_again=Span(*again),
        regimes=tuple(dict.fromkeys(chosen.regime for chosen, _ in plans)),
        text_tokens=model.text_tokens,
        visual_budget=room.visual_budget,
        visual_tokens=max(tokens for _, tokens in plans),
    )


def times(
    model: Model,
    work: Counts,
    speed: Speed,
    *,
    device: str,
    dtype: torch.dtype,
    quantize: Quantization,
    decoding_s: float,
    new_tokens: int,
) -> Times | None:
    """How long it will take; None where nothing was measured that an estimate could rest on.

    Args:
        device: its kind.
        decoding_s: seconds for decoding and preprocessing one frame.
        new_tokens: of the answer.
    """
    shares = _shares(model, device)
    token = None if shares is None else _token_s(model, speed, shares, device, dtype, quantize)
    if shares is None or token is None:
        return None

    def watching(siglip_frames: float, again: float) -> float:
        first = model.dinov2 / (speed.matrix * shares.dinov2)
        second = model.siglip / (speed.matrix * shares.siglip) + model.connector / (speed.matrix * shares.connector)
        # Decoding runs ahead of the towers: on a GPU beside them, on a CPU on the same cores.
        towers = (work.sampled + again) * first + siglip_frames * second
        decoding = work.sampled * decoding_s
        return shares.begin_s + (towers + decoding if device == "cpu" else max(towers, decoding))

    length = work.text_tokens + work.visual_tokens
    answering = (
        shares.question_s + 2 * model.footprint.linear * length / (speed.matrix * shares.prefill) + new_tokens * token
    )
    seen, again = work.seen_by_siglip, work.seen_again
    return Times(
        first=Span(watching(seen.low, again.low) + answering, watching(seen.high, again.high) + answering),
        next=Span(answering, answering),
    )


def device_bytes(model: Model, device: str, dtype: torch.dtype, quantize: Quantization) -> int:
    """What it takes of the device's memory, for a video of any length."""
    if model.name == TINY and device == "cpu":
        return _TINY_BYTES
    return model.footprint.needed_bytes(dtype, quantize)


def host_bytes(model: Model, device: str, dtype: torch.dtype, quantize: Quantization) -> int | None:
    """What it takes of the host's memory; None: not measured."""
    if device == "cpu":
        return device_bytes(model, device, dtype, quantize)
    gib = _HOST_GIB.get((model.name, quantize))
    return None if gib is None or device != "cuda" else int(gib * 2**30)


def vision_transformer(parameters: int, *, tokens: int, layers: int, width: int) -> float:
    """Operations for one picture: every parameter meets every token, and every token all others."""
    return 2.0 * parameters * tokens + 4.0 * layers * tokens**2 * width


def _seen_again(may_be_kept: int, kept: int, recipe: Recipe) -> int:
    """Of frames that may be kept, those that wait (see ``pipeline.encode``) and stay; about.

    Args:
        may_be_kept: frames that stand out.
    """
    if may_be_kept < WAIT_FROM or not is_thinned(may_be_kept, recipe, first=may_be_kept, limit=0):
        return 0
    return round(kept * (1 - RELEASED_FRAME_CAP / may_be_kept))


def _planned(recipe: Recipe, room: Budget, video: VideoInfo, kept: int) -> tuple[Plan, int]:
    """The regime for so many kept frames, and the most tokens of it."""
    high, low = _frame_tokens(recipe, video)
    if _is_image(recipe, video):
        chosen = still_plan(recipe, room, high_tokens=high, low_tokens=low)
    else:
        chosen = plan(recipe, room, kept=kept, high_tokens=high, low_tokens=low)
    full = kept if chosen.base is Resolution.HIGH else chosen.restored
    return chosen, min(room.visual_budget, full * high + (kept - full) * low)


def _frame_tokens(recipe: Recipe, video: VideoInfo) -> tuple[int, int]:
    """Tokens of a frame at full and at low resolution."""
    high, low = crops(
        (video.width, video.height),
        orientation=recipe.orientation,
        image=_is_image(recipe, video),
        high_side=recipe.high_side,
        low_side=recipe.low_side,
    )
    return high.tokens, low.tokens


def _is_image(recipe: Recipe, video: VideoInfo) -> bool:
    return video.is_still and recipe.still is StillMode.IMAGE


def _shares(model: Model, device: str) -> Shares | None:
    tiny = model.name == TINY
    known: Mapping[tuple[str, bool], Shares] = {("cpu", False): _CPU, ("cpu", True): _CPU_TINY, ("cuda", False): _GPU}
    return known.get((device, tiny))


def _token_s(
    model: Model, speed: Speed, shares: Shares, device: str, dtype: torch.dtype, quantize: Quantization
) -> float | None:
    if quantize is Quantization.NONE:
        return model.read * dtype.itemsize / speed.read + shares.token_s
    return _NF4_TOKEN_S.get(model.name) if quantize is Quantization.NF4 and device == "cuda" else None


def _released(name: str, config: ModelConfig, question: str) -> Model:
    footprint = Footprint.of(VARIANTS[name])
    return Model(
        name=name,
        config=config,
        footprint=footprint,
        dinov2=vision_transformer(DINOV2_PARAMETERS, tokens=730, layers=40, width=1536),
        siglip=vision_transformer(SIGLIP_PARAMETERS, tokens=729, layers=27, width=1152),
        connector=_connector(config, siglip_width=1152, dinov2_width=1536),
        read=footprint.linear + VARIANTS[name].embedding_parameters // 2,
        text_tokens=_TEMPLATE_TOKENS[config.family] + math.ceil(len(question) / _LETTERS_PER_TOKEN),
    )


def _tiny(folder: Path, question: str) -> Model:
    config = ModelConfig.from_file(folder / CONFIG_FILE)
    checkpoint = Checkpoint.open(folder)
    dinov2, siglip = dinov2_config(folder / "dinov2"), siglip_config(folder / "siglip")
    dinov2_parameters = _parameters(Checkpoint.open(folder / "dinov2"), "")
    features = Checkpoint.open(folder / "siglip")
    siglip_parameters = sum(
        math.prod(features.shape(name)) for name in features.names if is_siglip_feature_tensor(name)
    )
    layers = _parameters(checkpoint, "model.layers.")
    towers = dinov2_parameters + siglip_parameters
    patches = config.tower_token_lens[1]
    return Model(
        name=TINY,
        config=config,
        footprint=Footprint(TINY, linear=layers, others=_parameters(checkpoint, "") - layers + towers),
        dinov2=vision_transformer(
            dinov2_parameters, tokens=patches + 1, layers=dinov2.num_hidden_layers, width=dinov2.hidden_size
        ),
        siglip=vision_transformer(
            siglip_parameters, tokens=patches, layers=siglip.num_hidden_layers, width=siglip.hidden_size
        ),
        connector=_connector(config, siglip_width=siglip.hidden_size, dinov2_width=dinov2.hidden_size),
        read=layers + math.prod(checkpoint.shape(EMBEDDINGS)),
        text_tokens=build_prompt(load_tokenizer(folder), config.family, question).length - 1,
    )


def _parameters(checkpoint: Checkpoint, prefix: str) -> int:
    return sum(math.prod(checkpoint.shape(name)) for name in checkpoint.names if name.startswith(prefix))


def _connector(config: ModelConfig, *, siglip_width: int, dinov2_width: int) -> float:
    """Operations per frame: projectors of both towers, SVA layers, and the projector of both resolutions."""
    keys, queries, v, h = (
        config.tower_token_lens[0],
        config.image_token_len,
        config.vision_hidden_size,
        config.hidden_size,
    )
    projectors = keys * v * (siglip_width + dinov2_width + 2 * v)
    layers = config.connector_depth * v**2 * (4 * keys + 6 * queries)
    return 2.0 * (projectors + layers + (queries + config.low_side**2) * h * (v + h))
