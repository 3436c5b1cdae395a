"""What this machine can run, and what is missing: findings, each with what to do about it.

Libraries may be missing or broken in any way, so nothing is imported here before it is examined, and whatever an
examination raises is a finding, too.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import shutil
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from longvu_cli.config import DecodingOptions, DType, GenerationOptions, ModelOptions, SamplingOptions
from longvu_cli.errors import DeviceError, LongVUError, WeightsError, WeightsNotFound

if TYPE_CHECKING:
    import torch

# Import name → distribution: what pyproject.toml requires, and what is needed for some of it only.
REQUIRED = {
    "torch": "torch",
    "transformers": "transformers",
    "tokenizers": "tokenizers",
    "safetensors": "safetensors",
    "huggingface_hub": "huggingface-hub",
    "httpx2": "httpx2",
    "accelerate": "accelerate",
    "av": "av",
    "PIL": "pillow",
    "numpy": "numpy",
    "psutil": "psutil",
    "platformdirs": "platformdirs",
    "rich": "rich",
    "typer": "typer",
    "prompt_toolkit": "prompt-toolkit",
    "pysubs2": "pysubs2",
    "jinja2": "jinja2",
}
_FOR_SERVING = "`longvu serve` needs it: pip install 'longvu-cli[serve]'"
OPTIONAL = {
    "bitsandbytes": ("bitsandbytes", "--quantize needs it: pip install bitsandbytes"),
    "matplotlib": (
        "matplotlib",
        "`longvu stats --plot`, `longvu eval needle` and `longvu train` draw with it: pip install matplotlib",
    ),
    "peft": ("peft", "`longvu train finetune` needs it: pip install peft"),
    "pyarrow": ("pyarrow", "`longvu eval` reads parquet with it: pip install 'longvu-cli[eval]'"),
    "ray": ("ray", "--engine ray needs it: pip install 'longvu-cli[ray]'"),
    "fastapi": ("fastapi", _FOR_SERVING),
    "uvicorn": ("uvicorn", _FOR_SERVING),
    "pydantic": ("pydantic", _FOR_SERVING),
    "python_multipart": ("python-multipart", _FOR_SERVING),
    "prometheus_client": ("prometheus-client", _FOR_SERVING),
}
# What films on disks and on the web are encoded with: name in FFmpeg → as people call it.
_CODECS = {
    "h264": "H.264",
    "hevc": "HEVC",
    "vp8": "VP8",
    "vp9": "VP9",
    "libdav1d": "AV1",
    "mpeg4": "MPEG-4",
    "mpeg2video": "MPEG-2",
    "prores": "ProRes",
    "mjpeg": "MJPEG",
}
_HUB_VARIABLES = (
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_ENDPOINT",
    "HF_HUB_OFFLINE",
    "TRANSFORMERS_OFFLINE",
    "HF_HUB_DISABLE_XET",
    "HF_HUB_ETAG_TIMEOUT",
    "HF_HUB_DOWNLOAD_TIMEOUT",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
)
_DRIVER = Path("/proc/driver/nvidia/version")
# What is shorter is no secret worth the name, and could be part of any word.
_SHORTEST_SECRET = 4
# A clean download of the smallest released model with its towers.
_SMALLEST_DOWNLOAD = 12 * 10**9
_ENOUGH_CACHE = 10**9

_QUESTION, _KIND, _ABOUT = "What colour is the cup?", "colour", "cup"
# The demo's clip shows the kitchen with the cup in its first half minute.
_SECONDS = 30.0


class Area(StrEnum):
    """What a finding is about."""

    SYSTEM = "system"
    LIBRARIES = "libraries"
    DEVICE = "device"
    DECODING = "decoding"
    HUB = "hub"
    DISK = "disk"
    SETTINGS = "settings"
    TERMINAL = "terminal"
    SELF_TEST = "self-test"


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    NOTE = "note"
    """Something that some commands could need is not there."""
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        advice: what to do about it; empty where there is nothing to do.
    """

    area: Area
    name: str
    level: Level
    value: str
    advice: str = ""


