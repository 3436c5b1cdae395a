"""The Spatial Vision Aggregator and the projectors: two towers' features → one grid per frame (paper §3.1).

Parameter names are the released tensor names, less the leading ``model.``.

Legend: F frames, P tower tokens per frame (576), Q queries per frame (144), K keys per query and tower (4),
v vision hidden size, h hidden size of the language model.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

HEADS = 16
# Of the released connector: eps of every LayerNorm in it.
EPS = 1e-5


class SVACrossAttention(nn.Module):
    """Each query attends to its keys in both towers under one softmax."""

    def __init__(self, *, width: int, heads: int = HEADS) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"a width of {width} cannot be split into {heads} heads")
        self.heads = heads
        self.q_proj = _normed_linear(width)
        self.k_proj_0 = _normed_linear(width)
        self.v_proj_0 = _normed_linear(width)
        self.k_proj_1 = _normed_linear(width)
        self.v_proj_1 = _normed_linear(width)
        self.o_proj = nn.Linear(width, width, bias=False)

    def forward(
        self, queries: torch.Tensor, siglip: torch.Tensor, dinov2: torch.Tensor, mask: torch.Tensor | None
    ) -> torch.Tensor:
        """Attend.

        Args:
            queries: [N, v], N = F·Q.
            siglip, dinov2: [N, K, v].
            mask: [N, 2K] bool, SigLIP's keys first; None: all.

        Returns:
            [N, v].
        """
        keys = torch.cat((self.k_proj_0(siglip), self.k_proj_1(dinov2)), dim=1)
        values = torch.cat((self.v_proj_0(siglip), self.v_proj_1(dinov2)), dim=1)
        # One query and a handful of keys: plain products and sums. Attention kernels are made for long sequences; they
        # pad each of the many short ones.
        query, keys, values = (
            tokens.unflatten(-1, (self.heads, -1)) for tokens in (self.q_proj(queries), keys, values)
        )
        scores = (query[:, None].float() * keys.float()).sum(dim=-1) / math.sqrt(query.shape[-1])
        if mask is not None:
            scores = scores.masked_fill(~mask[..., None], -torch.inf)
        shares = scores.softmax(dim=1).to(values.dtype)
        output: torch.Tensor = self.o_proj((shares[..., None] * values).sum(dim=1).flatten(1))
        return output


class SVAOutput(nn.Module):
    """Linear, GELU, Linear."""

    def __init__(self, *, width: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(width, width, bias=False)
        self.linear_2 = nn.Linear(width, width, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """[…, v] → […, v]."""
        output: torch.Tensor = self.linear_2(functional.gelu(self.linear_1(tokens)))
        return output


class SVALayer(nn.Module):
    """One round of aggregation.

    Args:
        width: v.
        keys: K, keys per query and tower; with more than one, each has a position embedding.
    """

    def __init__(self, *, width: int, keys: int) -> None:
        super().__init__()
        self.proj_context = nn.Linear(width, width, bias=False)
        self.proj_in = nn.Linear(2 * width, width, bias=False)
        self.cross_attn = SVACrossAttention(width=width)
        self.norm = nn.LayerNorm(width, eps=EPS)
        self.proj_out = SVAOutput(width=width)
        self.has_positions = keys > 1
        if self.has_positions:
            self.pos_embed_0 = nn.Parameter(torch.empty(keys, width))
            self.pos_embed_1 = nn.Parameter(torch.empty(keys, width))

    def forward(
        self,
        queries: torch.Tensor,
        siglip: torch.Tensor,
        dinov2: torch.Tensor,
        context: torch.Tensor,
        mask: torch.Tensor | None,
    ) -> torch.Tensor:
        """Aggregate.

        Args:
            queries: [N, v].
            siglip, dinov2: [N, K, v].
            context: [N, v], the frame's mean SigLIP token for each query.
            mask: as in :class:`SVACrossAttention`.

        Returns:
            [N, v].
        """
        if self.has_positions:
            siglip, dinov2 = siglip + self.pos_embed_0, dinov2 + self.pos_embed_1
        update = self.proj_in(torch.cat((queries, self.proj_context(context)), dim=-1))
        update = update + self.cross_attn(update, siglip, dinov2, mask)
        output: torch.Tensor = self.proj_out(self.norm(update)) + queries
        return output


class VisionSampler(nn.Module):
    """The stack of SVA layers (``vision_sampler_0``)."""

    def __init__(self, *, width: int, depth: int, keys: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([SVALayer(width=width, keys=keys) for _ in range(depth)])

    def forward(
        self,
        queries: torch.Tensor,
        siglip: torch.Tensor,
        dinov2: torch.Tensor,
        context: torch.Tensor,
        mask: torch.Tensor | None,
    ) -> torch.Tensor:
        """Shapes as in :class:`SVALayer`."""
        for layer in self.layers:
            queries = layer(queries, siglip, dinov2, context, mask)
        return queries


class Connector(nn.Module):
    """Everything between the towers and the language model.

    Args:
        siglip_width, dinov2_width: channels of the towers (1152, 1536).
        width: v.
        hidden_size: h.
        depth: SVA layers.
        query_side: side of the query grid (12 or 24).
        key_side: side of the block of tower tokens of one query (2 or 1).
    """

    def __init__(
        self,
        *,
        siglip_width: int,
        dinov2_width: int,
        width: int,
        hidden_size: int,
        depth: int,
        query_side: int,
        key_side: int,
    ) -> None:
        super().__init__()
        self.query_side = query_side
        self.key_side = key_side
        self.mm_projector_aux_0 = _tower_projector(siglip_width, width)
        self.mm_projector_aux_1 = _tower_projector(dinov2_width, width)
        self.vision_query = nn.Parameter(torch.empty(1, width))
        self.vision_sampler_0 = VisionSampler(width=width, depth=depth, keys=key_side**2)
        self.mm_projector = nn.Sequential(nn.Linear(width, hidden_size), nn.GELU(), nn.Linear(hidden_size, hidden_size))
        self.image_newline = nn.Parameter(torch.empty(hidden_size))

    def aggregate(self, siglip: torch.Tensor, dinov2: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Fuse the towers' features.

        Args:
            siglip: [F, P, siglip_width].
            dinov2: [F, P, dinov2_width].
            mask: [Q, K] bool, tower tokens that show the picture (the same for both towers); None: all.

        Returns:
            [F, Q, v].
        """
        frames = siglip.shape[0]
        siglip, dinov2 = self.mm_projector_aux_0(siglip), self.mm_projector_aux_1(dinov2)
        queries_per_frame = self.query_side**2
        # The mean is over all tokens, padding included, as in the released model.
        context = siglip.mean(dim=1).repeat_interleave(queries_per_frame, dim=0)
        queries = self.vision_query.expand(frames * queries_per_frame, -1)
        keys = None if mask is None else mask.to(siglip.device).repeat(frames, 2)
        fused: torch.Tensor = self.vision_sampler_0(queries, self._blocks(siglip), self._blocks(dinov2), context, keys)
        return fused.reshape(frames, queries_per_frame, -1)

    def project(self, tokens: torch.Tensor) -> torch.Tensor:
        """[…, v] → […, h], the language model's input space (F(·) of paper eq. 1)."""
        projected: torch.Tensor = self.mm_projector(tokens)
        return projected

    def _blocks(self, tokens: torch.Tensor) -> torch.Tensor:
        """[F, P, v] → [F·Q, K, v]: the block of the towers' grid at each query's place, row-major."""
        frames, count, width = tokens.shape
        if math.isqrt(count) != self.query_side * self.key_side:
            raise ValueError(f"{count} tower tokens are not {self.query_side}² blocks of {self.key_side}²")
        side, block = self.query_side, self.key_side
        grid = tokens.reshape(frames, side, block, side, block, width)
        return grid.permute(0, 1, 3, 2, 4, 5).reshape(frames * side * side, block * block, width)


def _normed_linear(width: int) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(width, eps=EPS), nn.Linear(width, width, bias=False))


def _tower_projector(tower_width: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(tower_width, width), nn.GELU(), nn.Linear(width, width), nn.LayerNorm(width, eps=EPS)
    )
