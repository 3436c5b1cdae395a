import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import longvu_cli
from cli.conftest import Longvu
from cli.running import run

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "transformers", "av", "huggingface_hub", "numpy", "safetensors", "rich.progress")
COMMANDS = ("ask", "describe", "stats", "batch")


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_help_lists_the_commands(longvu: Longvu, arguments: tuple[str, ...]) -> None:
    ran = longvu(*arguments)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("Usage: longvu ")
    for command in (*COMMANDS, "eval"):
        assert f"\n  {command} " in ran.out


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_each_command_has_help(longvu: Longvu, command: str, flag: str) -> None:
    ran = longvu(command, flag)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(f"Usage: longvu {command} ")
    assert ("MANIFEST" if command == "batch" else "VIDEO") in ran.out.splitlines()[0]


def test_the_version(longvu: Longvu) -> None:
    ran = longvu("--version")
    assert (ran.code, ran.out, ran.err) == (0, f"longvu {longvu_cli.__version__}\n", "")


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["ask", "--help"], ["eval", "needle", "--help"], ["stats", "--fps=0", "a.mp4"]],
)
def test_nothing_heavy_is_imported_for(arguments: list[str]) -> None:
    code = (
        f"import sys; sys.argv = ['longvu', *{arguments!r}]\n"
        "from longvu_cli.cli.app import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        f"print('loaded:', *[name for name in {HEAVY!r} if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "loaded:"


def test_torchs_threads_sleep_while_they_wait_unless_told_otherwise(
    longvu: Longvu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    longvu("--version")
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"
    monkeypatch.delenv("OMP_WAIT_POLICY")
    longvu("--version")
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"


def test_the_console_script_is_this_function() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"longvu": "longvu_cli.cli.start:main"}


def test_the_real_command_starts(cli_environment: dict[str, str]) -> None:
    ran = run(["--version"], cli_environment)
    assert (ran.code, ran.out, ran.err) == (0, f"longvu {longvu_cli.__version__}\n", "")
