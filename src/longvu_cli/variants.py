"""What a model needs and which one fits: ``--model auto``, and the refusal of what cannot fit before it is loaded."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from longvu_cli.config import Quantization
from longvu_cli.errors import DeviceOutOfMemory
from longvu_cli.weights import VARIANTS, Variant

# Parameters of the two towers: DINOv2 giant, and the part of SigLIP so400m that makes the features.
DINOV2_PARAMETERS, SIGLIP_PARAMETERS = 1_136_480_768, 412_442_352
TOWER_PARAMETERS = DINOV2_PARAMETERS + SIGLIP_PARAMETERS
# What features, tokens, the prompt's keys and values and the device's own context take beside the weights, for a video
# of any length. Measured peaks of tensors beside the weights are 0.7 to 1.1 GiB.
WORKING_BYTES = 2 * 2**30
# The decoder's tensors that are in its layers.
LAYERS_PREFIX = "model.layers."
# Bytes per parameter of a quantised layer, its scales included.
_QUANTISED_BYTES = {Quantization.INT8: 1.02, Quantization.NF4: 0.57}


@dataclass(frozen=True)
class Footprint:
    """Parameters of a model with its towers.

    Attributes:
        name: how errors call the model.
        linear: those of the decoder's linear layers, which can be quantised.
        others: embeddings, ``lm_head``, connector and towers, which never are.
    """

    name: str
    linear: int
    others: int

    @classmethod
    def of(cls, variant: Variant) -> Footprint:
        """That of a released model with the released towers."""
        others = variant.embedding_parameters + TOWER_PARAMETERS
        return cls(variant.name, variant.parameters - variant.embedding_parameters, others)

    def needed_bytes(self, dtype: torch.dtype, quantize: Quantization) -> int:
        """An estimate of the memory for the weights and a video of any length."""
        linear = self.linear * _QUANTISED_BYTES.get(quantize, dtype.itemsize)
        return int(linear + self.others * dtype.itemsize + WORKING_BYTES)


@dataclass(frozen=True)
class Fit:
    """Whether a model fits, in one manner of holding it.

    Attributes:
        needed_bytes: an estimate, for its weights and a video of any length.
    """

    quantization: Quantization
    needed_bytes: int
    fits: bool


def fits(footprint: Footprint, free: int, *, dtype: torch.dtype, quantizable: bool) -> tuple[Fit, ...]:
    """In which manners a model fits.

    Args:
        free: bytes.
        quantizable: whether the device can hold quantised weights.
    """
    manners = tuple(Quantization) if quantizable else (Quantization.NONE,)
    needed = [footprint.needed_bytes(dtype, quantize) for quantize in manners]
    return tuple(Fit(quantize, count, count <= free) for quantize, count in zip(manners, needed, strict=True))


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
        if Footprint.of(variant).needed_bytes(dtype, quantize) <= free:
            return variant
    smallest = Footprint.of(video[-1])
    raise does_not_fit(smallest, free, dtype=dtype, quantize=quantize, device=device, prefix="no model fits: ")


def require_fit(footprint: Footprint, free: int, *, dtype: torch.dtype, quantize: Quantization, device: str) -> None:
    """Refuse at once what cannot fit, with the numbers and what would.

    Args:
        free: bytes.

    Raises:
        DeviceOutOfMemory: it does not fit.
    """
    if footprint.needed_bytes(dtype, quantize) > free:
        raise does_not_fit(footprint, free, dtype=dtype, quantize=quantize, device=device)


def what_would_fit(memory: int, *, held: int, dtype: torch.dtype, quantizable: bool) -> str:
    """What to try after the memory has run out.

    Args:
        memory: bytes for a model in the place of this one.
        held: bytes of this one's weights.
        quantizable: whether the device can hold quantised weights.
    """
    manners = (Quantization.NONE, Quantization.NF4) if quantizable else (Quantization.NONE,)
    for variant in VARIANTS.values():
        for quantize in manners:
            needed = Footprint.of(variant).needed_bytes(dtype, quantize)
            if not variant.name.endswith("-image") and needed <= memory and needed < held + WORKING_BYTES:
                flags = f"--model {variant.name}" + ("" if quantize is Quantization.NONE else f" --quantize {quantize}")
                return f"{flags} would fit: it needs about {_gib(needed)} GiB"
    return "close other programs that use this memory, or use another --device"


def does_not_fit(
    footprint: Footprint, free: int, *, dtype: torch.dtype, quantize: Quantization, device: str, prefix: str = ""
) -> DeviceOutOfMemory:
    """The error for a model that is too large, with the numbers and what would fit."""
    needed = footprint.needed_bytes(dtype, quantize)
    return DeviceOutOfMemory(
        f"{prefix}{footprint.name} needs about {_gib(needed)} GiB, and {device} has {_gib(free)} free",
        hint=_what_would_fit(footprint, free, dtype, quantize),
    )


def _what_would_fit(footprint: Footprint, free: int, dtype: torch.dtype, quantize: Quantization) -> str:
    packed = footprint.needed_bytes(dtype, Quantization.NF4)
    if quantize is not Quantization.NF4 and packed <= free:
        return f"add --quantize 4bit, which needs about {_gib(packed)} GiB"
    smaller = [
        variant.name
        for name, variant in VARIANTS.items()
        if not name.endswith("-image") and Footprint.of(variant).needed_bytes(dtype, Quantization.NF4) <= free
    ]
    if smaller:
        return f"use --model {smaller[0]} --quantize 4bit"
    return "close other programs that use this memory, or use another --device"


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f}"
