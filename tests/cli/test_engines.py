from __future__ import annotations

import json
import os
import pickle
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest

from cli.clusters import Cluster, cluster
from cli.conftest import Longvu
from cli.forked import Fork, Forks
from cli.running import PARITY, PATIENCE_S, TINY, command, environment
from longvu_cli.engines import processes
from longvu_cli.engines.assignment import Assignment
from longvu_cli.engines.events import Event
from longvu_cli.engines.worker import work
from longvu_cli.manifest import Row

VIDEOS = [str(PARITY / name) for name in ("one_frame.mkv", "short_window.mkv", "still_image_landscape.png")]
ENGINES = ["processes", "ray"]
# What differs from run to run.
MEASURED = ("timing_s", "memory", "cache")

Records = dict[str, dict[str, Any]]


def needs(engine: str) -> None:
    if engine == "ray" and find_spec("ray") is None:
        pytest.skip("needs the extra [ray]")


def write_rows(file: Path, rows: list[dict[str, Any]]) -> Path:
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return file


def records(file: Path) -> Records:
    return by_key([json.loads(line) for line in file.read_text().splitlines()])


def by_key(lines: list[dict[str, Any]]) -> Records:
    found = {line["key"]: {key: value for key, value in line.items() if key not in MEASURED} for line in lines}
    assert len(found) == len(lines), "a result is there twice"
    return found


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    with Forks(environment(tmp_path_factory.mktemp("imports"), **TINY)) as running:
        yield running


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """18 rows about three videos, and two that fail."""
    folder = tmp_path_factory.mktemp("rows")
    rows: list[dict[str, Any]] = [
        {"video": VIDEOS[number % 3], "question": f"What is {number}?", "max_new_tokens": 12, "id": number}
        for number in range(18)
    ]
    rows += [{"video": str(folder / "missing.mp4"), "question": "x"}, {"video": VIDEOS[0]}]
    return write_rows(folder / "m.jsonl", rows)


@pytest.fixture(scope="module")
def plain(forks: Forks, manifest: Path, shared_cache: Path) -> Records:
    """What the plain engine makes of it."""
    output = manifest.with_name("plain.jsonl")
    ran = forks.start(manifest.parent, ["batch", manifest, "-o", output], environment(shared_cache, **TINY)).end()
    assert ran.code == 6, ran.err
    return records(output)


@pytest.fixture(scope="module")
def running_cluster() -> Iterator[Cluster]:
    """A Ray cluster that runs on this machine, and listens on the loopback only."""
    needs("ray")
    with cluster() as running:
        yield running


class ThreadWorker:
    """A worker in a thread of this process, where it does not matter that it has its own: nothing is imported anew.

    What it is told and what it tells is sent as between processes.
    """

    def __init__(self, assignment: Assignment, environment: object) -> None:
        self._rows: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._events: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, args=(pickle.dumps(assignment),), daemon=True)
        self._thread.start()

    def _work(self, assignment: bytes) -> None:
        rows = map(pickle.loads, iter(self._rows.get, None))
        work(pickle.loads(assignment), rows, lambda event: self._events.put(pickle.dumps(event)))

    def send(self, row: Row) -> None:
        self._rows.put(pickle.dumps(row))

    def events(self) -> Iterator[Event]:
        return map(pickle.loads, iter(self._events.get, None))

    def dismiss(self) -> None:
        self._rows.put(None)
        self._events.put(None)

    def make_gone(self, within_s: float) -> None:
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """The workers of ``--engine processes`` are threads."""
    monkeypatch.setattr(processes, "ProcessWorker", ThreadWorker)


@contextmanager
def running(forks: Forks, folder: Path, arguments: list[Any], variables: dict[str, str]) -> Iterator[Fork]:
    process = forks.start(folder, arguments, variables)
    top = psutil.Process(process.pid)
    try:
        yield process
    finally:
        with suppress(psutil.NoSuchProcess):
            top.kill()


