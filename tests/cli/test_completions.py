import os
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest

from cli.running import command, run

COMPLETIONS = Path(__file__).parents[2] / "completions"


def test_the_scripts_are_what_is_generated() -> None:
    generated = runpy.run_path(str(COMPLETIONS / "generate.py"))["scripts"]()
    stored = {
        file.name: file.read_text() for file in COMPLETIONS.iterdir() if file.suffix in (".bash", ".zsh", ".fish")
    }
    assert set(generated) == {"longvu.bash", "longvu.zsh", "longvu.fish"}
    assert stored == generated, "run completions/generate.py"


def test_the_scripts_are_those_that_the_command_prints(cli_environment: dict[str, str]) -> None:
    # The command looks at the shell that it was started from, which would be that of whoever runs the tests.
    started_by_bash = ["bash", "-c", '"$@"; exit $?', "bash", *command(), "--show-completion"]
    ran = subprocess.run(started_by_bash, env=cli_environment, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, (COMPLETIONS / "longvu.bash").read_text())


def test_zsh_can_load_the_script_from_fpath() -> None:
    lines = (COMPLETIONS / "longvu.zsh").read_text().splitlines()
    assert lines[0] == "#compdef longvu"
    assert lines[-1] == "compdef _longvu_completion longvu"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            "longvu ",
            {
                "ask",
                "batch",
                "cache",
                "chat",
                "config",
                "demo",
                "describe",
                "doctor",
                "eval",
                "models",
                "plan",
                "report",
                "serve",
                "stats",
                "train",
            },
        ),
        ("longvu ask --dino", {"--dinov2", "--dino-threshold"}),
        ("longvu eval ", {"egoschema", "jsonl", "mlvu", "mvbench", "needle", "videomme", "world"}),
        ("longvu config ", {"init", "path", "show"}),
        ("longvu models ", {"download", "list", "remove", "verify"}),
        ("longvu cache ", {"list", "path", "prune"}),
        ("longvu train ", {"finetune", "world"}),
    ],
)
def test_the_command_completes(cli_environment: dict[str, str], words: str, expected: set[str]) -> None:
    asked = {"_LONGVU_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    ran = run([], {**cli_environment, **asked})
    assert (ran.code, set(ran.out.split()), ran.err) == (0, expected, "")


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_takes_the_script() -> None:
    script = COMPLETIONS / "longvu.bash"
    told = subprocess.run(
        ["bash", "-c", f"source '{script}'; complete -p longvu"],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"]},
        check=True,
    )
    assert told.stdout.strip().endswith("longvu")
    assert told.stderr == ""
