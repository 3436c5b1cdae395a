"""The command in many processes without importing everything in each: one process imports, and forks for each run.

A run has arguments, variables and streams of its own, and can be signalled like any other process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from cli.running import PATIENCE_S, Ran

CLOSED = "closed"
"""A stream that is not there at all (``>&-``)."""
UNREAD = "unread"
"""A pipe whose reader has gone."""

_SERVER = r"""
import gc, json, os, sys
os.environ["HF_HUB_VERBOSITY"] = os.environ["TRANSFORMERS_VERBOSITY"] = "error"  # as the command does it
import longvu_cli.cli.app, longvu_cli.cli.rendering, longvu_cli.longvu, longvu_cli.batch, longvu_cli.manifest
import longvu_cli.result_file
from huggingface_hub import constants

def open_stream(number, name, job):
    place = job[name]
    if place == "closed":
        setattr(sys, name, None)
        os.close(number)
        return
    if place == "unread":
        reader, writer = os.pipe()
        os.close(reader)
    else:
        writer = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(writer, number)
    os.close(writer)
    getattr(sys, name).reconfigure(encoding=job["encoding"], errors="strict" if number == 1 else "backslashreplace")

def become(job):
    os.environ.clear()
    os.environ.update(job["variables"])
    os.chdir(job["folder"])
    if "HF_HOME" in os.environ:
        constants.HF_HOME = os.environ["HF_HOME"]
        constants.HF_HUB_CACHE = os.path.join(constants.HF_HOME, "hub")
    constants.HF_HUB_OFFLINE = os.environ.get("HF_HUB_OFFLINE") == "1"
    constants.HF_HUB_DOWNLOAD_TIMEOUT = int(os.environ.get("HF_HUB_DOWNLOAD_TIMEOUT", "10"))
    constants.DOWNLOAD_CHUNK_SIZE = 10_000
    constants.HF_HUB_ETAG_TIMEOUT = int(os.environ.get("HF_HUB_ETAG_TIMEOUT", "10"))
    for number, name in ((1, "stdout"), (2, "stderr")):
        open_stream(number, name, job)
    os.close(0)
    os.open(os.devnull, os.O_RDONLY)
    if job["file_size"]:
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["file_size"], job["file_size"]))
    if job["before"]:
        exec(job["before"], {})
    sys.argv = ["longvu", *job["arguments"]]
    longvu_cli.cli.app.main()

def serve():
    gc.freeze()
    for line in sys.stdin:
        job = json.loads(line)
        if "wait" in job:
            pid, status = os.waitpid(job["wait"], os.WNOHANG)
            answer = None if pid == 0 else os.waitstatus_to_exitcode(status)
        else:
            answer = os.fork()
            if answer == 0:
                return job
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    sys.exit()

become(serve())
"""


class Forks:
    """Starts runs. A context manager.

    Args:
        variables: what the imported libraries see when they are imported.
    """

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._server = subprocess.Popen(
            [sys.executable, "-c", _SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=dict(variables),
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait(PATIENCE_S)
        assert self._server.stdout is not None
        self._server.stdout.close()

    def ask(self, job: Mapping[str, Any]) -> Any:
        """Have a job done by the server."""
        assert self._server.stdin is not None and self._server.stdout is not None
        self._server.stdin.write(json.dumps(job) + "\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())

    def start(
        self,
        folder: Path,
        arguments: list[Any],
        variables: Mapping[str, str],
        *,
        stdout: str | None = None,
        stderr: str | None = None,
        encoding: str = "utf-8",
        file_size: int = 0,
        before: str = "",
    ) -> Fork:
        """Start a run.

        Args:
            folder: where it runs, and has its streams unless they are said to be elsewhere.
            file_size: no file may grow larger, as on a full disk.
            before: Python code that is run before the command.
        """
        run = Fork(self, 0, folder / f".out-{time.monotonic_ns()}", folder / f".err-{time.monotonic_ns()}")
        job = {
            "arguments": [str(argument) for argument in arguments],
            "variables": dict(variables),
            "folder": str(folder),
            "stdout": stdout or str(run.out_file),
            "stderr": stderr or str(run.err_file),
            "encoding": encoding,
            "file_size": file_size,
            "before": before,
        }
        run.pid = self.ask(job)
        return run


@dataclass
class Fork:
    """A run of the command."""

    forks: Forks
    pid: int
    out_file: Path
    err_file: Path

    @property
    def out(self) -> str:
        """What it has written to stdout so far."""
        return self.out_file.read_text(encoding="utf-8") if self.out_file.exists() else ""

    def send(self, number: int) -> None:
        """Signal it."""
        os.kill(self.pid, number)

    def code(self) -> int | None:
        """Its exit code; None: it goes on. To be asked until it is not None, and never again."""
        answer = self.forks.ask({"wait": self.pid})
        assert answer is None or isinstance(answer, int)
        return answer

    def end(self, patience: float = PATIENCE_S) -> Ran:
        """Wait for it, and take its output away."""
        until = time.monotonic() + patience
        while (code := self.code()) is None:
            if time.monotonic() > until:
                os.kill(self.pid, 9)
                raise AssertionError(f"still running after {patience} s: {self.out!r} {self.err_file.read_text()!r}")
            time.sleep(0.01)
        err = self.err_file.read_text(encoding="utf-8") if self.err_file.exists() else ""
        out = self.out
        self.out_file.unlink(missing_ok=True)
        self.err_file.unlink(missing_ok=True)
        return Ran(code, out, err)
