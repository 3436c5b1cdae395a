"""loading.py: names, shapes and numbers of the released checkpoints, and strictness on tiny ones."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from longvu_cli.config import ModelConfig, ModelOptions
from longvu_cli.errors import DeviceOutOfMemory, NotACheckpoint, WeightsDamaged, WeightsError, WeightsNotFound
from longvu_cli.loading import CONNECTOR_PREFIX, Modules, build_connector, language_model_shapes
from longvu_cli.longvu import LongVU
from longvu_cli.weights import VARIANTS, Part

CONFIGS = Path(__file__).parent / "data" / "configs"
Shapes = dict[str, tuple[int, ...]]


def released(name: str) -> Shapes:
    """Every tensor of a full-size checkpoint; nothing is allocated."""
    variant = name.removesuffix("-image")
    values = json.loads((CONFIGS / f"{variant}.json").read_text())
    config = ModelConfig.from_values(values)
    if name.endswith("-image"):
        config = config.with_image_token_len(576)
    with torch.device("meta"):
        connector = build_connector(config, siglip_width=1152, dinov2_width=1536)
    shapes = {f"{CONNECTOR_PREFIX}{key}": tuple(tensor.shape) for key, tensor in connector.state_dict().items()}
    return {**language_model_shapes(config), **shapes}


def listed_names() -> set[str]:
    names: set[str] = set()
    for line in (CONFIGS / "qwen2_7b.tensors.txt").read_text().split():
        layers = 28 if line.startswith("model.layers.") else 3
        names |= {line.replace("*", str(layer)) for layer in range(layers)}
    return names


def test_the_7b_has_exactly_the_released_tensors() -> None:
    assert set(released("7b")) == listed_names()


@pytest.mark.parametrize("name", ["3b", "1b"])
def test_the_llama_models_have_the_same_tensors_without_biases_in_the_attention(name: str) -> None:
    layers = 28 if name == "3b" else 16
    outside = {line for line in listed_names() if not line.startswith("model.layers.")}
    of_a_layer = {line.removeprefix("model.layers.0.") for line in listed_names() if line.startswith("model.layers.0.")}
    of_a_layer -= {f"self_attn.{part}_proj.bias" for part in "qkv"}
    assert set(released(name)) == outside | {
        f"model.layers.{layer}.{part}" for layer in range(layers) for part in of_a_layer
    }


@pytest.mark.parametrize("name", ["7b", "3b", "1b"])
def test_image_models_lack_the_position_embeddings_only(name: str) -> None:
    video, image = released(name), released(f"{name}-image")
    assert {key: shape for key, shape in video.items() if ".pos_embed_" not in key} == image
    assert len(video) - len(image) == 6


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("7b", 7_671_665_664),
        ("3b", 3_658_867_712),
        ("1b", 1_544_303_616),
        ("7b-image", 7_671_665_664 - 24_576),
        ("3b-image", 3_658_867_712 - 24_576),
        ("1b-image", 1_544_303_616 - 24_576),
    ],
)
def test_the_parameters_are_as_many_as_released(name: str, parameters: int) -> None:
    assert sum(math.prod(shape) for shape in released(name).values()) == parameters
    assert VARIANTS[name].parameters == parameters


def test_some_shapes_of_the_7b() -> None:
    shapes = released("7b")
    assert shapes["model.vision_query"] == (1, 1024)
    assert shapes["model.image_newline"] == (3584,)
    assert shapes["model.mm_projector.0.weight"] == (3584, 1024)
    assert shapes["model.mm_projector.2.weight"] == (3584, 3584)
    assert shapes["model.mm_projector_aux_0.0.weight"] == (1024, 1152)
    assert shapes["model.mm_projector_aux_1.0.weight"] == (1024, 1536)
    assert shapes["model.vision_sampler_0.layers.2.pos_embed_1"] == (4, 1024)
    assert shapes["model.vision_sampler_0.layers.0.proj_in.weight"] == (1024, 2048)
    assert shapes["model.embed_tokens.weight"] == shapes["lm_head.weight"] == (152_064, 3584)


# --- tiny checkpoints -----------------------------------------------------------------------------------------------


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def drop_positions(tensors: dict[str, torch.Tensor]) -> None:
    for name in [name for name in tensors if ".pos_embed_" in name]:
        del tensors[name]


def test_a_wrong_image_token_len_is_corrected_and_said(checkpoint_copy: Path, load: Callable[..., Modules]) -> None:
    assert load(checkpoint_copy, Part.VISION).notices == ()
    edit_config(checkpoint_copy, image_token_len=576)
    modules = load(checkpoint_copy, Part.VISION)
    assert (modules.config.image_token_len, modules.config.key_side) == (144, 2)
    (notice,) = modules.notices
    assert "image_token_len 576" in notice
    assert "144 is used" in notice
    # The other way round: weights without position embeddings are those of an image model.
    edit_weights(checkpoint_copy, drop_positions)
    edit_config(checkpoint_copy, image_token_len=144)
    modules = load(checkpoint_copy, Part.VISION)
    assert (modules.config.image_token_len, modules.config.key_side) == (576, 1)
    (notice,) = modules.notices
    assert "image_token_len 144" in notice
    assert "576 is used" in notice


def test_the_parts_have_what_they_say(parity: Path, load: Callable[..., Modules]) -> None:
    vision, question, answer = (load(parity / "qwen", part) for part in (Part.VISION, Part.QUESTION, Part.ANSWER))
    assert vision.embeddings is None
    assert vision.language_model is None
    assert question.language_model is None
    assert question.embeddings is not None
    assert answer.embeddings is not None
    assert answer.language_model is not None
    assert torch.equal(question.embeddings.weight, answer.embeddings.weight)
    assert torch.equal(
        answer.embeddings.weight, load_file(parity / "qwen" / "model.safetensors")["model.embed_tokens.weight"]
    )


@pytest.mark.parametrize("part", Part)
def test_every_connector_tensor_is_loaded(parity: Path, load: Callable[..., Modules], part: Part) -> None:
    modules = load(parity / "llama", part)
    tensors = load_file(parity / "llama" / "model.safetensors")
    loaded = modules.vision.connector.state_dict()
    for name, tensor in loaded.items():
        assert torch.equal(tensor, tensors[f"model.{name}"])
    assert not any(parameter.requires_grad for parameter in modules.vision.connector.parameters())
    assert not modules.vision.connector.training


CHANGES: dict[str, tuple[Callable[[dict[str, torch.Tensor]], object], str]] = {
    "a missing tensor of the connector": (
        lambda tensors: tensors.pop("model.image_newline"),
        r"1 missing \(model\.image_newline\)",
    ),
    "a missing tensor of the decoder": (
        lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"),
        r"1 missing \(model\.layers\.1\.mlp\.up_proj\.weight\)",
    ),
    "an unexpected tensor": (
        lambda tensors: tensors.update({"model.layers.2.extra": torch.zeros(1)}),
        r"1 unexpected \(model\.layers\.2\.extra\)",
    ),
    "a tensor of the wrong shape": (
        lambda tensors: tensors.update({"model.vision_query": torch.zeros(2, 64)}),
        r"1 of the wrong shape \(model\.vision_query \[2, 64\] instead of \[1, 64\]\)",
    ),
    "one position embedding without the others": (
        lambda tensors: tensors.pop("model.vision_sampler_0.layers.1.pos_embed_0"),
        r"1 missing \(model\.vision_sampler_0\.layers\.1\.pos_embed_0\)",
    ),
}


@pytest.mark.parametrize("part", [Part.VISION, Part.ANSWER])
@pytest.mark.parametrize("change", CHANGES)
def test_tensors_that_are_not_the_models_are_named(
    checkpoint_copy: Path, load: Callable[..., Modules], change: str, part: Part
) -> None:
    edit, message = CHANGES[change]
    edit_weights(checkpoint_copy, edit)
    with pytest.raises(WeightsDamaged, match=message):
        load(checkpoint_copy, part)


def test_a_config_of_another_size_is_noticed_before_anything_is_loaded(
    checkpoint_copy: Path, load: Callable[..., Modules]
) -> None:
    edit_config(checkpoint_copy, intermediate_size=128)
    with pytest.raises(WeightsDamaged, match=r"6 of the wrong shape .*mlp"):
        load(checkpoint_copy, Part.VISION)


def test_a_folder_of_another_model_is_refused(parity: Path, load: Callable[..., Modules]) -> None:
    with pytest.raises(NotACheckpoint, match="'dinov2' model"):
        load(parity / "towers" / "dinov2")


def shard(folder: Path, *, keep: Callable[[str], bool]) -> None:
    """Two shards, the decoder's layers and the rest; only some are kept on the disk."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    files: dict[str, dict[str, torch.Tensor]] = {"decoder": {}, "embeddings": {}, "connector": {}}
    for name, tensor in tensors.items():
        if name == "model.embed_tokens.weight":
            files["embeddings"][name] = tensor
        elif name.startswith(("model.layers.", "lm_head.", "model.norm.")):
            files["decoder"][name] = tensor
        else:
            files["connector"][name] = tensor
    weight_map = {name: f"model-{kind}.safetensors" for kind, held in files.items() for name in held}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    for kind, held in files.items():
        if keep(kind):
            save_file(held, folder / f"model-{kind}.safetensors")


