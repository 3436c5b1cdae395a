"""pipeline.py: the options that no reference case covers, on short clips and the tiny checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from longvu_cli import pipeline, square_frames
from longvu_cli.adaptive_batch import AdaptiveBatch
from longvu_cli.compression import temporal_reduction
from longvu_cli.compression.budget import Budget, budget
from longvu_cli.compression.frame_position_encoding import frame_position_encoding
from longvu_cli.config import (
    Anchor,
    CompressionOptions,
    FrameResolution,
    Orientation,
    Recipe,
    RecipeName,
    SamplingOptions,
    StillMode,
    TemporalReduction,
)
from longvu_cli.encoded_video import EncodedVideo
from longvu_cli.loading import Modules
from longvu_cli.pipeline import BATCH, FRAMES, CompressedVideo, Vision, compress, encode, frames_together
from longvu_cli.preprocess import TowerInput, square_pixels
from longvu_cli.prompt import build_prompt
from longvu_cli.repeats import OfPictures, OncePerPicture
from longvu_cli.statistics import CompressionStatistics, Fate, Regime, Resolution
from longvu_cli.timing import Stopwatch
from longvu_cli.towers import Tower
from longvu_cli.video import Frame, Video

# 12 and 30 frames of 64 × 36; the prompt of an empty question has 59 ids.
SHORT, LONGER = "short_window.mkv", "tiny_context.mkv"
QUESTION = "Where is the cup?"


@dataclass(frozen=True)
class Run:
    """A clip, seen with some options."""

    recipe: Recipe
    encoded: EncodedVideo
    compressed: CompressedVideo
    progress: list[tuple[str, int, int | None]]

    @property
    def statistics(self) -> CompressionStatistics:
        return self.compressed.statistics

    @property
    def tokens(self) -> torch.Tensor:
        assert self.compressed.tokens is not None
        return self.compressed.tokens


@pytest.fixture(scope="module")
def modules(load: Callable[..., Modules], parity: Path) -> Modules:
    return load(parity / "qwen")


def see(
    modules: Modules,
    media: Path,
    options: CompressionOptions | None = None,
    *,
    question: str | None = QUESTION,
    sampling: SamplingOptions | None = None,
) -> Run:
    recipe = (options or CompressionOptions()).resolve(modules.config)
    prompt = build_prompt(modules.tokenizer, modules.config.family, question or "")
    room = budget(recipe, prompt.length)
    encoded, progress = look(modules, media, recipe, room, sampling or SamplingOptions())
    assert modules.embeddings is not None
    with torch.inference_mode():
        text = None if question is None else modules.embeddings(torch.tensor(prompt.after))
    compressed = compress(encoded, modules.vision, recipe, room, text_tokens=prompt.length - 1, text=text)
    return Run(recipe, encoded, compressed, progress)


Look = tuple[EncodedVideo, list[tuple[str, int, int | None]]]
SEEN: dict[tuple[object, ...], Look] = {}


def look(modules: Modules, media: Path, recipe: Recipe, room: Budget, sampling: SamplingOptions) -> Look:
    """The encoded video; one that was seen before with all the same is not looked at again."""
    needs_cap = recipe.temporal_reduction in (TemporalReduction.DINOV2, TemporalReduction.SIGLIP)
    question_free = replace(
        recipe,
        context_length=0,
        stc_threshold=0.0,
        anchor=Anchor.FIRST,
        frame_position_encoding=False,
        query_guided=True,
        spatial_compression=True,
    )
    key = (id(modules), media, sampling, question_free, room if needs_cap else None)
    if key not in SEEN:
        progress: list[tuple[str, int, int | None]] = []
        with Video(media, sampling) as video:
            encoded = encode(
                video.frames(),
                modules.vision,
                recipe,
                room=room,
                still=video.info.is_still,
                batch=AdaptiveBatch(BATCH),
                watch=Stopwatch(lambda: None),
                on_progress=lambda *step: progress.append(step),
                expected=video.expected_frames,
            )
        SEEN[key] = encoded, progress
    return SEEN[key]


def features_of(tower: Tower, media: Path) -> torch.Tensor:
    """[N, 576 · C]: each frame's features as one vector of length one."""
    with Video(media, SamplingOptions()) as video:
        squares = [torch.from_numpy(square_pixels(frame.pixels, tower.input).copy()) for frame in video.frames()]
    flat = tower(torch.stack(squares)).flatten(1).double()
    return flat / flat.norm(dim=1, keepdim=True)


