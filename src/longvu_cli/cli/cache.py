"""``longvu cache``: the features of videos on disk."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from longvu_cli.cli.errors import OK
from longvu_cli.cli.groups import command_group
from longvu_cli.cli.options import with_flags
from longvu_cli.cli.output import Output
from longvu_cli.cli.quantities import parse_size, parse_span, shown_size, shown_span
from longvu_cli.cli.text import neutralise
from longvu_cli.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from longvu_cli.feature_folder import Entry
    from longvu_cli.records import Record

cache_app = command_group("The features of videos that are kept on disk, for the next question.")


def list_entries(output: Output) -> int:
    """Show which videos' features are kept, the last used first."""
    from longvu_cli.feature_folder import FeatureFolder
    from longvu_cli.records import SCHEMA_VERSION

    folder = FeatureFolder.default()
    entries = folder.entries()
    if output.options.json:
        output.record(
            {
                "schema_version": SCHEMA_VERSION,
                "command": "cache list",
                "path": str(folder.folder),
                "bytes": sum(entry.bytes for entry in entries),
                "entries": [_record(entry) for entry in entries],
            }
        )
        return OK
    if entries:
        output.print(_table(entries))
    total = shown_size(sum(entry.bytes for entry in entries))
    output.note(f"{_counted(len(entries))}, {total}, in {folder.folder}")
    return OK


def prune(
    output: Output,
    max_size: Annotated[
        int | None,
        typer.Option(
            "--max-size",
            parser=parse_size,
            metavar="SIZE",
            help="Let the least recently used go until the rest is no larger: 2GB, 500MB, 1GiB.",
        ),
    ] = None,
    older_than: Annotated[
        float | None,
        typer.Option(
            "--older-than",
            parser=parse_span,
            metavar="SPAN",
            help="Let those go that were not used for so long: 30d, 12h, 90m.",
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Let all go.")] = False,
) -> int:
    """Let features go. They are made again when they are needed.

    Several conditions add up: what meets any of them goes.
    """
    if max_size is None and older_than is None and not everything:
        raise UsageError("it is not said what should go", hint="add --max-size, --older-than or --all")
    from longvu_cli.feature_folder import FeatureFolder
    from longvu_cli.records import SCHEMA_VERSION

    folder = FeatureFolder.default()
    before = {entry.path: entry for entry in folder.entries()}
    try:
        gone = folder.prune(max_bytes=max_size, older_than_s=older_than, everything=everything)
    except OSError as error:
        raise UsageError(
            f"{error.filename} cannot be removed: {error.strerror}", hint="check the permissions of the folder"
        ) from error
    freed = sum(before[path].bytes for path in gone if path in before)
    output.record(
        {
            "schema_version": SCHEMA_VERSION,
            "command": "cache prune",
            "path": str(folder.folder),
            "removed": [path.stem for path in gone],
            "bytes_freed": freed,
            "bytes_left": sum(entry.bytes for path, entry in before.items() if path not in gone),
        }
    )
    if not output.options.json:
        output.line(f"{_counted(len(gone))} removed, {shown_size(freed)} freed")
    return OK


def path(output: Output) -> int:
    """Print the folder. `LONGVU_CACHE_DIR` names another."""
    from longvu_cli.feature_folder import FeatureFolder
    from longvu_cli.records import SCHEMA_VERSION

    folder = FeatureFolder.default().folder
    if output.options.json:
        output.record({"schema_version": SCHEMA_VERSION, "command": "cache path", "path": str(folder)})
    else:
        output.line(neutralise(str(folder)))
    return OK


def _counted(count: int) -> str:
    return "1 entry" if count == 1 else f"{count} entries"


def _record(entry: Entry) -> Record:
    content = entry.content
    return {
        "key": entry.key,
        "bytes": entry.bytes,
        "last_used": datetime.fromtimestamp(entry.used_s, UTC).isoformat(timespec="seconds"),
        "damaged": content is None,
        "video": None if content is None else {"path": content.video, "duration_s": content.duration_s},
        "frames": None if content is None else {"sampled": content.sampled, "kept": content.kept},
    }


def _table(entries: Sequence[Entry]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for name in ("used", "size", "frames kept"):
        table.add_column(name, justify="right")
    table.add_column("video", overflow="fold")
    now = time.time()
    for entry in entries:
        content = entry.content
        kept = "" if content is None else f"{content.kept:,} of {content.sampled:,}"
        video = "damaged: it is made again when it is needed" if content is None else neutralise(content.video)
        table.add_row(f"{shown_span(now - entry.used_s)} ago", shown_size(entry.bytes), kept, video)
    return table


cache_app.command("list")(with_flags(list_entries))
cache_app.command("prune")(with_flags(prune))
cache_app.command("path")(with_flags(path))
