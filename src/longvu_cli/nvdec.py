"""The video decoder of NVIDIA GPUs."""

from __future__ import annotations

import av.error
from av.codec.codec import Codec
from av.codec.hwaccel import HWAccel

from longvu_cli.errors import DeviceUnavailable


def nvdec() -> HWAccel:
    """What to open a file with: frames come back to the host, and nothing is quietly decoded by the CPU."""
    return HWAccel("cuda", allow_software_fallback=False)


def require_nvdec() -> None:
    """Raises DeviceUnavailable where there is no such decoder."""
    if not _is_there():
        raise DeviceUnavailable(
            "there is no NVIDIA GPU that decodes video", hint="use --decoder cpu, or leave the option out"
        )


def _is_there() -> bool:
    try:
        nvdec().create(Codec("h264", "r"))
    except (av.error.FFmpegError, NotImplementedError):
        return False
    return True
