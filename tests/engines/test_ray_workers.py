from __future__ import annotations

import socket
from collections.abc import Mapping

import pytest

from longvu_cli.config import DecodingOptions, ModelOptions
from longvu_cli.engines import ray_workers
from longvu_cli.engines.assignment import Assignment
from longvu_cli.engines.ray_messages import Place
from longvu_cli.errors import ServerUnreachable

LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
TOKEN = "RAY_AUTH_TOKEN"


@pytest.fixture
def environments(monkeypatch: pytest.MonkeyPatch) -> list[Mapping[str, str]]:
    """Those in which drivers would have been started."""
    seen: list[Mapping[str, str]] = []

    def refuse(place: Place, environment: Mapping[str, str], name: str, patience_s: float | None) -> None:
        seen.append(environment)
        raise ServerUnreachable("not here")

    monkeypatch.setattr(ray_workers, "linked", refuse)
    for name in (LOOPBACK, TOKEN):
        monkeypatch.delenv(name, raising=False)
    return seen


def open_at(address: str | None) -> None:
    assignment = Assignment("batch", ModelOptions(device="cpu"), DecodingOptions(), cached=False)
    with (
        pytest.raises(ServerUnreachable, match="not here"),
        ray_workers.open_ray(assignment, 1, address, lambda told: None),
    ):
        pass


@pytest.mark.parametrize(("listening", "on_loopback"), [("127.0.0.1", True), ("0.0.0.0", False)])
def test_of_a_cluster_on_the_loopback_only_ray_is_told(
    environments: list[Mapping[str, str]], listening: str, on_loopback: bool
) -> None:
    with socket.create_server((listening, 0)) as listener:
        port = listener.getsockname()[1]
        if not on_loopback and not ray_workers.listens_outside(port):
            pytest.skip("this machine has no other address")
        open_at(f"localhost:{port}")
    assert environments[0].get(LOOPBACK) == ("0" if on_loopback else None)
    assert TOKEN not in environments[0]


def test_what_the_user_has_set_is_kept(environments: list[Mapping[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LOOPBACK, "1")
    monkeypatch.setenv(TOKEN, "own")
    open_at(None)
    assert (environments[0][LOOPBACK], environments[0][TOKEN]) == ("1", "own")


def test_each_cluster_of_our_own_has_another_token(environments: list[Mapping[str, str]]) -> None:
    open_at(None)
    open_at(None)
    first, second = (environment[TOKEN] for environment in environments)
    assert first != second
    assert environments[0][LOOPBACK] == "0"
