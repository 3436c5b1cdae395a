"""``--compile``: layers whose small operations become one kernel each, by ``torch.compile``.

Only what repeats is compiled, a layer at a time, so that all layers of a tower share what was compiled for the first.
The attention of the language model stays as it is: its cache would be compiled anew for every layer.
"""

from __future__ import annotations

import torch
from torch import nn

from longvu_cli.errors import DeviceUnavailable


def require_compiler(device: torch.device) -> None:
    """Compile something small, to know at once whether it can be done.

    Raises:
        DeviceUnavailable: what ``torch.compile`` needs on this device is missing.
    """

    def small(numbers: torch.Tensor) -> torch.Tensor:
        return (numbers + 1).relu()

    try:
        torch.compile(small)(torch.zeros(8, device=device))
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        needed = "a C++ compiler" if device.type == "cpu" else "Triton and a C compiler"
        raise DeviceUnavailable(
            f"--compile cannot be used on {device}: {type(error).__name__}: {reason}",
            hint=f"install {needed}, or leave --compile out",
        ) from error


def compile_layers(layers: nn.ModuleList) -> None:
    """Have each layer compiled when it is first used, for any number of frames."""
    for layer in layers:
        layer.compile(dynamic=True)


def compile_decoder(decoder: nn.Module) -> None:
    """Have the norms and the feed-forward parts of a stock decoder compiled when they are first used."""
    for name, module in decoder.named_modules():
        if name.endswith(("norm", ".mlp")):
            module.compile(dynamic=True)
