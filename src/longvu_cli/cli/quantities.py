"""Sizes and spans of time as people write and read them."""

from __future__ import annotations

import re

import typer

_SIZES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_SPANS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", re.IGNORECASE)
_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])", re.IGNORECASE)


def parse_size(text: str | int) -> int:
    """``5GB``, ``500 MB``, ``1GiB`` or a number of bytes, as bytes.

    Raises:
        typer.BadParameter: it is none.
    """
    match = _SIZE.fullmatch(str(text).strip())
    if match is None or (match[3] and not match[2]):
        raise typer.BadParameter(f"{text!r} is no size such as 5GB, 500MB or 1GiB")
    prefix = match[2].lower()
    return int(float(match[1]) * (_BINARY[prefix] if match[3] else _SIZES[prefix]))


def parse_span(text: str | int) -> float:
    """``30d``, ``12h``, ``90m``, ``45s`` or ``2w``, as seconds.

    Raises:
        typer.BadParameter: it is none.
    """
    match = _SPAN.fullmatch(str(text).strip())
    if match is None:
        raise typer.BadParameter(f"{text!r} is no span of time such as 30d, 12h or 90m")
    return float(match[1]) * _SPANS[match[2].lower()]


def shown_size(count: int) -> str:
    """``15.3 GB``, ``1.2 MB``, ``0 B``: in the units that disks are sold in."""
    for prefix, unit in (("T", 10**12), ("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= unit:
            return f"{count / unit:,.1f} {prefix}B"
    return f"{count} B"


def shown_memory(count: int) -> str:
    """``17.2 GiB``: in the units that memory is counted in."""
    return f"{count / 2**30:,.1f} GiB"


def shown_span(seconds: float) -> str:
    """``3 d``, ``5 h``, ``2 min``, ``8 s``: the largest unit that fits, rounded down."""
    for name, unit in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= unit:
            return f"{seconds // unit:.0f} {name}"
    return f"{max(0.0, seconds) // 1:.0f} s"
