"""How alike frames and tokens of the tiny model's world are, to the model: what its two thresholds were chosen from.

    python bench/tiny_similarity.py [--stories 24]

Of each validation story of ten minutes, pairs of frames are compared: of one place within a shot (16 seconds apart), of
two places, and of a place with a card. For frames it is the cosine similarity of the DINOv2 features, which the
temporal reduction averages over a window; for tokens that of the same place in the picture after the projector, which
the spatial token compression looks at. Frames come from a film (mp4), as a video's do.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from longvu_cli.config import CompressionOptions, ModelConfig, Quantization
from longvu_cli.interpolation import resize_grid
from longvu_cli.loading import load_modules
from longvu_cli.preprocess import square_pixels
from longvu_cli.towers import Tower
from longvu_cli.training.world import weights_of
from longvu_cli.video import Video
from longvu_cli.weights import Part, tiny_folder
from longvu_cli.world.film import write_film
from longvu_cli.world.story import Split, Story, needle_story, story

SECONDS, APART_S, SHOTS = 600, 16, 4
QUANTILES = (0.01, 0.05, 0.5, 0.95, 0.99)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stories", type=int, default=24)
    arguments = parser.parse_args()
    modules = load_modules(
        weights_of(tiny_folder()),
        Part.VISION,
        device=torch.device("cpu"),
        dtype=torch.float32,
        quantize=Quantization.NONE,
    )
    recipe = CompressionOptions().resolve(ModelConfig.from_file(tiny_folder() / "config.json"))
    vision = modules.vision
    found: dict[tuple[str, str], list[torch.Tensor]] = defaultdict(list)
    for number in range(arguments.stories):
        seed = Split.VALIDATION.seed(number)
        told = needle_story(seed, SECONDS, 0.5) if number % 2 else story(seed, SECONDS)
        pairs = compared(told)
        moments = sorted({moment for _, *pair in pairs for moment in pair})
        pixels = frames_at(told, moments)
        with torch.inference_mode():
            dinov2, siglip = (tower(squares(pixels, tower)) for tower in (vision.dinov2, vision.siglip))
            fused = vision.connector.aggregate(siglip, dinov2, None)
            seen = {
                "frames": dinov2.flatten(1)[:, None],
                "tokens, full": vision.connector.project(fused),
                "tokens, low": vision.connector.project(resize_grid(fused, recipe.low_side)),
            }
        for what, first, second in pairs:
            for name, features in seen.items():
                one, other = features[moments.index(first)], features[moments.index(second)]
                found[name, what].append(functional.cosine_similarity(one, other, dim=-1))
    show(found)


def compared(told: Story) -> list[tuple[str, int, int]]:
    """Pairs of moments, and what they have in common."""
    shots = [shot for shot in told.shots if shot.end_s - shot.start_s > APART_S][:SHOTS]
    starts = [(shot.place, shot.start_s) for shot in shots if told.card_at(shot.start_s) is None]
    pairs = [
        ("one place", at, at + APART_S)
        for _, at in starts
        if told.scene_at(at) == told.scene_at(at + APART_S)  # nothing came or went
    ]
    pairs += [
        ("two places", at, other)
        for (place, at), (another, other) in itertools.combinations(starts, 2)
        if place != another
    ]
    return pairs + [("a card", at, card.start_s) for _, at in starts for card in told.cards[:1]]


def frames_at(told: Story, moments: list[int]) -> list[np.ndarray]:
    """The frames of a film of the story at some seconds."""
    with tempfile.TemporaryDirectory() as folder:
        film = Path(folder) / "film.mp4"
        write_film(told, film, fps=1)
        with Video(film) as video:
            wanted = set(moments)
            return [frame.pixels for frame in video.frames() if frame.index in wanted]


def squares(frames: list[np.ndarray], tower: Tower) -> torch.Tensor:
    return torch.from_numpy(np.stack([square_pixels(frame, tower.input) for frame in frames]))


def show(found: dict[tuple[str, str], list[torch.Tensor]]) -> None:
    print(f"{'':<14}{'':<12}{'pairs':>7}" + "".join(f"{f'{share:.0%}':>8}" for share in QUANTILES))
    for (name, what), values in sorted(found.items()):
        spread = torch.quantile(torch.cat(values), torch.tensor(QUANTILES)).tolist()
        print(f"{name:<14}{what:<12}{len(values):>7}" + "".join(f"{value:>8.3f}" for value in spread))


if __name__ == "__main__":
    main()
