"""The whole story, from file to answer.

::

    video.py          file → frames, one per second
    square_frames.py  frames → square pixels, in batches       (preprocess, gpu_squares)
    towers.py         pixels → DINOv2 and SigLIP features
    compression/      which frames stay                        (temporal_reduction)
    sva.py            features → one fused grid per kept frame
    compression/      which frames keep full resolution        (budget, selective_feature_reduction)
    token_grid.py     grids → sequences without padding
    compression/      which tokens stay                        (spatial_token_compression)
    prompt.py         question → ids around the video
    language_model.py everything → the answer, token by token

Everything up to the fused grids (:func:`encode`) does not know the question; the rest (:func:`compress`) does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from longvu_cli.adaptive_batch import AdaptiveBatch
from longvu_cli.compression.budget import Budget, Plan, frame_limit, plan, still_plan
from longvu_cli.compression.frame_position_encoding import frame_position_encoding
from longvu_cli.compression.selective_feature_reduction import full_resolution_frames, relevance, spread_frames
from longvu_cli.compression.spatial_token_compression import cut, fit, keep_tokens
from longvu_cli.compression.temporal_reduction import is_thinned, keep_frames, may_be_kept, stand_out, window_similarity
from longvu_cli.config import RELEASED_FRAME_CAP, Recipe, RecipeName, StillMode, TemporalReduction
from longvu_cli.encoded_video import EncodedVideo
from longvu_cli.frame_store import FrameStore
from longvu_cli.interpolation import resize_grid
from longvu_cli.pixel_store import PixelStore
from longvu_cli.prefetch import prefetched
from longvu_cli.repeats import OfPictures, OncePerPicture
from longvu_cli.square_frames import (
    Inputs,
    SquareFrame,
    different_pictures,
    growing_batches,
    pictures_of,
    square_frames,
)
from longvu_cli.statistics import (
    CompressionStatistics,
    Fate,
    FrameCounts,
    FrameStatistics,
    Resolution,
    Timeline,
    TokenCounts,
)
from longvu_cli.sva import Connector
from longvu_cli.timing import Stopwatch
from longvu_cli.token_grid import Crop, crop, crops, key_mask, size_as_read, with_newlines
from longvu_cli.towers import Tower
from longvu_cli.video import Frame

Progress = Callable[[str, int, int | None], None]
Fuse = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]

# Different pictures that go through the towers together: whole windows of either recipe where all frames differ.
BATCH = 16
# Frames that do so, however few pictures they show.
FRAMES = 256
# The same on a GPU with room for them: 64 are 11 % quicker than 16 (bench/README.md). What the towers take for each, in
# bytes, and the share of the free memory that may go there.
BATCHES_ON_GPU, FRAME_BYTES, BATCH_SHARE = (64, 32), 35_000_000, 0.05
# Frames that are decoded and preprocessed ahead of the towers, in whole batches.
AHEAD = 64
# Frames that stand out from which it pays to look again at those that stay: with DINOv2 giant and SigLIP so400m, whose
# times are as two to one, three times the 400 that stay.
WAIT_FROM = 3 * RELEASED_FRAME_CAP
# Frames that go through the projector together; bounds the memory of its hidden layer.
PROJECTOR_FRAMES = 64


@dataclass(frozen=True)
class Vision:
    """The modules that see."""

    siglip: Tower
    dinov2: Tower
    connector: Connector
    device: torch.device


@dataclass(frozen=True)
class CompressedVideo:
    """What the language model reads of a video.

    Attributes:
        tokens: [V, h]; None when the choice of resolutions waits for a question.
        kept: sorted indices of the kept frames among the sampled ones.
        timeline: every sampled frame.
    """

    tokens: torch.Tensor | None
    kept: torch.Tensor
    statistics: CompressionStatistics
    timeline: Timeline


def frames_together(device: str, free: int) -> int:
    """How many different pictures go through the towers together.

    Args:
        device: its kind.
        free: bytes that are free on it, beside the weights.
    """
    if device != "cuda":
        return BATCH
    return next((count for count in BATCHES_ON_GPU if count * FRAME_BYTES <= free * BATCH_SHARE), BATCH)


# --- file → fused grids --------------------------------------------------------------------------------------------


def encode(
    frames: Iterable[Frame],
    vision: Vision,
    recipe: Recipe,
    *,
    room: Budget,
    still: bool,
    batch: AdaptiveBatch,
    watch: Stopwatch,
    on_progress: Progress,
    expected: int | None,
    fuse: Fuse | None = None,
) -> EncodedVideo:
    """Look at every frame once, as they come, and fuse the features of those that may be kept.

    Decoding and preprocessing run ahead in a thread of their own. Nothing holds all frames, pixels or features: the
    fused grids of frames that may be kept go to a file when they become many. Once it is certain that they will be
    thinned, the pixels of further ones wait in a file, and only those that stay are looked at again. A frame whose
    pixels are those of the frame before it costs next to nothing.

    Args:
        room: what the prompt leaves for the video; one that fits keeps all its frames.
        still: whether the file is a single picture.
        batch: how many pictures go through a tower together.
        expected: frames that are likely to come, for the progress.
        fuse: takes the place of the connector's aggregation (of :func:`side_by_side` in training).

    Returns:
        The encoded video, with the fused grids of the kept frames. Which of evenly spaced ones stay changes with the
        length of the question: of those it has them all, so that no further question needs a tower.
    """
    scout, second = _scout_first(vision, recipe)
    fuse = vision.connector.aggregate if fuse is None else fuse
    image = still and recipe.still is StillMode.IMAGE
    times: list[float] = []
    # Numbers, not tensors: small ones that stay, between large ones that go, would keep memory from being used again.
    similarities: list[float] = []
    indices: list[int] = []
    size, mask, standing, limit = (0, 0), None, 0, 0
    scouted, fused = OncePerPicture(), OncePerPicture()
    # Frames that may be kept, until they are enough for the second tower; and what the first saw of their pictures.
    held: list[SquareFrame] = []
    seen_of: dict[int, torch.Tensor] = {}

    def look(tower: Tower, frames: list[SquareFrame], rows: list[int]) -> torch.Tensor:
        with watch.stage(_name(tower, vision)):
            return batch.run(tower, _pixels([frames[row] for row in rows], tower, vision))

    def look_again_and_fuse(frames: list[SquareFrame], rows: list[int]) -> torch.Tensor:
        seen = torch.stack([seen_of[frames[row].picture] for row in rows])
        features = {scout: seen, second: look(second, frames, rows)}
        with watch.stage("connector"), torch.inference_mode():
            return fuse(features[vision.siglip], features[vision.dinov2], mask)

    def hold(frames: list[SquareFrame], seen: OfPictures, rows: torch.Tensor) -> None:
        held.extend(frames)
        # A copy of the rows that stay: a part of the batch would keep all of it.
        which = seen.which[rows.to(seen.which.device)]
        distinct, first = np.unique(pictures_of(frames), return_index=True)
        seen_of.update(zip(distinct.tolist(), seen.results[which[torch.from_numpy(first)]].unbind(), strict=True))

    def fuse_held() -> torch.Tensor:
        grids = fused.of(pictures_of(held), partial(look_again_and_fuse, held))
        held.clear()
        seen_of.clear()
        return grids.of_frames(slice(None))

    def waits() -> bool:
        """Whether it is certain that frames will be thinned, and likely that so many are that it pays."""
        likely = standing if expected is None else standing * max(1, expected // max(1, len(times)))
        return is_thinned(standing, recipe, first=len(times), limit=limit) and likely >= WAIT_FROM

    together = max(BATCH, batch.size)
    inputs = Inputs(vision.siglip.input, vision.dinov2.input, vision.device)
    squares = square_frames(watch.over("decode", frames), inputs, watch)
    batches = growing_batches(squares, window=recipe.temporal_window, least=BATCH, most=together, most_frames=FRAMES)
    batches = prefetched(batches, AHEAD // together)
    waiting_pictures: list[int] = []
    with FrameStore() as store, PixelStore() as waiting, closing(batches):
        for frames_now in batches:
            if not times:
                size = frames_now[0].size
                mask = tower_mask(size, vision, recipe, image=image)
                limit = _limit(size, recipe, room, image=image)
            seen = scouted.of(pictures_of(frames_now), partial(look, scout, frames_now))
            similarity = _similarity(seen, recipe)
            chosen = may_be_kept(similarity, recipe, first=len(times), limit=limit).nonzero().squeeze(1)
            frames_chosen = [frames_now[i] for i in chosen.tolist()]
            if frames_chosen and (len(waiting) or waits()):
                waiting.append([(frame.siglip, frame.dinov2) for frame in frames_chosen])
                waiting_pictures += pictures_of(frames_chosen)
            elif frames_chosen:
                if held and different_pictures(held + frames_chosen) > together:
                    store.append(fuse_held())
                hold(frames_chosen, seen, chosen)
                if different_pictures(held) >= together:
                    store.append(fuse_held())
            standing += int(stand_out(similarity, recipe).sum())
            indices += (chosen + len(times)).tolist()
            times.extend(frame.time_s for frame in frames_now)
            similarities += similarity.tolist()
            on_progress("encode", len(times), expected)
        if held:
            store.append(fuse_held())
        all_similarities = torch.tensor(similarities, dtype=similarity.dtype)
        kept = _worth_holding(all_similarities, recipe, limit)
        rows = torch.searchsorted(torch.tensor(indices, dtype=torch.long), kept)
        grids, late = [store.take(rows[rows < len(store)])], rows[rows >= len(store)] - len(store)
        for begin in range(0, len(late), together):
            some = late[begin : begin + together]
            squares_late = waiting.take(some.tolist())
            frames_late = [
                SquareFrame(0.0, size, waiting_pictures[row], *pair)
                for row, pair in zip(some.tolist(), squares_late, strict=True)
            ]
            seen = scouted.of(pictures_of(frames_late), partial(look, scout, frames_late))
            hold(frames_late, seen, torch.arange(len(frames_late)))
            grids.append(fuse_held().cpu())
    return EncodedVideo(
        times=tuple(times), similarity=all_similarities, indices=kept, fused=torch.cat(grids), size=size, image=image
    )


def kept_frames(encoded: EncodedVideo, recipe: Recipe, room: Budget) -> torch.Tensor:
    """Sorted indices of the frames that stay, when the prompt leaves so much room."""
    limit = _limit(encoded.size, recipe, room, image=encoded.image)
    return keep_frames(encoded.similarity, recipe, limit=limit)


def _limit(size: tuple[int, int], recipe: Recipe, room: Budget, *, image: bool) -> int:
    high, low = _crops(size, recipe, image=image)
    return frame_limit(recipe, room, high_tokens=high.tokens, low_tokens=low.tokens)


def _worth_holding(similarity: torch.Tensor, recipe: Recipe, limit: int) -> torch.Tensor:
    if recipe.temporal_reduction is TemporalReduction.UNIFORM:
        return torch.arange(len(similarity))
    return keep_frames(similarity, recipe, limit=limit)


def _scout_first(vision: Vision, recipe: Recipe) -> tuple[Tower, Tower]:
    """The tower that sees every frame and decides which stay, and the one that sees only those."""
    if recipe.temporal_reduction is TemporalReduction.SIGLIP:
        return vision.siglip, vision.dinov2
    return vision.dinov2, vision.siglip


def _name(tower: Tower, vision: Vision) -> str:
    return "siglip" if tower is vision.siglip else "dinov2"


def _pixels(frames: list[SquareFrame], tower: Tower, vision: Vision) -> torch.Tensor:
    """[n, side, side, 3] uint8 on the device."""
    squares = [frame.siglip if tower is vision.siglip else frame.dinov2 for frame in frames]
    return torch.from_numpy(np.stack(squares)).to(vision.device)


def _similarity(seen: OfPictures, recipe: Recipe) -> torch.Tensor:
    """[n] on the host; NaN when nothing is decided by similarity."""
    if recipe.temporal_reduction in (TemporalReduction.NONE, TemporalReduction.UNIFORM):
        return torch.full((len(seen),), torch.nan)
    include_self = recipe.name is RecipeName.RELEASED
    begins = range(0, len(seen), recipe.temporal_window)
    windows = (seen.of_frames(slice(begin, begin + recipe.temporal_window)) for begin in begins)
    return torch.cat([window_similarity(window, include_self=include_self) for window in windows]).cpu()


def tower_mask(size: tuple[int, int], vision: Vision, recipe: Recipe, *, image: bool) -> torch.Tensor | None:
    """Which of the towers' tokens show the picture, for frames of this size (see :func:`key_mask`)."""
    side = vision.dinov2.grid_side
    read = size_as_read(*size, orientation=recipe.orientation, image=image)
    return key_mask(crop(side, read), side, recipe.high_side)


