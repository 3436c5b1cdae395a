"""weights.py: against a hub emulated on this machine, each request in a process of its own, as the hub's library reads
its variables when it is imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hub import environment, serve
from huggingface_hub import constants
from safetensors.torch import save_file

from longvu_cli.config import ModelOptions
from longvu_cli.errors import NotACheckpoint, UsageError, WeightsNotFound
from longvu_cli.hub import ListedFile, Listing, remove_from_cache
from longvu_cli.weights import VARIANTS, Part, Variant, locate

REPO = "org/longvu"
CONFIG = {
    "model_type": "cambrian_qwen",
    "mm_projector_type": "sva",
    "connector_only": True,
    "hidden_size": 8,
    "vision_hidden_size": 4,
    "connector_depth": 1,
    "image_token_len": 144,
    "lowres_token": 8,
    "highres": True,
    "mm_vision_tower_aux_list": ["siglip", "dinov2-res378"],
    "mm_vision_tower_aux_token_len_list": [576, 576],
    "tokenizer_model_max_length": 512,
    "dino_threshold": 0.83,
    "drop_threshold": 0.7,
    "eos_token_id": 7,
}
SHARDS = {
    "1": {"model.embed_tokens.weight": torch.ones(20, 8)},
    "2": {"model.layers.0.mlp.up_proj.weight": torch.ones(8, 8), "lm_head.weight": torch.ones(20, 8)},
    "3": {"model.mm_projector.0.weight": torch.ones(8, 4), "model.image_newline": torch.ones(8)},
    "4": {"model.vision_query": torch.ones(1, 4), "model.norm.weight": torch.ones(8)},
}
EVERYTHING = {name: tensor for shard in SHARDS.values() for name, tensor in shard.items()}
FORMS = ("safetensors", "sharded safetensors", "bin", "sharded bin")
DRIVER = """
import json, sys
from dataclasses import asdict
from longvu_cli.config import ModelOptions
from longvu_cli.errors import LongVUError
from longvu_cli.weights import Part, locate
plans = []
request = json.loads(sys.argv[1])
if "free" in request:
    import collections, shutil
    usage = collections.namedtuple("usage", "total used free")
    shutil.disk_usage = lambda path: usage(10, 0, request["free"])
try:
    found = locate(ModelOptions(**request["options"]), Part(request["part"]), on_download=plans.append)
    outcome = {"weights": asdict(found)}
except LongVUError as error:
    outcome = {"error": type(error).__name__, "message": error.message, "hint": error.hint}
