from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen
from typing import Any

import psutil
import pytest

from cli.conftest import Longvu
from cli.running import PARITY, PATIENCE_S, TINY, command, environment, run, start

VIDEOS = [str(PARITY / name) for name in ("one_frame.mkv", "short_window.mkv", "still_image_landscape.png")]
ENGINES = ["processes", "ray"]
# What differs from run to run.
MEASURED = ("timing_s", "memory", "cache")


def needs(engine: str) -> None:
    if engine == "ray":
        pytest.importorskip("ray", reason="needs the extra [ray]")


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    rows: list[Any] = [
        {"video": VIDEOS[number % 3], "question": f"What is {number}?", "max_new_tokens": 12, "id": number}
        for number in range(18)
    ]
    rows += [{"video": str(tmp_path / "missing.mp4"), "question": "x"}, {"video": VIDEOS[0]}]
    file = tmp_path / "m.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return file


def records(file: Path) -> dict[str, dict[str, Any]]:
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    found = {line["key"]: {key: value for key, value in line.items() if key not in MEASURED} for line in lines}
    assert len(found) == len(lines), "a result is there twice"
    return found


@contextmanager
def running(engine: str, manifest: Path, output: Path, cache: Path) -> Iterator[Popen[str]]:
    process = start(["batch", manifest, "-o", output, "--engine", engine, "--processes=2"], environment(cache, **TINY))
    try:
        yield process
    finally:
        process.kill()


def workers(process: Popen[str]) -> list[psutil.Process]:
    """The processes with a model."""
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            line = " ".join(child.cmdline())
        except psutil.Error:
            continue
        if "process_worker" in line or line.startswith("ray::Actor"):
            found.append(child)
    return found


def wait_for(happened: Callable[[], object], process: Popen[str]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not happened() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)


@pytest.mark.parametrize("engine", ENGINES)
def test_results_are_those_of_the_plain_engine_and_a_killed_worker_costs_none(
    engine: str, longvu: Longvu, manifest: Path, shared_cache: Path, tmp_path: Path
) -> None:
    needs(engine)
    plain, scaled = tmp_path / "plain.jsonl", tmp_path / "scaled.jsonl"
    assert longvu("batch", manifest, "-o", plain).code == 6
    with running(engine, manifest, scaled, shared_cache) as process:
        wait_for(lambda: scaled.exists() and b"token_ids" in scaled.read_bytes(), process)
        victim = workers(process)[0]
        victim.kill()
        out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out) == (6, "")
    assert records(scaled) == records(plain)
    # What the worker was at, if it was at anything, was tried again; nothing else is said, whatever Ray says.
    said = [line for line in err.splitlines() if not line.startswith("longvu: warning: worker ")]
    assert [line.split(":")[1] for line in said[:2]] == [" error", " error"]
    assert said[2:] == [f"longvu: 20 rows: 18 answered, 2 failed; results in {scaled}"]
    before = scaled.read_bytes()
    assert "20 found done" in longvu("batch", manifest, "-o", scaled).err
    assert scaled.read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["m.jsonl", "plain.jsonl", "scaled.jsonl"]


# Ray puts a handler of its own in the place of that for SIGTERM.
@pytest.mark.parametrize(
    ("engine", "number"),
    [("processes", signal.SIGINT), ("processes", signal.SIGTERM), ("ray", signal.SIGTERM)],
)
def test_a_signal_ends_all_and_leaves_nothing(
    engine: str, number: signal.Signals, manifest: Path, shared_cache: Path, tmp_path: Path
) -> None:
    needs(engine)
    output, scratch = tmp_path / "out.jsonl", tmp_path / "tmp"
    scratch.mkdir()
    rows = [{"video": VIDEOS[n % 3], "question": f"What is {n}?", "max_new_tokens": 200} for n in range(90)]
    manifest.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    with running(engine, manifest, output, shared_cache) as process:
        wait_for(output.exists, process)
        started = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out, err) == (128 + number, "", "")
    gone, alive = psutil.wait_procs(started, timeout=PATIENCE_S)
    assert (alive, bool(gone)) == ([], True)
    assert 1 <= len(records(output)) < 90
    assert sorted(os.listdir(tmp_path)) == ["m.jsonl", "out.jsonl", "tmp"]


# Ray itself can be neither interrupted nor ended quickly while it starts.
def test_a_signal_while_ray_starts_ends_all_and_leaves_nothing(
    manifest: Path, shared_cache: Path, tmp_path: Path
) -> None:
    needs("ray")

    def raylet() -> list[psutil.Process]:
        return [child for child in psutil.Process(process.pid).children(recursive=True) if child.name() == "raylet"]

    with running("ray", manifest, tmp_path / "out.jsonl", shared_cache) as process:
        wait_for(raylet, process)
        (holder,) = psutil.Process(process.pid).children()
        started, folder = psutil.Process(process.pid).children(recursive=True), Path(holder.cmdline()[4])
        assert folder.is_dir()
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out, err) == (143, "", "")
    assert psutil.wait_procs(started, timeout=PATIENCE_S)[1] == []
    assert not folder.exists()
    assert os.listdir(tmp_path) == ["m.jsonl"]


def test_without_a_file_the_results_of_processes_are_on_stdout(shared_cache: Path, manifest: Path) -> None:
    ran = run(["batch", manifest, "--engine=processes", "--processes=2", "-q"], environment(shared_cache, **TINY))
    assert ran.code == 6
    assert sorted(json.loads(line)["row"] for line in ran.out.splitlines()) == list(range(1, 21))


def test_weights_that_are_missing_are_told_by_the_worker(shared_cache: Path, manifest: Path, tmp_path: Path) -> None:
    arguments = ["batch", manifest, "--engine=processes", "--processes=2", "-o", tmp_path / "o.jsonl", "-m", "/none"]
    ran = run(arguments, environment(shared_cache, **TINY))
    assert (ran.code, ran.out, ran.err.count("\n")) == (4, "", 1)
    assert sorted(os.listdir(tmp_path)) == ["m.jsonl"]


def test_processes_of_accelerate_share_the_file(shared_cache: Path, manifest: Path, tmp_path: Path) -> None:
    if len(command()) > 1:
        pytest.skip("needs the console script")
    plain, output = tmp_path / "plain.jsonl", tmp_path / "o.jsonl"
    manifest.write_text("".join(manifest.read_text().splitlines(keepends=True)[:18]))
    # So it starts two processes where there is no GPU, too; with --cpu it would be one.
    launch = ["accelerate.commands.launch", "--multi_gpu", "--num_processes=2", "--num_machines=1"]
    launch += ["--mixed_precision=no", "--dynamo_backend=no"]
    variables = {**environment(shared_cache, **TINY), "TMPDIR": str(tmp_path)}
    ran = subprocess.run(
        [sys.executable, "-m", *launch, *command(), "batch", manifest, "-o", output],
        env=variables,
        capture_output=True,
        encoding="utf-8",
        timeout=PATIENCE_S,
    )
    assert (ran.returncode, ran.stdout) == (0, "")
    assert ran.stderr.count("longvu: 18 rows: ") == 2
    assert run(["batch", manifest, "-o", plain], variables).code == 0
    assert records(output) == records(plain)


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


def test_a_cluster_that_is_not_there_is_told(shared_cache: Path, manifest: Path) -> None:
    needs("ray")
    arguments = ["batch", manifest, "--engine=ray", "--address=127.0.0.1:1", "--processes=1", "-q"]
    ran = run(arguments, environment(shared_cache, **TINY))
    assert (ran.code, ran.out) == (5, "")
    assert "there is no Ray cluster at 127.0.0.1:1" in ran.err
