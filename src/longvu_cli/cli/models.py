"""``longvu models``."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from longvu_cli.cli.errors import OK
from longvu_cli.cli.options import with_flags
from longvu_cli.cli.output import Output
from longvu_cli.cli.text import neutralise
from longvu_cli.errors import WeightsDamaged

if TYPE_CHECKING:
    from longvu_cli.verification import FileCheck

models_app = typer.Typer(
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="The models on this machine.",
)


@models_app.callback()
def models(context: typer.Context) -> None:
    """The models on this machine."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        return
    # The defaults of the config file were handed to `models`; they are meant for what comes after it.
    context.default_map = {context.invoked_subcommand: context.default_map or {}}


def verify(
    output: Output,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="7b, 3b, 1b (or with -image), or hub repositories [all LongVU models and towers].", metavar="NAME..."
        ),
    ] = None,
    offline: Annotated[
        bool,
        typer.Option(
            "--offline",
            envvar="LONGVU_OFFLINE",
            show_envvar=False,
            rich_help_panel="Model",
            help="Compare with what the hub said when the files came, without asking it.",
        ),
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
            hint=f"what is damaged, and nothing else, is downloaded again by: "
            f'longvu ask VIDEO "QUESTION" --model {_named(first)}',
        )
    unknown = sum(check.state.value == "unknown" for check in checks)
    if unknown:
        output.warning(f"{unknown} files could not be compared: the hub did not answer, and the cache has no digest")
    output.note(f"{total} of {', '.join(repos)} compared" if repos else f"no LongVU model is in the cache ({_cache()})")


def _named(check: FileCheck) -> str:
    """How the options name the model; a tower is fetched with any model."""
    from longvu_cli.hub import is_main
    from longvu_cli.weights import DINOV2_REPO, SIGLIP_REPO, VARIANTS

    if check.repo in (DINOV2_REPO, SIGLIP_REPO):
        return "MODEL"
    name = next((name for name, variant in VARIANTS.items() if variant.repo == check.repo), check.repo)
    return name if is_main(check.repo, check.revision) else f"{name} --revision {check.revision}"


def _cache() -> str:
    from huggingface_hub import constants

    return os.fspath(constants.HF_HUB_CACHE)


models_app.command("verify")(with_flags(verify))
