"""A prompt's attention on a GPU that has no flash attention for its numbers: older ones, and float32 on any.

The one other kernel that reads keys and values of a group of heads as they are writes down every score: 7 GB in float32
for 28 heads and a prompt of 8,000 tokens, and more beside. With keys and values repeated for each head there is a
kernel that does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from longvu_cli.step_attention import attending_by

_NAME = "longvu_prompt"
# The oldest GPUs with flash attention: Ampere.
_FLASH_CAPABILITY = (8, 0)


def lacks_flash(numbers: torch.Tensor) -> bool:
    """Whether PyTorch has no flash attention for numbers like these, where they are; only asked of GPUs."""
    if numbers.device.type != "cuda":
        return False
    too_old = torch.cuda.get_device_capability(numbers.device) < _FLASH_CAPABILITY
    return too_old or numbers.dtype not in (torch.float16, torch.bfloat16)


@contextmanager
def prompts_by_repeated_heads(model: Any) -> Iterator[None]:
    """Within the block, a stock decoder attends to keys and values that are repeated for each head of their group.

    Args:
        model: a stock causal language model that uses SDPA.
    """
    with attending_by(model, _NAME, _attention):
        yield


def _attention(
    _: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """The form in which transformers calls attention."""
    heads = query.shape[1] // key.shape[1]
    keys, values = (rows.repeat_interleave(heads, dim=1) for rows in (key, value))
    # A module without groups: of them, the library would choose the kernel that writes down every score.
    plain = torch.nn.Module()
    attended: tuple[torch.Tensor, None] = sdpa_attention_forward(plain, query, keys, values, attention_mask, **others)
    return attended