def examine(device: str, *, offline: bool, self_test: bool) -> Iterator[Finding]:
    """Look at everything, one after the other. No password or token is in what is found.

    Args:
        device: ``auto``, ``cuda``, ``cuda:N``, ``mps`` or ``cpu``.
        offline: do not ask the hub.
        self_test: have the tiny model answer a question whose answer is known.
    """
    for finding in _examine(device, offline=offline, self_test=self_test):
        name, value, advice = (_without_secrets(text) for text in (finding.name, finding.value, finding.advice))
        yield replace(finding, name=name, value=value, advice=advice)


def _examine(device: str, *, offline: bool, self_test: bool) -> Iterator[Finding]:
    yield from _guarded(Area.SYSTEM, "system", _system)
    yield from _libraries()
    yield from _guarded(Area.DEVICE, "device", lambda: _device(device))
    yield from _guarded(Area.DECODING, "decoders", _decoding)
    yield from _guarded(Area.HUB, "variables", _variables)
    yield from _guarded(Area.HUB, "hub", lambda: _hub(offline))
    yield from _guarded(Area.DISK, "disk", _disk)
    if self_test:
        yield from _guarded(Area.SELF_TEST, "self-test", lambda: _self_test(device))


def can_run(findings: Iterable[Finding]) -> bool:
    """Whether this machine can run something: the self-test tells, or where it was left out, all that it needs."""
    found = list(findings)
    tested = [finding for finding in found if finding.area is Area.SELF_TEST]
    if tested:
        # It may fail on the GPU and succeed on the CPU.
        return any(finding.level is not Level.PROBLEM for finding in tested)
    needed = (Area.LIBRARIES, Area.DEVICE, Area.DECODING)
    return not any(finding.area in needed and finding.level is Level.PROBLEM for finding in found)


