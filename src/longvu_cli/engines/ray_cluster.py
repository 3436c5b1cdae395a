"""Ray's processes on this machine, for one command.

They are started by a process of their own (``ray_holder.py``). It takes Ray seconds to start, in which it cannot be
interrupted without leaving something behind; another process can be ended at any time, with all that it has started.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

from longvu_cli.engines.child import importing_us
from longvu_cli.errors import ServerUnreachable
from longvu_cli.scratch import scratch_errors, scratch_file

_PROGRAM = "import sys; from longvu_cli.engines.ray_holder import main; main(sys.argv[1], *map(int, sys.argv[2:]))"
# Sockets are below the folder, and their names may have 107 bytes.
_LONGEST_FOLDER = 30
# What killed processes are given to be gone.
_FAREWELL_S = 1.0


@contextmanager
def own_cluster(*, cpus: int, gpus: int) -> Iterator[str]:
    """Start them; the block gets their address, and none of them outlives it.

    Args:
        cpus, gpus: of this machine, for actors.

    Raises:
        ServerUnreachable: they did not start.
        NoScratchSpace: there is no folder for their files.
    """
    usual = tempfile.gettempdir()
    with scratch_errors():
        folder = tempfile.mkdtemp(prefix="longvu-", dir=usual if len(usual) < _LONGEST_FOLDER else "/tmp")
    try:
        with scratch_file() as said:
            holder = subprocess.Popen(
                # -P: what lies in the current folder is not imported.
                [sys.executable, "-P", "-c", _PROGRAM, folder, str(cpus), str(gpus)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                env=importing_us(),
                start_new_session=True,
            )
            with holder:
                try:
                    assert holder.stdout is not None, "it is a pipe"
                    address = holder.stdout.readline().decode().strip()
                    if not address:
                        said.seek(0)
                        last = said.read().decode(errors="replace").strip().splitlines()[-1:]
                        raise ServerUnreachable("Ray did not start here", hint="".join(last)[:300])
                    yield address
                finally:
                    _end(holder.pid)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _end(pid: int) -> None:
    """Kill a process with all that it has started, which has nothing to tidy up but its folder."""
    with suppress(psutil.NoSuchProcess):
        top = psutil.Process(pid)
        # None of them can start another while it is counted who is there.
        top.suspend()
        found = [top]
        for process in found:
            with suppress(psutil.Error):
                process.suspend()
                found += process.children()
        for process in found:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(found, timeout=_FAREWELL_S)
