"""The config file: flags that someone always wants, as TOML.

::

    # ~/.config/longvu/config.toml
    model = "3b"
    quantize = "4bit"

    [stats]            # for one command only
    model = "7b"
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

from longvu_cli.cli.evaluate import NeedleFlags
from longvu_cli.cli.options import (
    AnswerFlags,
    CacheFlags,
    CompressionFlags,
    ModelFlags,
    OutputFlags,
    SummaryFlags,
    VideoFlags,
)
from longvu_cli.errors import UsageError

# Names another file, or with an empty value none.
VARIABLE = "LONGVU_CONFIG"

_GROUPS = (ModelFlags, VideoFlags, CompressionFlags, CacheFlags, AnswerFlags, OutputFlags, SummaryFlags, NeedleFlags)
_KEYS = frozenset({field.name for group in _GROUPS for field in fields(group)} | {"save_frames"})
_COMMANDS = ("ask", "describe", "stats", "batch", "demo", "eval", "models", "train", "cache")


def path() -> Path | None:
    """Where the config file is; None: it is switched off."""
    named = os.environ.get(VARIABLE)
    if named is not None:
        return Path(named) if named else None
    from platformdirs import user_config_path

    return user_config_path("longvu") / "config.toml"


def defaults(command: str | None) -> dict[str, Any]:
    """The defaults that the config file gives to the flags of a command, in the form that Typer takes them.

    Raises:
        UsageError: the file is malformed, or has a key that is no flag.
    """
    file = path()
    if command is None or file is None or not (file.is_file() or VARIABLE in os.environ):
        return {}
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"the config file {file} cannot be read: {error}", hint="mend it, or unset LONGVU_CONFIG"
        ) from error
    sections = {name: values.pop(name) for name in _COMMANDS if isinstance(values.get(name), dict)}
    merged = {**values, **sections.get(command, {})}
    chosen: dict[str, Any] = {}
    for key, value in merged.items():
        name = key.replace("-", "_")
        if name not in _KEYS or isinstance(value, dict | list):
            raise UsageError(f"the config file {file} has {key!r}, which is no option", hint="see `longvu ask --help`")
        chosen[name] = value
    return {command: chosen}
