"""What FFmpeg tells of its errors, counted: of some damage there is no other sign.

FFmpeg writes from any of its threads, which may hold locks or Python's own. So nothing of Python is called from there:
it writes to the process's stderr, which becomes a pipe that never makes the writer wait.
"""

from __future__ import annotations

import os
import re
from collections import Counter

import av.logging

# Enough for thousands of lines; more are lost.
_PIPE_BYTES = 1 << 20
_SET_PIPE_SIZE = 1031
# Whose line it is, and what it says: ``[h264 @ 0x55c1e067bf40] no frame!``.
_LINE = re.compile(rb"^\[([^] ]+) @ [^]]*\] (.*)$", re.MULTILINE)
# A picture that others refer to is not there.
_OF_REFERENCES = re.compile(rb"mmco|\bref(erence|s)?\b|co located|\bPOC\b|\bRPS\b", re.IGNORECASE)
REFERENCES = " (references)"


class DecoderLog:
    """Counts the errors that FFmpeg tells in this process, which has no other use for its stderr.

    It is for a process that reads one file: stderr is not given back.
    """

    def __init__(self) -> None:
        self._read, write = os.pipe()
        for end in (self._read, write):
            os.set_blocking(end, False)
        _enlarge(write)
        os.dup2(write, 2)
        os.close(write)
        self._counts: Counter[str] = Counter()
        av.logging.restore_default_callback()
        av.logging.set_libav_level(av.logging.ERROR)

    def errors(self) -> Counter[str]:
        """How many were told so far, by the name of the decoder or format that did.

        Those about pictures that others refer to are counted apart, under the name with ``REFERENCES`` behind it.
        """
        while True:
            try:
                told = os.read(self._read, _PIPE_BYTES)
            except BlockingIOError:
                return self._counts.copy()
            for name, message in _LINE.findall(told):
                kind = REFERENCES if _OF_REFERENCES.search(message) else ""
                self._counts[name.decode(errors="replace") + kind] += 1


def _enlarge(pipe: int) -> None:
    """Make room in a pipe, where the system offers that."""
    try:
        import fcntl

        fcntl.fcntl(pipe, _SET_PIPE_SIZE, _PIPE_BYTES)
    except (ImportError, OSError):
        return
