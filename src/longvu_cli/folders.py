"""Where this package keeps what it can make again."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

# Names another folder.
VARIABLE = "LONGVU_CACHE_DIR"


def cache_folder() -> Path:
    """The user's own, where platformdirs or ``LONGVU_CACHE_DIR`` says."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else platformdirs.user_cache_path("longvu")
