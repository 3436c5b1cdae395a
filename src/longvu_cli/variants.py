"""Which released model fits: ``--model auto``."""

from __future__ import annotations

import torch

from longvu_cli.config import Quantization
from longvu_cli.errors import DeviceOutOfMemory
from longvu_cli.weights import VARIANTS, Variant

# Parameters of the two towers: DINOv2 giant, and the vision half of SigLIP so400m.
TOWER_PARAMETERS = 1_136_480_768 + 412_442_352
# What the features, the prompt and its cache take beside the weights, for a video of any length.
WORKING_BYTES = 3 * 2**30
# Bytes per parameter of a quantised layer, its scales included.
_QUANTISED_BYTES = {Quantization.INT8: 1.02, Quantization.NF4: 0.57}


def needed_bytes(variant: Variant, *, dtype: torch.dtype, quantize: Quantization) -> int:
    """An estimate of the memory a variant takes with its towers and a video; embeddings are never quantised."""
    per_parameter = dtype.itemsize
    kept = variant.embedding_parameters
    linear = (variant.parameters - kept) * _QUANTISED_BYTES.get(quantize, per_parameter)
    return int(linear + (kept + TOWER_PARAMETERS) * per_parameter + WORKING_BYTES)


def choose_variant(free: int, *, dtype: torch.dtype, quantize: Quantization, device: str) -> Variant:
    """The largest video model that fits into the free memory; never the tiny one.

    Args:
        free: bytes.
        device: how the error calls it.

    Raises:
        DeviceOutOfMemory: none fits.
    """
    video = sorted(
        (variant for name, variant in VARIANTS.items() if not name.endswith("-image")),
        key=lambda variant: variant.parameters,
        reverse=True,
    )
    for variant in video:
        if needed_bytes(variant, dtype=dtype, quantize=quantize) <= free:
            return variant
    smallest = needed_bytes(video[-1], dtype=dtype, quantize=quantize)
    raise DeviceOutOfMemory(
        f"no model fits: {video[-1].name} needs about {smallest / 2**30:.1f} GiB, "
        f"and {device} has {free / 2**30:.1f} free",
        hint="add --quantize 4bit, free some memory, or use --device cpu",
    )