def _guarded(area: Area, name: str, probe: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """What a probe finds; its failure is a finding, too."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield from probe()
    except LongVUError as error:
        yield Finding(area, name, Level.PROBLEM, error.message, error.hint)
    except Exception as error:  # noqa: BLE001  a broken library may raise anything
        yield Finding(area, name, Level.PROBLEM, _told(error), _REINSTALL if isinstance(error, ImportError) else "")


_REINSTALL = "install longvu anew, into an environment of its own: pip install -c constraints.txt ."


def _told(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _system() -> Iterator[Finding]:
    from longvu_cli import __version__

    yield Finding(Area.SYSTEM, "longvu", Level.OK, __version__)
    yield Finding(Area.SYSTEM, "Python", Level.OK, f"{platform.python_version()} ({sys.executable})")
    yield Finding(Area.SYSTEM, "platform", Level.OK, platform.platform())
    cores = os.cpu_count() or 1
    yield Finding(Area.SYSTEM, "CPU cores", Level.OK, str(cores))
    import psutil

    memory = psutil.virtual_memory()
    yield Finding(Area.SYSTEM, "memory", Level.OK, f"{_gib(memory.available)} free of {_gib(memory.total)}")


def _libraries() -> Iterator[Finding]:
    for module, distribution in REQUIRED.items():
        finding = _library(module, distribution, Level.PROBLEM, f"pip install --force-reinstall {distribution}")
        yield finding
    for module, (distribution, advice) in OPTIONAL.items():
        yield _library(module, distribution, Level.NOTE, advice)


def _library(module: str, distribution: str, otherwise: Level, advice: str) -> Finding:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module(module)
        version = importlib.metadata.version(distribution)
    except ModuleNotFoundError as error:
        missing = "not installed" if error.name == module else f"cannot be imported: {error}"
        return Finding(Area.LIBRARIES, distribution, otherwise, missing, advice)
    except Exception as error:  # noqa: BLE001  a broken library may raise anything
        return Finding(Area.LIBRARIES, distribution, otherwise, f"broken: {_told(error)}", advice)
    return Finding(Area.LIBRARIES, distribution, Level.OK, version)


def _device(name: str) -> Iterator[Finding]:
    import torch

    from longvu_cli.device import free_memory, resolve_device, resolve_dtype

    device = resolve_device(name)
    dtype = str(resolve_dtype(DType.AUTO, device)).removeprefix("torch.")
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts = f"{properties.name}, {_gib(properties.total_memory)}, CUDA {torch.version.cuda}"
        yield Finding(Area.DEVICE, str(device), Level.OK, facts)
    else:
        yield Finding(Area.DEVICE, str(device), Level.OK, "the GPU of this Mac" if device.type == "mps" else "no GPU")
        yield from _unused_gpu()
    free = free_memory(device)
    yield Finding(Area.DEVICE, "free memory", Level.OK, f"{_gib(free)}; numbers are {dtype}")
    yield from _what_fits(device, free)


def _unused_gpu() -> Iterator[Finding]:
    """An NVIDIA driver that PyTorch makes no use of."""
    import torch

    if torch.cuda.is_available() or not (_DRIVER.exists() or shutil.which("nvidia-smi")):
        return
    built = (
        "this build of PyTorch is for CPUs" if torch.version.cuda is None else f"PyTorch is for {torch.version.cuda}"
    )
    yield Finding(
        Area.DEVICE,
        "NVIDIA driver",
        Level.NOTE,
        f"there is one, and PyTorch finds no GPU ({built})",
        "install the PyTorch that fits the driver (see pytorch.org), and check CUDA_VISIBLE_DEVICES and `nvidia-smi`",
    )


def _what_fits(device: torch.device, free: int) -> Iterator[Finding]:
    from longvu_cli.device import resolve_dtype
    from longvu_cli.variants import Footprint, fits
    from longvu_cli.weights import VARIANTS

    dtype = resolve_dtype(DType.AUTO, device)
    fitting = []
    for variant in VARIANTS.values():
        if variant.name.endswith("-image"):
            continue
        manners = fits(Footprint.of(variant), free, dtype=dtype, quantizable=device.type == "cuda")
        best = next((fit for fit in manners if fit.fits), None)
        if best is not None:
            how = "" if best.quantization.value == "none" else f" with --quantize {best.quantization.value}"
            fitting.append(f"{variant.name}{how} ({_gib(best.needed_bytes)})")
    if fitting:
        slow = "" if device.type == "cuda" else "on a CPU a question takes minutes to hours: see `longvu plan VIDEO`"
        yield Finding(Area.DEVICE, "released models", Level.OK, f"fit: {', '.join(fitting)}", slow)
        return
    yield Finding(
        Area.DEVICE,
        "released models",
        Level.NOTE,
        f"none fits into {_gib(free)}",
        "close other programs that use this memory, or use another --device; --model tiny and `longvu demo` run",
    )


def _decoding() -> Iterator[Finding]:
    import av
    from av.codec.codec import Codec, UnknownCodecError

    libraries = av.library_versions
    version = ".".join(str(part) for part in libraries["libavcodec"])
    yield Finding(Area.DECODING, "FFmpeg in PyAV", Level.OK, f"libavcodec {version}")
    missing, known = [], []
    for codec, name in _CODECS.items():
        try:
            Codec(codec, "r")
            known.append(name)
        except UnknownCodecError:
            missing.append(name)
    yield Finding(
        Area.DECODING,
        "codecs",
        Level.NOTE if missing else Level.OK,
        ", ".join(known) + (f"; not {', '.join(missing)}" if missing else ""),
        "install PyAV's own wheel: pip install --force-reinstall av" if missing else "",
    )
    from longvu_cli.isolation import is_available

    apart = is_available()
    yield Finding(
        Area.DECODING,
        "isolation",
        Level.OK if apart else Level.NOTE,
        "files are decoded in a process of their own" if apart else "files are decoded in this process",
        "" if apart else "this system cannot fork processes: do not open files of strangers",
    )
    from longvu_cli.nvdec import require_nvdec

    try:
        require_nvdec()
        yield Finding(Area.DECODING, "NVDEC", Level.OK, "there; --decoder nvdec uses it")
    except DeviceError:
        yield Finding(Area.DECODING, "NVDEC", Level.OK, "not there, and not needed")


def _variables() -> Iterator[Finding]:
    for name in _HUB_VARIABLES:
        for spelled in (name, name.lower()) if name.endswith("_PROXY") else (name,):
            if os.environ.get(spelled):
                yield Finding(Area.HUB, spelled, Level.OK, os.environ[spelled])
    from huggingface_hub import get_token

    told = "there is one" if get_token() else "none; the released models need none"
    yield Finding(Area.HUB, "token", Level.OK, told)


def _secrets() -> Iterator[str]:
    """Tokens, and what stands before the @ of the hub's address and of proxies, which may come without ``http://``."""
    for name, value in os.environ.items():
        if name.upper().endswith(("TOKEN", "PASSWORD", "SECRET", "_KEY")):
            yield value
        bare = name.upper().endswith("_PROXY") and "//" not in value
        with suppress(ValueError):
            yield urlsplit(f"//{value}" if bare else value).netloc.rpartition("@")[0]
    with suppress(Exception):  # the library may be missing or broken
        from huggingface_hub import get_token

        yield get_token() or ""


def _without_secrets(text: str) -> str:
    # The longest first: one may be part of another.
    for secret in sorted(set(_secrets()), key=len, reverse=True):
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, "…")
    return text


