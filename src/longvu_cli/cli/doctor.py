"""``longvu doctor``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from itertools import chain
from typing import Annotated

import typer

from longvu_cli import doctor as checks
from longvu_cli.cli import config_file
from longvu_cli.cli.command_tree import root
from longvu_cli.cli.errors import OK, exit_code
from longvu_cli.cli.options import MODEL, Device, option
from longvu_cli.cli.output import Output
from longvu_cli.cli.text import neutralise
from longvu_cli.doctor import Area, Finding, Level
from longvu_cli.errors import DeviceUnavailable, LongVUError
from longvu_cli.records import SCHEMA_VERSION

_INDENT = " " * 10


def doctor(
    output: Output,
    device: Device = "auto",
    offline: Annotated[bool, option("--offline", panel=MODEL, help="Do not ask the hub.")] = False,
    self_test: Annotated[
        bool,
        typer.Option("--self-test/--no-self-test", help="Have the tiny model answer a question of the demo."),
    ] = True,
) -> int:
    """Look at this machine: what it can run, what is missing, and what to do about it.

    The exit code is 0 when something can run (the self-test tells), and 5 when nothing can. Tokens are never shown.
    """
    findings: list[Finding] = []
    for finding in chain(_own(output), checks.examine(device, offline=offline, self_test=self_test)):
        if not output.options.json:
            _show(finding, output, first=not findings or findings[-1].area is not finding.area)
        findings.append(finding)
    runs = checks.can_run(findings)
    if output.options.json:
        output.record(
            {
                "schema_version": SCHEMA_VERSION,
                "command": "doctor",
                "can_run": runs,
                "findings": [asdict(finding) for finding in findings],
            }
        )
    problems = sum(finding.level is Level.PROBLEM for finding in findings)
    told = f"{problems} problem{'' if problems == 1 else 's'}" if problems else "no problem"
    output.note(f"{told}; {'this machine can run something' if runs else 'this machine can run nothing as it is'}")
    return OK if runs else exit_code(DeviceUnavailable(""))


def _show(finding: Finding, output: Output, *, first: bool) -> None:
    if first:
        output.line(f"{finding.area.value}")
    output.line(neutralise(f"  {finding.level.value:<8}{finding.name}: {finding.value}"))
    if finding.advice:
        output.line(neutralise(f"{_INDENT}→ {finding.advice}"))


def _own(output: Output) -> Iterator[Finding]:
    """What only the command line knows."""
    yield _config()
    # Not their values: a variable may name anything.
    names = sorted(name for name in os.environ if name.startswith("LONGVU_"))
    yield Finding(Area.SETTINGS, "variables", Level.OK, ", ".join(names) or "no LONGVU_ variable is set")
    yield _terminal(output)


def _config() -> Finding:
    try:
        file = config_file.path()
        config_file.defaults(root())
    except LongVUError as error:
        return Finding(Area.SETTINGS, "config file", Level.PROBLEM, error.message, error.hint)
    except ImportError as error:
        return Finding(Area.SETTINGS, "config file", Level.PROBLEM, f"it cannot be found: {error}")
    if file is None:
        return Finding(Area.SETTINGS, "config file", Level.OK, "switched off")
    there = "" if file.is_file() else " (not there, and not needed)"
    return Finding(Area.SETTINGS, "config file", Level.OK, f"{file}{there}")


def _terminal(output: Output) -> Finding:
    encoding = (sys.stdout.encoding or "unknown").lower()
    kind = "a terminal" if sys.stdout.isatty() else "no terminal"
    moving = "bars move" if output.animated else "nothing moves"
    value = f"{kind}, {encoding}, TERM={os.environ.get('TERM', '')}, {moving}"
    if encoding.replace("-", "") == "utf8":
        return Finding(Area.TERMINAL, "output", Level.OK, value)
    return Finding(
        Area.TERMINAL,
        "output",
        Level.NOTE,
        f"{value}: characters that it does not have are shown as escapes",
        "set LANG to a UTF-8 locale, such as C.UTF-8",
    )
