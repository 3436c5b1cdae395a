"""Makes the small copies in this folder: ``python make.py FOLDER``, where FOLDER is the full parity folder.

By default it is looked for beside the repository, in ``../shared/parity``.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
BESIDE_THE_REPOSITORY = HERE.parents[3] / "shared" / "parity"
CASES = (
    "one_frame",  # all_high
    "short_window",  # mixed, every frame restored; one window of 12 frames
    "tiny_context",  # spatial; a last window of 14 frames
    "square_mixed",  # mixed, some frames restored; no padding
    "llama_all_high",
    "still_image_landscape",
    "still_image_portrait",  # llama
)
# Array → about how many of its rows are kept. The others are kept whole.
ROWS = {"siglip_features": 12, "dinov2_features": 12, "sva_output": 16, "visual": 160}
PIXEL_STEP = 4


def some(count: int, wanted: int) -> np.ndarray:
    """Evenly spread rows, the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, wanted)).round().astype(np.int32))


def shrink(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Some rows of the large arrays, and which."""
    small = {name: arrays[name] for name in ("input_ids", "first_logits", "generated")}
    for name in ("pixels_siglip", "pixels_dinov2"):
        small[name] = arrays[name][:, ::PIXEL_STEP, ::PIXEL_STEP]
    for name in ("siglip_features", "dinov2_features", "sva_output"):
        rows = some(len(arrays[name]), ROWS[name])
        small[f"{name}_rows"], small[name] = rows, arrays[name][rows]
    rows = some(len(arrays["visual_norm"]), ROWS["visual"])
    small["visual_rows"] = rows
    small["visual_head"], small["visual_norm"] = arrays["visual_head"][rows], arrays["visual_norm"][rows]
    return small


def main(source: Path) -> None:
    """Copy."""
    for family in ("qwen", "llama"):
        (HERE / family).mkdir(exist_ok=True)
        for file in sorted(source.joinpath(family).iterdir()):
            if file.is_file():
                shutil.copyfile(file, HERE / family / file.name)
    for tower in ("dinov2", "siglip"):  # the same bytes in both checkpoints
        (HERE / "towers" / tower).mkdir(parents=True, exist_ok=True)
        for file in sorted((source / "qwen" / tower).iterdir()):
            shutil.copyfile(file, HERE / "towers" / tower / file.name)
    cases = {case["name"]: case for case in json.loads((source / "cases.json").read_text(encoding="utf-8"))}
    for name in CASES:
        media = f"{name}.png" if cases[name]["image"] else f"{name}.mkv"
        shutil.copyfile(source / media, HERE / media)
        with np.load(source / f"{name}.npz") as arrays:
            np.savez_compressed(HERE / f"{name}.npz", **shrink(dict(arrays)))
    lines = [json.dumps(cases[name]) for name in CASES]
    (HERE / "cases.json").write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else BESIDE_THE_REPOSITORY)
