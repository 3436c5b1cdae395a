"""The whole pipeline against what the public reference implementation made of the same files.

The full set of cases lies beside the repository (``../shared/parity``); where it is not, as in a plain clone, the few
of ``data/parity`` take its place.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from longvu_cli.adaptive_batch import AdaptiveBatch
from longvu_cli.compression.budget import budget
from longvu_cli.config import CompressionOptions, GenerationOptions, SamplingOptions
from longvu_cli.encoded_video import EncodedVideo
from longvu_cli.loading import Modules
from longvu_cli.pipeline import BATCH, CompressedVideo, compress, encode
from longvu_cli.preprocess import normalise, square_pixels
from longvu_cli.prompt import Prompt, build_prompt
from longvu_cli.statistics import Regime
from longvu_cli.timing import Stopwatch
from longvu_cli.video import Frame, Video

SHARED = Path(__file__).resolve().parents[2] / "shared" / "parity"
COPIES = Path(__file__).resolve().parent / "data" / "parity"
HAS_SHARED = (SHARED / "cases.json").is_file()
FOLDER = SHARED if HAS_SHARED else COPIES

# Another release of torch or another processor sums in another order: the features then differ by about 1e-5 (1.2e-5 is
# the most that was measured). Another resize of the frames, the mildest of mistakes, moves them by 2e-2 and more.
TOLERANCE = 1e-4
# Every 6th pixel is in the full data, every 24th in the copies.
PIXEL_STEPS = (6, 24)


@dataclass(frozen=True)
class Case:
    """One entry of cases.json, and the folder it is in."""

    folder: Path
    values: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.values["name"])

    @property
    def media(self) -> Path:
        return self.folder / f"{self.name}.{'png' if self.values['image'] else 'mkv'}"

    @property
    def checkpoint(self) -> Path:
        return self.folder / str(self.values["model"])

    def options(self) -> CompressionOptions:
        return CompressionOptions(
            context_length=self.values["context_length"],
            dino_threshold=self.values["dino_threshold"],
            stc_threshold=self.values["drop_threshold"],
        )


def cases_in(folder: Path) -> list[Case]:
    return [Case(folder, values) for values in json.loads((folder / "cases.json").read_text(encoding="utf-8"))]


CASES = cases_in(FOLDER)


@dataclass(frozen=True)
class Outcome:
    """What the reference made of a case, and what we did."""

    case: Case
    reference: dict[str, np.ndarray]
    modules: Modules
    first_frame: Frame
    first_kept_frame: Frame
    prompt: Prompt
    encoded: EncodedVideo
    compressed: CompressedVideo
    sequence: torch.Tensor

    @property
    def tokens(self) -> torch.Tensor:
        assert self.compressed.tokens is not None
        return self.compressed.tokens

    def differences(self, name: str, ours: torch.Tensor, rows: str | None = None) -> float:
        """The largest difference from a reference array, of which only some rows may be here."""
        wanted = self.reference[name]
        kept_rows = self.reference.get(f"{rows or name}_rows")
        found = ours.float().numpy() if kept_rows is None else ours.float().numpy()[kept_rows]
        assert found.shape == wanted.shape
        return float(np.abs(found - wanted).max())


@pytest.fixture(scope="module")
def models(load: Callable[..., Modules]) -> Callable[[Path], Modules]:
    """Each checkpoint, loaded when a case first asks for it."""
    return cache(load)


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def outcome(request: pytest.FixtureRequest, models: Callable[[Path], Modules]) -> Outcome:
    case: Case = request.param
    modules = models(case.checkpoint)
    recipe = case.options().resolve(modules.config)
    prompt = build_prompt(modules.tokenizer, modules.config.family, case.values["question"])
    room = budget(recipe, prompt.length)
    frames: list[Frame] = []
    with torch.inference_mode(), Video(case.media, SamplingOptions()) as video:
        encoded = encode(
            remembered(video.frames(), frames),
            modules.vision,
            recipe,
            room=room,
            still=video.info.is_still,
            batch=AdaptiveBatch(BATCH),
            watch=Stopwatch(lambda: None),
            on_progress=lambda *_: None,
            expected=None,
        )
        assert modules.embeddings is not None
        before, after = (modules.embeddings(torch.tensor(ids)) for ids in (prompt.before, prompt.after))
        compressed = compress(encoded, modules.vision, recipe, room, text_tokens=prompt.length - 1, text=after)
        assert compressed.tokens is not None
        sequence = torch.cat((before, compressed.tokens, after))
    with np.load(case.folder / f"{case.name}.npz") as arrays:
        reference = dict(arrays)
    return Outcome(
        case=case,
        reference=reference,
        modules=modules,
        first_frame=frames[0],
        first_kept_frame=frames[int(compressed.kept[0])],
        prompt=prompt,
        encoded=encoded,
        compressed=compressed,
        sequence=sequence,
    )


def remembered(frames: Iterator[Frame], into: list[Frame]) -> Iterator[Frame]:
    for frame in frames:
        into.append(frame)
        yield frame


def test_the_kept_frames_are_the_references(outcome: Outcome) -> None:
    values = outcome.case.values
    assert len(outcome.encoded.times) == values["sampled_frames"]
    assert outcome.encoded.size == (values["width"], values["height"])
    assert outcome.compressed.kept.tolist() == ([0] if values["selected"] is None else values["selected"])


def test_the_prompt_ids_are_the_references(outcome: Outcome) -> None:
    assert outcome.prompt.length == outcome.case.values["prompt_ids"]
    assert [*outcome.prompt.before, -200, *outcome.prompt.after] == outcome.reference["input_ids"].tolist()


def test_the_token_counts_are_the_references(outcome: Outcome) -> None:
    values = outcome.case.values
    assert len(outcome.tokens) == values["visual_tokens"]
    assert len(outcome.sequence) == values["sequence_length"]
    statistics = outcome.compressed.statistics
    assert statistics.tokens.visual == values["visual_tokens"]
    assert sum(frame.tokens or 0 for frame in statistics.per_frame) == values["visual_tokens"]
    assert statistics.text_tokens == values["prompt_ids"] - 1


@pytest.mark.parametrize("tower_name", ["siglip", "dinov2"])
def test_the_towers_inputs_are_the_references(outcome: Outcome, tower_name: str) -> None:
    tower = getattr(outcome.modules.vision, tower_name)
    square = torch.from_numpy(square_pixels(outcome.first_frame.pixels, tower.input).copy())
    normalised = normalise(square[None], tower.input, torch.float32)[0]
    step = -(-normalised.shape[1] // outcome.reference[f"pixels_{tower_name}"].shape[1])
    assert step in PIXEL_STEPS
    assert outcome.differences(f"pixels_{tower_name}", normalised[:, ::step, ::step]) < TOLERANCE


@pytest.mark.parametrize("tower_name", ["siglip", "dinov2"])
def test_the_towers_features_are_the_references(outcome: Outcome, tower_name: str) -> None:
    tower = getattr(outcome.modules.vision, tower_name)
    frame = outcome.first_kept_frame if tower_name == "siglip" else outcome.first_frame
    features = tower(torch.from_numpy(square_pixels(frame.pixels, tower.input).copy())[None])[0]
    assert outcome.differences(f"{tower_name}_features", features) < TOLERANCE


def test_the_fused_grid_is_the_references(outcome: Outcome) -> None:
    position = outcome.encoded.indices.tolist().index(int(outcome.compressed.kept[0]))
    assert outcome.differences("sva_output", outcome.encoded.fused[position]) < TOLERANCE


def test_the_visual_tokens_are_the_references(outcome: Outcome) -> None:
    channels = outcome.reference["visual_head"].shape[1]
    assert outcome.differences("visual_head", outcome.tokens[:, :channels], rows="visual") < TOLERANCE
    assert outcome.differences("visual_norm", outcome.tokens.norm(dim=1), rows="visual") < TOLERANCE


def test_the_first_logits_are_the_references(outcome: Outcome) -> None:
    assert outcome.modules.language_model is not None
    logits = outcome.modules.language_model.first_logits(outcome.sequence)
    assert outcome.differences("first_logits", logits) < TOLERANCE


def test_the_generated_ids_are_the_references(outcome: Outcome) -> None:
    assert outcome.modules.language_model is not None
    wanted = outcome.case.values["generated"]
    options = GenerationOptions(max_new_tokens=len(wanted))
    found = list(outcome.modules.language_model.generate(outcome.sequence, options, stop_ids=()))
    # The first `safe_ids` are clear of near-ties; with Pillow's resize, all of them come out equal.
    safe = outcome.case.values["safe_ids"]
    assert found[:safe] == wanted[:safe]
    assert found == wanted


def test_the_copies_cover_every_regime_both_families_and_a_still() -> None:
    copies = cases_in(COPIES)
    assert {case.values["model"] for case in copies} == {"qwen", "llama"}
    assert any(case.values["image"] for case in copies)
    assert {regime_of(case) for case in copies if not case.values["image"]} == set(Regime)


def regime_of(case: Case) -> Regime:
    """From the facts in cases.json alone."""
    free = case.values["context_length"] - case.values["prompt_ids"] - 16
    kept = len(case.values["selected"])
    if kept < max(1, free // 144):
        return Regime.ALL_HIGH
    return Regime.MIXED if kept <= max(1, free // 64) else Regime.SPATIAL


@pytest.mark.skipif(not HAS_SHARED, reason="the full parity folder is not beside the repository")
def test_the_copies_are_those_of_the_full_folder() -> None:
    full = {case.name: case for case in cases_in(SHARED)}
    for copy in cases_in(COPIES):
        assert copy.values == full[copy.name].values
        assert copy.media.read_bytes() == full[copy.name].media.read_bytes()
    for checkpoint in ("qwen", "llama"):
        file = Path(checkpoint) / "model.safetensors"
        assert (COPIES / file).read_bytes() == (SHARED / file).read_bytes()
        for tower in ("dinov2", "siglip"):
            tower_file = Path(tower) / "model.safetensors"
            assert (COPIES / "towers" / tower_file).read_bytes() == (SHARED / checkpoint / tower_file).read_bytes()