def side_by_side(siglip: torch.Tensor, dinov2: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """[F, P, siglip_width + dinov2_width]: both towers' features, not fused, for a connector that is trained."""
    return torch.cat((siglip, dinov2), dim=-1)


# --- fused grids → visual tokens -----------------------------------------------------------------------------------


def compress(
    encoded: EncodedVideo,
    vision: Vision,
    recipe: Recipe,
    room: Budget,
    *,
    text_tokens: int,
    text: torch.Tensor | None,
) -> CompressedVideo:
    """Choose frames, resolutions and tokens until the video fits its budget.

    Gradients flow from the tokens to the fused grids and the connector, unless the caller runs it without them.

    Args:
        room: what the prompt leaves for the video.
        text_tokens: ids of the prompt.
        text: [m, h] embeddings of the prompt ids after the video; None when there is no question.
    """
    kept = kept_frames(encoded, recipe, room)
    fused = encoded.fused[encoded.rows(kept)].to(vision.device)
    high_crop, low_crop = _crops(encoded.size, recipe, image=encoded.image)
    chosen = _plan(encoded, recipe, room, len(kept), high_crop, low_crop)

    scores, low = None, None
    if text is not None or chosen.base is Resolution.LOW:
        low = _sequences(resize_grid(fused, recipe.low_side), low_crop, vision)
    if text is not None and low is not None:
        scores = relevance(low, text)
    if 0 < chosen.restored < len(kept) and recipe.query_guided and scores is None:
        return CompressedVideo(
            tokens=None,
            kept=kept,
            statistics=_undecided_statistics(encoded, chosen, room, kept, high_crop, low_crop, text_tokens),
            timeline=_timeline(encoded, kept, recipe),
        )

    is_high = torch.full((len(kept),), chosen.base is Resolution.HIGH)
    if chosen.restored:
        is_high[_restored(scores if recipe.query_guided else None, chosen.restored, len(kept)).cpu()] = True
    high = _sequences(fused[is_high.to(fused.device)], high_crop, vision) if is_high.any() else None
    sequences = _in_order(high, low, is_high)

    keep = [torch.ones(len(sequence), dtype=torch.bool) for sequence in sequences]
    truncated = [0] * len(sequences)
    if chosen.spatial_compression:  # every frame has the same resolution here: none was restored
        stacked = torch.stack(sequences)
        if recipe.spatial_compression:
            distinct = keep_tokens(stacked, recipe)
            fitting = fit(distinct, room.visual_budget)
        else:
            distinct = torch.ones(stacked.shape[:2], dtype=torch.bool)
            fitting = cut(distinct, room.visual_budget)
        truncated = (distinct.sum(dim=1) - fitting.sum(dim=1)).tolist()
        keep = list(fitting.cpu())
    # All at once: each look at a mask would wait for the device.
    tokens = torch.cat(sequences)[torch.cat(keep).to(vision.device)]
    per_frame = [int(mask.sum()) for mask in keep]
    if recipe.frame_position_encoding:
        steps = torch.repeat_interleave(kept, torch.tensor(per_frame)).to(tokens.device)
        tokens = tokens + frame_position_encoding(steps, tokens.shape[1]).to(tokens.dtype)
    statistics = CompressionStatistics(
        regime=chosen.regime,
        spatial_compression=chosen.spatial_compression and recipe.spatial_compression,
        text_tokens=text_tokens,
        visual_budget=room.visual_budget,
        frames=FrameCounts(sampled=len(encoded.times), kept=len(kept), high_resolution=int(is_high.sum())),
        tokens=TokenCounts(
            dense=len(encoded.times) * high_crop.tokens,
            after_temporal=len(kept) * high_crop.tokens,
            after_query=sum(len(sequence) for sequence in sequences),
            visual=len(tokens),
        ),
        truncated_tokens=sum(truncated),
        per_frame=_per_frame(encoded, kept, scores, is_high, per_frame, truncated),
    )
    timeline = _timeline(encoded, kept, recipe)
    return CompressedVideo(tokens=tokens, kept=kept, statistics=statistics, timeline=timeline)


def _crops(size: tuple[int, int], recipe: Recipe, *, image: bool) -> tuple[Crop, Crop]:
    return crops(
        size, orientation=recipe.orientation, image=image, high_side=recipe.high_side, low_side=recipe.low_side
    )


def _plan(encoded: EncodedVideo, recipe: Recipe, room: Budget, kept: int, high_crop: Crop, low_crop: Crop) -> Plan:
    if encoded.image:
        return still_plan(recipe, room, high_tokens=high_crop.tokens, low_tokens=low_crop.tokens)
    return plan(recipe, room, kept=kept, high_tokens=high_crop.tokens, low_tokens=low_crop.tokens)


def _sequences(grids: torch.Tensor, kept: Crop, vision: Vision) -> torch.Tensor:
    """[n, g·g, v] → [n, kept.tokens, h]: projected, without padding, with newlines."""
    newline = vision.connector.image_newline
    parts = grids.split(PROJECTOR_FRAMES)
    return torch.cat([with_newlines(vision.connector.project(part), kept, newline) for part in parts])


def _restored(scores: torch.Tensor | None, count: int, kept: int) -> torch.Tensor:
    """Indices of the frames that get full resolution back; without scores they are evenly spread."""
    return spread_frames(kept, count) if scores is None else full_resolution_frames(scores, count)


def _in_order(high: torch.Tensor | None, low: torch.Tensor | None, is_high: torch.Tensor) -> list[torch.Tensor]:
    """Each kept frame's sequence, in temporal order. ``high`` holds the full-resolution frames, ``low`` all."""
    highs = iter(() if high is None else high)
    lows = [None] * len(is_high) if low is None else low
    ordered = [next(highs) if flag else sequence for flag, sequence in zip(is_high.tolist(), lows, strict=True)]
    return [sequence for sequence in ordered if sequence is not None]


def _per_frame(
    encoded: EncodedVideo,
    kept: torch.Tensor,
    scores: torch.Tensor | None,
    is_high: torch.Tensor | None,
    tokens: list[int] | None,
    truncated: list[int] | None,
) -> tuple[FrameStatistics, ...]:
    relevances = [None] * len(kept) if scores is None else scores.tolist()
    rows = []
    for position, index in enumerate(kept.tolist()):
        rows.append(
            FrameStatistics(
                index=index,
                time_s=encoded.times[index],
                resolution=(None if is_high is None else Resolution.HIGH if is_high[position] else Resolution.LOW),
                relevance=relevances[position],
                similarity=_known(float(encoded.similarity[index])),
                tokens=None if tokens is None else tokens[position],
                truncated_tokens=None if truncated is None else truncated[position],
            )
        )
    return tuple(rows)


def _known(similarity: float) -> float | None:
    return None if np.isnan(similarity) else similarity


def _timeline(encoded: EncodedVideo, kept: torch.Tensor, recipe: Recipe) -> Timeline:
    spaced = recipe.temporal_reduction is TemporalReduction.UNIFORM
    stands_out = stand_out(encoded.similarity, recipe).tolist()
    fates = [Fate.SPACED if spaced else Fate.CAPPED if stands else Fate.SIMILAR for stands in stands_out]
    for index in kept.tolist():
        fates[index] = Fate.KEPT
    return Timeline(
        times=encoded.times,
        similarity=tuple(map(_known, encoded.similarity.tolist())),
        fates=tuple(fates),
    )


def _undecided_statistics(
    encoded: EncodedVideo,
    chosen: Plan,
    room: Budget,
    kept: torch.Tensor,
    high_crop: Crop,
    low_crop: Crop,
    text_tokens: int,
) -> CompressionStatistics:
    """Numbers that hold for every question of this length, while which frames are restored waits for it."""
    visual = chosen.restored * high_crop.tokens + (len(kept) - chosen.restored) * low_crop.tokens
    return CompressionStatistics(
        regime=chosen.regime,
        spatial_compression=False,
        text_tokens=text_tokens,
        visual_budget=room.visual_budget,
        frames=FrameCounts(sampled=len(encoded.times), kept=len(kept), high_resolution=chosen.restored),
        tokens=TokenCounts(
            dense=len(encoded.times) * high_crop.tokens,
            after_temporal=len(kept) * high_crop.tokens,
            after_query=visual,
            visual=visual,
        ),
        truncated_tokens=0,
        per_frame=_per_frame(encoded, kept, None, None, None, None),
    )
