"""Second and third stage: connector and language model learn to answer, with the real compression in the loop.

The towers are frozen. Several questions are asked of each video, and its tokens are read only once for them: the
language model's keys and values of the video are shared by the rows that ask about it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from longvu_cli.compression.frame_position_encoding import frame_position_encoding
from longvu_cli.compression.spatial_token_compression import fit, keep_tokens
from longvu_cli.config import Recipe
from longvu_cli.interpolation import resize_grid
from longvu_cli.pipeline import Vision
from longvu_cli.token_grid import Crop, with_newlines
from longvu_cli.training.world_pictures import Camera168
from longvu_cli.training.world_videos import VideoBatch

# Weight of the loss that makes the frames that hold the answer score highest for the question (paper §3.2).
RELEVANCE_WEIGHT = 0.2
# Frames that go through the towers together.
_FRAMES_TOGETHER = 1024


class AnswerModel(nn.Module):
    """Connector and decoder with everything around them that training needs.

    Args:
        vision: the towers, frozen, and the connector.
        decoder: a stock causal language model.
    """

    def __init__(self, vision: Vision, decoder: Any, recipe: Recipe) -> None:
        super().__init__()
        self.connector = vision.connector
        self.decoder = decoder
        self._towers = (vision.siglip, vision.dinov2)  # a tuple, so that they are no part of this module
        self._device = vision.device
        self._recipe = recipe
        self._camera = Camera168(vision.device)
        high, low = recipe.high_side, recipe.low_side
        self._high_crop, self._low_crop = Crop(0, high, 0, high), Crop(0, low, 0, low)

    def forward(self, batch: VideoBatch) -> dict[str, torch.Tensor]:
        """Losses of one batch, and the share of rows that were answered rightly, token by token."""
        high, low = self._frames(self._camera.film(batch.frames))
        embeddings = self.decoder.get_input_embeddings()
        rows = embeddings(self._put(batch.ids))
        scores = self._scores(low, rows, batch)
        relevance = self._relevance_loss(scores, batch)
        visual, lengths = self._visual(high, low, scores.detach(), batch)
        before = embeddings(self._put(batch.before)).to(visual.dtype)
        prefix = torch.cat((before.expand(len(batch), -1, -1), visual), dim=1)
        logits, targets, row_of = self._answers(prefix, lengths + len(before), rows.to(prefix.dtype), batch)
        losses = functional.cross_entropy(logits.float(), targets, reduction="none")
        count = len(batch.ids)
        per_row = torch.zeros(count, device=self._device).index_add(0, row_of, losses)
        tokens = torch.bincount(row_of, minlength=count)
        weight = self._put(batch.weight)
        answer = (weight * per_row / tokens).sum() / weight.sum()
        wrong = torch.zeros(count, device=self._device).index_add(0, row_of, (logits.argmax(-1) != targets).float())
        right = (wrong == 0).float().mean()
        return {
            "loss": answer + RELEVANCE_WEIGHT * relevance,
            "answer": answer.detach(),
            "relevance": relevance.detach(),
            "right": right,
        }

    def _frames(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """[F, side, side, 3] uint8 → each frame's tokens at both resolutions: [F, n, h]."""
        siglip, dinov2 = (self._features(tower, pixels) for tower in self._towers)
        # Flash attention's backward pass rounds each of the many one-query sequences up to 128 and overflows its index.
        with sdpa_kernel(SDPBackend.MATH):
            fused = self.connector.aggregate(siglip, dinov2, None)
        newline = self.connector.image_newline
        high = with_newlines(self.connector.project(fused), self._high_crop, newline)
        low = with_newlines(self.connector.project(resize_grid(fused, self._recipe.low_side)), self._low_crop, newline)
        return high.float(), low.float()

    @torch.no_grad()
    def _features(self, tower: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
        # Cloned: what the tower makes under inference mode cannot take part in training.
        return torch.cat([tower(part) for part in pixels.split(_FRAMES_TOGETHER)]).clone()

    def _scores(self, low: torch.Tensor, rows: torch.Tensor, batch: VideoBatch) -> torch.Tensor:
        """[R, T]: each frame's relevance for each row's question, as :func:`relevance` has it; −inf beyond the video."""
        inside = torch.arange(rows.shape[1], device=self._device) < self._put(batch.prompt)[:, None]
        text = (rows.float() * inside[..., None]).sum(dim=1) / inside.sum(dim=1, keepdim=True)
        frames = low.new_zeros(len(batch), batch.evidence.shape[1], low.shape[-1])
        there = torch.zeros(frames.shape[:2], dtype=torch.bool, device=self._device)
        where = self._put(batch.video), self._put(batch.place)
        frames[where] = low.mean(dim=1)
        there[where] = True
        per_video = len(batch.ids) // len(batch)
        scores = torch.einsum("bqh,bth->bqt", text.unflatten(0, (len(batch), per_video)), frames)
        return scores.masked_fill(~there[:, None], -torch.inf).flatten(0, 1)

    def _relevance_loss(self, scores: torch.Tensor, batch: VideoBatch) -> torch.Tensor:
        """How much of the attention over the frames misses those that hold the answer."""
        evidence = self._put(batch.evidence)
        has = evidence.any(dim=1)
        logarithms = scores.log_softmax(dim=1).masked_fill(~evidence, -torch.inf)
        hit = torch.where(has[:, None], logarithms, torch.zeros_like(logarithms)).logsumexp(dim=1)
        return -(hit * has).sum() / has.sum().clamp(min=1)

    def _visual(
        self, high: torch.Tensor, low: torch.Tensor, scores: torch.Tensor, batch: VideoBatch
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What the decoder reads of each video: [B, most, h], padded at the end, and how many tokens of it."""
        video, place = self._put(batch.video), self._put(batch.place)
        is_high = self._is_high(scores, batch)[video, place]
        keep = torch.cat(
            (is_high[:, None].expand(-1, high.shape[1]), ~is_high[:, None].expand(-1, low.shape[1])), dim=1
        ).clone()
        for number in np.flatnonzero(batch.spatial).tolist():
            frames = slice(*np.searchsorted(batch.video, (number, number + 1)).tolist())
            part = slice(0, high.shape[1]) if batch.base_high[number] else slice(high.shape[1], None)
            tokens = (high if batch.base_high[number] else low)[frames].detach()
            keep[frames, part] = fit(keep_tokens(tokens, self._recipe), int(batch.room[number]))
        frame, slot = keep.nonzero(as_tuple=True)
        tokens = torch.cat((high, low), dim=1)[frame, slot]
        tokens = tokens + frame_position_encoding(self._put(batch.time)[frame], tokens.shape[-1])
        of_video = video[frame]
        lengths = torch.bincount(of_video, minlength=len(batch))
        first = lengths.cumsum(0) - lengths
        position = torch.arange(len(of_video), device=self._device) - first[of_video]
        visual = tokens.new_zeros(len(batch), int(lengths.max()), tokens.shape[-1])
        visual[of_video, position] = tokens
        return visual, lengths

    def _is_high(self, scores: torch.Tensor, batch: VideoBatch) -> torch.Tensor:
        """[B, T]: which frames are read at full resolution, by the best of their ranks for the video's questions."""
        per_video = len(batch.ids) // len(batch)
        ranks = scores.argsort(dim=1, descending=True).argsort(dim=1).unflatten(0, (len(batch), per_video))
        best = ranks.min(dim=1).values.float() + 1e-4 * ranks.float().mean(dim=1)
        beyond = torch.isinf(scores.unflatten(0, (len(batch), per_video))[:, 0])
        order = best.masked_fill(beyond, torch.inf).argsort(dim=1).argsort(dim=1)
        return (order < self._put(batch.restored)[:, None]) | self._put(batch.base_high)[:, None]

    def _answers(
        self, prefix: torch.Tensor, lengths: torch.Tensor, rows: torch.Tensor, batch: VideoBatch
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Logits at every id of the answers, these ids, and the row of each."""
        per_video = len(rows) // len(prefix)
        # Padding stands after the video, so no token of it sees any; the rows are told where it begins.
        cache = self.decoder.model(inputs_embeds=prefix, use_cache=True).past_key_values
        cache.batch_repeat_interleave(per_video)
        lengths = lengths.repeat_interleave(per_video)
        steps = torch.arange(rows.shape[1], device=self._device)
        seen = torch.arange(prefix.shape[1], device=self._device) < lengths[:, None]
        mask = torch.cat(
            (
                seen[:, None, :].expand(-1, len(steps), -1),
                (steps <= steps[:, None]).expand(len(rows), -1, -1),
            ),
            dim=2,
        )
        hidden = self.decoder.model(
            inputs_embeds=rows,
            past_key_values=cache,
            position_ids=lengths[:, None] + steps,
            attention_mask=mask[:, None],
            use_cache=True,
        ).last_hidden_state
        prompt, length = self._put(batch.prompt)[:, None], self._put(batch.length)[:, None]
        row, step = ((steps >= prompt) & (steps < length)).nonzero(as_tuple=True)
        return self.decoder.lm_head(hidden[row, step - 1]), self._put(batch.ids)[row, step], row

    def _put(self, values: npt.NDArray[np.generic]) -> torch.Tensor:
        return torch.from_numpy(values).to(self._device, non_blocking=True)
