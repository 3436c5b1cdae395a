"""A new tiny LongVU in the released form: its config, its tokenizer, and weights that know nothing yet."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE
from torch import nn

from longvu_cli.checkpoint import CONFIG_FILE
from longvu_cli.config import ModelConfig
from longvu_cli.language_model import stock_class, stock_config
from longvu_cli.loading import CONNECTOR_PREFIX, build_connector
from longvu_cli.prompt import SYSTEM
from longvu_cli.sva import Connector
from longvu_cli.training.world_pictures import SIDE
from longvu_cli.training.world_towers import PATCHES, WIDTH
from longvu_cli.whole_file import whole_file
from longvu_cli.world.questions import every_text, questions
from longvu_cli.world.story import Split, story

VOCABULARY = 768
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
WEIGHTS_FILE = "model.safetensors"
# Where the language model's inputs begin: words as loud as what is seen.
_EMBEDDING_SCALE = 0.5
_PROJECTOR_SCALE = 3.0
# Where its attention begins: a token that equals another attends to it e⁴ times as strongly as to an unlike one.
_KEY_SCALE = 0.053
_COPY_SCALE = 0.5
_HEAD_SCALE = 0.1


def config_values(vocabulary: int) -> dict[str, Any]:
    """config.json of the tiny model, with the fields of the released ones."""
    return {
        "architectures": ["CambrianQwenForCausalLM"],
        "attention_dropout": 0.0,
        "connector_depth": 2,
        "connector_only": True,
        "dino_threshold": 0.63,
        "drop_threshold": 0.95,
        "eos_token_id": SPECIAL_TOKENS.index("<|im_end|>"),
        "frame_pos": True,
        "hidden_act": "silu",
        "hidden_size": 256,
        "highres": True,
        "image_aspect_ratio": "pad",
        "image_token_len": 36,
        "initializer_range": 0.02,
        "intermediate_size": 704,
        "is_image_newline": True,
        "lowres_token": 3,
        "max_position_embeddings": 8192,
        "mm_projector_type": "sva",
        "mm_use_im_patch_token": False,
        "mm_use_im_start_end": False,
        "mm_vision_tower_aux_list": [f"siglip/tiny-patch14-{SIDE}", f"dinov2/tiny-res{SIDE}"],
        "mm_vision_tower_aux_token_len_list": [PATCHES**2, PATCHES**2],
        "model_type": "cambrian_qwen",
        "num_attention_heads": 8,
        "num_hidden_layers": 6,
        "num_key_value_heads": 4,
        "num_query_group": 1,
        "pad_token_id": SPECIAL_TOKENS.index("<|endoftext|>"),
        "query_num_list": [36],
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "tie_word_embeddings": False,
        "tokenizer_model_max_length": 4096,
        "tokenizer_padding_side": "right",
        "torch_dtype": "float16",
        "unfreeze_mm_vision_tower": False,
        "use_cache": True,
        "use_mm_proj": True,
        "vision_hidden_size": 192,
        "vocab_size": vocabulary,
    }


def new_checkpoint(folder: Path, *, seed: int = 0) -> None:
    """Write config, tokenizer, and freshly drawn weights of connector and language model."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = world_tokenizer()
    values = config_values(VOCABULARY)
    _write_json(folder / CONFIG_FILE, values)
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_json(
        folder / "tokenizer_config.json",
        {
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "clean_up_tokenization_spaces": False,
            "tokenizer_class": "PreTrainedTokenizerFast",
        },
    )
    config = ModelConfig.from_values(values)
    torch.manual_seed(seed)
    connector = build_connector(config, siglip_width=WIDTH, dinov2_width=WIDTH)
    _draw(connector)
    decoder: Any = stock_class(config)(stock_config(config))  # type: ignore[arg-type]
    nn.init.normal_(decoder.get_input_embeddings().weight, std=_EMBEDDING_SCALE)
    attend_to_the_like(decoder)
    save_weights(folder, connector, decoder, dtype=torch.float32)


@torch.no_grad()
def attend_to_the_like(decoder: Any) -> None:
    """Let every token begin by attending to tokens that are like it, and by copying what it attends to.

    Queries and keys begin as (nearly) the same projection, and outputs as the transpose of the values' (after Trockman
    and Kolter, "Mimetic Initialization of Self-Attention Layers", arXiv:2305.09828). A model of this size otherwise
    takes thousands of steps to find out that the word "cup" has to do with the pictures of cups.
    """
    for layer in decoder.model.layers:
        attention = layer.self_attn
        width = attention.head_dim
        keys = attention.k_proj.weight
        nn.init.normal_(keys, std=_KEY_SCALE)
        shared = attention.q_proj.weight.shape[0] // keys.shape[0]
        attention.q_proj.weight.add_(keys.unflatten(0, (-1, width)).repeat_interleave(shared, dim=0).flatten(0, 1))
        values = attention.v_proj.weight
        nn.init.normal_(values, std=values.shape[1] ** -0.5)
        copies = values.unflatten(0, (-1, width)).repeat_interleave(shared, dim=0).flatten(0, 1).T
        attention.o_proj.weight.add_(_COPY_SCALE * copies)
    decoder.lm_head.weight.copy_(_HEAD_SCALE * decoder.get_input_embeddings().weight)


def save_weights(folder: Path, connector: Connector, decoder: nn.Module, *, dtype: torch.dtype) -> None:
    """Write connector and language model under their released names."""
    tensors = {f"{CONNECTOR_PREFIX}{name}": tensor for name, tensor in connector.state_dict().items()}
    tensors |= decoder.state_dict()
    ready = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in tensors.items()}
    with whole_file(folder / WEIGHTS_FILE) as aside:
        save_file(ready, aside, metadata={"format": "pt"})


def world_tokenizer() -> Tokenizer:
    """A byte-level tokenizer that knows the world's words; always the same."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(), trainer)
    missing = VOCABULARY - tokenizer.get_vocab_size()
    if missing < 0:
        raise AssertionError("the vocabulary is larger than it was asked to be")
    return tokenizer


def _texts() -> Iterator[str]:
    yield f"system\n{SYSTEM}\nuser\n\nassistant\n"
    yield from every_text()
    yield "List everything. kitchen: cup red table, key blue shelf."
    for number in range(400):
        for question in questions(story(Split.TRAIN.seed(number), (20, 120, 600)[number % 3])):
            yield question.answer


def _draw(connector: Connector) -> None:
    """Parameters that a module leaves open, and a projector that speaks up."""
    for name, parameter in connector.named_parameters():
        if name.endswith(("vision_query", "image_newline")) or "pos_embed" in name:
            nn.init.normal_(parameter, std=0.3)
    last: Any = connector.mm_projector[2]
    with torch.no_grad():
        last.weight.mul_(_PROJECTOR_SCALE)


def _write_json(path: Path, values: dict[str, Any] | Sequence[Any]) -> None:
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")