def workers() -> list[psutil.Process]:
    """The processes with a model: those of a running cluster are this process's grandchildren, too."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            line = " ".join(child.cmdline())
            if "process_worker" in line or line.startswith("ray::Actor"):
                found.append(child)
    return found


def folder_of(raylet: psutil.Process) -> Path:
    """Where Ray's processes have their files."""
    (socket_name,) = [part for part in raylet.cmdline() if part.startswith("--raylet_socket_name=")]
    return Path(socket_name.partition("=")[2]).parents[2]


def wait_for(happened: Callable[[], object], process: Fork) -> None:
    until = time.monotonic() + PATIENCE_S
    while not happened():
        assert process.code() is None, process.err_file.read_text()
        assert time.monotonic() < until, "it takes too long"
        time.sleep(0.01)


@pytest.mark.parametrize("engine", ENGINES)
def test_results_are_those_of_the_plain_engine_and_a_killed_worker_costs_none(
    engine: str,
    forks: Forks,
    longvu: Longvu,
    manifest: Path,
    plain: Records,
    shared_cache: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    variables, arguments = environment(shared_cache, **TINY), ["--engine", engine, "--processes=2"]
    if engine == "ray":
        there = request.getfixturevalue("running_cluster")
        variables, arguments = {**variables, **there.variables}, [*arguments, "--address", there.address]
    scaled = tmp_path / "scaled.jsonl"
    with running(forks, tmp_path, ["batch", manifest, "-o", scaled, *arguments], variables) as process:
        wait_for(lambda: scaled.exists() and b"token_ids" in scaled.read_bytes(), process)
        workers()[0].kill()
        ran = process.end()
    assert (ran.code, ran.out) == (6, "")
    assert records(scaled) == plain
    # What the worker was at, if it was at anything, was tried again; nothing else is said, whatever Ray says.
    said = [line for line in ran.err.splitlines() if not line.startswith("longvu: warning: worker ")]
    assert [line.split(":")[1] for line in said[:2]] == [" error", " error"]
    assert said[2:] == [f"longvu: 20 rows: 18 answered, 2 failed; results in {scaled}"]
    before = scaled.read_bytes()
    assert "20 found done" in longvu("batch", manifest, "-o", scaled).err
    assert scaled.read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["scaled.jsonl"]
    assert psutil.wait_procs(workers(), timeout=PATIENCE_S)[1] == []


@pytest.mark.parametrize("engine", ENGINES)
def test_a_benchmark_has_the_same_results(
    engine: str,
    forks: Forks,
    longvu: Longvu,
    mini: Path,
    shared_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    def arguments(output: str) -> list[Any]:
        return ["eval", "videomme", mini / "videomme", "-o", tmp_path / output, "--json", "--engine"]

    plain = longvu(*arguments("plain"), "plain")
    if engine == "ray":
        there = request.getfixturevalue("running_cluster")
        variables = {**environment(shared_cache, **TINY), **there.variables}
        scaled = forks.start(
            tmp_path, [*arguments("scaled"), "ray", "--address", there.address, "--processes=1"], variables
        ).end()
    else:
        monkeypatch.setattr(processes, "ProcessWorker", ThreadWorker)
        scaled = longvu(*arguments("scaled"), "processes", "--processes=2")
    assert (plain.code, scaled.code) == (0, 0), scaled.err
    ours, theirs = json.loads(scaled.out), json.loads(plain.out)
    assert [ours[part] for part in ("groups", "overall", "missing")] == [
        theirs[part] for part in ("groups", "overall", "missing")
    ]
    assert records(tmp_path / "scaled" / "results.jsonl") == records(tmp_path / "plain" / "results.jsonl")


@pytest.mark.parametrize(
    ("engine", "number", "count"),
    [("processes", signal.SIGINT, 1), ("processes", signal.SIGTERM, 2), ("ray", signal.SIGTERM, 1)],
)
def test_a_signal_ends_all_and_leaves_nothing(
    engine: str, number: signal.Signals, count: int, forks: Forks, shared_cache: Path, tmp_path: Path
) -> None:
    needs(engine)
    output, scratch = tmp_path / "out.jsonl", tmp_path / "tmp"
    scratch.mkdir()
    rows = [{"video": VIDEOS[n % 3], "question": f"What is {n}?", "max_new_tokens": 200} for n in range(90)]
    arguments = ["batch", write_rows(tmp_path / "m.jsonl", rows), "-o", output, "--engine", engine]
    arguments += ["--processes", count]
    with running(forks, tmp_path, arguments, environment(shared_cache, **TINY)) as process:
        wait_for(output.exists, process)
        started = psutil.Process(process.pid).children(recursive=True)
        process.send(number)
        ran = process.end()
    assert (ran.code, ran.out, ran.err) == (128 + number, "", "")
    gone, alive = psutil.wait_procs(started, timeout=PATIENCE_S)
    assert (alive, bool(gone)) == ([], True)
    assert 1 <= len(records(output)) < 90
    assert sorted(os.listdir(tmp_path)) == ["m.jsonl", "out.jsonl", "tmp"]


# Ray itself can be neither interrupted nor ended quickly while it starts.
def test_a_signal_while_ray_starts_ends_all_and_leaves_nothing(
    forks: Forks, manifest: Path, shared_cache: Path, tmp_path: Path
) -> None:
    needs("ray")
    arguments = ["batch", manifest, "-o", tmp_path / "out.jsonl", "--engine=ray", "--processes=2"]
    with running(forks, tmp_path, arguments, environment(shared_cache, **TINY)) as process:
        top = psutil.Process(process.pid)
        wait_for(lambda: [child for child in top.children(recursive=True) if child.name() == "raylet"], process)
        started = top.children(recursive=True)
        (raylet,) = [one for one in started if one.name() == "raylet"]
        folder = folder_of(raylet)
        assert folder.is_dir()
        process.send(signal.SIGTERM)
        ran = process.end()
    assert (ran.code, ran.out, ran.err) == (143, "", "")
    assert psutil.wait_procs(started, timeout=PATIENCE_S)[1] == []
    assert not folder.exists()
    assert os.listdir(tmp_path) == []


def test_without_a_file_the_results_of_processes_are_on_stdout(
    longvu: Longvu, manifest: Path, plain: Records, threads: None
) -> None:
    ran = longvu("batch", manifest, "--engine=processes", "--processes=2", "-q")
    assert ran.code == 6
    assert by_key([json.loads(line) for line in ran.out.splitlines()]) == plain


def test_weights_that_are_missing_are_told_by_the_worker(
    longvu: Longvu, manifest: Path, tmp_path: Path, threads: None
) -> None:
    ran = longvu("batch", manifest, "--engine=processes", "--processes=2", "-o", tmp_path / "o.jsonl", "-m", "/none")
    assert (ran.code, ran.out, ran.err.count("\n")) == (4, "", 1)
    assert os.listdir(tmp_path) == []


def test_processes_of_accelerate_share_the_file(
    manifest: Path, plain: Records, shared_cache: Path, tmp_path: Path
) -> None:
    if len(command()) > 1:
        pytest.skip("needs the console script")
    output, rows = tmp_path / "o.jsonl", tmp_path / "m.jsonl"
    rows.write_text("".join(manifest.read_text().splitlines(keepends=True)[:18]))
    # So it starts two processes where there is no GPU, too; with --cpu it would be one.
    launch = ["accelerate.commands.launch", "--multi_gpu", "--num_processes=2", "--num_machines=1"]
    launch += ["--mixed_precision=no", "--dynamo_backend=no"]
    ran = subprocess.run(
        [sys.executable, "-m", *launch, *command(), "batch", rows, "-o", output],
        env={**environment(shared_cache, **TINY), "TMPDIR": str(tmp_path)},
        capture_output=True,
        encoding="utf-8",
        timeout=PATIENCE_S,
    )
    assert (ran.returncode, ran.stdout) == (0, "")
    assert ran.stderr.count("longvu: 18 rows: ") == 2
    assert records(output) == {key: record for key, record in plain.items() if "error" not in record}


def test_ranks_share_rows_that_fail_too(
    forks: Forks, manifest: Path, plain: Records, shared_cache: Path, tmp_path: Path
) -> None:
    output = tmp_path / "o.jsonl"
    variables = {**environment(shared_cache, **TINY), "WORLD_SIZE": "2"}
    started = [
        forks.start(tmp_path, ["batch", manifest, "-o", output], {**variables, "RANK": rank, "LOCAL_RANK": rank})
        for rank in ("0", "1")
    ]
    ran = [process.end() for process in started]
    # Each tells of all that have failed, whoever was at them.
    assert [(one.code, one.out) for one in ran] == [(6, "")] * 2
    assert records(output) == plain


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--processes=2",), "needs another engine"),
        (("--address=auto",), "is of a Ray cluster"),
        (("--engine=processes", "--address=auto"), "is of a Ray cluster"),
        (("--engine=processes", "--processes=0"), "neither a number nor auto"),
        (("--engine=processes", "--processes=two"), "neither a number nor auto"),
        (("--engine=processes", "--device=cuda:1"), "names one GPU"),
        (("--engine=processes", "--device=cpu"), "there is no GPU"),
    ],
)
def test_what_contradicts_itself_is_refused(
    longvu: Longvu, manifest: Path, loads: list[str], arguments: tuple[str, ...], message: str
) -> None:
    ran = longvu("batch", manifest, *arguments)
    assert (ran.code, ran.out, loads) == (2, "", [])
    assert message in ran.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((), "share their work through the file"), (("-o", "o.jsonl", "--engine=processes"), "would start more")],
)
def test_a_launcher_needs_a_file_and_no_other_engine(
    longvu: Longvu,
    manifest: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    ran = longvu("batch", manifest, *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err


def test_without_ray_it_says_how_to_get_it(longvu: Longvu, manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("longvu_cli.extras.find_spec", lambda name: None)
    ran = longvu("batch", manifest, "--engine=ray")
    assert ran.code == 2
    assert ran.err.endswith("--engine ray needs Ray, which is not installed; run: pip install 'longvu-cli[ray]'\n")


def test_a_cluster_that_is_not_there_is_told(forks: Forks, manifest: Path, shared_cache: Path, tmp_path: Path) -> None:
    needs("ray")
    arguments = ["batch", manifest, "--engine=ray", "--address=127.0.0.1:1", "--processes=1", "-q"]
    ran = forks.start(tmp_path, arguments, environment(shared_cache, **TINY)).end()
    assert (ran.code, ran.out) == (5, "")
    assert "there is no Ray cluster at 127.0.0.1:1" in ran.err


# After the first answer the command waits, so that there are rows left whatever the machine is busy with.
_HELD = """
import pathlib, time
from longvu_cli.result_file import ResultFile
append = ResultFile.append
def held(self, record):
    append(self, record)
    while "answer" in record and not pathlib.Path("go_on").exists():
        time.sleep(0.01)
ResultFile.append = held
"""
# Ray's patience with a cluster that is away, usually a minute.
_IMPATIENT = {"RAY_gcs_rpc_server_reconnect_timeout_s": "2"}
_WAS_LOST = "was lost; results in a file are kept; the same command goes on with the rest\n"


def test_where_the_head_of_a_cluster_is_lost_the_same_command_goes_on_with_another(
    forks: Forks, running_cluster: Cluster, manifest: Path, plain: Records, shared_cache: Path, tmp_path: Path
) -> None:
    output = tmp_path / "o.jsonl"
    arguments = ["batch", manifest, "-o", output, "--engine=ray", "--processes=1", "--address"]
    with cluster() as lost:
        variables = {**environment(shared_cache, **TINY), **lost.variables, **_IMPATIENT}
        process = forks.start(tmp_path, [*arguments, lost.address], variables, before=_HELD)
        wait_for(lambda: output.exists() and b"token_ids" in output.read_bytes(), process)
        (driver,) = psutil.Process(process.pid).children()
        lost.kill("gcs_server")
        wait_for(lambda: driver.status() == psutil.STATUS_ZOMBIE, process)
        (tmp_path / "go_on").touch()
        ran = process.end()
    assert (ran.code, ran.out) == (5, "")
    assert ran.err.splitlines(keepends=True)[-1] == f"longvu: error: the Ray cluster at {lost.address} {_WAS_LOST}"
    kept = records(output)
    assert 1 <= len(kept) < len(plain)
    there = running_cluster
    variables = {**environment(shared_cache, **TINY), **there.variables}
    ran = forks.start(tmp_path, [*arguments, there.address], variables).end()
    assert (ran.code, f" {len(kept)} found done" in ran.err) == (6, True)
    assert records(output) == plain


def test_a_cluster_that_loses_this_machine_while_models_are_loaded_is_told(
    forks: Forks, manifest: Path, shared_cache: Path, tmp_path: Path
) -> None:
    needs("ray")
    arguments = ["batch", manifest, "-o", tmp_path / "o.jsonl", "--engine=ray", "--processes=1", "--address"]
    with cluster() as lost:
        variables = {**environment(shared_cache, **TINY), **lost.variables}
        with running(forks, tmp_path, [*arguments, lost.address], variables) as process:
            wait_for(workers, process)
            started = [*psutil.Process(process.pid).children(recursive=True), *workers()]
            lost.kill("raylet")
            ran = process.end()
        assert psutil.wait_procs(started, timeout=PATIENCE_S)[1] == []
    assert (ran.code, ran.out) == (5, "")
    assert ran.err == f"longvu: error: the Ray cluster at {lost.address} {_WAS_LOST}"
    assert os.listdir(tmp_path) == []


def test_of_lost_processes_of_rays_own_nothing_is_left(
    forks: Forks, manifest: Path, shared_cache: Path, tmp_path: Path
) -> None:
    needs("ray")
    arguments = ["batch", manifest, "-o", tmp_path / "o.jsonl", "--engine=ray", "--processes=1"]
    with running(forks, tmp_path, arguments, environment(shared_cache, **TINY)) as process:
        top = psutil.Process(process.pid)
        wait_for(workers, process)
        started = top.children(recursive=True)
        (raylet,) = [one for one in started if one.name() == "raylet"]
        folder = folder_of(raylet)
        raylet.kill()
        ran = process.end()
    assert psutil.wait_procs(started, timeout=PATIENCE_S)[1] == []
    assert (ran.code, ran.out, ran.err) == (5, "", f"longvu: error: Ray on this machine {_WAS_LOST}")
    assert not folder.exists()
    assert os.listdir(tmp_path) == []


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """Takes connections, and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE_S)
        yield listener


def test_a_signal_while_it_connects_ends_all(
    forks: Forks, silent: socket.socket, manifest: Path, shared_cache: Path, tmp_path: Path
) -> None:
    needs("ray")
    address = f"127.0.0.1:{silent.getsockname()[1]}"
    arguments = ["batch", manifest, "-o", tmp_path / "o.jsonl", "--engine=ray", "--processes=1", "--address", address]
    with running(forks, tmp_path, arguments, environment(shared_cache, **TINY)) as process:
        silent.accept()[0].close()  # of who looks whether anybody is there
        with silent.accept()[0]:  # Ray's
            started = psutil.Process(process.pid).children(recursive=True)
            process.send(signal.SIGTERM)
            ran = process.end(patience=60)
    assert (ran.code, ran.out, ran.err) == (143, "", "")
    gone, alive = psutil.wait_procs(started, timeout=PATIENCE_S)
    assert (alive, len(gone)) == ([], 1)


def test_a_cluster_that_never_answers_is_told(
    longvu: Longvu, silent: socket.socket, manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("ray")
    monkeypatch.setattr("longvu_cli.engines.ray_workers._PATIENCE_S", 0.1)
    address = f"127.0.0.1:{silent.getsockname()[1]}"
    ran = longvu("batch", manifest, "--engine=ray", "--processes=1", "--address", address)
    assert (ran.code, ran.out) == (5, "")
    assert f"the Ray cluster at {address} did not answer within" in ran.err
    assert not any("ray_driver" in " ".join(child.cmdline()) for child in psutil.Process().children())
