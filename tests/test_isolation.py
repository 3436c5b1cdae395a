"""What a hostile file can do to the process that reads it, it can do to that one only."""

from __future__ import annotations

import functools
import os
import signal
import socket
import struct
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from cli.running import environment
from media import steady, write_video
from PIL import Image

from longvu_cli import isolation
from longvu_cli import source as source_module
from longvu_cli.config import Decoder, DecodingOptions, SamplingOptions
from longvu_cli.errors import DecodingFailed, NotAVideo, UsageError
from longvu_cli.isolation import Server, warm_up
from longvu_cli.video import Frame, Video

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="files are decoded in this process here")

HERE = DecodingOptions(isolated=False)
IMPATIENT = DecodingOptions(patience_s=0.5)
# What a test gives processes to go away.
SOON_S = 2.0
# When a server of a test is ended whatever it does: a worker that nothing else stops fails its test only.
LATEST_S = 20.0

# A server whose workers, with a file named so, do something else once they sent the first frame.
PROGRAM = """
import ctypes, json, os, re, signal, socket, struct, sys, time
import numpy as np
from longvu_cli import confinement, decoding_server, source, watchdog
{set_up}
frames = source._StreamSource.frames
def misbehaving(self):
    these = frames(self)
    yield next(these)
    if "bad" in self._file.name:
        {deed}
    yield from these
source._StreamSource.frames = misbehaving
decoding_server.main(int(sys.argv[1]))
"""
SPINNING = "while True: pass"
# Python's lock is never let go of.
SPINNING_IN_C = "re.match('(a*)*b', 'a' * 64)"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("isolation") / "clip.mp4", steady(85))


@pytest.fixture
def bad(clip: Path, tmp_path: Path) -> Path:
    (tmp_path / "bad.mp4").write_bytes(clip.read_bytes())
    return tmp_path / "bad.mp4"


@pytest.fixture
def misbehave(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Server]]:
    """Have the workers do something else."""
    started: list[Server] = []
    ends: list[threading.Timer] = []

    def start(deed: str = "pass", set_up: str = "") -> Server:
        server = Server(PROGRAM.format(deed=deed, set_up=set_up))
        ends.append(threading.Timer(LATEST_S, end, [server]))
        ends[-1].start()
        started.append(server)
        monkeypatch.setattr(isolation, "server", functools.cache(lambda _: server))
        return server

    yield start
    for timer in ends:
        timer.cancel()
    for server in started:
        server.close()


def read(path: Path, decoding: DecodingOptions = IMPATIENT) -> list[Frame]:
    with Video(path, decoding=decoding) as video:
        return list(video.frames())


def end(server: Server) -> None:
    for process in [*workers(server), psutil.Process(server.process.pid)]:
        process.kill()


def gone(processes: list[psutil.Process], within_s: float = SOON_S) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=within_s)
    return all(process.status() == psutil.STATUS_ZOMBIE for process in alive)


def workers(server: Server) -> list[psutil.Process]:
    return psutil.Process(server.process.pid).children()


def test_torch_and_ffmpeg_stay_where_they_belong(clip: Path) -> None:
    script = (
        "import sys, longvu_cli.longvu; from longvu_cli.video import Video; list(Video(sys.argv[1]).frames()); "
        "print('av' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", script, clip], capture_output=True, text=True, check=True)
    assert (ran.stdout, ran.stderr) == ("False\n", "")
    script = "import sys, longvu_cli.decoding_server; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "False\n"


def test_the_frames_and_what_is_known_of_the_file_are_the_same(clip: Path) -> None:
    for sampling in (SamplingOptions(), SamplingOptions(fps=20.0, start_s=2.0, end_s=5.0)):
        with Video(clip, sampling) as video, Video(clip, sampling, HERE) as expected:
            assert (video.info, video.expected_frames) == (expected.info, expected.expected_frames)
            ours, theirs = list(video.frames()), list(expected.frames())
            assert video.info == expected.info
        assert [(frame.index, frame.time_s) for frame in ours] == [(frame.index, frame.time_s) for frame in theirs]
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(one.pixels, other.pixels)
        # A frame that is sampled repeatedly shares one array.
        assert [b.pixels is a.pixels for a, b in pairwise(ours)] == [b.pixels is a.pixels for a, b in pairwise(theirs)]