def similarities(features: torch.Tensor, length: int, *, include_self: bool) -> list[float]:
    found = []
    for begin in range(0, len(features), length):
        window = features[begin : begin + length]
        for i, one in enumerate(window):
            cosines = [float(one @ other) for j, other in enumerate(window) if include_self or i != j]
            found.append(sum(cosines) / len(cosines))
    return found


def check_sums(run: Run) -> None:
    """What has to hold for every compressed video."""
    statistics = run.statistics
    assert statistics.tokens.visual == len(run.tokens) == sum(frame.tokens or 0 for frame in statistics.per_frame)
    assert statistics.tokens.visual <= statistics.visual_budget
    assert [frame.index for frame in statistics.per_frame] == run.compressed.kept.tolist()
    assert [frame.time_s for frame in statistics.per_frame] == [run.encoded.times[i] for i in run.compressed.kept]
    assert statistics.frames.kept == len(statistics.per_frame)
    high = [frame for frame in statistics.per_frame if frame.resolution is Resolution.HIGH]
    assert statistics.frames.high_resolution == len(high)
    assert statistics.frames.sampled == len(run.encoded.times) >= statistics.frames.kept
    assert statistics.tokens.dense >= statistics.tokens.after_temporal >= statistics.tokens.after_query
    assert statistics.tokens.after_query >= statistics.tokens.visual + statistics.truncated_tokens
    assert statistics.truncated_tokens == sum(frame.truncated_tokens or 0 for frame in statistics.per_frame)
    timeline = run.compressed.timeline
    assert timeline.times == run.encoded.times
    assert [i for i, fate in enumerate(timeline.fates) if fate is Fate.KEPT] == run.compressed.kept.tolist()
    assert [timeline.similarity[frame.index] for frame in statistics.per_frame] == [
        frame.similarity for frame in statistics.per_frame
    ]
    assert torch.isfinite(run.tokens).all()


# --- orientation ----------------------------------------------------------------------------------------------------


def test_a_16_9_video_keeps_other_tokens_in_each_orientation(modules: Modules, parity: Path) -> None:
    released = see(modules, parity / SHORT)
    upright = see(modules, parity / SHORT, CompressionOptions(orientation=Orientation.UPRIGHT))
    assert released.statistics.regime is upright.statistics.regime is Regime.ALL_HIGH
    assert released.statistics.tokens.visual == 12 * 84
    assert upright.statistics.tokens.visual == 12 * 78
    newline = modules.vision.connector.image_newline
    # A newline ends each row: of 6 columns and one, and of 12 columns and one.
    for run, columns in ((released, 6), (upright, 12)):
        ends = (run.tokens == newline).all(dim=1).nonzero().flatten().tolist()
        assert ends == list(range(columns, len(run.tokens), columns + 1))
    for run in (released, upright):
        check_sums(run)


def test_the_orientation_also_masks_what_the_queries_see(modules: Modules, parity: Path) -> None:
    released = see(modules, parity / "one_frame.mkv").encoded.fused
    upright = see(modules, parity / "one_frame.mkv", CompressionOptions(orientation=Orientation.UPRIGHT)).encoded.fused
    differ = ((released - upright).abs().amax(dim=2)[0] > 1e-6).reshape(12, 12)
    # Released cuts 5 of 24 columns at each side, upright 5 of 24 rows: queries at those edges see half of their keys.
    assert differ[:, 2].all()
    assert differ[2].all()
    assert not differ[4:8, 4:8].any()


def test_a_square_video_is_the_same_in_both_orientations(modules: Modules, parity: Path) -> None:
    short = SamplingOptions(end_s=3.5)
    runs = [
        see(modules, parity / "square_mixed.mkv", CompressionOptions(orientation=orientation), sampling=short)
        for orientation in Orientation
    ]
    assert torch.equal(runs[0].tokens, runs[1].tokens)
    assert runs[0].statistics.tokens.visual == 4 * 156


