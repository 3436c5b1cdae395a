"""Processes that this one starts and that import this package, and their end."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import psutil

# linux/prctl.h
_PR_SET_CHILD_SUBREAPER = 36
# What killed processes are given to be gone.
_FAREWELL_S = 0.5


def importing_us(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """An environment in which a new Python finds this package, however this one came to it."""
    package = str(Path(__file__).parents[2])
    path = environment.get("PYTHONPATH")
    return {**environment, "PYTHONPATH": f"{package}{os.pathsep}{path}" if path else package}


def adopt_orphans() -> None:
    """Become the parent of what this process's children leave behind when they end, where the system offers that."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_with_all(processes: Iterable[psutil.Process]) -> None:
    """Kill processes with all that they have started, where nobody has anything to tidy up."""
    found = list(processes)
    for process in found:
        with suppress(psutil.Error):
            # None of them can start another while it is counted who is there.
            process.suspend()
            found += process.children()
    for process in found:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(found, timeout=_FAREWELL_S)
