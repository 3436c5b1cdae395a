"""start.py: Ctrl-C while the command line is still being imported."""

from __future__ import annotations

import subprocess
import sys

# Ctrl-C arrives when the command line begins to be imported.
INTERRUPTED = """
import os, signal, sys, time
class Interrupting:
    def find_spec(name, *_):
        if name == "longvu_cli.cli.app":
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)
sys.meta_path.insert(0, Interrupting)
{before}
sys.argv = ["longvu", "--version"]
from longvu_cli.cli.start import main
main()
"""


def start(before: str = "") -> tuple[int, str, str]:
    ran = subprocess.run([sys.executable, "-c", INTERRUPTED.format(before=before)], capture_output=True, text=True)
    return ran.returncode, ran.stdout, ran.stderr


def test_ctrl_c_during_the_imports_is_quiet() -> None:
    assert start() == (130, "", "")


def test_an_ignored_ctrl_c_stays_ignored() -> None:
    code, out, err = start("signal.signal(signal.SIGINT, signal.SIG_IGN)")
    assert (code, err) == (0, "") and out.startswith("longvu ")
