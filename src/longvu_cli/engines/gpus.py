"""The GPUs of this machine that workers may have."""

from __future__ import annotations


def gpu_count(device: str) -> int:
    """How many there are.

    Args:
        device: as ``ModelOptions`` has it; for the CPU nobody asks PyTorch, which takes seconds to be imported.
    """
    if device not in ("auto", "cuda"):
        return 0
    import torch

    return torch.cuda.device_count()