# --- temporal reduction ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["siglip", "dinov2"])
def test_the_named_tower_decides_which_frames_stay(modules: Modules, parity: Path, name: str) -> None:
    features = features_of(getattr(modules.vision, name), parity / LONGER)
    wanted = similarities(features, 16, include_self=True)
    threshold = sorted(wanted)[20] + 1e-4  # about two thirds are below it
    options = CompressionOptions(
        temporal_reduction=TemporalReduction(name), context_length=900, dino_threshold=threshold
    )
    run = see(modules, parity / LONGER, options)
    assert run.encoded.similarity.tolist() == pytest.approx(wanted, abs=1e-5)
    kept = [i for i, value in enumerate(wanted) if value < threshold or i in (8, 16 + 7)]
    assert run.compressed.kept.tolist() == kept
    assert 15 <= len(kept) < 30
    assert {fate for i, fate in enumerate(run.compressed.timeline.fates) if i not in kept} == {Fate.SIMILAR}
    assert list(run.compressed.timeline.similarity) == pytest.approx(wanted, abs=1e-5)
    assert [frame.similarity for frame in run.statistics.per_frame] == pytest.approx(
        [wanted[i] for i in kept], abs=1e-5
    )
    check_sums(run)


def test_both_deciding_towers_fuse_the_same_features(modules: Modules, parity: Path) -> None:
    runs = [
        see(modules, parity / "one_frame.mkv", CompressionOptions(temporal_reduction=reduction))
        for reduction in TemporalReduction
    ]
    for run in runs[1:]:
        assert torch.allclose(run.tokens, runs[0].tokens, atol=1e-5)


def test_only_the_kept_frames_are_fused_in_the_end(modules: Modules, parity: Path) -> None:
    # low_cap = (900 − 76 − 16) // 64 = 12: of 30 frames the windows' middles stay.
    run = see(modules, parity / LONGER, CompressionOptions(context_length=900, dino_threshold=-1.0))
    assert run.compressed.kept.tolist() == [8, 23]
    assert run.encoded.indices.tolist() == [8, 23]
    assert len(run.encoded.fused) == 2


def test_uniform_keeps_evenly_spaced_frames(modules: Modules, parity: Path) -> None:
    options = CompressionOptions(temporal_reduction=TemporalReduction.UNIFORM, context_length=900)
    run = see(modules, parity / LONGER, options)
    assert run.compressed.kept.tolist() == [int(i * 30 / 12) for i in range(12)]
    assert run.statistics.regime is Regime.MIXED
    assert run.compressed.timeline.fates.count(Fate.SPACED) == 18
    assert set(run.compressed.timeline.similarity) == {None}
    assert all(frame.similarity is None for frame in run.statistics.per_frame)
    check_sums(run)


@pytest.mark.parametrize(
    ("resolution", "each", "fitting"), [(FrameResolution.FULL, 84, 9), (FrameResolution.LOW, 40, 20)]
)
def test_uniform_keeps_as_many_frames_as_fit_at_their_one_resolution(
    modules: Modules, parity: Path, resolution: FrameResolution, each: int, fitting: int
) -> None:
    options = CompressionOptions(
        temporal_reduction=TemporalReduction.UNIFORM, context_length=900, resolution=resolution
    )
    run = see(modules, parity / LONGER, options)
    assert run.statistics.visual_budget // each == fitting
    assert run.compressed.kept.tolist() == [int(i * 30 / fitting) for i in range(fitting)]
    assert {frame.tokens for frame in run.statistics.per_frame} == {each}
    assert run.statistics.frames.high_resolution == (fitting if resolution is FrameResolution.FULL else 0)
    check_sums(run)


@pytest.mark.parametrize(("resolution", "each"), [(FrameResolution.FULL, 84), (FrameResolution.LOW, 40)])
def test_frames_of_one_resolution_that_do_not_fit_are_cut_or_compressed(
    modules: Modules, parity: Path, resolution: FrameResolution, each: int
) -> None:
    options = CompressionOptions(context_length=500, dino_threshold=1.0, resolution=resolution)
    compressed = see(modules, parity / LONGER, options).statistics
    cut = see(modules, parity / LONGER, replace(options, spatial_compression=False)).statistics
    assert compressed.frames.kept == cut.frames.kept == 30
    assert compressed.tokens.after_query == cut.tokens.after_query == 30 * each
    assert (compressed.spatial_compression, cut.spatial_compression) == (True, False)
    whole, rest = divmod(cut.visual_budget, each)
    assert [frame.tokens for frame in cut.per_frame] == [each] * whole + [rest] + [0] * (29 - whole)
    assert compressed.per_frame[-1].truncated_tokens != cut.per_frame[-1].truncated_tokens


