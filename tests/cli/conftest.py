"""What the tests of the command line share: small clips, and the command in this process."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from media import steady, write_video
from miniature_benchmarks import make

from cli.running import PARITY, QWEN, TINY, Ran, environment, run_here, shard
from longvu_cli.longvu import LongVU

Longvu = Callable[..., Ran]


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six seconds at ten frames per second; the frame shown from second s on carries the number 10·s."""
    return write_video(tmp_path_factory.mktemp("media") / "clip.mp4", steady(60))


@pytest.fixture(scope="session")
def busy() -> Path:
    """Twelve frames that differ so much that all are kept; in a context of 900 tokens 7 of them at full resolution."""
    return PARITY / "short_window.mkv"


@pytest.fixture(scope="session")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The paper's benchmarks in small."""
    folder = tmp_path_factory.mktemp("benchmarks")
    assert [one.letter for one in make(folder)] == ["A", "B", "C"]
    return folder


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The feature cache of all tests that are not about it: the towers see each clip once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Towers this small run several times faster on one thread than on some that wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch, shared_cache: Path, tmp_path: Path) -> None:
    """Nothing of the user's own environment, config file or cache is seen, and what the command sets is undone."""
    for name in [name for name in os.environ if name.startswith("LONGVU_")]:
        monkeypatch.delenv(name)
    for name, value in TINY.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LONGVU_CONFIG", "")
    monkeypatch.setenv("LONGVU_CACHE_DIR", str(shared_cache))
    monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "error")
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")


@pytest.fixture
def longvu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Longvu:
    """``longvu("ask", video, question)`` in this process, with the tiny checkpoint."""
    return lambda *arguments: run_here(arguments, monkeypatch, capsys)


@pytest.fixture
def fresh_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A feature cache with nothing in it."""
    monkeypatch.setenv("LONGVU_CACHE_DIR", str(tmp_path / "fresh"))
    return tmp_path / "fresh" / "features"


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Gets one item for every model that is loaded."""
    loaded: list[str] = []
    original = LongVU.from_pretrained.__func__  # type: ignore[attr-defined]

    def counted(cls: type[LongVU], model: str = "auto", **settings: object) -> LongVU:
        loaded.append(model)
        return original(cls, model, **settings)

    monkeypatch.setattr(LongVU, "from_pretrained", classmethod(counted))
    return loaded


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """The tiny checkpoint in three shards: ``embeddings``, ``connector`` and ``decoder``."""
    return shard(QWEN, tmp_path / "sharded")


@pytest.fixture
def cli_environment(shared_cache: Path) -> dict[str, str]:
    """For the command in a process of its own: the tiny checkpoint, and the same cache."""
    return environment(shared_cache, **TINY)
