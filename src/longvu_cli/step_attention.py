"""Attention of one new token over all that came before, without copying the keys and values for each head.

transformers' own step repeats the keys and values for every query head of a group (seven times in the 7b model), or
walks through them with one thread block per group. Two matrix products read them once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

_NAME = "longvu_step"


def step_attention(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor | None, scale: float
) -> torch.Tensor:
    """Grouped-query attention of one token; the sums of the softmax are in float32.

    Args:
        query: [1, heads, 1, d].
        keys, values: [1, groups, n, d].
        mask: [1, 1, 1, n or more] bool, what the token may look at; None: everything.
        scale: of the products of queries and keys.

    Returns:
        [1, heads, 1, d].
    """
    groups, length, width = keys.shape[1:]
    grouped = query.view(groups, -1, width)
    scores = torch.matmul(grouped, keys[0].transpose(1, 2)).float() * scale
    if mask is not None:
        scores = scores.masked_fill(~mask[0, :, :, :length], -torch.inf)
    weights = scores.softmax(dim=-1).to(values.dtype)
    return torch.matmul(weights, values[0]).view(query.shape)


@contextmanager
def steps_by_products(model: Any) -> Iterator[None]:
    """Within the block, a stock decoder's passes over a single token use :func:`step_attention`.

    Args:
        model: a stock causal language model that uses SDPA.
    """
    with attending_by(model, _NAME, _attention):
        yield


@contextmanager
def attending_by(model: Any, name: str, attention: Callable[..., tuple[torch.Tensor, None]]) -> Iterator[None]:
    """Within the block, a stock decoder attends by a function of ours.

    Args:
        model: a stock causal language model that uses SDPA.
        name: what transformers is to call it.
        attention: in the form of transformers' own, of which it may use what is meant for SDPA.
    """
    AttentionInterface.register(name, attention)
    AttentionMaskInterface.register(name, sdpa_mask)
    before = model.config._attn_implementation
    model.set_attn_implementation(name)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """The form in which transformers calls attention; the result is [1, tokens, heads, d]."""
    if query.shape[2] > 1:
        made: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **others
        )
        return made
    return step_attention(query, key, value, attention_mask, scaling).transpose(1, 2), None