print(json.dumps(outcome | {"plans": [asdict(plan) for plan in plans], "torch": "torch" in sys.modules}, default=str))
"""


def save(folder: Path, tensors: dict[str, torch.Tensor], name: str) -> None:
    if name.endswith(".bin"):
        torch.save(tensors, folder / name)
    else:
        save_file(tensors, folder / name)


def make_checkpoint(folder: Path, form: str = "safetensors") -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    for name in ("tokenizer.json", "tokenizer_config.json", "README.md", "generation_config.json"):
        (folder / name).write_text(json.dumps({"file": name}))
    # What a repository holds besides must not be fetched.
    (folder / "tf_model.h5").write_bytes(b"x" * 100)
    ending, stem = ("bin", "pytorch_model") if form.endswith("bin") else ("safetensors", "model")
    if not form.startswith("sharded"):
        save(folder, EVERYTHING, f"{stem}.{ending}")
        return folder
    for number, shard in SHARDS.items():
        save(folder, shard, f"{stem}-{number}.{ending}")
    weight_map = {name: f"{stem}-{number}.{ending}" for number, shard in SHARDS.items() for name in shard}
    (folder / f"{stem}.{ending}.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def make_tower(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "preprocessor_config.json").write_text("{ }")
    save(folder, {"weight": torch.ones(3)}, "model.safetensors")
    save(folder, {"weight": torch.ones(3)}, "pytorch_model.bin")
    return folder


@pytest.fixture
def towers(tmp_path: Path) -> dict[str, str]:
    """Both towers as a folder, so that a test sees the requests for the model alone."""
    tower = str(make_tower(tmp_path / "tower"))
    return {"dinov2": tower, "siglip": tower}


def ask(home: Path, url: str, options: dict[str, Any], part: Part = Part.ANSWER, **extra: Any) -> dict[str, Any]:
    variables = environment(home, url) | {"PYTHONPATH": "src"} | extra.pop("variables", {})
    request = json.dumps({"options": options, "part": part.value, **extra})
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, request],
        env=variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=Path(__file__).parent.parent,
    )
    assert done.returncode == 0, done.stderr
    outcome: dict[str, Any] = json.loads(done.stdout)
    outcome["stderr"] = done.stderr
    return outcome


def blobs(home: Path) -> list[Path]:
    return list(home.rglob("blobs/*"))


@pytest.mark.parametrize("form", FORMS)
def test_each_file_is_downloaded_once_and_found_again_without_the_hub(
    form: str, tmp_path: Path, towers: dict[str, str]
) -> None:
    folder, home = make_checkpoint(tmp_path / "repo", form), tmp_path / "home"
    options = {"model": REPO, **towers}
    with serve({REPO: folder}) as hub:
        first = ask(home, hub.url, options)
        needed = {"config.json", "tokenizer.json", "tokenizer_config.json"}
        needed |= {path.name for path in folder.iterdir() if path.name.startswith(("model", "pytorch"))}
        assert hub.downloads() == {f"{REPO}/{name}": 1 for name in needed}
        hub.requests.clear()
        second = ask(home, hub.url, options)
        assert dict(hub.requests) == {f"API {REPO}": 1}
        commit = hub.commit(REPO)
    assert first["weights"]["revision"] == commit
    assert first["weights"] == second["weights"]
    assert first["weights"]["name"] == first["weights"]["source"] == REPO
    assert first["stderr"] == "" and not first["torch"]
    snapshot = Path(first["weights"]["checkpoint"])
    assert {path.name: path.read_bytes() for path in snapshot.iterdir()} == {
        name: (folder / name).read_bytes() for name in needed
    }
    planned = {file for plan in first["plans"] for file in plan["files"]}
    assert planned == needed and second["plans"] == []
    assert sum(plan["bytes_missing"] for plan in first["plans"]) == sum((folder / n).stat().st_size for n in needed)
    # The hub is gone: with and without being told so.
    for offline in (True, False):
        assert ask(home, hub.url, options | {"offline": offline})["weights"] == first["weights"]


@pytest.mark.parametrize(
    ("part", "shards"),
    [(Part.VISION, {"3", "4"}), (Part.QUESTION, {"1", "3", "4"}), (Part.ANSWER, {"1", "2", "3", "4"})],
)
def test_only_the_shards_that_are_needed_are_fetched(
    part: Part, shards: set[str], tmp_path: Path, towers: dict[str, str]
) -> None:
    folder, home = make_checkpoint(tmp_path / "repo", "sharded safetensors"), tmp_path / "home"
    with serve({REPO: folder}) as hub:
        ask(home, hub.url, {"model": REPO, **towers}, part)
        fetched = {name.split("/")[-1] for name in hub.downloads()}
    assert {name for name in fetched if "-" in name} == {f"model-{number}.safetensors" for number in shards}


def test_what_is_missing_offline_is_named(tmp_path: Path, towers: dict[str, str]) -> None:
    folder, home = make_checkpoint(tmp_path / "repo", "sharded safetensors"), tmp_path / "home"
    options = {"model": REPO, **towers}
    with serve({REPO: folder}) as hub:
        assert "weights" in ask(home, hub.url, options, Part.VISION)
        hub.requests.clear()
        told = ask(home, hub.url, options | {"offline": True}, Part.ANSWER)
        environment_says = ask(home, hub.url, options, Part.ANSWER, variables={"HF_HUB_OFFLINE": "1"})
        assert not hub.requests
        nothing = ask(tmp_path / "empty", hub.url, options | {"offline": True})
    for outcome in (told, environment_says):
        assert outcome["error"] == "HubUnreachable" and "model-1.safetensors" in outcome["message"]
        assert "--offline" in outcome["hint"]
    assert nothing["error"] == "HubUnreachable" and REPO in nothing["message"]
    gone = ask(home, hub.url, options, Part.ANSWER)
    assert gone["error"] == "HubUnreachable" and "model-1.safetensors" in gone["message"]


def test_wrong_bytes_of_the_right_size_do_not_stay(tmp_path: Path, towers: dict[str, str]) -> None:
    folder, home = make_checkpoint(tmp_path / "repo"), tmp_path / "home"
    options = {"model": REPO, **towers}
    with serve({REPO: folder}) as hub:
        hub.damage.add("model.safetensors")
        outcome = ask(home, hub.url, options)
        assert outcome["error"] == "WeightsDamaged" and "model.safetensors" in outcome["message"]
        assert not list(home.rglob("model.safetensors"))
        size = (folder / "model.safetensors").stat().st_size
        assert size not in [path.stat().st_size for path in blobs(home)]
        hub.damage.clear()
        healed = ask(home, hub.url, options)
    snapshot = Path(healed["weights"]["checkpoint"])
    assert (snapshot / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


def test_a_file_cut_short_in_the_cache_is_fetched_again(tmp_path: Path, towers: dict[str, str]) -> None:
    folder, home = make_checkpoint(tmp_path / "repo"), tmp_path / "home"
    options = {"model": REPO, **towers}
    with serve({REPO: folder}) as hub:
        cached = Path(ask(home, hub.url, options)["weights"]["checkpoint"]) / "model.safetensors"
        cached.resolve().write_bytes(b"short")
        assert ask(home, hub.url, options | {"offline": True})["error"] == "HubUnreachable"
        hub.requests.clear()
        ask(home, hub.url, options)
        assert hub.downloads() == {f"{REPO}/model.safetensors": 1}
    assert cached.read_bytes() == (folder / "model.safetensors").read_bytes()


def test_a_new_commit_with_the_same_weights_fetches_only_what_changed(tmp_path: Path, towers: dict[str, str]) -> None:
    folder, home = make_checkpoint(tmp_path / "repo"), tmp_path / "home"
    options = {"model": REPO, **towers}
    with serve({REPO: folder}) as hub:
        old = ask(home, hub.url, options)["weights"]["revision"]
        (folder / "tokenizer_config.json").write_text('{"new": 1}')
        hub.requests.clear()
        outcome = ask(home, hub.url, options)
        assert hub.downloads() == {f"{REPO}/tokenizer_config.json": 1}
    assert outcome["weights"]["revision"] != old
    assert [plan["files"] for plan in outcome["plans"]] == [["tokenizer_config.json"]]
    assert ask(home, hub.url, options | {"offline": True})["weights"] == outcome["weights"]


def test_a_revision_is_fetched_and_kept_apart(tmp_path: Path, towers: dict[str, str]) -> None:
    main, other, home = make_checkpoint(tmp_path / "a"), make_checkpoint(tmp_path / "b"), tmp_path / "home"
    (other / "tokenizer.json").write_text('{"v": 2}')
    options = {"model": REPO, **towers}
    with serve({REPO: main, f"{REPO}@v2": other}) as hub:
        tagged = ask(home, hub.url, options | {"revision": "v2"})["weights"]
        commit = ask(home, hub.url, options | {"revision": hub.commit(REPO)})["weights"]
        unknown = ask(home, hub.url, options | {"revision": "v3"})
        # The commit is here, but not yet that it is the main branch.
        named = ask(home, hub.url, options)
    assert (Path(tagged["checkpoint"]) / "tokenizer.json").read_text() == '{"v": 2}'
    assert (Path(commit["checkpoint"]) / "tokenizer.json").read_text() == '{"file": "tokenizer.json"}'
    assert unknown["error"] == "WeightsNotFound" and "v3" in unknown["message"]
    assert named["weights"] == commit and named["plans"] == []
    assert ask(home, hub.url, options | {"offline": True})["weights"] == commit
    assert ask(home, hub.url, options | {"revision": "v2", "offline": True})["weights"] == tagged


def test_towers_come_from_the_hub_from_the_repository_or_from_a_folder(tmp_path: Path) -> None:
    folder, home = make_checkpoint(tmp_path / "repo"), tmp_path / "home"
    make_tower(folder / "siglip")
    default = make_tower(tmp_path / "giant")
    with serve({REPO: folder, "facebook/dinov2-giant": default}) as hub:
        found = ask(home, hub.url, {"model": REPO})["weights"]
        assert Path(found["siglip"]) == Path(found["checkpoint"]) / "siglip"
        assert "models--facebook--dinov2-giant" in found["dinov2"]
        for tower in (found["siglip"], found["dinov2"]):
            names = {path.name for path in Path(tower).iterdir()}
            assert names == {"config.json", "preprocessor_config.json", "model.safetensors"}
        offline = ask(home, hub.url, {"model": REPO, "offline": True})["weights"]
        # A checkpoint in a folder with a tower of the hub, and one with its own.
        mixed = ask(home, hub.url, {"model": str(folder)})["weights"]
    assert offline == found
    assert mixed["siglip"] == str(folder / "siglip") and mixed["dinov2"] == found["dinov2"]
    assert mixed["revision"] is None


@pytest.mark.parametrize(
    ("status", "error", "hint"),
    [(403, "WeightsGated", "HF_TOKEN"), (500, "HubUnreachable", "try again"), (429, "HubUnreachable", "")],
)
def test_refusals_of_the_hub(status: int, error: str, hint: str, tmp_path: Path, towers: dict[str, str]) -> None:
    with serve({REPO: make_checkpoint(tmp_path / "repo")}) as hub:
        hub.refuse[REPO] = status
        outcome = ask(tmp_path / "home", hub.url, {"model": REPO, **towers})
    assert outcome["error"] == error and REPO in outcome["message"] and hint in outcome["hint"]
    assert "\n" not in outcome["message"]


def test_files_that_are_forbidden_though_the_listing_is_public(tmp_path: Path, towers: dict[str, str]) -> None:
    with serve({REPO: make_checkpoint(tmp_path / "repo")}) as hub:
        hub.refuse_files[REPO] = 403
        outcome = ask(tmp_path / "home", hub.url, {"model": REPO, **towers})
    assert outcome["error"] == "WeightsGated" and REPO in outcome["message"]


def test_no_such_repository_no_hub_no_room_no_longvu(tmp_path: Path, towers: dict[str, str]) -> None:
    folder, home = make_checkpoint(tmp_path / "repo"), tmp_path / "home"
    other = make_checkpoint(tmp_path / "other")
    (other / "config.json").write_text('{"model_type": "llama"}')
    with serve({REPO: folder, "org/other": other}) as hub:
        unknown = ask(home, hub.url, {"model": "org/none", **towers})
        full = ask(home, hub.url, {"model": REPO, **towers}, free=1)
        (tmp_path / "file").write_text("")
        unwritable = ask(tmp_path / "file" / "home", hub.url, {"model": REPO, **towers})
        foreign = ask(home, hub.url, {"model": "org/other", **towers})
        assert "org/other/model.safetensors" not in hub.downloads()
    assert unknown["error"] == "WeightsNotFound" and "org/none" in unknown["message"]
    assert full["error"] == "DownloadFailed" and "GB" in full["message"] and full["plans"] == []
    assert unwritable["error"] == "DownloadFailed" and "HF_HOME" in unwritable["hint"]
    assert foreign["error"] == "NotACheckpoint"
    assert ask(tmp_path / "new", hub.url, {"model": REPO, **towers})["error"] == "HubUnreachable"


def test_an_index_cannot_name_what_the_repository_lacks(tmp_path: Path, towers: dict[str, str]) -> None:
    folder = make_checkpoint(tmp_path / "repo", "sharded safetensors")
    index = folder / "model.safetensors.index.json"
    with serve({REPO: folder}) as hub:
        index.write_text(json.dumps({"weight_map": {"model.norm.weight": "absent.safetensors"}}))
        absent = ask(tmp_path / "a", hub.url, {"model": REPO, **towers})
        index.write_text(json.dumps({"weight_map": {"model.norm.weight": "../../escape.safetensors"}}))
        escape = ask(tmp_path / "b", hub.url, {"model": REPO, **towers})
    assert absent["error"] == "WeightsNotFound" and "absent.safetensors" in absent["message"]
    assert escape["error"] == "WeightsDamaged" and "escape" in escape["message"]


def test_deleting_follows_links_to_the_end_but_not_out_of_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    listing = Listing(REPO, "main", "c0", {"a": ListedFile(1, "h"), "b": ListedFile(1, "o")}, None)
    for folder in (listing.snapshot, listing.storage / "blobs", cache / "blobs"):
        folder.mkdir(parents=True)
    (cache / "blobs" / "x").write_text("a")
    (listing.storage / "blobs" / "h").symlink_to("../../blobs/x")
    (listing.snapshot / "a").symlink_to("../../blobs/h")
    (tmp_path / "mine").write_text("b")
    (listing.snapshot / "b").symlink_to(tmp_path / "mine")
    remove_from_cache(listing, "a")
    remove_from_cache(listing, "b")
    assert [path for path in cache.rglob("*") if not path.is_dir()] == []
    assert (tmp_path / "mine").read_text() == "b"


def unexpected_download(plan: object) -> None:
    raise AssertionError(plan)


def test_a_folder_with_its_towers_needs_no_hub(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "mine")
    for name in ("dinov2", "siglip"):
        make_tower(folder / name)
    found = locate(ModelOptions(model=str(folder)), Part.ANSWER, on_download=unexpected_download)
    assert (found.name, found.source, found.revision) == ("mine", str(folder), None)
    assert (found.checkpoint, found.dinov2, found.siglip) == (folder, folder / "dinov2", folder / "siglip")
    (folder / "siglip" / "model.safetensors").unlink()
    (folder / "siglip" / "pytorch_model.bin").unlink()
    with pytest.raises(WeightsNotFound, match="siglip"):
        locate(ModelOptions(model=str(folder)), Part.ANSWER, on_download=unexpected_download)


@pytest.mark.parametrize("model", ["7c", "auto", "", "a--b/c", "org/na..me", "-org/name", "org/name\0"])
def test_no_name_of_a_model(model: str) -> None:
    with pytest.raises(UsageError, match="no model named") as caught:
        locate(ModelOptions(model=model), Part.ANSWER, on_download=unexpected_download)
    assert all(name in caught.value.hint for name in ("7b", "3b-image", "tiny"))


@pytest.mark.parametrize("model", ["/no/such", "./none", "~/none-such", "a/b/c", "none/"])
def test_no_such_folder(model: str) -> None:
    with pytest.raises(WeightsNotFound, match="there is no folder"):
        locate(ModelOptions(model=model), Part.ANSWER, on_download=unexpected_download)


def test_folders_that_are_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(NotACheckpoint, match=r"no config\.json"):
        locate(ModelOptions(model=str(tmp_path)), Part.ANSWER, on_download=unexpected_download)
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"")
    with pytest.raises(NotACheckpoint, match="is a file"):
        locate(ModelOptions(model=str(file)), Part.ANSWER, on_download=unexpected_download)


def test_contradictions(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "mine")
    with pytest.raises(UsageError, match="--revision v1"):
        locate(ModelOptions(model=str(folder), revision="v1"), Part.ANSWER, on_download=unexpected_download)
    with pytest.raises(UsageError, match="--dinov2 'giant'"):
        locate(ModelOptions(model=str(folder), dinov2="giant"), Part.ANSWER, on_download=unexpected_download)


def test_the_table_of_released_models() -> None:
    assert list(VARIANTS) == ["7b", "7b-image", "3b", "3b-image", "1b", "1b-image"]
    assert VARIANTS["3b"] == Variant("3b", "Vision-CAIR/LongVU_Llama3_2_3B", 3_658_867_712, 788_004_864)
    assert VARIANTS["7b"].bytes == 15_343_331_328
    assert VARIANTS["1b-image"].repo.endswith("_img")
    assert VARIANTS["1b"].parameters - VARIANTS["1b-image"].parameters == 24_576
    with pytest.raises(TypeError):
        VARIANTS["7c"] = VARIANTS["7b"]  # type: ignore[index]