def test_what_a_cap_takes_is_told_from_what_is_similar(
    modules: Modules, parity: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = CompressionOptions(context_length=900, dino_threshold=0.9)
    whole = see(modules, parity / LONGER, options).compressed
    monkeypatch.setattr(temporal_reduction, "RELEASED_FRAME_CAP", 3)
    capped = see(modules, parity / LONGER, options).compressed
    assert len(capped.kept) == 3 < len(whole.kept)
    was_kept = [
        fate for fate, before in zip(capped.timeline.fates, whole.timeline.fates, strict=True) if before == "kept"
    ]
    assert (was_kept.count(Fate.KEPT), was_kept.count(Fate.CAPPED)) == (3, len(whole.kept) - 3)
    assert capped.timeline.fates.count(Fate.SIMILAR) == whole.timeline.fates.count(Fate.SIMILAR)


def test_none_keeps_every_frame(modules: Modules, parity: Path) -> None:
    options = CompressionOptions(temporal_reduction=TemporalReduction.NONE, context_length=900)
    run = see(modules, parity / LONGER, options)
    assert run.compressed.kept.tolist() == list(range(30))
    assert run.statistics.regime is Regime.SPATIAL
    assert run.statistics.spatial_compression
    assert all(frame.similarity is None for frame in run.statistics.per_frame)
    check_sums(run)


# --- the paper's recipe ---------------------------------------------------------------------------------------------

PAPER = CompressionOptions(recipe=RecipeName.PAPER)


def test_the_paper_reduces_windows_of_eight_without_the_frame_itself(modules: Modules, parity: Path) -> None:
    features = features_of(modules.vision.dinov2, parity / SHORT)
    wanted = similarities(features, 8, include_self=False)
    threshold = sorted(wanted)[5] + 1e-4
    run = see(modules, parity / SHORT, replace(PAPER, dino_threshold=threshold))
    assert run.encoded.similarity.tolist() == pytest.approx(wanted, abs=1e-5)
    kept = {i for i, value in enumerate(wanted) if value <= threshold}
    for begin, end in ((0, 8), (8, 12)):
        if not kept & set(range(begin, end)):
            kept.add(min(range(begin, end), key=lambda i: wanted[i]))
    assert run.compressed.kept.tolist() == sorted(kept)
    assert len(kept) < 12
    check_sums(run)


@pytest.mark.parametrize(
    ("context_length", "regime", "high", "after_query"),
    [
        # B = L − 16 − 75. All 12 frames: 1008 tokens at full resolution, 480 at low; each restored frame costs 44.
        (1099, Regime.ALL_HIGH, 12, 1008),
        (1098, Regime.MIXED, 11, 12 * 40 + 11 * 44),
        (700, Regime.MIXED, 2, 12 * 40 + 2 * 44),
        (571, Regime.MIXED, 0, 480),
        (570, Regime.SPATIAL, 0, 480),
    ],
)
def test_the_papers_regimes(
    modules: Modules, parity: Path, context_length: int, regime: Regime, high: int, after_query: int
) -> None:
    options = replace(PAPER, temporal_reduction=TemporalReduction.NONE, context_length=context_length)
    run = see(modules, parity / SHORT, options)
    assert run.statistics.regime is regime
    assert run.statistics.frames.high_resolution == high
    assert run.statistics.tokens.after_query == after_query
    assert run.statistics.spatial_compression == (regime is Regime.SPATIAL)
    check_sums(run)


def test_the_most_relevant_frames_are_restored(modules: Modules, parity: Path) -> None:
    options = replace(PAPER, temporal_reduction=TemporalReduction.NONE, context_length=700)
    per_frame = see(modules, parity / SHORT, options).statistics.per_frame
    best = sorted(per_frame, key=lambda frame: frame.relevance or 0.0, reverse=True)[:2]
    assert {frame.index for frame in per_frame if frame.resolution is Resolution.HIGH} == {
        frame.index for frame in best
    }
    assert {frame.tokens for frame in best} == {84}
    assert {frame.tokens for frame in per_frame} == {84, 40}


@pytest.mark.parametrize("anchor", Anchor)
def test_each_anchor_keeps_one_whole_frame_per_window(modules: Modules, parity: Path, anchor: Anchor) -> None:
    options = CompressionOptions(
        temporal_reduction=TemporalReduction.NONE, context_length=900, stc_threshold=-1.0, anchor=anchor
    )
    run = see(modules, parity / LONGER, options)
    whole = [frame.index for frame in run.statistics.per_frame if frame.tokens == 84]
    assert [index // 8 for index in whole] == [0, 1, 2, 3]
    if anchor is not Anchor.CHANGE:
        assert whole == [0, 8, 16, 24] if anchor is Anchor.FIRST else [4, 12, 20, 27]
    assert run.statistics.tokens.visual == 4 * 84
    check_sums(run)


# --- spatial token compression --------------------------------------------------------------------------------------


def test_what_still_exceeds_the_budget_is_cut_and_counted(modules: Modules, parity: Path) -> None:
    options = CompressionOptions(temporal_reduction=TemporalReduction.NONE, context_length=900, stc_threshold=1.0)
    run = see(modules, parity / LONGER, options)
    assert run.statistics.truncated_tokens > 0
    assert run.statistics.tokens.visual <= run.statistics.visual_budget == 809
    # At a threshold of 1 hardly more than the newlines are dropped: 4 windows lose equally many tokens from their ends.
    per_window = [
        sum(frame.tokens or 0 for frame in run.statistics.per_frame if frame.index // 8 == window)
        for window in range(4)
    ]
    assert run.statistics.tokens.visual == sum(per_window)
    assert run.statistics.tokens.visual > 809 - 4
    check_sums(run)


# --- what a step is compared with: the same without it --------------------------------------------------------------


def test_without_the_query_as_many_frames_are_restored_evenly_spread(modules: Modules, parity: Path) -> None:
    options = replace(PAPER, temporal_reduction=TemporalReduction.NONE, context_length=700)
    guided = see(modules, parity / SHORT, options)
    spread = see(modules, parity / SHORT, replace(options, query_guided=False))
    high = [frame.index for frame in spread.statistics.per_frame if frame.resolution is Resolution.HIGH]
    assert high == [3, 9]
    assert [frame.tokens for frame in spread.statistics.per_frame] == [84 if i in (3, 9) else 40 for i in range(12)]
    assert replace(spread.statistics, per_frame=()) == replace(guided.statistics, per_frame=())
    # How relevant each frame is stays what it was.
    assert [f.relevance for f in spread.statistics.per_frame] == [f.relevance for f in guided.statistics.per_frame]
    check_sums(spread)


def test_without_the_query_nothing_waits_for_a_question(modules: Modules, parity: Path) -> None:
    # B = 700 − 16 − 58 = 626: 12 · 40 tokens and 3 frames restored.
    options = replace(PAPER, temporal_reduction=TemporalReduction.NONE, context_length=700, query_guided=False)
    run = see(modules, parity / SHORT, options, question=None)
    high = [frame.index for frame in run.statistics.per_frame if frame.resolution is Resolution.HIGH]
    assert high == [2, 6, 10]
    assert all(frame.relevance is None for frame in run.statistics.per_frame)
    check_sums(run)
    assert torch.equal(run.tokens, see(modules, parity / SHORT, options, question="").tokens)


def test_without_spatial_compression_the_end_is_cut_and_counted(modules: Modules, parity: Path) -> None:
    options = CompressionOptions(temporal_reduction=TemporalReduction.NONE, context_length=900)
    run = see(modules, parity / LONGER, replace(options, spatial_compression=False))
    assert run.statistics.regime is Regime.SPATIAL
    assert not run.statistics.spatial_compression
    assert run.statistics.visual_budget == run.statistics.tokens.visual == 809  # 9 frames of 84 tokens, and 53 more
    assert [frame.tokens for frame in run.statistics.per_frame] == [*[84] * 9, 53, *[0] * 20]
    assert [frame.truncated_tokens for frame in run.statistics.per_frame] == [*[0] * 9, 31, *[84] * 20]
    assert run.statistics.tokens.after_query == 30 * 84
    assert run.statistics.truncated_tokens == 30 * 84 - 809
    check_sums(run)
    whole = see(modules, parity / LONGER, replace(options, context_length=8192))
    assert torch.equal(run.tokens, whole.tokens[:809])


def test_where_everything_fits_the_switches_change_nothing(modules: Modules, parity: Path) -> None:
    usual = see(modules, parity / SHORT)
    other = see(modules, parity / SHORT, CompressionOptions(query_guided=False, spatial_compression=False))
    assert other.statistics == usual.statistics
    assert torch.equal(other.tokens, usual.tokens)


# --- frame position encoding ----------------------------------------------------------------------------------------


def test_frame_positions_are_added_to_every_token(modules: Modules, parity: Path) -> None:
    options = CompressionOptions(context_length=900)
    plain = see(modules, parity / LONGER, options)
    encoded = see(modules, parity / LONGER, replace(options, frame_position_encoding=True))
    assert encoded.compressed.kept.tolist() == plain.compressed.kept.tolist()
    assert len(encoded.tokens) == len(plain.tokens)
    numbers = [frame.index for frame in plain.statistics.per_frame for _ in range(frame.tokens or 0)]
    assert numbers[-1] > len(plain.statistics.per_frame)  # the number among the sampled frames, not the kept ones
    difference = encoded.tokens - plain.tokens
    assert torch.allclose(difference, frame_position_encoding(torch.tensor(numbers), 64), atol=1e-5)


# --- without a question ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("context_length", [8192, 1600, 900])
def test_without_a_question_the_numbers_are_those_of_an_empty_one(
    modules: Modules, parity: Path, context_length: int
) -> None:
    options = CompressionOptions(context_length=context_length)
    asked = see(modules, parity / LONGER, options, question="").statistics
    unasked = see(modules, parity / LONGER, options, question=None).statistics
    assert replace(unasked, per_frame=()) == replace(asked, per_frame=())
    assert all(frame.relevance is None for frame in unasked.per_frame)
    assert [(f.index, f.time_s, f.similarity) for f in unasked.per_frame] == [
        (f.index, f.time_s, f.similarity) for f in asked.per_frame
    ]


def test_without_a_question_the_choice_of_frames_stays_open(modules: Modules, parity: Path) -> None:
    # B = 700 − 16 − 58 = 626: 12 · 40 tokens and 3 frames restored.
    options = replace(PAPER, temporal_reduction=TemporalReduction.NONE, context_length=700)
    run = see(modules, parity / SHORT, options, question=None)
    assert run.compressed.tokens is None
    assert run.statistics.regime is Regime.MIXED
    assert run.statistics.frames.high_resolution == 3
    assert run.statistics.tokens.visual == 12 * 40 + 3 * 44
    assert all(frame.resolution is None and frame.tokens is None for frame in run.statistics.per_frame)
    asked = see(modules, parity / SHORT, options, question="")
    assert replace(asked.statistics, per_frame=()) == replace(run.statistics, per_frame=())


# --- stills ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def landscape(tmp_path: Path) -> Path:
    path = tmp_path / "landscape.png"
    generator = torch.Generator().manual_seed(0)
    Image.fromarray(torch.randint(0, 256, (36, 64, 3), generator=generator).byte().numpy()).save(path)
    return path


def test_a_still_is_an_image_or_a_video_of_one_frame(modules: Modules, landscape: Path) -> None:
    image = see(modules, landscape)
    assert image.encoded.image
    assert image.statistics.tokens.visual == 36  # 4 rows of 8 and a newline, whatever the orientation
    assert [frame.resolution for frame in image.statistics.per_frame] == [Resolution.LOW]
    video = see(modules, landscape, CompressionOptions(still=StillMode.VIDEO))
    assert not video.encoded.image
    assert video.statistics.tokens.visual == 84
    assert [frame.resolution for frame in video.statistics.per_frame] == [Resolution.HIGH]
    upright = see(modules, landscape, CompressionOptions(still=StillMode.VIDEO, orientation=Orientation.UPRIGHT))
    assert upright.statistics.tokens.visual == 78
    for run in (image, video, upright):
        check_sums(run)


def test_an_image_checkpoint_reads_a_still_with_576_queries(
    checkpoint_copy: Path, load: Callable[..., Modules], landscape: Path
) -> None:
    tensors = load_file(checkpoint_copy / "model.safetensors")
    save_file(
        {name: tensor for name, tensor in tensors.items() if ".pos_embed_" not in name},
        checkpoint_copy / "model.safetensors",
    )
    path = checkpoint_copy / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "image_token_len": 576, "query_num_list": [576]}))
    modules = load(checkpoint_copy)
    assert modules.notices == ()
    run = see(modules, landscape)
    assert run.encoded.fused.shape == (1, 576, 64)
    # 24 − 2 · ((24 − 13) // 2) = 14 rows of 24 and a newline.
    assert run.statistics.tokens.visual == 14 * 25
    assert run.statistics.regime is Regime.ALL_HIGH
    assert [frame.resolution for frame in run.statistics.per_frame] == [Resolution.HIGH]
    check_sums(run)


