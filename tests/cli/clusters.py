"""A Ray cluster on this machine, of which a test may end any part."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

import longvu_cli

_PROGRAM = """
import logging, os, sys, ray
answer = os.dup(1)
os.dup2(2, 1)
ray.init(
    address="local", num_cpus=4, include_dashboard=False, object_store_memory=100 * 2**20, _temp_dir=sys.argv[1],
    log_to_driver=False, logging_level=logging.CRITICAL,
)
os.write(answer, ray.get_runtime_context().gcs_address.encode() + b"\\n")
sys.stdin.read()
"""
# It listens on the loopback only; workers come when there are actors.
_LOCAL = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_prestart_worker_first_driver": "0",
    "PYTHONPATH": str(Path(longvu_cli.__file__).parents[1]),
}


@dataclass(frozen=True)
class Cluster:
    """A cluster that runs.

    Attributes:
        address: of it.
        variables: that who connects needs.
    """

    address: str
    variables: Mapping[str, str]
    holder: int

    def kill(self, name: str) -> None:
        """Kill the process of a name."""
        (found,) = [one for one in psutil.Process(self.holder).children() if one.name() == name]
        found.kill()


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Start one, and end it."""
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        holder = subprocess.Popen(
            [sys.executable, "-P", "-c", _PROGRAM, folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **_LOCAL, **token},
        )
        with holder:
            try:
                assert holder.stdout is not None, "it is a pipe"
                yield Cluster(holder.stdout.readline().decode().strip(), token, holder.pid)
            finally:
                found = [psutil.Process(holder.pid), *psutil.Process(holder.pid).children(recursive=True)]
                for process in found:
                    with suppress(psutil.NoSuchProcess):
                        process.kill()
