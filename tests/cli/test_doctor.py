import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import longvu_cli
from cli.conftest import Longvu
from cli.running import environment
from longvu_cli.doctor import OPTIONAL, REQUIRED, Area, Finding, Level

QUICK = ("doctor", "--offline", "--no-self-test", "--device=cpu")


def test_everything_is_looked_at_and_told_in_both_forms(longvu: Longvu) -> None:
    ran = longvu(*QUICK)
    assert (ran.code, ran.err) == (0, "longvu: no problem; this machine can run something\n")
    headings = [line for line in ran.out.splitlines() if not line.startswith(" ")]
    assert headings == ["settings", "terminal", "system", "libraries", "device", "decoding", "hub", "disk"]
    record = json.loads(longvu(*QUICK, "--json").out)
    assert record["can_run"] is True
    assert {finding["area"] for finding in record["findings"]} == set(Area) - {"self-test"}
    assert {"LONGVU_MODEL"} <= set(next(f["value"] for f in record["findings"] if f["name"] == "variables").split(", "))


def test_a_machine_that_can_run_nothing(longvu: Longvu) -> None:
    ran = longvu("doctor", "--offline", "--no-self-test", "--device=cuda:7")
    assert ran.code == 5
    assert "  problem device: there is no cuda:7: " in ran.out
    assert "          → use --device auto or cpu\n" in ran.out
    assert ran.err == "longvu: 1 problem; this machine can run nothing as it is\n"


def test_what_is_found_is_told_at_once(longvu: Longvu, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken_off(device: str, *, offline: bool, self_test: bool) -> Iterator[Finding]:
        yield Finding(Area.SYSTEM, "memory", Level.OK, "enough")
        raise KeyboardInterrupt

    monkeypatch.setattr("longvu_cli.doctor.examine", broken_off)
    ran = longvu(*QUICK)
    assert ran.code == 130
    assert ran.out.endswith("system\n  ok      memory: enough\n")


def test_a_config_file_that_is_wrong_is_a_finding(
    longvu: Longvu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "config.toml"
    file.write_text("colour = 3\n")
    monkeypatch.setenv("LONGVU_CONFIG", str(file))
    ran = longvu(*QUICK)
    assert ran.code == 0
    assert f"  problem config file: the config file {file} has 'colour', which is no option\n" in ran.out


BLOCK = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {names!r}:
            {raising}
sys.meta_path.insert(0, Block())
sys.argv = ["longvu", "doctor", "--json"]
from longvu_cli.cli.app import main
main()
"""


@pytest.mark.parametrize(
    ("raising", "told"),
    [
        ("raise ModuleNotFoundError(f'No module named {name!r}', name=name)", "not installed"),
        ("raise OSError('libcudart.so.99: cannot open shared object file')", "broken: OSError: libcudart"),
    ],
)
def test_libraries_that_are_missing_or_broken_are_findings(tmp_path: Path, raising: str, told: str) -> None:
    names = {*REQUIRED, *OPTIONAL} - {"typer", "pydantic", "rich"}  # without these no command starts
    done = subprocess.run(
        [sys.executable, "-c", BLOCK.format(names=names, raising=raising)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**environment(tmp_path), "PYTHONPATH": str(Path(longvu_cli.__file__).parents[1])},
    )
    assert done.returncode == 5, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    record = json.loads(done.stdout)
    assert record["can_run"] is False
    libraries = {f["name"]: f for f in record["findings"] if f["area"] == "libraries"}
    for module, distribution in REQUIRED.items():
        finding = libraries[distribution]
        if module in names:
            assert (finding["level"], finding["value"].startswith(told)) == ("problem", True), finding
            assert finding["advice"] == f"pip install --force-reinstall {distribution}"
        else:
            assert finding["level"] == "ok"
    for module, (distribution, _) in OPTIONAL.items():
        assert libraries[distribution]["level"] == ("note" if module in names else "ok")
    assert {f["area"] for f in record["findings"]} == set(Area)