def test_only_the_shards_of_the_part_have_to_be_here(checkpoint_copy: Path, load: Callable[..., Modules]) -> None:
    shard(checkpoint_copy, keep=lambda kind: kind in ("connector", "embeddings"))
    assert load(checkpoint_copy, Part.QUESTION).embeddings is not None
    (checkpoint_copy / "model-embeddings.safetensors").unlink()
    assert load(checkpoint_copy, Part.VISION).embeddings is None
    with pytest.raises(WeightsNotFound, match=r"model-embeddings\.safetensors"):
        load(checkpoint_copy, Part.QUESTION)
    with pytest.raises(WeightsNotFound, match=r"model-\w+\.safetensors"):
        load(checkpoint_copy, Part.ANSWER)


def test_a_pickled_checkpoint_loads_the_same(checkpoint_copy: Path, parity: Path, load: Callable[..., Modules]) -> None:
    tensors = load_file(checkpoint_copy / "model.safetensors")
    (checkpoint_copy / "model.safetensors").unlink()
    torch.save(tensors, checkpoint_copy / "pytorch_model.bin")
    pickled, plain = load(checkpoint_copy), load(parity / "qwen")
    assert pickled.language_model is not None
    assert plain.language_model is not None
    sequence = torch.randn(9, 64, generator=torch.Generator().manual_seed(0))
    found, wanted = (modules.language_model.first_logits(sequence) for modules in (pickled, plain))
    assert torch.allclose(found, wanted, atol=1e-5)  # the files lie differently in memory, which changes the rounding


