"""The plugin's class, whether lmms-eval is installed or not."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest


class _Model:
    """As much of the harness's base class as the plugin uses."""

    def __init__(self) -> None:
        self._rank, self._world_size = 0, 1
        self.task_dict: dict[str, Any] = {}

    @property
    def rank(self) -> int:
        return self._rank

    @property
    def world_size(self) -> int:
        return self._world_size


@dataclass(frozen=True)
class Request:
    """As much of the harness's ``Instance`` as the plugin uses."""

    args: tuple[Any, ...]
    task_name: str = "films"


class _Log:
    """In place of loguru's logger."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warning(self, text: str) -> None:
        self.warnings.append(text)


@pytest.fixture
def log() -> _Log:
    return _Log()


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch, log: _Log) -> Any:
    """The module ``longvu_cli.harness.model``; without lmms-eval, on stand-ins for what it imports of it."""
    if importlib.util.find_spec("lmms_eval") is None:
        for name in ("lmms_eval", "lmms_eval.api"):
            monkeypatch.setitem(sys.modules, name, ModuleType(name))
        for name, member, stand_in in (
            ("lmms_eval.api.model", "lmms", _Model),
            ("lmms_eval.api.instance", "Instance", Request),
            ("loguru", "logger", log),
        ):
            module = ModuleType(name)
            setattr(module, member, stand_in)
            monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "longvu_cli.harness.model", raising=False)
    module = importlib.import_module("longvu_cli.harness.model")
    monkeypatch.setattr(module, "logger", log)
    yield module
    sys.modules.pop("longvu_cli.harness.model", None)


@pytest.fixture
def request_for() -> type[Request]:
    return Request
