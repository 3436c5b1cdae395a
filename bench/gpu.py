"""What the model itself takes on a GPU, with the pixels there already: no decoding, no preprocessing.

    python bench/gpu.py CHECKPOINT --out gpu.json [--compile]

An hour at one frame per second through DINOv2 and the temporal reduction, the 400 frames that stay through SigLIP and
the connector, the compression, the prompt, and then new tokens one by one: seconds, memory, and the share of the matrix
rate that DINOv2 reaches, next to a large matrix product in the same run.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
import transformers

from longvu_cli.compression.budget import budget
from longvu_cli.compression.temporal_reduction import keep_frames, window_similarity
from longvu_cli.config import CompressionOptions, GenerationOptions, Quantization
from longvu_cli.encoded_video import EncodedVideo
from longvu_cli.forecast import vision_transformer
from longvu_cli.loading import load_modules
from longvu_cli.pipeline import compress, tower_mask
from longvu_cli.prompt import build_prompt
from longvu_cli.weights import Part, Weights

SIZE = (1280, 720)
GIB = 2**30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--out", required=True)
    parser.add_argument("--frames", type=int, default=3600)
    parser.add_argument("--together", type=int, default=64)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--compile", action="store_true")
    arguments = parser.parse_args()
    device, folder = torch.device("cuda", 0), arguments.checkpoint
    weights = Weights(folder.name, str(folder), None, folder, folder / "dinov2", folder / "siglip")
    modules = load_modules(
        weights,
        Part.ANSWER,
        device=device,
        dtype=torch.bfloat16,
        quantize=Quantization.NONE,
        compile=arguments.compile,
    )
    result = {
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "compile": arguments.compile,
        "frames": arguments.frames,
        "matrix_tflops": matrix_rate(device) / 1e12,
        "weights_gib": torch.cuda.memory_allocated() / GIB,
    }
    for run in ("first", "again"):
        torch.cuda.reset_peak_memory_stats()
        result[run] = measured(modules, arguments)
        print(run, json.dumps(result[run]), flush=True)
    seconds = result["again"]["dinov2_s"]
    parameters = sum(parameter.numel() for parameter in modules.vision.dinov2.parameters())
    work = vision_transformer(parameters, tokens=730, layers=40, width=1536) * arguments.frames
    result["dinov2_share"] = work / seconds / 1e12 / result["matrix_tflops"]
    print(json.dumps(result), flush=True)
    Path(arguments.out).write_text(json.dumps(result, indent=1))


def measured(modules, arguments: argparse.Namespace) -> dict[str, float]:
    vision, device = modules.vision, modules.vision.device
    recipe = CompressionOptions(dino_threshold=1.0).resolve(modules.config)
    prompt = build_prompt(modules.tokenizer, modules.config.family, "What happens in this video, and where is the cup?")
    room = budget(recipe, prompt.length)
    pixels = {
        tower: torch.randint(
            0, 256, (arguments.together, tower.input.side, tower.input.side, 3), dtype=torch.uint8, device=device
        )
        for tower in (vision.dinov2, vision.siglip)
    }
    seconds: dict[str, float] = {}

    def clock(name: str, work: Callable[[], object]) -> object:
        torch.cuda.synchronize()
        begin = time.perf_counter()
        done = work()
        torch.cuda.synchronize()
        seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - begin
        return done

    with torch.inference_mode():
        parts = [arguments.together] * (arguments.frames // arguments.together)
        parts += [arguments.frames % arguments.together] if arguments.frames % arguments.together else []

        def scout() -> torch.Tensor:
            similarities = []
            for count in parts:
                seen = vision.dinov2(pixels[vision.dinov2][:count])
                similarities += [window_similarity(part, include_self=True) for part in seen.split(16)]
            return torch.cat(similarities).cpu()

        similarity = clock("dinov2_s", scout)
        kept = keep_frames(similarity, recipe, limit=room.low_cap)
        mask = tower_mask(SIZE, vision, recipe, image=False)
        dinov2 = vision.dinov2(pixels[vision.dinov2])

        def look_again() -> torch.Tensor:
            fused = []
            for begin in range(0, len(kept), arguments.together):
                count = len(kept[begin : begin + arguments.together])
                siglip = vision.siglip(pixels[vision.siglip][:count])
                fused.append(vision.connector.aggregate(siglip, dinov2[:count], mask))
            return torch.cat(fused).cpu()

        fused = clock("siglip_and_connector_s", look_again)
        encoded = EncodedVideo(tuple(map(float, range(arguments.frames))), similarity, kept, fused, SIZE, False)
        before, after = (modules.embeddings(torch.tensor(ids, device=device)) for ids in (prompt.before, prompt.asked))
        compressed = clock(
            "compression_s",
            lambda: compress(encoded, vision, recipe, room, text_tokens=prompt.length - 1, text=after),
        )
        sequence = torch.cat((before, compressed.tokens, after))
    ids = modules.language_model.generate(sequence, GenerationOptions(max_new_tokens=arguments.new_tokens), stop_ids=())
    clock("prefill_s", lambda: next(ids))
    clock("recording_s", lambda: next(ids))
    clock("tokens_s", lambda: list(ids))
    return {
        **seconds,
        "first_token_s": sum(
            seconds[f"{name}_s"] for name in ("dinov2", "siglip_and_connector", "compression", "prefill")
        ),
        "tokens_per_s": (arguments.new_tokens - 2) / seconds["tokens_s"],
        "sequence": len(sequence),
        "peak_gib": torch.cuda.max_memory_allocated() / GIB,
    }


def matrix_rate(device: torch.device) -> float:
    """Operations per second of a large bfloat16 product that goes on for seconds, as the towers do."""
    matrix = torch.randn(8192, 8192, device=device, dtype=torch.bfloat16)
    for times in (2000, 1000):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        for _ in range(times):
            matrix @ matrix
        torch.cuda.synchronize()
    return times * 2 * 8192**3 / (time.perf_counter() - begin)


if __name__ == "__main__":
    main()