def test_loading_prints_nothing(parity: Path, load: Callable[..., Modules], capfd: pytest.CaptureFixture[str]) -> None:
    load(parity / "qwen")
    assert capfd.readouterr() == ("", "")


CANARY = "import pathlib\npathlib.Path({path!r}).touch()\n"


def test_code_that_comes_with_a_checkpoint_is_not_run(
    checkpoint_copy: Path, parity: Path, tmp_path: Path, load: Callable[..., Modules]
) -> None:
    canary = tmp_path / "canary"
    for folder in (checkpoint_copy, *(checkpoint_copy / tower for tower in ("dinov2", "siglip"))):
        if folder != checkpoint_copy:
            shutil.copytree(parity / "towers" / folder.name, folder)
        (folder / "evil.py").write_text(CANARY.format(path=str(canary)))
        automatic = dict.fromkeys(("AutoConfig", "AutoModel", "AutoModelForCausalLM"), "evil.Evil")
        edit_config(folder, auto_map=automatic, trust_remote_code=True, custom_pipelines={"x": {"impl": "evil.Evil"}})
    settings = checkpoint_copy / "tokenizer_config.json"
    values = json.loads(settings.read_text()) | {"auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}}
    settings.write_text(json.dumps(values))
    model = LongVU.from_pretrained(str(checkpoint_copy), options=ModelOptions(device="cpu"))
    assert model.info.name == checkpoint_copy.name
    assert not canary.exists()
    # The canary sings when it is let out: the test could fail.
    exec(compile((checkpoint_copy / "evil.py").read_text(), "evil", "exec"))
    assert canary.exists()


@pytest.mark.parametrize("value", ["x", 0, -1, {}, 2**40])
@pytest.mark.parametrize("key", ["num_hidden_layers", "num_attention_heads", "hidden_size"])
@pytest.mark.parametrize("part", ["", "dinov2", "siglip"])
def test_odd_numbers_in_a_config_are_an_error_at_once(
    checkpoint_copy: Path, parity: Path, part: str, key: str, value: object
) -> None:
    for tower in ("dinov2", "siglip"):
        shutil.copytree(parity / "towers" / tower, checkpoint_copy / tower)
    edit_config(checkpoint_copy / part, **{key: value})
    if part == "siglip":
        values = json.loads((checkpoint_copy / part / "config.json").read_text())
        if "vision_config" in values:
            edit_config(checkpoint_copy / part, vision_config={**values["vision_config"], key: value})
    with pytest.raises((WeightsError, DeviceOutOfMemory)):
        LongVU.from_pretrained(str(checkpoint_copy), options=ModelOptions(device="cpu"))
