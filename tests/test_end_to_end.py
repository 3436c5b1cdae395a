"""From a hub to an answer: each form of a checkpoint, downloaded and used by the real command, then offline."""

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from cli.running import PARITY, QUESTION, QWEN, Ran, run, shard
from cli.running import environment as own_environment
from hub import Hub, environment, serve
from safetensors.torch import load_file

VIDEO = PARITY / "one_frame.mkv"
TOWERS = ("dinov2", "siglip")
CONFIG_FILES = {"config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"}


def whole(target: Path) -> None:
    shutil.copytree(QWEN, target)


def whole_bin(target: Path) -> None:
    shutil.copytree(QWEN, target, ignore=shutil.ignore_patterns("*.safetensors"))
    torch.save(load_file(QWEN / "model.safetensors"), target / "pytorch_model.bin")


FORMS: dict[str, tuple[Callable[[Path], object], set[str]]] = {
    "safetensors": (whole, {"model.safetensors"}),
    "shards": (
        lambda target: shard(QWEN, target),
        {"model.safetensors.index.json", *(f"{part}.safetensors" for part in ("embeddings", "connector", "decoder"))},
    ),
    "bin": (whole_bin, {"pytorch_model.bin"}),
    "bin-shards": (
        lambda target: shard(QWEN, target, suffix=".bin"),
        {"pytorch_model.bin.index.json", *(f"{part}.bin" for part in ("embeddings", "connector", "decoder"))},
    ),
}


@dataclass(frozen=True)
class Trip:
    """What one checkpoint went through.

    Attributes:
        online: its runs while the hub was there.
        downloads: how often each file had been fetched after each of these.
        offline: the last of them again, after the hub had gone.
    """

    online: list[Ran]
    downloads: list[dict[str, int]]
    offline: Ran


def make_repos(folder: Path) -> dict[str, Path]:
    """One repository per form with the towers in its subfolders; one without, and the towers on their own."""
    for name, (make, _) in FORMS.items():
        make(folder / name)
        for tower in TOWERS:
            shutil.copytree(PARITY / "towers" / tower, folder / name / tower)
        # Things of no use that a repository may hold.
        (folder / name / "README.md").write_text("# A model")
        (folder / name / "training_args.bin").write_bytes(b"nothing")
    whole(folder / "bare")
    repos = {f"org/{name}": folder / name for name in (*FORMS, "bare")}
    return {**repos, **{f"towers/{tower}": PARITY / "towers" / tower for tower in TOWERS}}


@pytest.fixture(scope="module")
def trips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trip]:
    """Every repository's trip, two at a time."""
    folder = tmp_path_factory.mktemp("hub")
    ask: list[Any] = ["ask", VIDEO, QUESTION, "--max-new-tokens=6", "--json", "--no-stats", "--no-cache"]
    stats: list[Any] = ["stats", VIDEO, "--json", "--no-stats", "--no-cache"]
    towers = ["--dinov2=towers/dinov2", "--siglip=towers/siglip"]
    runs: dict[str, list[list[Any]]] = {name: [[*ask, f"--model=org/{name}"]] for name in FORMS}
    runs["bare"] = [[*ask, "--model=org/bare", *towers]]
    # Of shards, a command fetches those that it needs; and a second time, nothing.
    runs["shards"].insert(0, [*stats, "--model=org/shards"])
    runs["safetensors"] *= 2

    def variables(name: str, hub: Hub) -> dict[str, str]:
        own = own_environment(folder / "cache")
        of_hub = environment(folder / "homes" / name, hub.url)
        return {**{key: value for key, value in own.items() if not key.startswith("HF_")}, **of_hub} | {
            key: own[key] for key in ("LONGVU_CONFIG", "LONGVU_CACHE_DIR", "OMP_NUM_THREADS")
        }

    def seen(name: str, requests: dict[str, int]) -> dict[str, int]:
        prefixes = (f"org/{name}/", *(("towers/",) if name == "bare" else ()))
        return {file: count for file, count in requests.items() if file.startswith(prefixes)}

    with ThreadPoolExecutor(2) as pool:
        with serve(make_repos(folder / "repos")) as hub:

            def online(name: str) -> list[tuple[Ran, dict[str, int]]]:
                return [(run(each, variables(name, hub)), seen(name, hub.downloads())) for each in runs[name]]

            answered = dict(zip(runs, pool.map(online, runs), strict=True))

        def offline(name: str) -> Ran:
            return run([*runs[name][-1], "--offline"], variables(name, hub))

        again = dict(zip(runs, pool.map(offline, runs), strict=True))
    return {
        name: Trip([ran for ran, _ in answered[name]], [files for _, files in answered[name]], again[name])
        for name in runs
    }