# --- all together ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("context_length", [8192, 1300, 700, 300, 150])
@pytest.mark.parametrize("name", RecipeName)
def test_the_numbers_add_up_in_every_regime(
    modules: Modules, parity: Path, name: RecipeName, context_length: int
) -> None:
    check_sums(see(modules, parity / SHORT, CompressionOptions(recipe=name, context_length=context_length)))


def test_progress_counts_the_frames(modules: Modules, parity: Path) -> None:
    run = see(modules, parity / LONGER)
    assert {stage for stage, _, _ in run.progress} == {"encode"}
    done = [done for _, done, _ in run.progress]
    assert done == sorted(set(done))
    assert done[-1] == 30


# Pictures and how long each stays: some across batches of 16, one for more than a whole batch.
STAYS = ((1, 3), (2, 1), (3, 20), (4, 2), (1, 40), (5, 1), (6, 5))


@pytest.mark.parametrize(
    ("device", "free", "count"),
    [
        ("cuda", 60e9, 64),
        ("cuda", 45e9, 64),
        ("cuda", 44e9, 32),
        ("cuda", 22e9, 16),
        ("cpu", 60e9, 16),
        ("mps", 60e9, 16),
    ],
)
def test_more_frames_go_together_on_a_gpu_with_room(device: str, free: float, count: int) -> None:
    assert frames_together(device, int(free)) == count
    # Whole windows of either recipe, whichever number it is.
    assert count % BATCH == 0