def _hub(offline: bool) -> Iterator[Finding]:
    from huggingface_hub import constants, is_offline_mode

    from longvu_cli.hub import remote_listing
    from longvu_cli.weights import VARIANTS

    endpoint = constants.ENDPOINT
    if offline or is_offline_mode():
        yield Finding(Area.HUB, endpoint, Level.OK, "not asked: offline mode is on")
        return
    try:
        remote_listing(VARIANTS["1b"].repo, constants.DEFAULT_REVISION)
        yield Finding(Area.HUB, endpoint, Level.OK, "answers")
    except WeightsNotFound as error:
        yield Finding(Area.HUB, endpoint, Level.NOTE, f"answers, but {error.message}", "check HF_ENDPOINT")
    except WeightsError as error:
        yield Finding(Area.HUB, endpoint, Level.NOTE, error.message, error.hint)


def _disk() -> Iterator[Finding]:
    from huggingface_hub import constants

    from longvu_cli.feature_folder import FeatureFolder

    features = FeatureFolder.default()
    used = sum(entry.bytes for entry in features.entries())
    yield _place("weights", Path(constants.HF_HUB_CACHE), _SMALLEST_DOWNLOAD, "HF_HOME", "")
    yield _place(
        "features", features.folder, _ENOUGH_CACHE, "LONGVU_CACHE_DIR", f", {used / 1e9:.1f} GB of them are there"
    )


def _place(name: str, folder: Path, enough: int, variable: str, more: str) -> Finding:
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    free = shutil.disk_usage(there).free
    value = f"{folder}: {free / 1e9:.0f} GB free{more}"
    if not os.access(there, os.W_OK):
        return Finding(
            Area.DISK, name, Level.NOTE, f"{value}; it cannot be written", f"set {variable} to a folder that can"
        )
    if free < enough:
        return Finding(
            Area.DISK, name, Level.NOTE, value, f"free some space, or set {variable} to a folder on a larger disk"
        )
    return Finding(Area.DISK, name, Level.OK, value)


def _self_test(name: str) -> Iterator[Finding]:
    """The tiny model on the device, and where that fails, on the CPU."""
    from longvu_cli.device import resolve_device

    device = str(resolve_device(name))
    first = next(_guarded(Area.SELF_TEST, f"tiny on {device}", lambda: _answer(device)))
    yield first
    if first.level is Level.PROBLEM and device != "cpu":
        yield next(_guarded(Area.SELF_TEST, "tiny on cpu", lambda: _answer("cpu")))


def _answer(device: str) -> Iterator[Finding]:
    from longvu_cli.demo import demo_clip
    from longvu_cli.demo_story import demo_story
    from longvu_cli.longvu import LongVU
    from longvu_cli.weights import TINY
    from longvu_cli.world.questions import questions

    right = next(
        question.answer for question in questions(demo_story()) if question.kind == _KIND and _ABOUT in question.text
    )
    model = LongVU.from_pretrained(
        TINY, options=ModelOptions(device=device, offline=True), decoding=DecodingOptions(workers=1)
    )
    answer = model.answer(
        demo_clip(),
        _QUESTION,
        sampling=SamplingOptions(end_s=_SECONDS),
        generation=GenerationOptions(max_new_tokens=16),
    )
    name = f"tiny on {device}"
    if answer.text.strip() == right:
        seconds = answer.compression.timing.total
        told = f"watched {_SECONDS:.0f} s of the demo and answered rightly, in {seconds:.1f} s"
        yield Finding(Area.SELF_TEST, name, Level.OK, told)
        return
    yield Finding(
        Area.SELF_TEST,
        name,
        Level.PROBLEM,
        f"asked {_QUESTION!r}, it answered {answer.text.strip()!r} in place of {right!r}",
        "the device or a library computes other numbers than it should: try --device cpu and the tested versions "
        "(pip install -c constraints.txt .)",
    )


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