@pytest.mark.parametrize("number", ["SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE"])
def test_a_crash_is_an_error_of_that_file_only(
    bad: Path, clip: Path, misbehave: Callable[..., Server], number: str
) -> None:
    server = misbehave(f"signal.signal(signal.{number}, signal.SIG_DFL); os.kill(os.getpid(), signal.{number})")
    with pytest.raises(DecodingFailed, match=rf"bad\.mp4: the decoder crashed on it \({number}\)") as caught:
        read(bad)
    assert caught.value.hint
    assert len(read(clip)) == 9 and server.process.poll() is None


def test_a_decoder_that_was_killed(bad: Path, misbehave: Callable[..., Server]) -> None:
    misbehave("os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(DecodingFailed, match="was killed") as caught:
        read(bad)
    assert "memory" in caught.value.hint


@pytest.mark.parametrize(
    "deed, set_up",
    [
        (SPINNING, "watchdog._CLOCK_FACTOR = 1e6"),
        (SPINNING_IN_C, "watchdog._CLOCK_FACTOR = 1e6"),
        ("time.sleep(1000)", "pass"),
    ],
    ids=["spinning", "spinning in C", "sleeping"],
)
def test_a_decoder_that_gets_nowhere_is_stopped(
    bad: Path, misbehave: Callable[..., Server], deed: str, set_up: str
) -> None:
    misbehave(deed, set_up)
    begin = time.monotonic()
    with pytest.raises(DecodingFailed, match="got nowhere") as caught:
        read(bad)
    assert time.monotonic() - begin < 10 and caught.value.hint


def test_a_slow_reader_is_not_taken_for_a_decoder_that_gets_nowhere(clip: Path) -> None:
    with Video(clip, decoding=DecodingOptions(patience_s=0.1)) as video:
        time.sleep(1.0)
        frames = video.frames()
        next(frames)
        time.sleep(1.0)
        assert len(list(frames)) == 8


def test_more_memory_than_allowed_is_an_error(bad: Path, clip: Path, misbehave: Callable[..., Server]) -> None:
    misbehave("np.ones(1 << 30, np.uint8)")
    with pytest.raises(DecodingFailed, match=r"needs more than 0\.5 GB of memory") as caught:
        read(bad, DecodingOptions(memory_bytes=500_000_000))
    assert "--workers 1" in caught.value.hint
    assert len(read(clip)) == 9


def test_memory_that_ffmpeg_cannot_get_is_an_error(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise source_module.av.error.MemoryError(12, "Cannot allocate memory")

    monkeypatch.setattr(source_module.av, "open", refuse)
    with pytest.raises(MemoryError):
        read(clip, HERE)


def test_large_pictures_are_decoded_by_fewer_threads(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_module, "cores", lambda: 16)
    source = source_module._StreamSource(clip, SamplingOptions(), HERE, lambda: None)
    assert (source._decoder_threads(), source._workers().count) == (16, 16)
    # 40 megapixels.
    monkeypatch.setattr(source_module._StreamSource, "_picture_bytes", lambda _: 60e6)
    assert (source._decoder_threads(), source._workers().count) == (2, 1)
    source.close()


def test_options_that_make_no_sense() -> None:
    with pytest.raises(UsageError, match="too few"):
        DecodingOptions(memory_bytes=1_000_000)
    with pytest.raises(UsageError, match="seconds"):
        DecodingOptions(patience_s=0)


@pytest.mark.parametrize(
    "message",
    [
        "b'x' * 4000",
        "struct.pack('=I', 2**31)",
        "sized(b'no json')",
        "sized(b'[]')",
        "sized(json.dumps({'kind': 'what', 'time_s': 1}).encode())",
        "sized(json.dumps({'kind': 'frame', 'time_s': 1}).encode())",
        "sized(json.dumps({'kind': 'frame', 'time_s': 1, 'height': 20_000, 'width': 20_000}).encode())",
        "sized(json.dumps({'kind': 'frame', 'time_s': 1, 'height': -1, 'width': -1}).encode())",
        "sized(json.dumps({'kind': 'again', 'time_s': 'now'}).encode())",
        "sized(json.dumps({'kind': 'end'}).encode())",
        "sized(json.dumps({'kind': 'end', 'info': {'path': 1}}).encode())",
    ],
)
def test_a_decoder_that_was_taken_over_is_not_believed(
    bad: Path, misbehave: Callable[..., Server], message: str
) -> None:
    misbehave(f"os.write(data, {message}); time.sleep(0.1); os._exit(0)", set_up=_KEEP_SOCKET)
    with pytest.raises(DecodingFailed, match="no sensible answer"):
        read(bad)


_KEEP_SOCKET = """
def sized(text):
    return struct.pack("=I", len(text)) + text
worker_work = decoding_server._Worker.work
def work(self):
    global data
    data = self._data.fileno()
    worker_work(self)
decoding_server._Worker.work = work
"""


def test_control_characters_of_its_errors_are_escaped(bad: Path, misbehave: Callable[..., Server]) -> None:
    misbehave("raise source.NoFrames('a\\x1b[31mb', hint='\\u202ec')")
    with pytest.raises(Exception, match=r"a\\x1b\[31mb") as caught:
        read(bad)
    assert "\x1b" not in str(caught.value)


def test_what_no_one_expected_is_an_error_of_the_file(bad: Path, misbehave: Callable[..., Server]) -> None:
    misbehave("raise OverflowError('too\\nlarge')")
    with pytest.raises(DecodingFailed, match=r"bad\.mp4 cannot be decoded \(OverflowError: too large\)"):
        read(bad)


def test_an_unexpected_end_is_no_frame(bad: Path, misbehave: Callable[..., Server]) -> None:
    misbehave("os._exit(0)")
    with pytest.raises(DecodingFailed, match="crashed"):
        read(bad)


# -------------------------------------------------------------------------------- nothing else is read


def has_landlock() -> bool:
    script = "import ctypes; print(ctypes.CDLL(None).syscall(444, None, 0, 1))"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    return sys.platform == "linux" and int(found) >= 4


LANDLOCK = pytest.mark.skipif(not has_landlock(), reason="the kernel cannot do it")


@LANDLOCK
@pytest.mark.parametrize(
    "deed",
    [
        "open({secret!r}).read()",
        "open({secret!r}, 'a')",
        "os.listdir({folder!r})",
        "os.unlink({secret!r})",
        "open('/etc/passwd')",
        "os.execv('/bin/sh', ['sh', '-c', 'true'])",
    ],
)
def test_other_files_are_out_of_reach(bad: Path, tmp_path: Path, misbehave: Callable[..., Server], deed: str) -> None:
    secret = tmp_path / "secret"
    secret.write_text("canary")
    misbehave(deed.format(secret=str(secret), folder=str(tmp_path)))
    with pytest.raises(DecodingFailed, match="PermissionError"):
        read(bad)
    assert secret.read_text() == "canary"


@LANDLOCK
def test_what_decodes_may_import_the_rest_of_itself(bad: Path, misbehave: Callable[..., Server]) -> None:
    # Wherever the packages lie: an environment may look for them in the folders of others.
    misbehave("import av.datasets, numpy.polynomial, PIL.ImageMorph")
    assert len(read(bad)) == 9
    misbehave(f"open({pytest.__file__!r})")
    with pytest.raises(DecodingFailed, match="PermissionError"):
        read(bad)


@LANDLOCK
def test_nobody_is_called(bad: Path, misbehave: Callable[..., Server]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        misbehave(f"socket.create_connection(('127.0.0.1', {listening.getsockname()[1]}))")
        with pytest.raises(DecodingFailed, match="PermissionError"):
            read(bad)


def test_nothing_is_written_even_without_landlock(bad: Path, tmp_path: Path, misbehave: Callable[..., Server]) -> None:
    target = tmp_path / "written"
    misbehave(
        f"os.write(os.open({str(target)!r}, os.O_CREAT | os.O_WRONLY), b'x')",
        set_up="confinement._read_only = lambda *_: None",
    )
    with pytest.raises(DecodingFailed, match=r"OSError: .*File too large"):
        read(bad)
    assert target.read_text() == ""


def playlists(folder: Path, clip: Path, address: str) -> dict[str, str]:
    return {
        "hls.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:8\n#EXTINF:8,\n{address}\n#EXT-X-ENDLIST\n",
        "hls.mp4": f"#EXTM3U\n#EXT-X-TARGETDURATION:8\n#EXTINF:8,\n{address}\n#EXT-X-ENDLIST\n",
        "concat.mp4": f"ffconcat version 1.0\nfile '{address}'\n",
        "concat.txt": f"ffconcat version 1.0\nfile '{address}'\n",
        "dash.mpd": f'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" profiles="urn:mpeg:dash:profile:'
        'isoff-on-demand:2011" type="static" mediaPresentationDuration="PT8S"><Period><AdaptationSet '
        f'mimeType="video/mp4"><Representation id="1" bandwidth="1"><BaseURL>{address}</BaseURL></Representation>'
        "</AdaptationSet></Period></MPD>",
        "session.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
        "vector.svg": f'<svg xmlns="http://www.w3.org/2000/svg"><image href="{address}"/></svg>',
        "filter.mp4": "lavfi\nmovie={address}",
        "image%d.png": "",
    }


@pytest.mark.parametrize("decoding", [HERE, DecodingOptions()], ids=["here", "isolated"])
@pytest.mark.parametrize("name", list(playlists(Path(), Path(), "")))
def test_a_file_never_leads_to_another_one(clip: Path, tmp_path: Path, name: str, decoding: DecodingOptions) -> None:
    stream = write_video(tmp_path / "other.ts", steady(20))
    for address in (stream.name, str(stream), f"file:{stream}"):
        (tmp_path / name).write_text(playlists(tmp_path, clip, address)[name] or "x")
        with pytest.raises(NotAVideo):
            read(tmp_path / name, decoding)


def test_only_files_are_opened(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were a playlist accepted after all, FFmpeg by itself would follow it to what is encrypted or embedded."""
    opened: list[tuple[str, dict[str, str]]] = []
    original = source_module.av.open

    def note(file: str, mode: str, **settings: Any) -> Any:
        opened.append((file, settings["container_options"]))
        return original(file, mode, **settings)

    monkeypatch.setattr(source_module.av, "open", note)
    read(clip, HERE)
    assert opened
    assert all(file == f"file:{clip}" and options["protocol_whitelist"] == "file" for file, options in opened)


def test_an_index_that_lists_the_same_data_again_and_again(tmp_path: Path) -> None:
    """Few bytes in the file, and hours of decoding."""
    noise = np.random.default_rng(0).integers(0, 255, (256, 256, 3), np.uint8)
    path = tmp_path / "again.mp4"
    pictures = [noise, *[np.zeros_like(noise)] * 199]
    write_video(path, steady(200), pictures=pictures, codec="mjpeg", pixel_format="yuvj420p", options={"qmin": "1"})
    assert read(path) and len(read(path)) == 20
    data = bytearray(path.read_bytes())
    number_at = {name: data.rindex(name) + skip for name, skip in ((b"stsz", 12), (b"stsc", 8), (b"stco", 8))}
    sizes, offsets = number_at[b"stsz"] + 4, number_at[b"stco"] + 4
    first_size, first_offset = data[sizes : sizes + 4], data[offsets : offsets + 4]
    data[sizes : sizes + 4 * 200] = first_size * 200
    # One sample per chunk, and all chunks in one place.
    chunks = number_at[b"stsc"]
    data[chunks : chunks + 12] = struct.pack(">3I", 1, 1, 1)
    grown = 4 * (200 - int.from_bytes(data[offsets - 4 : offsets]))
    data[offsets - 4 :] = struct.pack(">I", 200) + first_offset * 200 + data[offsets + 4 * 200 - grown :]
    for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stco"):
        at = data.rindex(name) - 4
        data[at : at + 4] = struct.pack(">I", int.from_bytes(data[at : at + 4]) + grown)
    path.write_bytes(data)
    with Video(path, SamplingOptions(fps=10.0)) as video:
        assert 0 < len(list(video.frames())) < 100
        assert any("again and again" in sentence for sentence in video.info.warnings)


# -------------------------------------------------------------------------------- nobody is left behind


def test_closing_ends_the_worker(bad: Path, clip: Path, misbehave: Callable[..., Server]) -> None:
    server = misbehave(SPINNING)
    opened = Video(clip)
    (worker,) = workers(server)
    opened.close()
    assert gone([worker])
    with Video(bad, decoding=DecodingOptions()) as video:
        next(video.frames())
        (worker,) = workers(server)
    assert gone([worker])
    opened.close()


def test_a_file_that_was_closed_gives_no_more_frames(clip: Path) -> None:
    video = Video(clip, SamplingOptions(fps=10.0))
    frames = video.frames()
    next(frames)
    video.close()
    with pytest.raises(RuntimeError, match="closed"):
        list(frames)


def test_nothing_is_left_open(clip: Path) -> None:
    read(clip)
    before = psutil.Process().num_fds()
    for _ in range(5):
        read(clip)
    with pytest.raises(NotAVideo):
        read(Path(__file__))
    assert psutil.Process().num_fds() == before


def test_another_server_takes_the_place_of_one_that_is_gone(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Server] = []

    @functools.cache
    def start(_: int) -> Server:
        started.append(Server())
        return started[-1]

    monkeypatch.setattr(isolation, "server", start)
    assert len(read(clip)) == 9
    started[0].process.kill()
    started[0].process.wait()
    assert len(read(clip)) == 9 and len(started) == 2
    with Video(clip) as video:
        started[1].process.kill()
        started[1].process.wait()
        with pytest.raises(DecodingFailed, match=r"is gone|killed"):
            list(video.frames())
    assert len(read(clip)) == 9
    for server in started:
        server.close()


def test_the_server_is_started_once() -> None:
    warm_up()
    first = isolation.server(os.getpid())
    warm_up()
    assert isolation.server(os.getpid()) is first and first.process.poll() is None


ORPHANS = """
import functools, sys, time
from longvu_cli import isolation
from longvu_cli.video import Video
server = isolation.Server({program!r})
isolation.server = functools.cache(lambda _: server)
with Video(sys.argv[1]) as video:
    frames = video.frames()
    next(frames)
    print("ready", flush=True)
    next(frames)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("deed", [SPINNING_IN_C, "time.sleep(1000)"])
def test_no_process_is_left_behind(bad: Path, number: signal.Signals, deed: str) -> None:
    script = ORPHANS.format(program=PROGRAM.format(deed=deed, set_up=""))
    with subprocess.Popen(
        [sys.executable, "-c", script, bad], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) == 2
        process.send_signal(number)
        assert gone(family) and process.wait(SOON_S) != 0


COMMAND = """
import functools, sys
from longvu_cli import isolation
isolation.server = functools.cache(lambda _: isolation.Server({program!r}))
from longvu_cli.cli.app import main
sys.argv[0] = "longvu"
main()
"""


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_command_ends_at_once_while_a_decoder_gets_nowhere(
    bad: Path, tmp_path: Path, tiny_folder: Path, number: signal.Signals, code: int
) -> None:
    flag = tmp_path / "deed"
    os.mkfifo(flag)
    deed = f"os.write(told, b'x'); {SPINNING_IN_C}"
    program = PROGRAM.format(deed=deed, set_up=f"told = os.open({str(flag)!r}, os.O_RDWR)")
    arguments = [sys.executable, "-c", COMMAND.format(program=program), "stats", bad, "--model", tiny_folder]
    with (
        flag.open("r+b", buffering=0) as told,
        subprocess.Popen(
            arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(tmp_path / "cache")
        ) as process,
    ):
        told.read(1)
        family = psutil.Process(process.pid).children(recursive=True)
        time.sleep(0.2)
        begin = time.monotonic()
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
        took_s = time.monotonic() - begin
        # How long this machine takes, at the moment, to begin and end a process that does nothing.
        begin = time.monotonic()
        subprocess.run([sys.executable, "-c", ""], check=True)
        assert took_s < SOON_S + 2 * (time.monotonic() - begin)
        assert (process.returncode, out) == (code, "") and "Traceback" not in err
        assert gone(family)


def test_a_failure_is_one_line_and_code_3(bad: Path, tmp_path: Path, tiny_folder: Path) -> None:
    program = PROGRAM.format(deed="os.kill(os.getpid(), signal.SIGSEGV)", set_up="")
    arguments = [sys.executable, "-c", COMMAND.format(program=program), "stats", bad, "--model", tiny_folder]
    ran = subprocess.run(arguments, capture_output=True, text=True, env=environment(tmp_path / "cache"))
    assert (ran.returncode, ran.stdout) == (3, "")
    assert ran.stderr.startswith("longvu: error: bad.mp4: the decoder crashed") and ran.stderr.count("\n") <= 2


def test_the_decoder_of_a_gpu_has_no_limits(clip: Path) -> None:
    """Its driver maps memory and opens devices as it likes."""
    source = isolation.IsolatedSource(clip, SamplingOptions(), DecodingOptions())
    assert source._request(clip, SamplingOptions(), DecodingOptions())["limited"]
    assert not source._request(clip, SamplingOptions(), DecodingOptions(decoder=Decoder.NVDEC))["limited"]
    source.close()


def test_stills_are_read_there_too(tmp_path: Path, misbehave: Callable[..., Server]) -> None:
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "still.png")
    misbehave(
        set_up=textwrap.dedent("""
        def crash(*_): os.kill(os.getpid(), signal.SIGSEGV)
        source._StillSource.__init__ = crash
    """)
    )
    with pytest.raises(DecodingFailed, match="SIGSEGV"):
        Video(tmp_path / "still.png")