@pytest.fixture(scope="module")
def expected(qwen: Any) -> Any:
    from longvu_cli.config import GenerationOptions

    return qwen.answer(VIDEO, QUESTION, generation=GenerationOptions(max_new_tokens=6))


@pytest.mark.parametrize("name", [*FORMS, "bare"])
def test_each_form_is_downloaded_and_answers(trips: dict[str, Trip], expected: Any, name: str) -> None:
    ran = trips[name].online[-1]
    assert (ran.code, ran.err) == (0, "")
    record = json.loads(ran.out)
    assert record["token_ids"] == list(expected.token_ids)
    assert record["answer"] == expected.text
    assert record["model"]["name"] == record["model"]["source"] == f"org/{name}"
    assert len(record["model"]["revision"]) == 40


@pytest.mark.parametrize("name", [*FORMS, "bare"])
def test_without_the_hub_the_answer_is_the_same(trips: dict[str, Trip], name: str) -> None:
    trip = trips[name]
    assert (trip.offline.code, trip.offline.err) == (0, "")
    before, after = json.loads(trip.online[-1].out), json.loads(trip.offline.out)
    measured = ("timing_s", "memory")
    assert {key: value for key, value in after.items() if key not in measured} == {
        key: value for key, value in before.items() if key not in measured
    }


@pytest.mark.parametrize("name", [*FORMS, "bare"])
def test_what_is_needed_is_fetched_once_and_nothing_else(trips: dict[str, Trip], name: str) -> None:
    weights = FORMS["safetensors" if name == "bare" else name][1]
    of_model = {f"org/{name}/{file}" for file in CONFIG_FILES | weights}
    place = "towers" if name == "bare" else f"org/{name}"
    of_towers = {f"{place}/{tower}/{file}" for tower in TOWERS for file in ("config.json", "model.safetensors")}
    fetched = trips[name].downloads[-1]
    assert of_model | of_towers <= fetched.keys()
    allowed = {f"{place}/{tower}/preprocessor_config.json" for tower in TOWERS}
    assert fetched.keys() - of_model - of_towers <= allowed
    assert set(fetched.values()) == {1}


def test_the_compression_alone_needs_no_shard_of_the_language_model(trips: dict[str, Trip]) -> None:
    first = json.loads(trips["shards"].online[0].out)
    assert (trips["shards"].online[0].code, first["command"]) == (0, "stats")
    answered = json.loads(trips["shards"].online[1].out)
    assert first["compression"]["tokens"] == answered["compression"]["tokens"]
    shards = {f"org/shards/{part}.safetensors" for part in ("embeddings", "connector", "decoder")}
    fetched = [shards & files.keys() for files in trips["shards"].downloads]
    assert fetched == [{"org/shards/connector.safetensors"}, shards]


def test_a_second_run_answers_the_same(trips: dict[str, Trip]) -> None:
    first, second = (json.loads(ran.out) for ran in trips["safetensors"].online)
    assert first["token_ids"] == second["token_ids"]
    assert first["model"] == second["model"]
    after_first, after_second = trips["safetensors"].downloads
    assert after_first == after_second
