import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

from longvu_cli.cli.command_tree import commands, root
from longvu_cli.config import Orientation, Quantization
from longvu_cli.token_grid import crop, size_as_read
from longvu_cli.variants import Footprint
from longvu_cli.weights import VARIANTS

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def generator() -> dict[str, Any]:
    return runpy.run_path(str(DOCS / "generate.py"))


def test_the_file_is_what_is_generated(generator: dict[str, Any]) -> None:
    assert (DOCS / "commands.md").read_text(encoding="utf-8") == generator["reference"](), "run docs/generate.py"


def test_every_command_option_variable_and_default_is_in_it() -> None:
    sections = (DOCS / "commands.md").read_text(encoding="utf-8").split("\n## ")
    for command in commands(root()):
        (section,) = [section for section in sections if section.startswith(f"`longvu {command.name}`\n")]
        assert command.help.splitlines()[0] in section
        for option in command.options:
            (row,) = [
                row
                for row in section.splitlines()
                if row.startswith("| `--")
                and f"`{option.flags[0]}" in row
                and row.split("`")[1].split()[0] == option.flags[0]
            ]
            assert all(f"`{flag}" in row for flag in option.flags)
            assert option.variable is None or f"`{option.variable}`" in row
            assert option.default in (None, "") or str(option.default).lower() in row.lower()


def test_the_readme_has_the_same_exit_codes(generator: dict[str, Any]) -> None:
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    for code, _ in generator["exit_codes"]():
        assert f"| {code} | " in readme


def test_no_help_is_missing() -> None:
    for command in commands(root()):
        assert command.help, command.name
        for option in command.options:
            assert option.help, f"{command.name} {option.flags[0]}"
        for argument in command.arguments:
            assert argument.help, f"{command.name} {argument.name}"


# --- numbers of the README that are computed -------------------------------------------------------------------------


def readme_row(start: str) -> list[str]:
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    (row,) = [line for line in readme.splitlines() if line.startswith(start)]
    return [cell.strip() for cell in row.strip("|").split("|")]


@pytest.mark.parametrize("name", ["7b", "3b", "1b"])
def test_the_readme_tells_by_which_memory_models_are_refused(name: str) -> None:
    footprint = Footprint.of(VARIANTS[name])
    held = [(torch.bfloat16, quantize) for quantize in Quantization] + [(torch.float32, Quantization.NONE)]
    needed = [f"{footprint.needed_bytes(dtype, quantize) / 2**30:.1f} GiB" for dtype, quantize in held]
    assert readme_row(f"| `{name}` | {needed[0]} |")[1:] == needed


@pytest.mark.parametrize(("ratio", "size"), [("16:9", (1280, 720)), ("4:3", (1024, 768)), ("9:16", (720, 1280))])
def test_the_readme_tells_what_each_orientation_keeps(ratio: str, size: tuple[int, int]) -> None:
    row = readme_row(f"| {ratio} |")
    for cell, orientation in zip(row[1:], Orientation, strict=True):
        kept = crop(12, size_as_read(*size, orientation=orientation, image=False))
        numbers = [int(number) for number in re.findall(r"\d+", cell)]
        assert numbers == [kept.rows, kept.columns, kept.tokens]
