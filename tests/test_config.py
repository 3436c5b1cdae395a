"""config.py: what is refused, and what follows from what."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest

from longvu_cli.config import (
    CompressionOptions,
    GenerationOptions,
    LLMFamily,
    ModelConfig,
    Orientation,
    PromptOptions,
    RecipeName,
    SamplingOptions,
    StillMode,
    TemporalReduction,
)
from longvu_cli.errors import NotACheckpoint, UsageError

CONFIGS = Path(__file__).parent / "data" / "configs"


def values_of(name: str, **changes: Any) -> dict[str, Any]:
    values = json.loads((CONFIGS / f"{name}.json").read_text())
    return {key: value for key, value in {**values, **changes}.items() if value is not ...}


def config(name: str = "7b", **changes: Any) -> ModelConfig:
    return ModelConfig.from_values(values_of(name, **changes))


# --- config.json ----------------------------------------------------------------------------------------------------


def test_the_7b_config_is_read() -> None:
    found = config("7b")
    assert found.family is LLMFamily.QWEN2
    assert (found.hidden_size, found.vision_hidden_size, found.connector_depth) == (3584, 1024, 3)
    assert (found.context_length, found.reply_tokens) == (10_000, 16)
    assert (found.dino_threshold, found.stc_threshold) == (0.83, 0.7)
    assert (found.image_token_len, found.high_side, found.low_side, found.key_side) == (144, 12, 8, 2)
    assert (found.tower_token_lens, found.dinov2_resolution) == ((576, 576), 378)
    assert found.end_of_turn_ids == (151645,)
    assert not found.frame_position_encoding


def test_the_3b_config_is_read() -> None:
    found = config("3b")
    assert found.family is LLMFamily.LLAMA
    assert (found.context_length, found.stc_threshold) == (8192, 0.8)
    assert found.end_of_turn_ids == (128001, 128008, 128009)
    assert found.language_model["rope_scaling"]["rope_type"] == "llama3"


def test_image_checkpoints_have_one_key_per_query() -> None:
    found = config(image_token_len=576)
    assert (found.high_side, found.key_side) == (24, 1)
    assert config().with_image_token_len(576) == found.__class__(**{**vars(config()), "image_token_len": 576})


def test_without_highres_there_is_one_resolution() -> None:
    assert config(highres=False).low_side == 12


def test_a_reply_length_in_the_file_is_taken() -> None:
    assert config(inference_max_length=64).reply_tokens == 64
    assert config(inference_max_length=None).reply_tokens == 16


def test_frame_positions_are_read() -> None:
    assert config(frame_pos=True).frame_position_encoding
    assert not config(frame_pos=...).frame_position_encoding


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "qwen2"}, "'qwen2' model, not a LongVU one"),
        ({"model_type": ...}, "None model"),
        ({"mm_projector_type": "mlp2x_gelu"}, "mm_projector_type = 'mlp2x_gelu'; only 'sva'"),
        ({"mm_projector_type": ...}, "lacks 'mm_projector_type'"),
        ({"connector_only": False}, "connector_only = False; only True"),
        ({"connector_only": ...}, "lacks 'connector_only'"),
        ({"num_query_group": 2}, "num_query_group = 2"),
        ({"image_aspect_ratio": "anyres"}, "image_aspect_ratio = 'anyres'"),
        ({"mm_use_im_start_end": True}, "mm_use_im_start_end = True"),
        ({"mm_use_im_patch_token": True}, "mm_use_im_patch_token = True"),
        ({"hidden_size": ...}, "lacks 'hidden_size'"),
        ({"hidden_size": 0}, "hidden_size = 0 is no positive whole number"),
        ({"hidden_size": "3584"}, "hidden_size = '3584'"),
        ({"connector_depth": True}, "connector_depth = True"),
        ({"image_token_len": 145}, "145 is no square number"),
        ({"mm_vision_tower_aux_token_len_list": [576, 729]}, "576 and 729 tokens"),
        ({"mm_vision_tower_aux_token_len_list": [576]}, "unusable value"),
        ({"mm_vision_tower_aux_list": ["siglip/CLIP", "facebook/dinov2-giant"]}, "names no resolution"),
        ({"mm_vision_tower_aux_list": ["siglip/CLIP"]}, "unusable value"),
        ({"mm_vision_tower_aux_list": [None, None]}, "unusable value"),
        ({"dino_threshold": ...}, "lacks 'dino_threshold'"),
        ({"dino_threshold": "high"}, "unusable value"),
        ({"drop_threshold": ...}, "lacks 'drop_threshold'"),
        ({"tokenizer_model_max_length": ...}, "lacks 'tokenizer_model_max_length'"),
        ({"tokenizer_model_max_length": -1}, "tokenizer_model_max_length = -1"),
        ({"eos_token_id": ...}, "lacks 'eos_token_id'"),
        ({"eos_token_id": None}, "unusable value"),
        ({"highres": ...}, "lacks 'highres'"),
    ],
)
def test_what_the_released_code_does_not_run_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(NotACheckpoint, match=message) as error:
        ModelConfig.from_values(values_of("7b", **changes), name="folder/config.json")
    assert "folder/config.json" in str(error.value)


@pytest.mark.parametrize("content", ["", "{", "[1]", '"text"', "\udcff", "[" * 100_000])
def test_a_malformed_file_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(content, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(NotACheckpoint, match=r"config\.json"):
        ModelConfig.from_file(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotACheckpoint, match=r"no config\.json"):
        ModelConfig.from_file(tmp_path / "config.json")


# --- options --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fps", [0.0, -1.0, float("nan"), float("inf"), 1000.1, 1e-7, 1e-320])
def test_a_rate_has_to_be_positive(fps: float) -> None:
    with pytest.raises(UsageError, match="--fps"):
        SamplingOptions(fps=fps)


@pytest.mark.parametrize("start", [-0.1, float("nan"), float("inf")])
def test_a_start_has_to_be_a_time(start: float) -> None:
    with pytest.raises(UsageError, match="--start"):
        SamplingOptions(start_s=start)


@pytest.mark.parametrize("end", [0.0, 5.0, 4.9, float("nan"), float("inf")])
def test_an_end_has_to_come_after_the_start(end: float) -> None:
    with pytest.raises(UsageError, match="--end"):
        SamplingOptions(start_s=5.0, end_s=end)


def test_usual_sampling_is_accepted() -> None:
    assert SamplingOptions(fps=0.5, start_s=0, end_s=0.001).end_s == 0.001
    assert SamplingOptions() == SamplingOptions(fps=1.0, start_s=0.0, end_s=None)


@pytest.mark.parametrize("field", ["dino_threshold", "stc_threshold"])
@pytest.mark.parametrize("value", [-1.01, 1.01, float("nan")])
def test_a_threshold_has_to_be_a_cosine_similarity(field: str, value: float) -> None:
    with pytest.raises(UsageError, match=f"--{field.replace('_', '-')}"):
        CompressionOptions(**{field: value})
    assert CompressionOptions(**{field: 1.0, "recipe": RecipeName.PAPER})
    assert CompressionOptions(**{field: -1.0})


def test_a_context_has_to_be_positive() -> None:
    with pytest.raises(UsageError, match="--context-length 0"):
        CompressionOptions(context_length=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 0}, "--max-new-tokens 0"),
        ({"temperature": -0.1}, "--temperature"),
        ({"temperature": float("nan")}, "--temperature"),
        ({"temperature": float("inf")}, "--temperature"),
        ({"temperature": 1.0, "top_p": 0.0}, "--top-p"),
        ({"temperature": 1.0, "top_p": 1.1}, "--top-p"),
        ({"temperature": 1.0, "top_p": float("nan")}, "--top-p"),
        ({"top_p": 0.7}, "no effect on greedy"),
        ({"seed": -1}, "--seed"),
        ({"seed": 2**63}, "--seed"),
    ],
)
def test_impossible_generation_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        GenerationOptions(**options)


def test_greedy_with_128_tokens_is_the_default() -> None:
    assert GenerationOptions() == GenerationOptions(max_new_tokens=128, temperature=0.0, top_p=1.0, seed=None)


def test_options_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        SamplingOptions().fps = 2.0  # type: ignore[misc]


# --- resolve --------------------------------------------------------------------------------------------------------


def test_the_checkpoint_fills_in_what_the_user_leaves_open() -> None:
    recipe = CompressionOptions().resolve(config("7b"))
    assert recipe.name is RecipeName.RELEASED
    assert recipe.orientation is Orientation.RELEASED
    assert recipe.temporal_reduction is TemporalReduction.DINOV2
    assert recipe.still is StillMode.IMAGE
    assert (recipe.context_length, recipe.reply_tokens) == (10_000, 16)
    assert (recipe.dino_threshold, recipe.stc_threshold) == (0.83, 0.7)
    assert (recipe.high_side, recipe.low_side, recipe.image_checkpoint) == (12, 8, False)
    assert not recipe.frame_position_encoding
    assert recipe.temporal_window == 16


def test_the_paper_has_its_own_window_and_stc_threshold() -> None:
    recipe = CompressionOptions(recipe=RecipeName.PAPER).resolve(config("7b"))
    assert (recipe.temporal_window, recipe.stc_threshold, recipe.dino_threshold) == (8, 0.8, 0.83)


@pytest.mark.parametrize("name", RecipeName)
def test_the_user_overrides_recipe_and_checkpoint(name: RecipeName) -> None:
    # Zero is a value, too.
    options = CompressionOptions(
        recipe=name,
        context_length=600,
        dino_threshold=0.0,
        stc_threshold=0.0,
        frame_position_encoding=False,
        still=StillMode.VIDEO,
    )
    recipe = options.resolve(config("7b", frame_pos=True))
    assert (recipe.context_length, recipe.dino_threshold, recipe.stc_threshold) == (600, 0.0, 0.0)
    assert not recipe.frame_position_encoding
    assert recipe.still is StillMode.VIDEO
    assert CompressionOptions().resolve(config("7b", frame_pos=True)).frame_position_encoding


def test_image_checkpoints_are_recognised() -> None:
    assert CompressionOptions().resolve(config(image_token_len=576)).image_checkpoint


def test_a_context_beyond_the_positions_is_refused() -> None:
    assert CompressionOptions(context_length=32_768).resolve(config("7b")).context_length == 32_768
    with pytest.raises(UsageError, match="--context-length 32769 is more than the model's 32768 positions") as error:
        CompressionOptions(context_length=32_769).resolve(config("7b"))
    assert "10000" in error.value.hint


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"prompt_template": "no place"}, "no place for the question"),
        ({"prompt_template": "{question} {question}"}, "several places"),
        ({"choices": ("one",)}, "no choice"),
        ({"choices": tuple("abcdefghijklmnopqrstuvwxyz!")}, "too many"),
        ({"choices": ("one", " ")}, "empty"),
        ({"choices": ("one", "one")}, "twice"),
        ({"subtitles": ""}, "no name"),
    ],
)
def test_prompts_that_cannot_be_are_refused(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        PromptOptions(**settings)
