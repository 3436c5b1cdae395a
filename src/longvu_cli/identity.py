"""What a video and a set of weights are, by content: the same wherever they lie and whenever they were touched."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

# Files of a checkpoint that an answer depends on.
_WEIGHTS = frozenset({".safetensors", ".bin", ".json"})
# Pieces of a weight file that its digest reads: training or damage changes every piece, and reading 15 GB takes long.
_PIECES, _PIECE_BYTES = 64, 2**16


def video_digest(path: str) -> str | None:
    """SHA-256 of the whole file; None where there is no regular file that can be read."""
    try:
        if not os.path.isfile(path):  # a pipe or device is never opened
            return None
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError):
        return None


def weights_digest(*folders: Path) -> str:
    """SHA-256 of the names, the sizes and pieces of the weight and config files in these folders."""
    digest = hashlib.sha256()
    for folder in folders:
        for file in sorted(folder.iterdir()):
            if file.suffix in _WEIGHTS and file.is_file():
                digest.update(f"{file.name} {file.stat().st_size}\n".encode())
                for piece in _pieces(file):
                    digest.update(piece)
    return digest.hexdigest()


def _pieces(path: Path) -> Iterator[bytes]:
    size = path.stat().st_size
    with path.open("rb") as file:
        for start in range(0, size, max(_PIECE_BYTES, size // _PIECES)):
            file.seek(start)
            yield file.read(_PIECE_BYTES)
