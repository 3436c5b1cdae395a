"""What processes that import this package need for it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def importing_us(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """An environment in which a new Python finds this package, however this one came to it."""
    package = str(Path(__file__).parents[2])
    path = environment.get("PYTHONPATH")
    return {**environment, "PYTHONPATH": f"{package}{os.pathsep}{path}" if path else package}
