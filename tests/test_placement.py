"""placement.py: which GPU holds which part of a language model that is too large for one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from longvu_cli import loading
from longvu_cli.checkpoint import Checkpoint
from longvu_cli.config import ModelConfig, Quantization
from longvu_cli.errors import DeviceOutOfMemory
from longvu_cli.language_model import LanguageModel, stock_class, stock_config
from longvu_cli.loading import Modules, language_model_shapes
from longvu_cli.placement import place_decoder
from longvu_cli.variants import WORKING_BYTES, Footprint

GIB = 2**30
TOWERS = 3 * GIB
CONFIGS = Path(__file__).parent / "data" / "configs"
GPUS = (torch.device("cuda", 0), torch.device("cuda", 1))


@pytest.fixture(scope="module")
def decoder() -> Any:
    """The 7b's, without any weights."""
    config = ModelConfig.from_file(CONFIGS / "7b.json")
    with torch.device("meta"):
        return stock_class(config)(stock_config(config))  # type: ignore[arg-type]


def place(decoder: Any, *free_gib: float, quantize: Quantization = Quantization.NONE) -> dict[str, int] | None:
    free = [int(gib * GIB) for gib in free_gib]
    return place_decoder(decoder, free, beside=TOWERS, dtype=torch.bfloat16, quantize=quantize)


def bytes_on(decoder: Any, parts: dict[str, int], number: int) -> int:
    names = [name for name, place in parts.items() if place == number]
    return sum(
        parameter.numel() * 2
        for name, parameter in decoder.named_parameters()
        if any(name == part or name.startswith(f"{part}.") or part == "" for part in names)
    )


def test_a_gpu_with_room_holds_all(decoder: Any) -> None:
    parts = place(decoder, 40, 40)
    assert parts is not None
    assert set(parts.values()) == {0}


def test_two_gpus_share_the_layers_in_their_order(decoder: Any) -> None:
    parts = place(decoder, 12, 12)
    assert parts is not None
    layers = [parts[f"model.layers.{number}"] for number in range(28)]
    assert layers == sorted(layers)
    assert set(layers) == {0, 1}
    assert parts["model.embed_tokens"] == 0
    assert parts["lm_head"] == 1
    assert bytes_on(decoder, parts, 0) <= 12 * GIB - TOWERS - WORKING_BYTES
    assert bytes_on(decoder, parts, 1) <= 11 * GIB
    whole = sum(parameter.numel() * 2 for parameter in decoder.parameters())
    assert bytes_on(decoder, parts, 0) + bytes_on(decoder, parts, 1) == whole


def test_three_gpus_are_used_where_two_are_too_small(decoder: Any) -> None:
    assert place(decoder, 9, 7) is None
    parts = place(decoder, 9, 7, 7)
    assert parts is not None
    assert set(parts.values()) == {0, 1, 2}


def test_quantised_layers_need_less_room(decoder: Any) -> None:
    assert place(decoder, 8, 5) is None
    assert place(decoder, 8, 5, quantize=Quantization.NF4) is not None


def test_a_decoder_in_named_places_computes_the_same(load: Callable[..., Modules], parity: Path) -> None:
    modules = load(parity / "qwen")
    assert modules.language_model is not None
    cpu = torch.device("cpu")
    parts = {"model.embed_tokens": cpu, "model.layers": cpu, "model.norm": cpu, "model.rotary_emb": cpu, "lm_head": cpu}
    placed = LanguageModel.load(
        modules.config,
        Checkpoint.open(parity / "qwen").read(language_model_shapes(modules.config)),
        device=cpu,
        dtype=torch.float32,
        quantize=Quantization.NONE,
        places=parts,
    )
    rows = torch.randn(20, modules.config.hidden_size, generator=torch.Generator().manual_seed(0))
    assert torch.equal(placed.first_logits(rows), modules.language_model.first_logits(rows))


def places(decoder: Any, monkeypatch: pytest.MonkeyPatch, *free_gib: int) -> dict[str, torch.device] | None:
    monkeypatch.setattr(loading, "free_memory", lambda device: free_gib[device.index] * GIB)
    linear = sum(p.numel() for name, p in decoder.named_parameters() if name.startswith("model.layers."))
    others = sum(p.numel() for p in decoder.parameters()) - linear + TOWERS // 2
    return loading._places(
        decoder,
        Footprint("7b", linear=linear, others=others),
        GPUS[: len(free_gib)],
        beside=TOWERS,
        dtype=torch.bfloat16,
        quantize=Quantization.NONE,
    )


def test_a_second_gpu_is_used_only_where_the_first_is_too_small(decoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert places(decoder, monkeypatch, 20, 20) is None
    found = places(decoder, monkeypatch, 12, 12)
    assert found is not None
    assert set(found.values()) == set(GPUS)


@pytest.mark.parametrize(
    ("free", "message"),
    [((12,), "7b needs about 19.2 GiB, and cuda:0 has 12.0 free"), ((9, 9), "and cuda:0, cuda:1 together has 18.0")],
)
def test_what_fits_nowhere_is_refused_with_the_numbers(
    decoder: Any, monkeypatch: pytest.MonkeyPatch, free: tuple[int, ...], message: str
) -> None:
    with pytest.raises(DeviceOutOfMemory, match=message):
        places(decoder, monkeypatch, *free)
