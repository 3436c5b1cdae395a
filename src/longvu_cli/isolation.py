"""The decoding processes, seen from here.

A server (``decoding_server.py``) is started once and forks a worker for every file that is opened: parsers and decoders
meet a file in that worker only. What comes back is JSON and raw pixels; nothing of it is executed or unpickled. A
worker that crashes, hangs or grows too large ends alone, and its end is an error here.

All processes end with this one: the server when its control socket does, the workers when the server does, and each
worker when nobody listens to it any more.
"""

from __future__ import annotations

import atexit
import functools
import json
import math
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from longvu_cli.config import Decoder, DecodingOptions, SamplingOptions
from longvu_cli.cues import LONGEST_CUE, MOST_CUES, Cue
from longvu_cli.errors import (
    BadSubtitles,
    DecodingFailed,
    DeviceUnavailable,
    LongVUError,
    NoFrames,
    NotAVideo,
    NoVideoStream,
    VideoNotFound,
)
from longvu_cli.frames import MAX_PIXELS, Frame, Pixels, VideoInfo
from longvu_cli.video_file import printable

# A header is a sentence or two; more is not believed.
_MAX_HEADER_BYTES = 1_000_000
# The errors that a worker may report; any other name is one of its own making.
_ERRORS: tuple[type[LongVUError], ...] = (
    BadSubtitles,
    DeviceUnavailable,
    NoFrames,
    NotAVideo,
    NoVideoStream,
    VideoNotFound,
)
_LEAST_MEMORY_BYTES, _MEMORY_SHARE = 2_000_000_000, 16
# What a server is given to end by itself.
_FAREWELL_S = 2.0

SERVER_PROGRAM = "import sys; from longvu_cli.decoding_server import main; main(int(sys.argv[1]))"


def is_available() -> bool:
    """Whether this platform can decode in another process."""
    return sys.platform != "win32"


def warm_up() -> None:
    """Start the server, so that it is ready when the first file is opened."""
    if is_available():
        server(os.getpid())


