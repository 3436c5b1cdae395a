"""``longvu serve``: what it refuses, and how it ends; ``longvu ask --server``."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from serving.served import Served, question, serving

from cli.conftest import Longvu
from cli.forked import Fork, Forks
from cli.running import PARITY, QUESTION, TINY, environment
from longvu_cli.longvu import LongVU
from longvu_cli.serving.asking import asking

CLIP = PARITY / "one_frame.mkv"
SHORT = ("--max-new-tokens", 3)
TOKEN = "open-sesame"


@pytest.fixture(scope="module")
def served(qwen: LongVU) -> Iterator[Served]:
    with serving(asking(qwen), folders=(PARITY,), token=TOKEN) as running:
        yield running


# --- what is refused -------------------------------------------------------------------------------------------------


def test_other_machines_need_a_token(longvu: Longvu, loads: list[str]) -> None:
    ran = longvu("serve", "--host", "0.0.0.0")
    assert (ran.code, ran.out, loads) == (2, "", [])
    assert ran.err == (
        "longvu: error: --host 0.0.0.0 can be reached from other machines, and there is no token; "
        "set LONGVU_TOKEN, or leave --host out\n"
    )


def test_what_cannot_be_is_noticed_before_the_model_is_loaded(longvu: Longvu, loads: list[str], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"--port {port} cannot be listened at: Address already in use" in longvu("serve", "--port", port).err
    for arguments, message in (
        (("--allow-path", tmp_path / "none"), "is no folder"),
        (("--queue", 0), "leaves no request a place"),
        (("--max-upload", "much"), "is no size"),
        (("--longest-answer", 5), "less than --max-new-tokens"),
        (("--token", ""), "the token is empty"),
        (("--host", "203.0.113.1", "--token", "x"), "cannot be listened at"),
    ):
        ran = longvu("serve", *arguments)
        assert (ran.code, ran.out) == (2, "")
        assert message in ran.err
    assert loads == []


def test_what_it_needs_is_said(longvu: Longvu, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    missing = ("fastapi", "python_multipart")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name in missing else real(name, *rest))
    ran = longvu("serve")
    assert ran.code == 2
    assert ran.err == (
        "longvu: error: the server needs fastapi and python-multipart, which is not installed; "
        "run: pip install 'longvu-cli[serve]'\n"
    )


def test_the_token_is_not_shown(longvu: Longvu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGVU_TOKEN", TOKEN)
    for command in ("serve", "ask"):
        for form in ((), ("--json",)):
            ran = longvu("config", "show", command, *form)
            assert ran.code == 0 and TOKEN not in ran.out + ran.err
            assert "LONGVU_TOKEN" in ran.out


def test_several_folders_may_stand_in_a_variable(longvu: Longvu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGVU_ALLOW_PATH", os.pathsep.join(("/films a", "/films b")))
    shown = json.loads(longvu("config", "show", "serve", "--json").out)["options"]
    assert next(row["value"] for row in shown if row["key"] == "allow_path") == ["/films a", "/films b"]
    assert "/films a, /films b" in longvu("config", "show", "serve").out
    assert "--allow-path /films a is no folder" in longvu("serve").err


# --- how it ends -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    with Forks(environment(tmp_path_factory.mktemp("imports"), **TINY)) as running:
        yield running


def begun(run: Fork) -> str:
    """The address of a server, when it answers."""
    end = time.monotonic() + 60
    while not run.out.endswith("\n"):
        assert time.monotonic() < end, "it does not begin"
        time.sleep(0.02)
    record = json.loads(run.out)
    assert (record["command"], record["model"]["name"]) == ("serve", "qwen")
    return str(record["url"])


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 143)])
def test_a_signal_ends_it_in_order(forks: Forks, tmp_path: Path, name: str, code: int) -> None:
    (tmp_path / "tmp").mkdir()
    variables = {**environment(tmp_path / "cache", **TINY), "TMPDIR": str(tmp_path / "tmp"), "LONGVU_TOKEN": TOKEN}
    run = forks.start(tmp_path, ["serve", "--port", 0, "--json", "--allow-path", PARITY], variables)
    with httpx2.Client(base_url=begun(run), headers={"authorization": f"Bearer {TOKEN}"}, timeout=60) as client:
        assert client.post("/v1/files", files={"file": CLIP.read_bytes()}).status_code == 200
        assert client.post("/v1/chat/completions", json=question(CLIP, max_tokens=1)).status_code == 200
        assert len(list((tmp_path / "tmp").rglob("file-*"))) == 1
        run.send(signal.Signals[name])
        ran = run.end(60)
    assert ran.code == code
    assert list((tmp_path / "tmp").iterdir()) == []
    assert ran.err.splitlines()[1:] == [] and ran.err.startswith("longvu: qwen answers at http://127.0.0.1:")
    assert TOKEN not in ran.out + ran.err


# --- ask --server ----------------------------------------------------------------------------------------------------


@pytest.fixture
def ask(longvu: Longvu, served: Served, monkeypatch: pytest.MonkeyPatch) -> Longvu:
    """``longvu ask`` by the server."""
    monkeypatch.setenv("LONGVU_SERVER", served.address)
    monkeypatch.setenv("LONGVU_TOKEN", TOKEN)
    return lambda *arguments: longvu("ask", *arguments)


def test_the_output_is_that_of_a_model_here(ask: Longvu, longvu: Longvu, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = (CLIP, QUESTION, *SHORT)
    remote, remote_json = ask(*arguments), ask(*arguments, "--json", "--choices", "red|blue")
    monkeypatch.delenv("LONGVU_SERVER")
    local, local_json = longvu("ask", *arguments), longvu("ask", *arguments, "--json", "--choices", "red|blue")
    assert (remote.code, remote.out) == (local.code, local.out) == (0, local.out)
    assert remote.err.splitlines()[:2] == local.err.splitlines()[:2]
    assert [line.split()[0] for line in remote.err.splitlines()] == ["frames", "tokens", "seconds"]
    assert remote_json.err.splitlines()[0] == local_json.err.splitlines()[0]
    there, here = json.loads(remote_json.out), json.loads(local_json.out)
    assert there.pop("conversation") == {"turns": 0, "dropped": 0}
    for record in (there, here):
        del record["timing_s"], record["memory"], record["cache"]
    assert there == here


def test_options_go_with_the_question(ask: Longvu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGVU_SEED", "7")
    flags = ("--fps", "4", "--end", "0:30", "--recipe", "paper", "--temperature", 0.5, "--system", "Be brief.", *SHORT)
    record = json.loads(ask(CLIP, QUESTION, "--json", *flags).out)
    settings = record["settings"]
    assert (settings["fps"], settings["end_s"], settings["recipe"]) == (4.0, 30.0, "paper")
    assert (settings["temperature"], settings["seed"], record["prompt"]["system"]) == (0.5, 7, "Be brief.")


@pytest.mark.parametrize(
    "flags",
    [
        ("--model", "tiny"),
        ("--device", "cpu"),
        ("--decoder", "cpu"),
        ("--no-cache",),
        ("--save-frames", "frames"),
        ("--evidence", "2"),
        ("--clip", "clips"),
        ("--coverage",),
        ("--subtitles", "auto"),
    ],
)
def test_what_a_server_does_not_do_is_refused(ask: Longvu, flags: tuple[str, ...]) -> None:
    ran = ask(CLIP, QUESTION, *flags)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == f"longvu: error: {flags[0]} does not go together with --server; leave one of them out\n"


def test_a_habit_that_would_change_the_answer_is_refused_too(ask: Longvu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGVU_COVERAGE", "1")
    assert "--coverage does not go together" in ask(CLIP, QUESTION).err


def test_errors_have_their_codes(ask: Longvu, served: Served, tmp_path: Path) -> None:
    for arguments, code, message in (
        ((tmp_path / "none.mp4", QUESTION), 3, "no such file"),
        ((CLIP, QUESTION, "--start", "900"), 3, "the video ends after"),
        ((CLIP, QUESTION, "--fps", "0"), 2, "--fps 0.0 is not a rate"),
        ((CLIP, QUESTION, "--token", "wrong"), 2, "the token is missing or wrong"),
        ((CLIP, QUESTION, "--server", "nonsense"), 2, "is no address"),
        ((CLIP, QUESTION, "--server", "http://127.0.0.1:1"), 5, "no server answers at http://127.0.0.1:1"),
    ):
        ran = ask(*arguments)
        assert (ran.code, ran.out, ran.err.count("\n")) == (code, "", 1)
        assert message in ran.err
    ran = ask(CLIP, QUESTION, "--server", "http://127.0.0.1:1", "--json")
    assert (ran.code, json.loads(ran.out)["error"]["type"]) == (5, "ServerUnreachable")


def test_a_token_without_a_server_is_refused(longvu: Longvu) -> None:
    ran = longvu("ask", CLIP, QUESTION, "--token", "x")
    assert (ran.code, ran.out) == (2, "")
    assert "--token is for --server" in ran.err


_HEAVY = """
import sys
sys.argv = ["longvu", *sys.argv[1:]]
from longvu_cli.cli.app import main
try:
    main()
finally:
    print(sorted({"torch", "transformers", "av", "fastapi", "uvicorn"} & set(sys.modules)), file=sys.stderr)
"""


def test_a_client_imports_no_torch(served: Served, cli_environment: dict[str, str]) -> None:
    variables = {**cli_environment, "LONGVU_TOKEN": TOKEN, "PYTHONPATH": os.pathsep.join(sys.path)}
    arguments = ["ask", str(CLIP), QUESTION, "--server", served.address, "--max-new-tokens", "3", "--no-stats"]
    ran = subprocess.run(
        [sys.executable, "-c", _HEAVY, *arguments], env=variables, capture_output=True, text=True, check=True
    )
    assert ran.stdout.endswith("\n")
    assert ran.stderr == "[]\n"
