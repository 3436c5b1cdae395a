"""``longvu models``."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from longvu_cli.cli.errors import OK
from longvu_cli.cli.groups import command_group
from longvu_cli.cli.loading import Announcer
from longvu_cli.cli.options import MODEL, Device, Dinov2, Revision, Siglip, option, with_flags
from longvu_cli.cli.output import Output
from longvu_cli.cli.quantities import shown_memory, shown_size
from longvu_cli.cli.text import neutralise
from longvu_cli.config import DType, ModelOptions, Quantization
from longvu_cli.errors import UsageError, WeightsDamaged

if TYPE_CHECKING:
    import torch
    from rich.table import Table

    from longvu_cli.inventory import Item
    from longvu_cli.variants import Fit
    from longvu_cli.verification import FileCheck

_STATES = {"complete": "downloaded", "partial": "in part", "absent": "", "bundled": "comes with the package"}

models_app = command_group("The models on this machine.")


def list_models(
    output: Output,
    device: Device = "auto",
) -> int:
    """Show the models and towers: their sizes, what is downloaded, and what fits this machine.

    Sizes are those of the released files; the hub is not asked. A model fits if its weights, its towers and a video of
    any length fit into the memory that is free now.
    """
    from longvu_cli.device import free_memory, resolve_device, resolve_dtype
    from longvu_cli.inventory import inventory
    from longvu_cli.records import SCHEMA_VERSION

    place = resolve_device(device)
    dtype, free = resolve_dtype(DType.AUTO, place), free_memory(place)
    rows = [(item, _fits(item, free, dtype, quantizable=place.type == "cuda")) for item in inventory()]
    if output.options.json:
        output.record(
            {
                "schema_version": SCHEMA_VERSION,
                "command": "models list",
                "cache": _cache(),
                "device": {
                    "name": str(place),
                    "dtype": str(dtype).removeprefix("torch."),
                    "free_bytes": free,
                },
                "models": [
                    {**asdict(item), "fits": None if manners is None else [asdict(fit) for fit in manners]}
                    for item, manners in rows
                ],
            }
        )
        return OK
    output.print(_table(rows, f"fits {place}"))
    output.note(f"{shown_memory(free)} free on {place}; the cache is {_cache()}")
    return OK


def download(
    output: Output,
    names: Annotated[
        list[str],
        typer.Argument(help="7b, 3b, 1b (or with -image), dinov2, siglip, or hub repositories.", metavar="NAME..."),
    ],
    revision: Revision = None,
    dinov2: Dinov2 = None,
    siglip: Siglip = None,
) -> int:
    """Download models with their towers, so that they run with --offline.

    What is here already, and right, is not downloaded again.
    """
    from longvu_cli import inventory
    from longvu_cli.cli.bars import Bar
    from longvu_cli.records import SCHEMA_VERSION
    from longvu_cli.weights import repo_named

    repos = [repo_named(name) for name in names]
    announcer = Announcer(output)
    for name, repo in zip(names, repos, strict=True):
        folder = inventory.download(
            name,
            ModelOptions(model=name, revision=revision, dinov2=dinov2, siglip=siglip),
            on_download=announcer.download,
            on_check=announcer.check,
            tqdm_class=Bar if output.animated else None,
        )
        size = inventory.cached_bytes(repo)
        output.record(
            {
                "schema_version": SCHEMA_VERSION,
                "command": "models download",
                "name": name,
                "repository": repo,
                "folder": str(folder),
                "cached_bytes": size,
            }
        )
        if not output.options.json:
            output.line(neutralise(f"{name}  {shown_size(size)}  {folder}"))
    return OK


def remove(
    output: Output,
    names: Annotated[
        list[str],
        typer.Argument(help="7b, 3b, 1b (or with -image), dinov2, siglip, or hub repositories.", metavar="NAME..."),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask. Needed where there is no terminal.")] = False,
) -> int:
    """Delete downloaded models from the cache, with all their revisions.

    The towers stay, for the other models; `dinov2` and `siglip` name them.
    """
    from longvu_cli import inventory
    from longvu_cli.records import SCHEMA_VERSION
    from longvu_cli.weights import repo_named

    repos = list(dict.fromkeys(repo_named(name) for name in names))
    sizes = {repo: inventory.cached_bytes(repo) for repo in repos}
    told = ", ".join(f"{repo} ({shown_size(size)})" for repo, size in sizes.items())
    if not yes:
        if output.options.json or not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise UsageError(f"nothing was deleted of {told}: there is nobody to ask", hint="add --yes")
        if not typer.confirm(f"Delete {neutralise(told)}?", err=True):
            output.note("nothing was deleted")
            return OK
    for repo, size in sizes.items():
        inventory.remove(repo)
        output.record(
            {"schema_version": SCHEMA_VERSION, "command": "models remove", "repository": repo, "bytes_freed": size}
        )
        if not output.options.json:
            output.line(f"{repo}  {shown_size(size)} deleted")
    return OK


def _fits(item: Item, free: int, dtype: torch.dtype, *, quantizable: bool) -> tuple[Fit, ...] | None:
    """None: nothing is known of its size in memory."""
    from longvu_cli.variants import Footprint, fits
    from longvu_cli.weights import VARIANTS

    if item.name not in VARIANTS:
        return None
    return fits(Footprint.of(VARIANTS[item.name]), free, dtype=dtype, quantizable=quantizable)


def _table(rows: Sequence[tuple[Item, tuple[Fit, ...] | None]], last: str) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column("name", overflow="fold")
    table.add_column("download", justify="right")
    table.add_column("on disk", justify="right")
    table.add_column("")
    table.add_column(last)
    for item, manners in rows:
        listed = "" if item.download_bytes is None else "none" if item.repo is None else shown_size(item.download_bytes)
        held = shown_size(item.cached_bytes) if item.cached_bytes else ""
        table.add_row(neutralise(item.name), listed, held, _STATES[item.state.value], _fit_text(item, manners))
    return table


def _fit_text(item: Item, manners: tuple[Fit, ...] | None) -> str:
    if item.repo is None:
        return "yes"
    if manners is None:
        return ""
    best = next((fit for fit in manners if fit.fits), None)
    if best is None:
        least = min(manners, key=lambda fit: fit.needed_bytes)
        how = "" if least.quantization is Quantization.NONE else f" with --quantize {least.quantization}"
        return f"no: needs {shown_memory(least.needed_bytes)}{how}"
    how = "yes" if best.quantization is Quantization.NONE else f"with --quantize {best.quantization}"
    return f"{how}: {shown_memory(best.needed_bytes)}"


def verify(
    output: Output,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="7b, 3b, 1b (or with -image), dinov2, siglip, or hub repositories [all that are here].",
            metavar="NAME...",
        ),
    ] = None,
    offline: Annotated[
        bool,
        option("--offline", panel=MODEL, help="Compare with what the hub said when the files came, without asking it."),
    ] = False,
) -> int:
    """Read the downloaded models again, and compare every file with the hub's digests.

    The exit code is 4 if a file is damaged. What is damaged is downloaded again when the model is next used.
    """
    from huggingface_hub import is_offline_mode

    from longvu_cli import verification
    from longvu_cli.records import SCHEMA_VERSION
    from longvu_cli.verified import Verified

    checks: list[FileCheck] = []
    repos = verification.repos_of(names or [])
    for repo in repos:
        own: list[FileCheck] = []
        for check in verification.verify(repo, offline=offline or is_offline_mode(), verified=Verified.default()):
            own.append(check)
            _show(check, output)
        checks += own
        files = [{**asdict(check), "state": check.state.value} for check in own]
        output.record(
            {"schema_version": SCHEMA_VERSION, "command": "models verify", "repository": repo, "files": files}
        )
    _conclude(checks, repos, output)
    return OK


def _show(check: FileCheck, output: Output) -> None:
    if not output.options.json:
        where = f"{check.repo}@{check.revision[:8]} {check.file}"
        output.line(f"{check.state.value:<8}{check.bytes / 1e6:>12,.1f} MB  {neutralise(where)}")


def _conclude(checks: list[FileCheck], repos: list[str], output: Output) -> None:
    bad = [check for check in checks if check.is_bad]
    total = f"{len(checks)} files, {sum(check.bytes for check in checks) / 1e9:.2f} GB"
    if bad:
        first = bad[0]
        raise WeightsDamaged(
            f"{len(bad)} of {total} are damaged or missing, {first.file} of {first.repo} for one",
            hint=f"what is damaged, and nothing else, is downloaded again by: longvu models download {_named(first)}",
        )
    unknown = sum(check.state.value == "unknown" for check in checks)
    if unknown:
        output.warning(f"{unknown} files could not be compared: the hub did not answer, and the cache has no digest")
    output.note(f"{total} of {', '.join(repos)} compared" if repos else f"no LongVU model is in the cache ({_cache()})")


def _named(check: FileCheck) -> str:
    """How ``longvu models download`` names it; of a tower there is one revision."""
    from longvu_cli.hub import is_main
    from longvu_cli.weights import TOWERS, VARIANTS

    for tower in TOWERS.values():
        if tower.repo == check.repo:
            return tower.name
    name = next((name for name, variant in VARIANTS.items() if variant.repo == check.repo), check.repo)
    return name if is_main(check.repo, check.revision) else f"{name} --revision {check.revision}"


def _cache() -> str:
    from huggingface_hub import constants

    return os.fspath(constants.HF_HUB_CACHE)


models_app.command("list")(with_flags(list_models))
models_app.command("download")(with_flags(download))
models_app.command("verify")(with_flags(verify))
models_app.command("remove")(with_flags(remove))
