import pytest
import torch

from longvu_cli.config import Quantization
from longvu_cli.errors import DeviceOutOfMemory
from longvu_cli.variants import WORKING_BYTES, Footprint, choose_variant, require_fit, what_would_fit
from longvu_cli.weights import VARIANTS

NONE = Quantization.NONE
GIB = 2**30


def chosen(free: int, dtype: torch.dtype = torch.bfloat16, quantize: Quantization = NONE) -> str:
    return choose_variant(free, dtype=dtype, quantize=quantize, device="cuda:0").name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("quantize", Quantization)
def test_the_largest_that_fits_to_the_byte(dtype: torch.dtype, quantize: Quantization) -> None:
    order = ["1b", "3b", "7b"]
    needed = [Footprint.of(VARIANTS[name]).needed_bytes(dtype, quantize) for name in order]
    assert needed == sorted(needed)
    for position, name in enumerate(order):
        assert chosen(needed[position], dtype, quantize) == name
        if position:
            assert chosen(needed[position] - 1, dtype, quantize) == order[position - 1]
    assert chosen(10**15, dtype, quantize) == "7b"


def test_none_fits() -> None:
    free = Footprint.of(VARIANTS["1b"]).needed_bytes(torch.bfloat16, NONE) - 1
    with pytest.raises(DeviceOutOfMemory, match=r"1b needs about 7\.8 GiB, and cuda:0 has 7\.8 free"):
        chosen(free)
    with pytest.raises(DeviceOutOfMemory, match=r"cuda:0 has 0\.0 free") as raised:
        chosen(0)
    assert "--quantize" not in raised.value.hint


def test_what_would_fit_is_named() -> None:
    footprint = Footprint.of(VARIANTS["7b"])
    for free, hint in ((11 * GIB, "add --quantize 4bit"), (8.5 * GIB, "use --model 3b --quantize 4bit")):
        with pytest.raises(DeviceOutOfMemory) as raised:
            require_fit(footprint, int(free), dtype=torch.bfloat16, quantize=NONE, device="cuda:0")
        assert raised.value.hint.startswith(hint)
    require_fit(footprint, 20 * GIB, dtype=torch.bfloat16, quantize=NONE, device="cuda:0")


def test_neither_the_tiny_nor_an_image_model_is_ever_chosen() -> None:
    names = set()
    for free in range(0, 64 * GIB, GIB // 2):
        try:
            names.add(chosen(free))
        except DeviceOutOfMemory:
            names.add("none")
    assert names == {"none", "1b", "3b", "7b"}


def test_the_estimate_holds_the_weights_and_room_to_work() -> None:
    for variant in VARIANTS.values():
        full = Footprint.of(variant).needed_bytes(torch.float32, NONE)
        half = Footprint.of(variant).needed_bytes(torch.bfloat16, NONE)
        eight = Footprint.of(variant).needed_bytes(torch.bfloat16, Quantization.INT8)
        four = Footprint.of(variant).needed_bytes(torch.bfloat16, Quantization.NF4)
        assert full > half > eight > four > 3 * GIB
        assert half > variant.bytes + GIB
        assert full - half == pytest.approx(half - WORKING_BYTES)


def test_typical_devices() -> None:
    assert chosen(23 * GIB) == "7b"
    assert chosen(15 * GIB) == "3b"
    assert chosen(11 * GIB) == "1b"
    assert chosen(12 * GIB, quantize=Quantization.NF4) == "7b"


def test_what_would_fit_after_the_memory_ran_out() -> None:
    gib = 2**30
    settings = {"dtype": torch.bfloat16, "quantizable": True}
    held = 15 * gib + 3 * gib
    assert what_would_fit(15 * gib, held=held, **settings).startswith("--model 7b --quantize 4bit would fit: it needs")
    assert what_would_fit(8 * gib, held=held, **settings).startswith("--model 3b --quantize 4bit would fit")
    assert what_would_fit(15 * gib, held=held, dtype=torch.bfloat16, quantizable=False).startswith("--model 3b would")
    # What is no smaller than the one that did not fit is no help.
    assert "--model" not in what_would_fit(15 * gib, held=gib, **settings)
    assert "--model" not in what_would_fit(gib, held=held, **settings)
