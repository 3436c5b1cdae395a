"""What is known of the released models without downloading one: their configs, and what they cost.

The values are those of their config.json (pinned by ``tests/test_released.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from longvu_cli.config import DEFAULT_REPLY_TOKENS, LLMFamily, ModelConfig


def _config(family: LLMFamily, *, hidden_size: int, context: int, positions: int, stc_threshold: float) -> ModelConfig:
    return ModelConfig(
        family=family,
        language_model={"max_position_embeddings": positions},
        hidden_size=hidden_size,
        vision_hidden_size=1024,
        connector_depth=3,
        image_token_len=144,
        lowres_token=8,
        highres=True,
        tower_token_lens=(576, 576),
        dinov2_resolution=378,
        context_length=context,
        reply_tokens=DEFAULT_REPLY_TOKENS,
        dino_threshold=0.83,
        stc_threshold=stc_threshold,
        frame_position_encoding=False,
        end_of_turn_ids=(),
    )


RELEASED_CONFIGS: Mapping[str, ModelConfig] = MappingProxyType(
    {
        "7b": _config(LLMFamily.QWEN2, hidden_size=3584, context=10_000, positions=32_768, stc_threshold=0.7),
        "3b": _config(LLMFamily.LLAMA, hidden_size=3072, context=8192, positions=131_072, stc_threshold=0.8),
        "1b": _config(LLMFamily.LLAMA, hidden_size=2048, context=8192, positions=131_072, stc_threshold=0.8),
    }
)
