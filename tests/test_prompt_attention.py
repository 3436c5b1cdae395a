"""prompt_attention.py: the same attention by another kernel, and where it is needed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from longvu_cli import language_model as language_model_module
from longvu_cli import prompt_attention
from longvu_cli.config import GenerationOptions
from longvu_cli.language_model import LanguageModel, Prefix
from longvu_cli.loading import Modules


@pytest.mark.parametrize("folder", ["qwen", "llama"])
def test_an_answer_is_the_same(
    load: Callable[..., Modules], parity: Path, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(parity / folder).language_model
    assert model is not None
    assert model.decoder.config.num_key_value_heads < model.decoder.config.num_attention_heads
    sequence = torch.randn(30, model.decoder.config.hidden_size, generator=torch.Generator().manual_seed(3))
    wanted, plain = answer(model, sequence)
    asked: set[tuple[int, int, int, bool]] = set()
    attend = prompt_attention.sdpa_attention_forward

    def seen(
        module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, *rest: object, **others: object
    ) -> object:
        asked.add((query.shape[1], query.shape[2], key.shape[1], hasattr(module, "num_key_value_groups")))
        return attend(module, query, key, *rest, **others)  # type: ignore[arg-type]

    monkeypatch.setattr(prompt_attention, "sdpa_attention_forward", seen)
    monkeypatch.setattr(language_model_module, "lacks_flash", lambda _: True)
    found, repeated = answer(model, sequence)
    assert found == wanted
    torch.testing.assert_close(repeated, plain, atol=1e-5, rtol=1e-4)  # float32 sums in another order
    heads = model.decoder.config.num_attention_heads
    # A prompt of 20, and then the 10 that follow what is known; single tokens go another way.
    assert asked == {(heads, length, heads, False) for length in (20, 10, 30)}


def answer(model: LanguageModel, sequence: torch.Tensor) -> tuple[list[list[int]], torch.Tensor]:
    prefix, options = Prefix(), GenerationOptions(max_new_tokens=6)
    asked = [list(model.generate(rows, options, stop_ids=(), prefix=prefix)) for rows in (sequence[:20], sequence)]
    return asked, model.first_logits(sequence)


@pytest.mark.parametrize(
    ("device", "capability", "dtype", "lacking"),
    [
        ("cpu", None, torch.float32, False),
        ("cuda", (7, 5), torch.float16, True),
        ("cuda", (8, 0), torch.float16, False),
        ("cuda", (9, 0), torch.bfloat16, False),
        ("cuda", (9, 0), torch.float32, True),
    ],
)
def test_flash_attention_is_of_newer_gpus_and_small_numbers(
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    capability: tuple[int, int] | None,
    dtype: torch.dtype,
    lacking: bool,
) -> None:
    class Numbers:
        pass

    numbers = Numbers()
    numbers.device, numbers.dtype = torch.device(device), dtype  # type: ignore[attr-defined]
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert prompt_attention.lacks_flash(numbers) is lacking  # type: ignore[arg-type]
