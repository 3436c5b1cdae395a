"""A process that works off a manifest with answers that cost nothing: what tests kill.

::

    python batch_worker.py MANIFEST OUTPUT LOG SECONDS

LOG gets a line with the number of a row when a row is begun; a row takes SECONDS.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from longvu_cli.batch import Batch
from longvu_cli.config import CompressionOptions, GenerationOptions, SamplingOptions
from longvu_cli.engines.plain import Plain
from longvu_cli.errors import VideoNotFound
from longvu_cli.manifest import Row, Settings, read_manifest
from longvu_cli.records import Record
from longvu_cli.result_file import ResultFile

DEFAULTS = Settings(SamplingOptions(), CompressionOptions(), GenerationOptions())
# Long enough for a line to be several pages, so that a kill can tear it.
PADDING = "x" * 50_000


def main() -> None:
    """Work off the manifest."""
    manifest, output, log, seconds = sys.argv[1:]
    begun = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def answer(row: Row) -> Record:
        os.write(begun, f"{row.number}\n".encode())
        time.sleep(float(seconds))
        if not os.path.exists(row.video):
            raise VideoNotFound(f"{row.video}: no such file")
        return {"schema_version": 1, "answer": row.question.upper(), "padding": PADDING}

    rows = read_manifest(Path(manifest).read_bytes(), manifest, DEFAULTS)
    with ResultFile(Path(output)) as results:
        Batch(rows, results, engine=Plain("fake", 8192, answer)).run()


if __name__ == "__main__":
    main()
