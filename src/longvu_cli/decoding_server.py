"""The processes that decode, seen from within: a server that forks a worker for each file.

The server imports what decoding needs once and then only forks, so that a worker is there in a few milliseconds and
none has seen another file before. Torch is never imported.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import struct
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import av
import numpy
import PIL
import pysubs2
from PIL import Image

from longvu_cli.config import Decoder, DecodingOptions, SamplingOptions
from longvu_cli.confinement import confine, end_with_parent
from longvu_cli.cues import Cue
from longvu_cli.decoder_log import DecoderLog
from longvu_cli.errors import LongVUError
from longvu_cli.frames import Frame, Source
from longvu_cli.source import open_source
from longvu_cli.subtitles import parse_cues
from longvu_cli.text_track import track_cues
from longvu_cli.video_file import printable
from longvu_cli.watchdog import Watchdog

# As many long lines as surely fit into a header.
_CUES_AT_A_TIME = 20
# Wherever they lie: an environment may look for packages in others, too.
_PACKAGES = [Path(__file__).parent, *(Path(package.__path__[0]) for package in (av, numpy, PIL, pysubs2))]


def main(control_fd: int) -> None:
    """Fork workers until the control socket is closed."""
    if sys.platform == "win32":
        raise NotImplementedError
    # Pillow imports what reads a format when it first meets one.
    Image.init()
    _Server(socket.socket(fileno=control_fd)).serve()


class _Server:
    def __init__(self, control: socket.socket) -> None:
        self._control = control
        # Where it is written how each worker ended.
        self._statuses: dict[int, int] = {}
        self._woken, self._wakes = socket.socketpair()
        self._wakes.setblocking(False)

    def serve(self) -> None:
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wakes.fileno(), warn_on_full_buffer=False)
        with selectors.DefaultSelector() as selector:
            selector.register(self._control, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fileobj is self._woken:
                        self._woken.recv(4096)
                        self._reap()
                    elif not self._fork():
                        self._kill_all()
                        return

    def _fork(self) -> bool:
        """Start a worker; whether anybody was there to ask for one."""
        message, files, _, _ = socket.recv_fds(self._control, 1, 2)
        if not message:
            return False
        data, status = files
        server = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._become_worker(data, server)
        os.close(data)
        self._statuses[pid] = status
        return True

    def _become_worker(self, data: int, server: int) -> NoReturn:
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for socket_of_server in (self._control, self._woken, self._wakes):
                socket_of_server.close()
            for status in self._statuses.values():
                os.close(status)
            end_with_parent(server)
            _Worker(socket.socket(fileno=data)).work()
        finally:
            # Nothing of the server is to be run here.
            os._exit(1)

    def _reap(self) -> None:
        while self._statuses:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            file = self._statuses.pop(pid)
            # Nobody reads it where the video was closed.
            with suppress(BrokenPipeError):
                os.write(file, struct.pack("=i", os.waitstatus_to_exitcode(status)))
            os.close(file)

    def _kill_all(self) -> None:
        for pid in self._statuses:
            os.kill(pid, signal.SIGKILL)


class _Worker:
    """Reads one file."""

    def __init__(self, data: socket.socket) -> None:
        self._data = data
        self._wanted = threading.Event()

    def work(self) -> NoReturn:
        """Send what is in the file; never returns."""
        request = self._receive()
        file = Path(request["file"])
        # From here on the file has its say.
        confine(file, _PACKAGES, request["decoding"]["memory_bytes"] if request["limited"] else None)
        self._watchdog = Watchdog(request["patience_s"])
        threading.Thread(target=self._listen, name="listening", daemon=True).start()
        try:
            if request["task"] == "track":
                self._send_cues(track_cues(file, self._watchdog.beat))
            elif request["task"] == "subtitles":
                self._send_cues(iter(parse_cues(file)))
            else:
                self._read(file, request)
        except LongVUError as error:
            self._send({"kind": "error", "type": type(error).__name__, "message": error.message, "hint": error.hint})
        except MemoryError:
            self._send({"kind": "error", "type": "MemoryError"})
        except Exception as error:  # noqa: BLE001  whatever a library makes of a hostile file
            self._send(self._unexpected(file, error))
        os._exit(0)

    def _read(self, file: Path, request: Mapping[str, Any]) -> None:
        decoding = {**request["decoding"], "decoder": Decoder(request["decoding"]["decoder"])}
        source = open_source(
            file,
            SamplingOptions(**request["sampling"]),
            DecodingOptions(**decoding),
            self._watchdog.beat,
            DecoderLog().errors,
        )
        self._send({"kind": "opened", "info": _info(source), "expected": source.expected_frames()})
        self._watchdog.wait()
        self._wanted.wait()
        self._watchdog.go_on()
        before: Frame | None = None
        for frame in source.frames():
            if before is not None and frame.pixels is before.pixels:
                self._send({"kind": "again", "time_s": frame.time_s})
            else:
                height, width = frame.pixels.shape[:2]
                header = {"kind": "frame", "time_s": frame.time_s, "height": height, "width": width}
                self._send(header, frame.pixels.data.cast("B"))
            before = frame
        self._send({"kind": "end", "info": _info(source)})

    def _send_cues(self, cues: Iterator[Cue]) -> None:
        """Send lines, some at a time."""
        while some := list(islice(cues, _CUES_AT_A_TIME)):
            self._send({"kind": "cues", "cues": [[cue.start_s, cue.end_s, cue.text] for cue in some]})
        self._send({"kind": "end"})

    def _unexpected(self, file: Path, error: Exception) -> dict[str, Any]:
        text = printable(" ".join(f"{type(error).__name__}: {error}".split()))[:200]
        return {
            "kind": "error",
            "type": "DecodingFailed",
            "message": f"{printable(file.name)} cannot be decoded ({text})",
            "hint": "check that the file plays elsewhere, and convert it",
        }

    def _send(self, header: Mapping[str, Any], payload: memoryview | None = None) -> None:
        body = json.dumps(header).encode()
        self._watchdog.wait()
        self._data.sendall(struct.pack("=I", len(body)) + body)
        if payload is not None:
            self._data.sendall(payload)
        self._watchdog.go_on()

    def _receive(self) -> dict[str, Any]:
        (length,) = struct.unpack("=I", self._exactly(4))
        message: dict[str, Any] = json.loads(self._exactly(length))
        return message

    def _exactly(self, length: int) -> bytes:
        data = self._data.recv(length, socket.MSG_WAITALL)
        if len(data) < length:
            # The video was closed.
            os._exit(0)
        return data

    def _listen(self) -> None:
        """Hear that the frames are wanted and, at last, that nobody is there any more: then there is nothing to do."""
        self._receive()
        self._wanted.set()
        self._exactly(1)


def _info(source: Source) -> dict[str, Any]:
    return asdict(source.info(""))
