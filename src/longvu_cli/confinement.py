"""What a process that reads a hostile file gives up: memory without end, files, and outliving its parent."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
# Stacks and heaps of threads reserve addresses that are never used; shared mappings count as addresses only.
_UNUSED_ADDRESSES = 16 << 30


def end_with_parent(parent: int | None) -> None:
    """Have this process killed when its parent ends, where the system offers that; None: it ends by itself."""
    if sys.platform == "linux" and parent is not None:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def confine(file: Path, memory_bytes: int | None) -> None:
    """Give up for good what reading one file does not need.

    Args:
        memory_bytes: what may be allocated; None: no limit.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    if memory_bytes is not None:
        _limit(resource.RLIMIT_DATA, memory_bytes)
        _limit(resource.RLIMIT_AS, memory_bytes + _UNUSED_ADDRESSES)


def _limit(kind: int, value: int) -> None:
    _, most = resource.getrlimit(kind)
    value = value if most == resource.RLIM_INFINITY else min(value, most)
    resource.setrlimit(kind, (value, value))
