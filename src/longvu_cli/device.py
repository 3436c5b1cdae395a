"""Where the model runs: the device, its number format, its memory."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import psutil
import torch

from longvu_cli.config import DType
from longvu_cli.errors import DeviceOutOfMemory, DeviceUnavailable

# What PyTorch's allocators for the CPU and for Apple GPUs say.
_OUT_OF_MEMORY = ("can't allocate memory", "out of memory")
_SMALLER = "try a smaller --model, --quantize 4bit on a GPU, or close other programs that use this memory"


def resolve_device(name: str) -> torch.device:
    """``auto``, ``cuda``, ``cuda:N``, ``mps`` or ``cpu`` → a device that is there.

    Raises:
        DeviceUnavailable: it is not, or the name is none of these.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cuda", "mps", "cpu"):
        raise DeviceUnavailable(f"{name!r} is no device", hint="use auto, cuda, cuda:N, mps or cpu")
    if device.type == "cuda":
        return _cuda_device(device)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceUnavailable("this machine has no usable Apple GPU (mps)", hint="use --device cpu")
    return device


def _cuda_device(device: torch.device) -> torch.device:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    index = device.index or 0
    if index >= count:
        found = f"{count} GPUs" if count else "no usable CUDA GPU"
        raise DeviceUnavailable(f"there is no {device}: PyTorch finds {found}", hint="use --device auto or cpu")
    return torch.device("cuda", index)


def other_gpus(name: str) -> tuple[torch.device, ...]:
    """The GPUs after the first, where a user's choice of device leaves open which ones are used."""
    if name not in ("auto", "cuda") or not torch.cuda.is_available():
        return ()
    return tuple(torch.device("cuda", number) for number in range(1, torch.cuda.device_count()))


def resolve_dtype(dtype: DType, device: torch.device) -> torch.dtype:
    """The number format on a device.

    ``auto`` is bfloat16 on a GPU (float16 overflows in the 7b model), float16 on a GPU without it, and float32 on a
    CPU, where the small formats are emulated.
    """
    if dtype is not DType.AUTO:
        named = {DType.BFLOAT16: torch.bfloat16, DType.FLOAT16: torch.float16, DType.FLOAT32: torch.float32}
        return named[dtype]
    if device.type == "cpu":
        return torch.float32
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float16
    return torch.bfloat16


def free_memory(device: torch.device) -> int:
    """Bytes that are free on the device (of the machine's memory for CPU and mps)."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return int(psutil.virtual_memory().available)


def synchronize(device: torch.device) -> None:
    """Wait for the device, so that a clock read afterwards counts its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def reset_peak_device_bytes(devices: Sequence[torch.device]) -> None:
    """Start a new measurement of :func:`peak_device_bytes`."""
    for device in devices:
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)


def peak_device_bytes(devices: Sequence[torch.device]) -> int:
    """Most bytes of tensors at once on each device since the measurement was started, added up; 0 for a CPU."""
    return sum(torch.cuda.max_memory_allocated(device) for device in devices if device.type == "cuda")


def peak_host_bytes() -> int:
    """Largest resident size of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def usable_memory(device: torch.device) -> int:
    """Bytes that are free, or that this process has taken for tensors."""
    taken = torch.cuda.memory_reserved(device) if device.type == "cuda" else psutil.Process().memory_info().rss
    return free_memory(device) + int(taken)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the memory of the device or of the machine did not suffice; only CUDA has a type of error for it."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)


@contextmanager
def out_of_memory_is_an_error(
    device: torch.device, doing: str, hint: Callable[[], str] = lambda: _SMALLER
) -> Iterator[None]:
    """Turn the library's out-of-memory error into ours.

    Args:
        hint: what would fit.

    Raises:
        DeviceOutOfMemory: the block ran out of the device's memory.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        cuda = device.type == "cuda"
        total = torch.cuda.get_device_properties(device).total_memory if cuda else psutil.virtual_memory().total
        raise DeviceOutOfMemory(
            f"{device} ran out of memory while {doing} "
            f"({free_memory(device) / 2**30:.1f} GiB free of {total / 2**30:.1f})",
            hint=hint(),
        ) from error
