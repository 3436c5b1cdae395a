import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib import import_module, metadata
from pathlib import Path

import pytest

import longvu_cli

ROOT = Path(__file__).parents[1]
CHANGELOG = ROOT / "CHANGELOG.md"
TINY = Path("src", "longvu_cli", "tiny")
MAX_TINY_BYTES, MAX_CLIP_BYTES = 24_000_000, 2_000_000


@pytest.mark.parametrize("name", longvu_cli.__all__)
def test_each_public_name_can_be_imported(name: str) -> None:
    thing = getattr(longvu_cli, name)
    assert thing.__name__ == name
    assert thing.__module__.startswith("longvu_cli.")
    assert getattr(import_module(thing.__module__), name) is thing
    assert name in dir(longvu_cli)


def test_the_public_names_are_listed_in_order_and_once() -> None:
    assert longvu_cli.__all__ == sorted(set(longvu_cli.__all__))
    assert set(longvu_cli.__all__) == set(longvu_cli._HOMES)


def test_other_names_are_not_there() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = longvu_cli.nothing


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys, longvu_cli; before = 'torch' in sys.modules or 'transformers' in sys.modules\n"
        "from longvu_cli import SamplingOptions, LongVUError\n"
        "print(before, [name for name in ('torch', 'transformers', 'av', 'typer', 'rich') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "False []\n"


def test_a_star_import_gives_the_public_names() -> None:
    namespace: dict[str, object] = {}
    exec("from longvu_cli import *", namespace)
    assert set(longvu_cli.__all__) <= set(namespace)


def test_the_version_is_that_of_the_installed_package() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+(?:(?:a|b|rc)\d+)?", longvu_cli.__version__)
    try:
        installed = metadata.version("longvu-cli")
    except metadata.PackageNotFoundError:
        pytest.skip("the package is on the path, not installed")
    assert installed == longvu_cli.__version__


@pytest.mark.skipif(not CHANGELOG.is_file(), reason="there is no changelog")
def test_the_version_is_the_newest_of_the_changelog() -> None:
    headings = re.findall(r"^## \[(.+?)\](.*)$", CHANGELOG.read_text(encoding="utf-8"), re.MULTILINE)
    released = [(version, date) for version, date in headings if version.lower() != "unreleased"]
    assert released[0][0] == longvu_cli.__version__
    assert all(re.fullmatch(r" - \d{4}-\d\d-\d\d", date) for _, date in released)


def test_the_project_file() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert (project["name"], project["dynamic"]) == ("longvu-cli", ["version"])
    module, _, function = project["scripts"]["longvu"].partition(":")
    assert callable(getattr(import_module(module), function))
    for file in (project["readme"], *project["license-files"]):
        assert (ROOT / file).is_file()


def test_the_package_says_that_it_is_typed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert "Typing :: Typed" in project["classifiers"]
    assert (Path(longvu_cli.__file__).parent / "py.typed").is_file()


# --- the tiny model and its clip --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundled() -> set[str]:
    """The files of the tiny folder, from there."""
    return {file.relative_to(ROOT / TINY).as_posix() for file in (ROOT / TINY).rglob("*") if file.is_file()}


@pytest.mark.parametrize("target", ["wheel", "sdist"])
def test_what_is_distributed_holds_the_tiny_model_and_its_clip(bundled: set[str], target: str, tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    (built,) = tmp_path.iterdir()
    if target == "wheel":
        with zipfile.ZipFile(built) as archive:
            names = {name.removeprefix("longvu_cli/tiny/") for name in archive.namelist()}
    else:
        with tarfile.open(built) as archive:
            within = f"{built.name.removesuffix('.tar.gz')}/{TINY.as_posix()}/"
            names = {name.removeprefix(within) for name in archive.getnames()}
    assert bundled and bundled <= names
    assert any(name.endswith("reporting/templates/report.html.jinja") for name in names)


def test_the_tiny_folder_is_small() -> None:
    sizes = {file: file.stat().st_size for file in (ROOT / TINY).rglob("*") if file.is_file()}
    assert sum(sizes.values()) <= MAX_TINY_BYTES
    assert sizes[ROOT / TINY / "demo.mp4"] <= MAX_CLIP_BYTES


def test_the_tiny_model_is_complete(bundled: set[str]) -> None:
    if "config.json" not in bundled:
        pytest.skip("the tiny model is not here")
    towers = {f"{tower}/{file}" for tower in ("dinov2", "siglip") for file in ("config.json", "model.safetensors")}
    assert {"config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors", *towers} <= bundled
