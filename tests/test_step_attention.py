"""step_attention.py: one token's attention, against the library's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.nn import functional
from transformers import StaticCache

from longvu_cli import step_attention as module
from longvu_cli.loading import Modules
from longvu_cli.step_attention import step_attention, steps_by_products


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("seen", [None, 1, 9, 17])
def test_it_is_the_librarys_attention(groups: int, seen: int | None) -> None:
    query, keys, values = random(1, 6, 1, 8), random(1, groups, 17, 8), random(1, groups, 17, 8)
    # A mask may be longer than what is there.
    mask = None if seen is None else (torch.arange(20) < seen).view(1, 1, 1, 20)
    wanted = functional.scaled_dot_product_attention(
        query,
        keys.repeat_interleave(6 // groups, dim=1),
        values.repeat_interleave(6 // groups, dim=1),
        attn_mask=None if mask is None else mask[..., :17],
        scale=0.3,
    )
    # float32 sums in another order
    torch.testing.assert_close(step_attention(query, keys, values, mask, 0.3), wanted, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("folder", ["qwen", "llama"])
def test_a_decoders_step_over_a_cache_of_fixed_length_gives_the_same_logits(
    load: Callable[..., Modules], parity: Path, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    language_model = load(parity / folder).language_model
    assert language_model is not None
    decoder, lengths = language_model.decoder, []

    def seen(query: torch.Tensor, *rest: object) -> torch.Tensor:
        lengths.append(query.shape[2])
        return step_attention(query, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "step_attention", seen)

    def logits() -> torch.Tensor:
        cache = StaticCache(config=decoder.config, max_cache_len=40)
        with torch.inference_mode():
            decoder(inputs_embeds=random(1, 20, decoder.config.hidden_size), past_key_values=cache, use_cache=True)
            made: torch.Tensor = decoder(input_ids=torch.tensor([[5]]), past_key_values=cache, use_cache=True).logits
        return made

    wanted, used = logits(), decoder.config._attn_implementation
    assert lengths == []
    with steps_by_products(decoder):
        found = logits()
    assert lengths == [1] * decoder.config.num_hidden_layers  # the prompt of 20 went another way
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)  # float32 sums in another order
    assert decoder.config._attn_implementation == used
