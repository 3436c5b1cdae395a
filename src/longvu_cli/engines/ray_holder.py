"""A process that starts Ray's own ones on this machine, and keeps them for as long as somebody wants them."""

from __future__ import annotations

import logging
import os
import signal
import sys

import ray

# What goes from worker to worker is small.
_STORE_BYTES = 100 * 2**20


def main(folder: str, cpus: int, gpus: int) -> None:
    """Start them, write their address to stdout, and wait for the end of stdin; they end with this process.

    Args:
        folder: where they have their files.
        cpus, gpus: of this machine, for actors.
    """
    # Ctrl-C is for the process that started this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answer = os.dup(1)
    os.dup2(2, 1)
    ray.init(
        address="local",  # an environment variable could name a cluster
        num_cpus=cpus,
        num_gpus=gpus,
        include_dashboard=False,
        object_store_memory=_STORE_BYTES,
        log_to_driver=False,
        logging_level=logging.CRITICAL,
        _temp_dir=folder,
    )
    os.write(answer, f"{ray.get_runtime_context().gcs_address}\n".encode())
    os.close(answer)
    sys.stdin.read()
    os._exit(0)