@pytest.mark.parametrize("count", [32, 64])
def test_how_many_frames_go_together_changes_nothing(modules: Modules, count: int) -> None:
    wanted, _ = encode_stays(modules, shared=True)
    found, _ = encode_stays(modules, shared=True, together=count)
    assert torch.equal(found.indices, wanted.indices)
    assert found.times == wanted.times
    # float32; products of other sizes add up in another order
    torch.testing.assert_close(found.similarity, wanted.similarity, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.fused, wanted.fused, atol=1e-5, rtol=1e-4)


def encode_stays(modules: Modules, *, shared: bool, together: int = BATCH) -> tuple[EncodedVideo, list[int]]:
    """The encoded frames of ``STAYS``, and how many of them each tower saw."""
    encoded, calls = encode_pictures(modules, STAYS, dino_threshold=0.0, shared=shared, together=together)
    return encoded, [sum(sizes) for sizes in calls]


def encode_pictures(
    modules: Modules,
    stays: Sequence[tuple[int, int]],
    *,
    dino_threshold: float,
    shared: bool = True,
    together: int = BATCH,
    on_frames: Callable[[int], None] = lambda _: None,
) -> tuple[EncodedVideo, list[list[int]]]:
    """Encoded frames, and how many of them each tower saw at each call.

    Args:
        stays: which picture, and how many frames long.
        shared: whether frames of one picture are the same array.
    """
    pictures = [np.random.default_rng(seed).integers(0, 256, (36, 64, 3), np.uint8) for seed, _ in stays]
    pixels = [picture for picture, (_, length) in zip(pictures, stays, strict=True) for _ in range(length)]
    frames = (Frame(i, float(i), one if shared else one.copy()) for i, one in enumerate(pixels))
    vision, calls = modules.vision, list[list[int]]()

    def count(sizes: list[int], inputs: tuple[torch.Tensor]) -> None:
        sizes.append(len(inputs[0]))

    hooks = []
    for tower in (vision.dinov2, vision.siglip):
        calls.append([])
        hooks.append(tower.register_forward_pre_hook(lambda _, inputs, sizes=calls[-1]: count(sizes, inputs)))
    encoded = encode(
        frames,
        vision,
        CompressionOptions(dino_threshold=dino_threshold).resolve(modules.config),
        room=Budget(visual_budget=1000, low_cap=10, high_cap=5),
        still=False,
        batch=AdaptiveBatch(together),
        watch=Stopwatch(lambda: None),
        on_progress=lambda _, done, __: on_frames(done),
        expected=None,
    )
    for hook in hooks:
        hook.remove()
    return encoded, calls


