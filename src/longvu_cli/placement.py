"""A language model over several GPUs, where one is too small; the towers and the connector stay on the first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from accelerate import infer_auto_device_map
from accelerate.utils import CustomDtype

from longvu_cli.config import Quantization
from longvu_cli.variants import LAYERS_PREFIX, WORKING_BYTES

# Beside the weights, a GPU after the first holds keys and values of its layers, and the device's own.
_WORKING_BYTES_AFTER_THE_FIRST = 2**30
_STORED = {Quantization.INT8: torch.int8, Quantization.NF4: CustomDtype.INT4}


def place_decoder(
    decoder: Any, free: Sequence[int], *, beside: int, dtype: torch.dtype, quantize: Quantization
) -> dict[str, int] | None:
    """Which GPU holds which part: the first is filled first, and no layer is torn.

    Args:
        decoder: a stock causal language model, on the ``meta`` device.
        free: bytes that are free on each GPU.
        beside: bytes of the towers and the connector, on the first.

    Returns:
        Name of a part → number of its GPU; None: all of them are too small together.
    """
    room = [count - _WORKING_BYTES_AFTER_THE_FIRST for count in free]
    room[0] = free[0] - beside - WORKING_BYTES
    not_quantised = {name: dtype for name, _ in decoder.named_parameters() if not name.startswith(LAYERS_PREFIX)}
    parts = infer_auto_device_map(
        decoder,
        max_memory={number: max(count, 0) for number, count in enumerate(room)},
        no_split_module_classes=list(decoder._no_split_modules),
        dtype=_STORED.get(quantize, dtype),
        special_dtypes=not_quantised,
    )
    if any(not isinstance(place, int) for place in parts.values()):
        return None
    return dict(parts)
