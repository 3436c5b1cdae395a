"""``longvu models`` where there is no hub (with one: ``test_downloads.py``)."""

import json
import sys
from pathlib import Path

import pytest
import torch
import typer
from huggingface_hub import constants

from cli.conftest import Longvu
from longvu_cli import hub
from longvu_cli.config import Quantization
from longvu_cli.variants import Footprint
from longvu_cli.weights import VARIANTS

GIB = 2**30


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A Hugging Face cache with a repository of nothing but a link that leads nowhere."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    snapshot = hub.storage_of(VARIANTS["1b"].repo) / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").symlink_to("../../blobs/none")
    (hub.storage_of(VARIANTS["1b"].repo) / "blobs").mkdir()
    (hub.storage_of(VARIANTS["1b"].repo) / "blobs" / "some").write_bytes(b"12345")
    return tmp_path


def test_what_fits_the_free_memory_is_said(longvu: Longvu, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("longvu_cli.device.free_memory", lambda device: 22 * GIB)
    record = json.loads(longvu("models", "list", "--device=cpu", "--json").out)
    assert record["device"] == {"name": "cpu", "dtype": "float32", "free_bytes": 22 * GIB}
    models = {item["name"]: item for item in record["models"]}
    for name in ("7b", "3b", "1b"):
        needed = Footprint.of(VARIANTS[name]).needed_bytes(torch.float32, Quantization.NONE)
        assert models[name]["fits"] == [{"quantization": "none", "needed_bytes": needed, "fits": name != "7b"}]
    assert models["7b"]["download_bytes"] == 15_343_331_328
    lines = {line.split()[0]: line for line in longvu("models", "list", "--device=cpu").out.splitlines()}
    assert lines["7b"].rstrip().endswith("no: needs 36.3 GiB")
    assert lines["3b"].rstrip().endswith("yes: 21.4 GiB")
    assert "15.3 GB" in lines["7b"]


def test_quantisation_is_offered_where_the_device_can_do_it(
    longvu: Longvu, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("longvu_cli.device.resolve_device", lambda name: torch.device("cuda", 0))
    monkeypatch.setattr("longvu_cli.device.resolve_dtype", lambda dtype, device: torch.bfloat16)
    monkeypatch.setattr("longvu_cli.device.free_memory", lambda device: 9 * GIB)
    lines = {line.split()[0]: line.rstrip() for line in longvu("models", "list").out.splitlines()}
    assert lines["name"].endswith("fits cuda:0")
    assert lines["1b"].endswith("yes: 7.8 GiB")
    assert "with --quantize 4bit: " in lines["3b"]
    assert lines["7b"].endswith("with --quantize 4bit")
    assert "no: needs " in lines["7b"]


def test_a_broken_cache_is_listed_and_removed(longvu: Longvu, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = json.loads(longvu("models", "list", "--device=cpu", "--json").out)
    (item,) = [item for item in record["models"] if item["name"] == "1b"]
    assert (item["state"], item["cached_bytes"]) == ("partial", 5)
    for answer, left in (("n", 1), ("y", 0)):
        monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        asked: list[str] = []
        monkeypatch.setattr("typer.confirm", lambda text, err, a=answer, q=asked: (q.append(text), a == "y")[1])
        ran = longvu("models", "remove", "1b")
        assert asked == ["Delete Vision-CAIR/LongVU_Llama3_2_1B (5 B)?"]
        assert ran.code == 0
        assert len(list(cache.glob("models--*"))) == left


def test_whoever_breaks_off_when_asked_keeps_the_model(
    longvu: Longvu, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken_off(*_: object, **__: object) -> bool:
        raise typer.Abort  # what Typer makes of Ctrl-C and of Ctrl-D

    for stream in (sys.stdin, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setattr("typer.confirm", broken_off)
    ran = longvu("models", "remove", "1b")
    assert (ran.code, ran.out, ran.err) == (130, "", "")
    assert len(list(cache.glob("models--*"))) == 1


def test_with_json_nothing_is_asked(longvu: Longvu, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("typer.confirm", None)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    ran = longvu("models", "remove", "1b", "--json")
    assert (ran.code, json.loads(ran.out)["error"]["type"]) == (2, "UsageError")