class Server:
    """The process that forks the workers. :meth:`close` ends it and them.

    Args:
        program: what it runs, with the number of its control socket as the argument.
    """

    def __init__(self, program: str = SERVER_PROGRAM) -> None:
        self._control, theirs = socket.socketpair()
        package = str(Path(__file__).parents[1])
        path = os.environ.get("PYTHONPATH")
        # More threads than one could not be forked, and the workers' threads are those of the decoder.
        single = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        with theirs:
            self.process = subprocess.Popen(
                # -P: what lies in the current folder is not imported.
                [sys.executable, "-P", "-c", program, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={**os.environ, **single, "PYTHONPATH": f"{package}{os.pathsep}{path}" if path else package},
                # Ctrl-C is for this process, which then lets go of the others.
                start_new_session=True,
            )

    def submit(self, data: socket.socket, status: int) -> None:
        """Have a worker forked.

        Args:
            data: its end of the connection.
            status: where the server writes how it ended.

        Raises:
            OSError: the server is gone.
        """
        socket.send_fds(self._control, [b"w"], [data.fileno(), status])

    def close(self) -> None:
        """End the server and all its workers."""
        self._control.close()
        try:
            self.process.wait(_FAREWELL_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@functools.cache
def server(pid: int) -> Server:
    """The server of this process.

    Args:
        pid: of this process; one that was forked off it gets a server of its own.
    """
    started = Server()
    atexit.register(started.close)
    return started


class _Connection:
    """A worker that looks into one file.

    Args:
        task: what it is to read: ``frames``, the lines of the text ``track``, or a file of ``subtitles``.
    """

    def __init__(self, file: Path, task: str, sampling: SamplingOptions, decoding: DecodingOptions) -> None:
        self._name = printable(file.name)
        self._patience_s = decoding.patience_s + file.stat().st_size / (1 << 30)
        self._memory_bytes = _memory_bytes(decoding)
        self._closed = False
        self._status, status = os.pipe()
        self._data, theirs = socket.socketpair()
        try:
            with theirs:
                try:
                    _submit(theirs, status)
                finally:
                    os.close(status)
            self._send({"task": task, **self._request(file, sampling, decoding)})
        except BaseException:
            self.close()
            raise

    def _request(self, file: Path, sampling: SamplingOptions, decoding: DecodingOptions) -> dict[str, Any]:
        return {
            "file": str(file),
            "sampling": asdict(sampling),
            "decoding": {**asdict(decoding), "memory_bytes": self._memory_bytes},
            "limited": decoding.decoder is not Decoder.NVDEC,
            "patience_s": self._patience_s,
        }

    def close(self) -> None:
        """Let go of the worker, which ends."""
        if not self._closed:
            self._closed = True
            # Another thread may be waiting for a frame: it is woken up.
            with suppress(OSError):
                self._data.shutdown(socket.SHUT_RDWR)
            self._data.close()
            os.close(self._status)

    def _send(self, message: dict[str, Any]) -> None:
        body = json.dumps(message).encode()
        # A worker that is gone is noticed where its answer is missing.
        with suppress(BrokenPipeError, ConnectionResetError):
            self._data.sendall(struct.pack("=I", len(body)) + body)

    def _receive(self) -> dict[str, Any]:
        """The next header.

        Raises:
            LongVUError: the worker says so.
            DecodingFailed: the worker ended, or says what cannot be.
        """
        size = bytearray(4)
        self._fill(memoryview(size))
        (length,) = struct.unpack("=I", size)
        if length > _MAX_HEADER_BYTES:
            raise self._broken()
        body = bytearray(length)
        self._fill(memoryview(body))
        try:
            header = json.loads(body)
            if header["kind"] == "error":
                raise self._reported(header)
        except (ValueError, KeyError, TypeError):
            raise self._broken() from None
        return dict(header)

    def _fill(self, buffer: memoryview) -> None:
        at = 0
        while at < len(buffer):
            try:
                count = self._data.recv_into(buffer[at:])
            except OSError:
                count = 0
            if not count:
                raise self._ended()
            at += count

    def _reported(self, header: dict[str, Any]) -> LongVUError:
        if header["type"] == "MemoryError":
            return DecodingFailed(
                f"{self._name}: decoding it needs more than {self._memory_bytes / 1e9:.1f} GB of memory",
                hint="try --workers 1, or convert it to a smaller size",
            )
        kinds = {kind.__name__: kind for kind in _ERRORS}
        kind = kinds.get(header["type"], DecodingFailed)
        return kind(printable(str(header["message"])), hint=printable(str(header["hint"])))

    def _ended(self) -> Exception:
        """Why the worker is gone."""
        if self._closed:
            return RuntimeError("the video was closed")
        status = os.read(self._status, 4)
        if len(status) < 4:
            # Not only the worker: the next file gets another server.
            server.cache_clear()
            return DecodingFailed(
                f"{self._name}: the decoding process is gone", hint="the machine may have run out of memory; try again"
            )
        (code,) = struct.unpack("=i", status)
        if code in (-signal.SIGPROF, -signal.SIGALRM):
            return DecodingFailed(
                f"{self._name}: the decoder got nowhere for {self._patience_s:.0f} s and was stopped",
                hint="check that the file plays elsewhere, and convert it",
            )
        if code == -signal.SIGKILL:
            return DecodingFailed(
                f"{self._name}: the decoder was killed", hint="the machine may have run out of memory; try --workers 1"
            )
        how = signal.Signals(-code).name if -code in list(signal.Signals) else f"code {code}"
        return DecodingFailed(
            f"{self._name}: the decoder crashed on it ({how})", hint="the file is damaged or malicious; convert it"
        )

    def _broken(self) -> DecodingFailed:
        return DecodingFailed(
            f"{self._name}: the decoder gave no sensible answer", hint="the file is damaged or malicious; convert it"
        )


class IsolatedSource(_Connection):
    """A file that is read and decoded by a worker.

    Raises:
        DecodingFailed: the worker crashed, hung, or needed more memory than it may have.
        LongVUError: what the worker found, see :func:`~longvu_cli.source.open_source`.
    """

    def __init__(self, file: Path, sampling: SamplingOptions, decoding: DecodingOptions) -> None:
        super().__init__(file, "frames", sampling, decoding)
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        opened = self._receive()
        try:
            self._info = _info(opened)
            expected = opened["expected"]
            self._expected = None if expected is None else int(expected)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise self._broken() from None

    def frames(self) -> Iterator[Frame]:
        """The frames as the worker sends them."""
        self._send({})
        pixels: Pixels | None = None
        index = 0
        while True:
            header = self._receive()
            try:
                if header["kind"] == "end":
                    self._info = _info(header)
                    return
                if header["kind"] == "frame":
                    pixels = self._pixels(header)
                if pixels is None or header["kind"] not in ("frame", "again"):
                    raise self._broken()
                frame = Frame(index=index, time_s=float(header["time_s"]), pixels=pixels)
            except (ValueError, KeyError, TypeError, AttributeError):
                raise self._broken() from None
            yield frame
            index += 1

    def info(self, path: str) -> VideoInfo:
        """As the worker said last."""
        return VideoInfo(**{**asdict(self._info), "path": path, "warnings": self._info.warnings})

    def expected_frames(self) -> int | None:
        """As the worker said."""
        return self._expected

    def _pixels(self, header: dict[str, Any]) -> Pixels:
        height, width = int(header["height"]), int(header["width"])
        if min(height, width) < 1 or height * width > MAX_PIXELS:
            raise self._broken()
        pixels = np.empty((height, width, 3), np.uint8)
        self._fill(pixels.data.cast("B"))
        return pixels


class IsolatedCues(_Connection):
    """The lines of a video's text track, or of a file of subtitles, read by a worker.

    Raises as :class:`IsolatedSource`.

    Args:
        task: ``track`` or ``subtitles``.
    """

    def __init__(self, file: Path, task: str, decoding: DecodingOptions) -> None:
        super().__init__(file, task, SamplingOptions(), decoding)

    def cues(self) -> Iterator[Cue]:
        """The lines, as the worker sends them."""
        count = 0
        while (header := self._receive())["kind"] == "cues":
            try:
                cues = [Cue(float(start_s), float(end_s), str(text)) for start_s, end_s, text in header["cues"]]
            except (ValueError, KeyError, TypeError):
                raise self._broken() from None
            count += len(cues)
            if count > MOST_CUES or any(not math.isfinite(cue.start_s + cue.end_s) for cue in cues):
                raise self._broken()
            yield from (replace(cue, text=cue.text[:LONGEST_CUE]) for cue in cues)


def _submit(data: socket.socket, status: int) -> None:
    try:
        server(os.getpid()).submit(data, status)
    except OSError:
        # It was killed since: another one is started.
        server.cache_clear()
        server(os.getpid()).submit(data, status)


def _memory_bytes(decoding: DecodingOptions) -> int:
    if decoding.memory_bytes is not None:
        return decoding.memory_bytes
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(_LEAST_MEMORY_BYTES, machine // _MEMORY_SHARE)


def _info(header: dict[str, Any]) -> VideoInfo:
    values = header["info"]
    return VideoInfo(**{**values, "warnings": tuple(printable(str(sentence)) for sentence in values["warnings"])})
