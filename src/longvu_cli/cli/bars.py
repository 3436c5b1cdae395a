"""The bar of a download. Importing it imports huggingface_hub."""

from __future__ import annotations

from typing import Any

from huggingface_hub.utils.tqdm import tqdm

from longvu_cli.cli.text import neutralise


class Bar(tqdm):
    """A bar that shows names of files, which strangers chose, without what a terminal would obey."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        draw: Any = super().__init__
        draw(*args, **{**kwargs, "desc": neutralise(str(kwargs.get("desc") or ""))})

    def set_description(self, desc: str | None = None, refresh: bool | None = True) -> None:
        """See tqdm."""
        draw: Any = super().set_description
        draw(neutralise(desc or ""), refresh)