@pytest.mark.parametrize("shared", [True, False], ids=["the same array", "equal arrays"])
def test_a_picture_that_stays_is_looked_at_once(
    modules: Modules, monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    quick, seen = encode_stays(modules, shared=shared)
    # The middle of each window and the first ten frames may be kept: picture 5 is none of them.
    assert seen == [len(STAYS), len(STAYS) - 1]

    def of_each_frame(_: object, pictures: list[int], compute: Callable[[list[int]], torch.Tensor]) -> OfPictures:
        return OfPictures(compute(list(range(len(pictures)))), torch.arange(len(pictures)))

    monkeypatch.setattr(OncePerPicture, "of", of_each_frame)
    slow, seen = encode_stays(modules, shared=shared)
    assert seen[0] == len(slow.times) == 72
    assert quick.times == slow.times
    assert torch.equal(quick.similarity, slow.similarity)
    assert torch.equal(quick.indices, slow.indices)
    assert torch.equal(quick.fused, slow.fused)


@pytest.mark.parametrize("stays", [1, 3], ids=["all different", "each three times"])
def test_frames_that_will_be_thinned_are_looked_at_again_only_if_they_stay(
    modules: Modules, monkeypatch: pytest.MonkeyPatch, stays: int
) -> None:
    monkeypatch.setattr(temporal_reduction, "RELEASED_FRAME_CAP", 20)
    monkeypatch.setattr(pipeline, "WAIT_FROM", 20)
    late, calls = encode_pictures(modules, [(seed, stays) for seed in range(72 // stays)], dino_threshold=1.0)
    seen = [sum(sizes) for sizes in calls]
    assert len(late.indices) == 20
    monkeypatch.setattr(pipeline, "is_thinned", lambda *_, **__: False)
    at_once, calls = encode_pictures(modules, [(seed, stays) for seed in range(72 // stays)], dino_threshold=1.0)
    seen_at_once = [sum(sizes) for sizes in calls]
    assert torch.equal(late.indices, at_once.indices)
    assert torch.equal(late.similarity, at_once.similarity)
    torch.testing.assert_close(late.fused, at_once.fused, atol=1e-5, rtol=1e-4)  # products of other sizes
    # Two batches of 16 come before it is certain; 11 of the 40 frames after them stay, which both towers see again.
    again = sum(1 for index in late.indices.tolist() if index >= 32)
    if stays == 1:
        assert again == 11
        assert (seen_at_once, seen) == ([72, 72], [72 + again, 32 + again])
    else:
        assert seen[1] < seen_at_once[1] == 24


@pytest.mark.parametrize(
    ("stays", "dino", "siglip"),
    [
        # The second tower: the first ten frames and the ninth of each window of 16.
        pytest.param([1] * 320, [16] * 20, [16, 13], id="all different"),
        pytest.param([4] * 48, [16, 16, 16], [14], id="each four times"),
        # Windows stay whole: three have 13 pictures, four would have 17.
        pytest.param([1, *[4] * 47], [13, 12, 12, 11], [15], id="and one once"),
    ],
)
def test_the_towers_get_as_many_pictures_as_whole_windows_have(
    modules: Modules, stays: list[int], dino: list[int], siglip: list[int]
) -> None:
    _, calls = encode_pictures(modules, list(enumerate(stays)), dino_threshold=0.0)
    assert calls == [dino, siglip]


def test_a_picture_that_stays_for_hours_does_not_stop_the_progress(modules: Modules) -> None:
    told: list[int] = []
    encoded, calls = encode_pictures(modules, [(0, 3 * FRAMES)], dino_threshold=0.0, on_frames=told.append)
    assert told == [FRAMES, 2 * FRAMES, 3 * FRAMES]
    assert calls == [[1], [1]]
    assert len(encoded.times) == 3 * FRAMES


def test_a_picture_that_stays_is_resized_once(modules: Modules, monkeypatch: pytest.MonkeyPatch) -> None:
    resized: list[int] = []

    def square(pixels: np.ndarray, tower_input: TowerInput) -> np.ndarray:
        resized.append(tower_input.side)
        return square_pixels(pixels, tower_input)

    monkeypatch.setattr(square_frames, "square_pixels", square)
    encode_stays(modules, shared=True)
    assert len(resized) == 2 * len(STAYS)


def test_a_frame_is_seen_the_same_whatever_comes_with_it(modules: Modules, parity: Path) -> None:
    whole = see(modules, parity / LONGER)
    part = see(modules, parity / LONGER, sampling=SamplingOptions(start_s=18.0, end_s=23.5))
    assert isinstance(modules.vision, Vision)
    assert len(part.encoded.times) == 6
    assert torch.allclose(whole.encoded.fused[18:24], part.encoded.fused, atol=1e-5)
