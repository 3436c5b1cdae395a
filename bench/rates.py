"""What layers of the released widths reach on a CPU, next to a large product: the shares that `longvu plan` uses.

    python bench/rates.py --threads 2

Random weights, a few layers of each: DINOv2 giant and SigLIP so400m on one picture, the 1b language model on a prompt
of 1,024 tokens and then token by token.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from transformers import (
    Dinov2Config,
    Dinov2Model,
    LlamaConfig,
    LlamaForCausalLM,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from longvu_cli.calibration import measure_speed
from longvu_cli.forecast import vision_transformer

LAYERS, PROMPT, TOKENS = 4, 1024, 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    torch.set_num_threads(parser.parse_args().threads)
    with torch.inference_mode():
        dinov2 = Dinov2Model(
            Dinov2Config(
                hidden_size=1536,
                num_hidden_layers=LAYERS,
                num_attention_heads=24,
                use_swiglu_ffn=True,
                image_size=378,
                patch_size=14,
            )
        ).eval()
        tower("DINOv2", lambda: dinov2(torch.zeros(1, 3, 378, 378)), parameters(dinov2.encoder), 730, 1536)
        siglip = SiglipVisionModel(
            SiglipVisionConfig(
                hidden_size=1152,
                num_hidden_layers=LAYERS,
                num_attention_heads=16,
                intermediate_size=4304,
                image_size=384,
                patch_size=14,
                vision_use_head=False,
            )
        ).eval()
        tower("SigLIP", lambda: siglip(torch.zeros(1, 3, 384, 384)), parameters(siglip), 729, 1152)
        language_model()


def tower(name: str, run: Callable[[], object], count: int, tokens: int, width: int) -> None:
    run()
    operations = vision_transformer(count, tokens=tokens, layers=LAYERS, width=width)
    before, seconds, after = rates()[0], timed(run), rates()[0]
    print(f"{name}: {operations / seconds / 1e9:.0f} GFLOP/s, a product {before / 1e9:.0f} to {after / 1e9:.0f}")


def language_model() -> None:
    config = LlamaConfig(
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=LAYERS,
        num_attention_heads=32,
        num_key_value_heads=8,
        vocab_size=1000,
    )
    model = LlamaForCausalLM(config).eval()
    count = parameters(model.model.layers)
    prompt = torch.zeros(1, PROMPT, 2048)
    before, began = rates(), time.perf_counter()
    cache = model(inputs_embeds=prompt, use_cache=True, logits_to_keep=1).past_key_values
    seconds, after = time.perf_counter() - began, rates()
    print(
        f"prompt: {2 * count * PROMPT / seconds / 1e9:.0f} GFLOP/s, "
        f"a product {before[0] / 1e9:.0f} to {after[0] / 1e9:.0f}"
    )

    def token() -> None:
        model(inputs_embeds=prompt[:, :1], past_key_values=cache, use_cache=True)

    token()
    seconds = timed(lambda: [token() for _ in range(TOKENS)]) / TOKENS
    last = rates()
    print(f"token: {4 * count / seconds / 1e9:.1f} GB/s, a product {after[1] / 1e9:.1f} to {last[1] / 1e9:.1f}")


def rates() -> tuple[float, float]:
    speed = measure_speed(torch.device("cpu"), torch.float32)
    return speed.matrix, speed.read


def parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def timed(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
