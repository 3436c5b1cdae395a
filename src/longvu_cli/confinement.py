"""What a process that reads a hostile file gives up: memory without end, other files, the network, outliving others."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
import sys
import sysconfig
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
# Stacks and heaps of threads reserve addresses that are never used; shared mappings count as addresses only.
_UNUSED_ADDRESSES = 16 << 30

# Landlock (linux/landlock.h): the numbers of its calls are the same on every architecture.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_ASK_VERSION, _PATH_BENEATH = 1, 1
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
# How many kinds of access to files each version knows.
_FILE_ACCESSES = {1: 13, 2: 14, 3: 15, 4: 15}
_NEWEST_FILE_ACCESSES = 16
# Binding and connecting TCP sockets, from version 4 on.
_TCP, _FIRST_WITH_TCP = 0b11, 4


def end_with_parent(parent: int) -> None:
    """Have this process killed when its parent ends, where the system offers that."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def confine(file: Path, packages: Iterable[Path], memory_bytes: int | None) -> None:
    """Give up for good what reading one file does not need. To be called before there are threads.

    Args:
        file: stays readable; so does Python's own library, and nothing else where the kernel has Landlock.
        packages: folders of code that stay readable as well: packages import some of themselves when it is needed.
        memory_bytes: what may be allocated; None: no limit, and access to all files (a GPU's driver needs both).
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    if memory_bytes is None:
        return
    _limit(resource.RLIMIT_DATA, memory_bytes)
    _limit(resource.RLIMIT_AS, memory_bytes + _UNUSED_ADDRESSES)
    if sys.platform == "linux":
        _read_only(file, packages)


def _limit(kind: int, value: int) -> None:
    _, most = resource.getrlimit(kind)
    value = value if most == resource.RLIM_INFINITY else min(value, most)
    resource.setrlimit(kind, (value, value))


def _read_only(file: Path, packages: Iterable[Path]) -> None:
    """Refuse every access to files and TCP but reading this file, Python's own library and these packages."""
    libc = ctypes.CDLL(None)
    version = libc.syscall(_CREATE_RULESET, None, 0, _ASK_VERSION)
    if version < 1:
        # The kernel has no Landlock; the lists of protocols and formats stand.
        return
    accesses = (1 << _FILE_ACCESSES.get(version, _NEWEST_FILE_ACCESSES)) - 1
    handled = struct.pack("=QQ", accesses, _TCP) if version >= _FIRST_WITH_TCP else struct.pack("=Q", accesses)
    rules = libc.syscall(_CREATE_RULESET, handled, len(handled), 0)
    if rules < 0:
        return
    _allow(libc, rules, file, _READ_FILE)
    # Those of the interpreter: an environment's own folder holds everything that is installed there.
    base = {"platbase": sys.base_exec_prefix}
    library = [Path(sysconfig.get_path(name, vars=base)) for name in ("stdlib", "platstdlib")]
    for folder in (*library, *packages):
        _allow(libc, rules, folder, _READ_FILE | _READ_DIR)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.syscall(_RESTRICT_SELF, rules, 0)
    os.close(rules)


def _allow(libc: ctypes.CDLL, rules: int, path: Path, access: int) -> None:
    # What is not there cannot be read either.
    with suppress(OSError):
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
        libc.syscall(_ADD_RULE, rules, _PATH_BENEATH, struct.pack("=Qi", access, handle), 0)
        os.close(handle)
