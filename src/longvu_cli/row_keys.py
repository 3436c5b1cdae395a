"""What a row is: the same work as another when video, question, model and settings are the same."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from longvu_cli.identity import video_digest
from longvu_cli.manifest import Misfit, Row
from longvu_cli.subtitles import AUTO, sidecar

# Raised when the same row gets another key in a new version of this package.
_FORMAT = 1


def row_key(row: Row, content: str | None, model_identity: str) -> str:
    """The identity of a row; a video that cannot be read is identified by its path.

    Args:
        content: digest of the video, if it can be read.
    """
    return _digest(_facts(row, content, model_identity) | _subtitles(row))


def row_place(row: Row, model_identity: str) -> str:
    """What remains of a row's identity when the content of its video, or of its subtitles, changes."""
    return _digest({"place": _digest(_facts(row, None, model_identity))})


def misfit_key(misfit: Misfit, manifest: str) -> str:
    """The identity of a row that cannot be read: its place in the manifest, and its text."""
    return _digest({"manifest": manifest, "row": misfit.number, "text": misfit.digest})


def _facts(row: Row, content: str | None, model_identity: str) -> dict[str, object]:
    return {
        "format": _FORMAT,
        "video": {"path": os.path.abspath(row.video)} if content is None else content,
        "question": row.question,
        "model": model_identity,
        "settings": row.settings.changed(),
    }


def _subtitles(row: Row) -> dict[str, object]:
    """The content of the file of subtitles; those within the video are part of its own."""
    named = row.settings.prompting.subtitles
    if named is None:
        return {}
    file = sidecar(Path(row.video)) if named == AUTO else Path(named)
    return {"subtitles": None if file is None else video_digest(str(file))}


def _digest(facts: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
