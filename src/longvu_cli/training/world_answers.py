"""Second and third stage: connector and language model learn to answer, with the real compression in the loop.

The towers are frozen. Several questions are asked of each video, and its tokens are read only once for them: the
language model's keys and values of the video are shared by the rows that ask about it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from longvu_cli.compression.frame_position_encoding import frame_position_encoding
from longvu_cli.compression.spatial_token_compression import fit, keep_tokens
from longvu_cli.config import Recipe
from longvu_cli.interpolation import resize_grid
from longvu_cli.pipeline import Vision
from longvu_cli.token_grid import Crop, with_newlines
from longvu_cli.training.world_pictures import Camera168, Shown
from longvu_cli.training.world_videos import THING_WORDS, VideoBatch
from longvu_cli.world.things import THINGS

# Weight of an answer's loss, which is a sum over its tokens.
ANSWER_WEIGHT = 0.3
# Weight of the loss that makes the frames that hold the answer score highest for the question (paper §3.2).
RELEVANCE_WEIGHT = 0.2
# Weight of the loss that makes tokens look like the words for what they show.
WORDS_WEIGHT = 0.1
# Weight of the loss that makes tokens tell their place in the picture.
WHERE_WEIGHT = 0.1
# Weight of the loss that makes the decoder's tokens tell what is left of the thing that they show, and the layers after
# which they do: what a question about it is answered from.
LEFT_WEIGHT = 0.1
_LEFT_LAYERS = 3
_SILENCE = 3.0
# Frames that go through the towers together.
_FRAMES_TOGETHER = 1024


class AnswerModel(nn.Module):
    """Connector and decoder with everything around them that training needs.

    Args:
        vision: the towers, frozen, and the connector.
        decoder: a stock causal language model.
        word_ids: ids of ``WORDS`` in the vocabulary.
    """

    def __init__(self, vision: Vision, decoder: Any, recipe: Recipe, word_ids: Sequence[int]) -> None:
        super().__init__()
        self.probe = nn.Linear(decoder.config.hidden_size, 2 * recipe.high_side)
        self.left_probe = nn.Linear(decoder.config.hidden_size, len(THING_WORDS))
        for probe in (self.probe, self.left_probe):  # that begin by pulling at nothing
            nn.init.zeros_(probe.weight)
            nn.init.zeros_(probe.bias)
        self.register_buffer("_word_ids", torch.tensor(word_ids), persistent=False)
        self._last: tuple[Shown, torch.Tensor, torch.Tensor] | None = None
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
        high, low = self._frames(batch.frames)
        embeddings = self.decoder.get_input_embeddings()
        rows = embeddings(self._put(batch.ids))
        scores = self._scores(low, rows, batch)
        relevance = self._relevance_loss(scores, batch)
        tokens = self._without_newlines(high)
        words, where = self._words_loss(tokens, batch), self._where_loss(tokens)
        visual, lengths, shown = self._visual(high, low, scores.detach(), batch)
        before = embeddings(self._put(batch.before))
        prefix = torch.cat((before.expand(len(batch), -1, -1), visual), dim=1)
        logits, targets, row_of, middle = self._answers(prefix, lengths + len(before), rows, batch)
        left = self._left_loss(middle[:, len(before) :], shown)
        losses = functional.cross_entropy(logits.float(), targets, reduction="none")
        count = len(batch.ids)
        per_row = torch.zeros(count, device=self._device).index_add(0, row_of, losses)
        # Summed over an answer's tokens: the one that matters is not worth less for standing among many that do not.
        answer = per_row.mean()
        wrong = torch.zeros(count, device=self._device).index_add(0, row_of, (logits.argmax(-1) != targets).float())
        self.right = wrong == 0
        return {
            "loss": ANSWER_WEIGHT * answer
            + RELEVANCE_WEIGHT * relevance
            + WORDS_WEIGHT * words
            + WHERE_WEIGHT * where
            + LEFT_WEIGHT * left,
            "answer": answer.detach(),
            "relevance": relevance.detach(),
            "words": words.detach(),
            "where": where.detach(),
            "left": left.detach(),
            "right": self.right.float().mean(),
        }

    def _frames(self, frames: Shown) -> tuple[torch.Tensor, torch.Tensor]:
        """Each frame's tokens at both resolutions: [F, n, h]."""
        siglip, dinov2 = self._seen(frames)
        fused = self.connector.aggregate(siglip, dinov2, None)
        newline = self.connector.image_newline
        high = with_newlines(self.connector.project(fused), self._high_crop, newline)
        low = with_newlines(self.connector.project(resize_grid(fused, self._recipe.low_side)), self._low_crop, newline)
        return high.float(), low.float()

    @torch.no_grad()
    def _seen(self, frames: Shown) -> tuple[torch.Tensor, torch.Tensor]:
        """The towers' features; batches that share their videos have them computed once."""
        if self._last is None or self._last[0] is not frames:
            pixels = self._camera.film(frames)
            # Cloned: what the tower makes under inference mode cannot take part in training.
            siglip, dinov2 = (
                torch.cat([tower(part) for part in pixels.split(_FRAMES_TOGETHER)]).clone() for tower in self._towers
            )
            self._last = frames, siglip, dinov2
        return self._last[1:]

    def _without_newlines(self, high: torch.Tensor) -> torch.Tensor:
        """[F, n, h] → [F, Q², h]."""
        side = self._recipe.high_side
        rows: torch.Tensor = high.unflatten(1, (side, side + 1))
        return rows[:, :, :side].flatten(1, 2)

    def _where_loss(self, tokens: torch.Tensor) -> torch.Tensor:
        """How badly a token tells its own row and column: nothing else says where in the picture it stands."""
        side = self._recipe.high_side
        steps = torch.arange(side, device=self._device)
        rows, columns = steps.repeat_interleave(side), steps.repeat(side)
        row, column = self.probe(tokens).float().transpose(1, 2).split(side, dim=1)
        count = len(tokens)
        of_row = functional.cross_entropy(row, rows.expand(count, -1))
        return of_row + functional.cross_entropy(column, columns.expand(count, -1))

    def _words_loss(self, tokens: torch.Tensor, batch: VideoBatch) -> torch.Tensor:
        """How far the tokens are from the embeddings of the words that say what they show."""
        words = self.decoder.get_input_embeddings()(self._word_ids)
        # Most words are not there: a token that is like none of them has to mean that.
        logits = tokens @ words.T / words.shape[1] ** 0.5 - _SILENCE
        shown = self._put(batch.words).float()
        loss: torch.Tensor = functional.binary_cross_entropy_with_logits(logits.float(), shown) * len(words)
        return loss

    def _left_loss(self, hidden: torch.Tensor, shown: torch.Tensor) -> torch.Tensor:
        """How badly the decoder's hidden states at tokens that show a thing tell what is left of it.

        Args:
            hidden: [B, most, h] at the visual tokens.
            shown: [B, most, 1 + W′] whether a token shows a thing, and the words for what is left of it.
        """
        there = shown[..., 0]
        logits = self.left_probe(functional.rms_norm(hidden[there], hidden.shape[-1:])) - _SILENCE
        loss = functional.binary_cross_entropy_with_logits(logits.float(), shown[there][:, 1:].float(), reduction="sum")
        return loss / there.sum().clamp(min=1)

    def _slots(self, batch: VideoBatch) -> torch.Tensor:
        """[F, n_high + n_low, 1 + W′]: what :meth:`_left_loss` wants to know of every token that could be read."""
        high, low = self._recipe.high_side, self._recipe.low_side
        shows = self._put(batch.words)[..., : len(THINGS)].any(dim=-1, keepdim=True)
        of_high = torch.cat((shows, self._put(batch.left)), dim=-1).unflatten(1, (high, high))
        step = high // low
        of_low = of_high.unflatten(2, (low, step)).unflatten(1, (low, step)).any(dim=2).any(dim=3)
        parts = (functional.pad(part, (0, 0, 0, 1)).flatten(1, 2) for part in (of_high, of_low))
        return torch.cat(tuple(parts), dim=1)

    def _scores(self, low: torch.Tensor, rows: torch.Tensor, batch: VideoBatch) -> torch.Tensor:
        """[R, T]: each frame's relevance for each row's question (paper, eq. 1); −inf beyond the video."""
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
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What the decoder reads of each video: [B, most, h], padded at the end; how many tokens; what they show."""
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
        slots = self._slots(batch)
        shown = slots.new_zeros(*visual.shape[:2], slots.shape[-1])
        shown[of_video, position] = slots[frame, slot]
        return visual, lengths, shown

    def _is_high(self, scores: torch.Tensor, batch: VideoBatch) -> torch.Tensor:
        """[B, T]: which frames are read at full resolution, by the best of their ranks for the video's questions."""
        per_video = len(batch.ids) // len(batch)
        ranks = scores.argsort(dim=1, descending=True).argsort(dim=1).unflatten(0, (len(batch), per_video))
        best = ranks.min(dim=1).values.float() + 1e-4 * ranks.float().mean(dim=1)
        beyond = torch.isinf(scores.unflatten(0, (len(batch), per_video))[:, 0])
        order = best.masked_fill(beyond, torch.inf).argsort(dim=1).argsort(dim=1)
        restored: torch.Tensor = order < self._put(batch.restored)[:, None]
        return restored | self._put(batch.base_high)[:, None]

    def _answers(
        self, prefix: torch.Tensor, lengths: torch.Tensor, rows: torch.Tensor, batch: VideoBatch
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Logits at every id of the answers, these ids, the row of each; the prefix after the first layers."""
        videos, per_video, steps = len(prefix), len(rows) // len(prefix), rows.shape[1]
        # Padding stands after the video, so no token of it sees any; the rows are told where it begins.
        read = self.decoder.model(inputs_embeds=prefix, use_cache=True, output_hidden_states=True)
        cache = read.past_key_values
        seen = torch.arange(prefix.shape[1], device=self._device) < lengths[:, None]
        step = torch.arange(steps, device=self._device)
        # The questions of a video stand side by side; each sees the video and itself up to here.
        question = torch.arange(per_video, device=self._device).repeat_interleave(steps)
        own = (question[:, None] == question) & (step.repeat(per_video)[:, None] >= step.repeat(per_video))
        mask = torch.cat(
            (seen[:, None, :].expand(-1, len(own), -1), own.expand(videos, -1, -1)),
            dim=2,
        )
        hidden = self.decoder.model(
            inputs_embeds=rows.unflatten(0, (videos, per_video)).flatten(1, 2),
            past_key_values=cache,
            position_ids=lengths[:, None] + step.repeat(per_video),
            attention_mask=mask[:, None],
            use_cache=True,
        ).last_hidden_state
        prompt, length = self._put(batch.prompt)[:, None], self._put(batch.length)[:, None]
        row, at = ((step >= prompt) & (step < length)).nonzero(as_tuple=True)
        hidden = hidden.unflatten(1, (per_video, steps)).flatten(0, 1)
        logits = self.decoder.lm_head(hidden[row, at - 1])
        return logits, self._put(batch.ids)[row, at], row, read.hidden_states[_LEFT_LAYERS]

    def _put(self, values: npt.NDArray[np.generic]) -> torch.Tensor:
        return torch.from_numpy(values).to(self._device, non_blocking=True)
