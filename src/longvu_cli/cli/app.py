"""The command ``longvu``: registers the commands, reads the config file, and starts."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from longvu_cli import __version__
from longvu_cli.cli.answering import ask, describe
from longvu_cli.cli.batch import batch
from longvu_cli.cli.cache import cache_app
from longvu_cli.cli.chat import chat
from longvu_cli.cli.config import config_app
from longvu_cli.cli.config_file import defaults
from longvu_cli.cli.demo import demo
from longvu_cli.cli.doctor import doctor
from longvu_cli.cli.errors import run
from longvu_cli.cli.evaluate import eval_app
from longvu_cli.cli.models import models_app
from longvu_cli.cli.options import with_flags, with_usual_values
from longvu_cli.cli.output import Output, OutputOptions
from longvu_cli.cli.plan import plan
from longvu_cli.cli.report import report
from longvu_cli.cli.serve import serve
from longvu_cli.cli.statistics import stats
from longvu_cli.cli.train import train_app
from longvu_cli.errors import UsageError

# They say themselves what is wrong with the config file.
_WITHOUT_CONFIG = ("config", "doctor")

app = typer.Typer(
    name="longvu",
    invoke_without_command=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"longvu {__version__}")
        raise typer.Exit


@app.callback()
def longvu(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Answers questions about videos of any length, on your own GPU."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        return
    if not {"-h", "--help"} & set(sys.argv):  # help has to work with a config file that does not
        context.default_map = _configured(context)


def _configured(context: typer.Context) -> dict[str, Any]:
    assert isinstance(context.command, TyperGroup), "the app has several commands"
    try:
        return defaults(context.command)
    except (UsageError, ImportError):
        if context.invoked_subcommand in _WITHOUT_CONFIG:
            return {}
        raise


app.command("demo")(with_flags(demo))
app.command("ask")(with_flags(ask))
app.command("describe")(with_flags(describe))
app.command("stats")(with_flags(stats))
app.command("report")(with_flags(report))
app.command("chat")(with_flags(chat))
app.command("plan")(with_flags(plan))
app.command("batch")(with_flags(batch))
app.command("serve")(with_flags(serve))
app.command("doctor")(with_flags(doctor))
app.add_typer(train_app, name="train")
app.add_typer(eval_app, name="eval")
app.add_typer(models_app, name="models")
app.add_typer(cache_app, name="cache")
app.add_typer(config_app, name="config")


def main() -> None:
    """Entry point of the console script."""
    _open_missing_streams()
    # Libraries that would talk to the terminal are told not to before they are imported.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    # Torch's threads sleep while they wait for each other. By default they spin, and where other programs want the
    # cores, too, that takes ten times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Decoding threads and the one that feeds the GPU take turns; with the usual 5 ms each waits more than it works.
    sys.setswitchinterval(0.0005)
    # On its way out the interpreter would search all that torch is made of for garbage: a second more after Ctrl-C.
    atexit.register(gc.freeze)
    for stream in (sys.stdout, sys.stderr):
        # A terminal or pipe that cannot show a character gets its escape, not an error in the middle of an answer.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    # For what goes wrong before the flags are parsed.
    as_json = "--json" in sys.argv or os.environ.get("LONGVU_JSON", "").lower() in ("1", "true", "yes", "on")
    sys.exit(run(Output(OutputOptions(json=as_json)), _start))


def _open_missing_streams() -> None:
    """A stream that the process was started without (``>&-``) leads nowhere.

    Else the next file that is opened would take its place, and be written to in its stead.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))


def _start() -> int:
    try:
        code = app(with_usual_values(sys.argv[1:]), standalone_mode=False, prog_name="longvu")
    except typer.TyperException as error:
        raise UsageError(error.format_message(), hint="see `longvu COMMAND --help`") from error
    return code if isinstance(code, int) else 0
