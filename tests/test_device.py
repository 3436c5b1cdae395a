"""device.py, as far as a machine without an accelerator can tell."""

from __future__ import annotations

import pytest
import torch

from longvu_cli.config import DType
from longvu_cli.device import (
    free_memory,
    other_gpus,
    out_of_memory_is_an_error,
    peak_device_bytes,
    peak_host_bytes,
    reset_peak_device_bytes,
    resolve_device,
    resolve_dtype,
    synchronize,
    usable_memory,
)
from longvu_cli.errors import DeviceOutOfMemory, DeviceUnavailable

CPU = torch.device("cpu")


@pytest.fixture
def no_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.mark.usefixtures("no_accelerator")
def test_without_an_accelerator_auto_is_the_cpu() -> None:
    assert resolve_device("auto") == CPU
    assert resolve_device("cpu") == CPU


@pytest.mark.usefixtures("two_gpus")
def test_auto_prefers_the_first_gpu() -> None:
    assert resolve_device("auto") == torch.device("cuda", 0)
    assert resolve_device("cuda") == torch.device("cuda", 0)
    assert resolve_device("cuda:1") == torch.device("cuda", 1)


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(DeviceUnavailable, match="no cuda:2: PyTorch finds 2 GPUs"):
        resolve_device("cuda:2")


@pytest.mark.usefixtures("no_accelerator")
@pytest.mark.parametrize("name", ["cuda", "cuda:0"])
def test_cuda_without_a_gpu_is_refused(name: str) -> None:
    with pytest.raises(DeviceUnavailable, match="no usable CUDA GPU") as error:
        resolve_device(name)
    assert "--device" in error.value.hint


@pytest.mark.usefixtures("no_accelerator")
def test_mps_without_one_is_refused() -> None:
    with pytest.raises(DeviceUnavailable, match="mps"):
        resolve_device("mps")


@pytest.mark.parametrize("name", ["", "gpu", "cuda:x", "cuda:-1", "meta", "xla"])
def test_what_is_no_device_is_refused(name: str) -> None:
    with pytest.raises(DeviceUnavailable, match="is no device"):
        resolve_device(name)


def test_a_named_number_format_is_taken() -> None:
    assert resolve_dtype(DType.BFLOAT16, CPU) is torch.bfloat16
    assert resolve_dtype(DType.FLOAT16, CPU) is torch.float16
    assert resolve_dtype(DType.FLOAT32, CPU) is torch.float32


def test_auto_is_float32_on_a_cpu_and_bfloat16_where_it_is_real(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def supported(including_emulation: bool = True) -> bool:
        asked.append(including_emulation)
        return including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert resolve_dtype(DType.AUTO, CPU) is torch.float32
    assert resolve_dtype(DType.AUTO, torch.device("mps")) is torch.bfloat16
    # Emulated bfloat16 does not count.
    assert resolve_dtype(DType.AUTO, torch.device("cuda", 0)) is torch.float16
    assert asked == [False]
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    assert resolve_dtype(DType.AUTO, torch.device("cuda", 0)) is torch.bfloat16


def test_memory_of_the_cpu_is_the_machines() -> None:
    assert free_memory(CPU) > 2**20
    assert 2**20 < peak_host_bytes() < 2**50
    reset_peak_device_bytes([CPU])
    synchronize(CPU)
    assert peak_device_bytes([CPU]) == 0


def test_running_out_of_memory_is_our_error() -> None:
    with (
        pytest.raises(DeviceOutOfMemory, match="cpu ran out of memory while answering") as error,
        out_of_memory_is_an_error(CPU, "answering"),
    ):
        raise torch.OutOfMemoryError("no room")
    assert isinstance(error.value.__cause__, torch.OutOfMemoryError)
    assert "--quantize" in error.value.hint


def test_other_errors_pass_through() -> None:
    with pytest.raises(RuntimeError, match="something else"), out_of_memory_is_an_error(CPU, "answering"):
        raise RuntimeError("something else")


def test_the_other_allocators_run_out_of_memory_too() -> None:
    with pytest.raises(RuntimeError) as real:
        torch.empty(2**55, dtype=torch.uint8)
    for error in (real.value, MemoryError(), RuntimeError("MPS backend out of memory"), torch.OutOfMemoryError("full")):
        with (
            pytest.raises(DeviceOutOfMemory, match="GiB free of") as told,
            out_of_memory_is_an_error(CPU, "answering", lambda: "what would fit"),
        ):
            raise error
        assert told.value.hint == "what would fit"
    assert usable_memory(CPU) > free_memory(CPU) / 2


@pytest.mark.parametrize(
    ("name", "numbers"), [("auto", [1, 2]), ("cuda", [1, 2]), ("cuda:0", []), ("cuda:1", []), ("cpu", []), ("mps", [])]
)
def test_a_named_gpu_is_the_only_one(monkeypatch: pytest.MonkeyPatch, name: str, numbers: list[int]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert [device.index for device in other_gpus(name)] == numbers
