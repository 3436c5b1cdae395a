"""checkpoint.py: strict by name, lazy, and careful with files from strangers."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from longvu_cli.checkpoint import KEY_POSITIONS, Checkpoint, image_token_len_of, read_index, shards_holding
from longvu_cli.config import ModelConfig
from longvu_cli.errors import NotACheckpoint, WeightsDamaged, WeightsNotFound

TENSORS = {
    "a.weight": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "b.weight": torch.arange(4, dtype=torch.bfloat16),
    "c.weight": torch.ones(1, 5),
}
SHAPES = {name: tuple(tensor.shape) for name, tensor in TENSORS.items()}
FORMS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")


class Canary:
    """Unpickled without care, it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def save(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    if path.suffix == ".bin":
        torch.save(tensors, path)
    else:
        save_file(tensors, path)


def make(folder: Path, form: str) -> Path:
    """A checkpoint of two shards (a | b, c), or of one file."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text("{}")
    if not form.endswith(".index.json"):
        save(folder / form, TENSORS)
        return folder
    stem, ending = form.removesuffix(".index.json").split(".")
    first, second = f"{stem}-1.{ending}", f"{stem}-2.{ending}"
    save(folder / first, {"a.weight": TENSORS["a.weight"]})
    save(folder / second, {name: TENSORS[name] for name in ("b.weight", "c.weight")})
    write_index(folder / form, {"a.weight": first, "b.weight": second, "c.weight": second})
    return folder


def write_index(path: Path, weight_map: object) -> None:
    path.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_tensors(form: str, tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(make(tmp_path, form))
    assert checkpoint.names == TENSORS.keys()
    assert {name: checkpoint.shape(name) for name in TENSORS} == SHAPES
    checkpoint.check(SHAPES)
    tensors = checkpoint.read(TENSORS)
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in tensors.items():
        assert tensor.dtype == TENSORS[name].dtype
        assert torch.equal(tensor, TENSORS[name])
    (only,) = checkpoint.read(["b.weight"], dtype=torch.float64).items()
    assert only[0] == "b.weight" and torch.equal(only[1], TENSORS["b.weight"].double())


def test_the_better_form_is_preferred(tmp_path: Path) -> None:
    for form in reversed(FORMS):
        make(tmp_path, form)
        found = Checkpoint.open(tmp_path)
        assert found._files["a.weight"] == (
            form if "index" not in form else form.split(".")[0] + "-1." + form.split(".")[1]
        )


def test_reading_opens_only_the_files_that_it_needs(tmp_path: Path) -> None:
    make(tmp_path, FORMS[1])
    (tmp_path / "model-2.safetensors").write_bytes(b"broken")
    checkpoint = Checkpoint.open(tmp_path)
    assert torch.equal(checkpoint.read(["a.weight"])["a.weight"], TENSORS["a.weight"])
    with pytest.raises(WeightsDamaged, match=r"model-2\.safetensors is no intact safetensors file"):
        checkpoint.read(["b.weight"])


def test_files_from_before_torch_1_6_are_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    torch.save(TENSORS, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    assert torch.equal(Checkpoint.open(tmp_path).read(["b.weight"])["b.weight"], TENSORS["b.weight"])


@pytest.mark.parametrize("form", FORMS)
def test_check_names_every_kind_of_difference(form: str, tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(make(tmp_path, form))
    expected = {"a.weight": (3, 2), "b.weight": (4,)} | {f"d{number}": (1,) for number in range(5)}
    with pytest.raises(WeightsDamaged) as caught:
        checkpoint.check(expected)
    message = caught.value.message
    assert "5 missing (d0, d1, d2 and 2 more)" in message
    assert "1 unexpected (c.weight)" in message
    assert "1 of the wrong shape (a.weight [2, 3] instead of [3, 2])" in message


def test_a_partial_download_is_checked_by_name_and_read_where_it_is(tmp_path: Path) -> None:
    make(tmp_path, FORMS[1])
    (tmp_path / "model-2.safetensors").unlink()
    checkpoint = Checkpoint.open(tmp_path)
    checkpoint.check(SHAPES)
    checkpoint.check(SHAPES | {"b.weight": (9, 9)})
    with pytest.raises(WeightsDamaged, match="1 unexpected"):
        checkpoint.check({name: SHAPES[name] for name in ("a.weight", "b.weight")})
    with pytest.raises(WeightsDamaged, match="wrong shape"):
        checkpoint.check(SHAPES | {"a.weight": (9, 9)})
    assert checkpoint.read(["a.weight"]).keys() == {"a.weight"}
    for need in (lambda: checkpoint.read(["a.weight", "c.weight"]), lambda: checkpoint.shape("c.weight")):
        with pytest.raises(WeightsNotFound, match=r"model-2\.safetensors"):
            need()


@pytest.mark.parametrize("form", [FORMS[1], FORMS[3]])
def test_an_index_that_is_wrong_about_a_shard(form: str, tmp_path: Path) -> None:
    make(tmp_path, form)
    index = json.loads((tmp_path / form).read_text())["weight_map"]
    write_index(tmp_path / form, index | {"ghost": index["a.weight"]})
    checkpoint = Checkpoint.open(tmp_path)
    for need in (lambda: checkpoint.read(["ghost"]), lambda: checkpoint.shape("ghost")):
        with pytest.raises(WeightsDamaged, match=rf"{index['a.weight']} does not hold the tensor ghost"):
            need()


def test_a_tensor_that_there_is_not(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(make(tmp_path, FORMS[0]))
    for need in (lambda: checkpoint.read(["ghost"]), lambda: checkpoint.shape("ghost")):
        with pytest.raises(WeightsDamaged, match="have no tensor ghost"):
            need()


def test_folders_without_weights(tmp_path: Path) -> None:
    with pytest.raises(WeightsNotFound, match="there is no folder"):
        Checkpoint.open(tmp_path / "none")
    with pytest.raises(NotACheckpoint, match=r"no config\.json"):
        Checkpoint.open(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(WeightsNotFound, match="no weights"):
        Checkpoint.open(tmp_path)


@pytest.mark.parametrize(
    "name", ["../canary.safetensors", "/canary.safetensors", "sub/canary.safetensors", "..", "", "a\\b.safetensors", 7,
             "C:x.safetensors", "pytorch_model.bin", "config.json"]
)  # fmt: skip
def test_an_index_names_only_weight_files_of_its_folder(name: object, tmp_path: Path) -> None:
    folder = make(tmp_path / "folder", FORMS[1])
    (folder / "sub").mkdir()
    for place in (tmp_path, folder / "sub"):
        save(place / "canary.safetensors", TENSORS)
    write_index(folder / FORMS[1], {"a.weight": "model-1.safetensors", "b.weight": name})
    with pytest.raises(WeightsDamaged, match=r"which is no \.safetensors file of its folder"):
        Checkpoint.open(folder)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"weight_map": {}}', '{"weight_map": []}', "[" * 100_000, "\udcff"]
)
def test_malformed_indexes(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / FORMS[1]).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(WeightsDamaged, match="the index"):
        Checkpoint.open(tmp_path)


@pytest.mark.parametrize("form", FORMS)
def test_links_out_of_the_folder_are_not_followed(form: str, tmp_path: Path) -> None:
    folder = make(tmp_path / "folder", form)
    for path in [path for path in folder.iterdir() if path.name != "config.json"]:
        path.rename(tmp_path / path.name)
        path.symlink_to(tmp_path / path.name)
    with pytest.raises(WeightsDamaged, match="leads out of its folder"):
        Checkpoint.open(folder).read(TENSORS)


def test_links_within_the_folder_and_the_hugging_face_cache_are_followed(tmp_path: Path) -> None:
    inside = make(tmp_path / "inside", FORMS[0])
    (inside / "model.safetensors").rename(inside / "real.safetensors")
    (inside / "model.safetensors").symlink_to("real.safetensors")
    assert Checkpoint.open(inside).names == TENSORS.keys()

    snapshot = tmp_path / "cache" / "models--org--name" / "snapshots" / "abc"
    own, common = tmp_path / "cache" / "models--org--name" / "blobs", tmp_path / "cache" / "blobs" / "ab"
    for new in (snapshot, own, common):
        new.mkdir(parents=True)
    make(snapshot, FORMS[1])
    (snapshot / "model-1.safetensors").rename(own / "one")
    (snapshot / "model-1.safetensors").symlink_to("../../blobs/one")
    (snapshot / "model-2.safetensors").rename(common / "two")
    (own / "two").symlink_to("../../blobs/ab/two")
    (snapshot / "model-2.safetensors").symlink_to("../../blobs/two")
    assert Checkpoint.open(snapshot).read(TENSORS).keys() == TENSORS.keys()

    other = tmp_path / "cache" / "models--org--other" / "blobs"
    other.mkdir(parents=True)
    (own / "one").rename(other / "one")
    (snapshot / "model-1.safetensors").unlink()
    (snapshot / "model-1.safetensors").symlink_to("../../../models--org--other/blobs/one")
    with pytest.raises(WeightsDamaged, match="leads out"):
        Checkpoint.open(snapshot).read(["a.weight"])


def test_links_to_nothing_in_circles_and_odd_files(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    weights = tmp_path / "model.safetensors"
    weights.symlink_to("nothing")
    with pytest.raises(WeightsNotFound, match="link to nothing"):
        Checkpoint.open(tmp_path)
    weights.unlink()
    weights.symlink_to("model.safetensors")
    with pytest.raises(WeightsDamaged, match="cannot be followed"):
        Checkpoint.open(tmp_path)
    weights.unlink()
    weights.mkdir()
    with pytest.raises(WeightsDamaged, match="no regular file"):
        Checkpoint.open(tmp_path)
    weights.rmdir()
    os.mkfifo(weights)
    with pytest.raises(WeightsDamaged, match="no regular file"):
        Checkpoint.open(tmp_path)


@pytest.mark.parametrize("form", [FORMS[0], FORMS[2]])
@pytest.mark.parametrize("kind", ["empty", "short", "noise", "cut"])
def test_damaged_files(form: str, kind: str, tmp_path: Path) -> None:
    path = make(tmp_path, form) / form
    whole = path.read_bytes()
    path.write_bytes({"empty": b"", "short": b"\x01", "noise": b"\xff" * 300, "cut": whole[:-40]}[kind])
    with pytest.raises(WeightsDamaged, match=form):
        Checkpoint.open(tmp_path)


@pytest.mark.parametrize("dtype", [torch.int32, torch.bool, torch.complex64])
def test_what_is_no_fraction_is_no_weight(dtype: torch.dtype, tmp_path: Path) -> None:
    save(tmp_path / "model.safetensors", {"a.weight": torch.ones(2, dtype=dtype)})
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(WeightsDamaged, match=r"a\.weight in .* in place of weights"):
        Checkpoint.open(tmp_path).read(["a.weight"])


def test_a_pickle_of_another_protocol_is_refused_in_one_sentence(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps({"a.weight": Canary(tmp_path / "canary")}, protocol=4))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(WeightsDamaged, match="nothing in it was executed"):
        Checkpoint.open(tmp_path).read(["a.weight"])
    assert not (tmp_path / "canary").exists() and not recwarn.list


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_cannot_run_code(zipped: bool, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    canary, path = tmp_path / "canary", tmp_path / "pytorch_model.bin"
    if zipped:
        torch.save({"a.weight": Canary(canary)}, path)
    else:
        path.write_bytes(pickle.dumps({"a.weight": Canary(canary)}, protocol=2))
    with pytest.raises(WeightsDamaged, match="nothing in it was executed"):
        Checkpoint.open(tmp_path)
    assert not canary.exists()
    # The canary sings when nobody is careful: the test could fail.
    torch.load(path, weights_only=False) if zipped else pickle.loads(path.read_bytes())
    assert canary.exists()


@pytest.mark.parametrize("content", [[torch.ones(1)], {"a": 1}, {1: torch.ones(1)}])
def test_a_bin_file_of_something_else(content: object, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    torch.save(content, tmp_path / "pytorch_model.bin")
    with pytest.raises(WeightsDamaged, match="other than named tensors"):
        Checkpoint.open(tmp_path)


def test_shards_holding(tmp_path: Path) -> None:
    index = read_index(make(tmp_path, FORMS[1]) / FORMS[1])
    assert shards_holding(index, {"c.weight", "b.weight", "ghost"}) == ("model-2.safetensors",)
    assert shards_holding(index, set()) == ()


@pytest.fixture
def config() -> ModelConfig:
    return ModelConfig.from_values(
        {
            "model_type": "cambrian_qwen",
            "mm_projector_type": "sva",
            "connector_only": True,
            "hidden_size": 8,
            "vision_hidden_size": 4,
            "connector_depth": 3,
            "image_token_len": 576,
            "lowres_token": 8,
            "highres": True,
            "mm_vision_tower_aux_list": ["siglip", "dinov2-res378"],
            "mm_vision_tower_aux_token_len_list": [576, 576],
            "tokenizer_model_max_length": 512,
            "dino_threshold": 0.83,
            "drop_threshold": 0.7,
            "eos_token_id": 7,
        }
    )


def test_the_weights_tell_the_queries_per_frame(config: ModelConfig) -> None:
    assert image_token_len_of({KEY_POSITIONS: (4, 1024)}, config) == 144
    assert image_token_len_of({KEY_POSITIONS: (9, 1024)}, config) == 64
    assert image_token_len_of({"model.vision_query": (1, 1024)}, config) == 576
    for shape in ((5, 1024), (25, 1024), (0, 1024), (4,)):
        with pytest.raises(WeightsDamaged, match="pos_embed_0"):
            image_token_len_of({KEY_POSITIONS: shape}, config)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("form", FORMS)
def test_tensors_go_to_the_device(form: str, tmp_path: Path) -> None:
    tensors = Checkpoint.open(make(tmp_path, form)).read(TENSORS, device="cuda", dtype=torch.float16)
    for name, tensor in tensors.items():
        assert tensor.device.type == "cuda" and tensor.dtype == torch.float16
        assert torch.equal(tensor.cpu(), TENSORS[name].half())
