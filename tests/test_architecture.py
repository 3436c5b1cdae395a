"""The rules of the house: which module may import which, and what importing the package costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import longvu_cli

SOURCE = Path(longvu_cli.__file__).parent
PACKAGE = "longvu_cli"
# What every room may build on.
BASE = {"config", "cues", "errors", "interpolation", "moments", "statistics"}
# What one room may use of another.
ALLOWED = {
    "towers": {"preprocess"},
    "confinement": set(),
    "cut_off": {"video_file"},
    "decoding_server": {
        *("confinement", "decoder_log", "frames", "source"),
        *("subtitles", "text_track", "video_file", "watchdog"),
    },
    "group_decoder": {"frames", "groups", "pixels", "side_by_side"},
    "groups": {"sampling"},
    "isolation": {"frames", "video_file"},
    "language_model": {"prompt_attention", "step_attention"},
    "nvdec": {"side_by_side"},
    "gpu_squares": {"device", "preprocess"},
    "square_frames": {"frames", "gpu_squares", "preprocess", "timing"},
    "pixels": {"frames"},
    "prompt_attention": {"step_attention"},
    "subtitles": {"video_file"},
    "text_track": {"source"},
    "source": {
        *("cut_off", "decoder_log", "frames", "group_decoder", "groups", "nvdec"),
        *("pixels", "sampling", "side_by_side", "video_file"),
    },
    "video": {"frames", "isolation", "sampling", "source", "subtitles", "text_track", "video_file"},
}
ROOMS = (
    "confinement",
    "cut_off",
    "decoder_log",
    "decoding_server",
    "evidence",
    "frames",
    "group_decoder",
    "groups",
    "isolation",
    "nvdec",
    "pixels",
    "sampling",
    "side_by_side",
    "source",
    "subtitles",
    "text_track",
    "video",
    "video_file",
    "watchdog",
    "gpu_squares",
    "preprocess",
    "square_frames",
    "towers",
    "sva",
    "token_grid",
    "prompt",
    "language_model",
    "prompt_attention",
    "statistics",
    "step_attention",
    *sorted(f"compression.{path.stem}" for path in (SOURCE / "compression").glob("[!_]*.py")),
)
BELOW_CLI = sorted(path for path in SOURCE.rglob("*.py") if path.relative_to(SOURCE).parts[0] != "cli")


def imported_by(path: Path) -> set[str]:
    """Every module that a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            assert node.module is not None
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def own_modules(path: Path) -> set[str]:
    """The modules of the package that a file imports, without the package's name."""
    names = {name.removeprefix(f"{PACKAGE}.") for name in imported_by(path) if name.startswith(f"{PACKAGE}.")}
    return {name for name in names if (SOURCE / f"{name.replace('.', '/')}.py").is_file()}


def test_the_rooms_are_all_here() -> None:
    assert len(ROOMS) >= 8 + 5
    for room in ROOMS:
        assert (SOURCE / f"{room.replace('.', '/')}.py").is_file()


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_do_not_import_each_other(room: str) -> None:
    modules = own_modules(SOURCE / f"{room.replace('.', '/')}.py")
    assert modules <= BASE | ALLOWED.get(room, set())


@pytest.mark.parametrize("base", sorted(BASE))
def test_base_modules_import_base_modules_only(base: str) -> None:
    assert own_modules(SOURCE / f"{base}.py") <= BASE


@pytest.mark.parametrize("path", BELOW_CLI, ids=lambda path: str(path.relative_to(SOURCE)))
def test_nothing_below_the_command_line_imports_rich_or_typer(path: Path) -> None:
    top = {name.split(".")[0] for name in imported_by(path)}
    assert not top & {"rich", "typer", "click"}
    assert not any(name == f"{PACKAGE}.cli" or name.startswith(f"{PACKAGE}.cli.") for name in imported_by(path))


@pytest.mark.parametrize("path", BELOW_CLI, ids=lambda path: str(path.relative_to(SOURCE)))
def test_nothing_below_the_command_line_prints(path: Path) -> None:
    calls = [node.func for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    assert not any(isinstance(call, ast.Name) and call.id in ("print", "input") for call in calls)


HEAVY = ("torch", "transformers", "av", "accelerate", "bitsandbytes", "fastapi", "uvicorn", "pydantic", "httpx2", "ray")


@pytest.mark.parametrize("module", ["longvu_cli", "longvu_cli.config", "longvu_cli.errors", "longvu_cli.cli.app"])
def test_importing_does_not_wait_for_the_heavy_libraries(module: str) -> None:
    if (
        not (SOURCE.parent / f"{module.replace('.', '/')}.py").is_file()
        and not (SOURCE.parent / module.replace(".", "/") / "__init__.py").is_file()
    ):
        pytest.skip(f"there is no {module}")
    code = f"import sys, {module}; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        env={"PYTHONPATH": str(SOURCE.parent), "PATH": ""},
    )
    assert done.stderr == ""
    assert done.stdout.split() == []


@pytest.mark.parametrize("engine", ["processes", "ray_workers"])
def test_who_hands_out_rows_to_processes_imports_no_model_and_no_ray(engine: str) -> None:
    imported = f"import sys, longvu_cli.batch, longvu_cli.engines.{engine}"
    code = f"{imported}; sys.exit(bool({{'torch', 'ray'}} & {{*sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], timeout=120, env={"PYTHONPATH": str(SOURCE.parent), "PATH": ""})
    assert done.returncode == 0


@pytest.mark.parametrize("name", longvu_cli.__all__)
def test_every_public_name_can_be_imported(name: str) -> None:
    assert getattr(longvu_cli, name).__name__ == name
    assert name in dir(longvu_cli)


def test_other_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = longvu_cli.nothing
