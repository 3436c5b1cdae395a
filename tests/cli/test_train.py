import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cli.conftest import Longvu
from cli.running import PARITY, PATIENCE_S, QUESTION
from longvu_cli.cli.train import WorldStage
from longvu_cli.training import world_stages
from longvu_cli.training.loop import LogRow
from longvu_cli.training.world import Stage
from longvu_cli.training.world_stages import StageResult, WorldTrained

SHORT = ("--fps=0.05", "--context-length=400", "--dino-threshold=0.6")
FEW = ("--steps=2", "--batch=2", "--log-every=1", "--lora-rank=2")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two examples, with paths relative to the file."""
    file = tmp_path / "data.jsonl"
    clips = [os.path.relpath(PARITY / name, tmp_path) for name in ("tiny_context.mkv", "square_mixed.mkv")]
    lines = [{"video": clip, "question": QUESTION, "answer": "There."} for clip in clips]
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return file


def test_the_written_folder_is_a_model_to_ask(longvu: Longvu, data: Path, tmp_path: Path, clip: Path) -> None:
    folder = tmp_path / "new"
    ran = longvu("train", "finetune", data, "--output", folder, *SHORT, *FEW, "--json")
    assert ran.code == 0, ran
    record = json.loads(ran.out)
    assert record["command"] == "train finetune"
    assert (record["steps"], record["examples"], record["videos"]) == (2, 2, 2)
    assert record["files"] == [str(folder / "model.safetensors")]
    assert record["loss"] > 0
    assert "longvu: step 1 (50%): loss" in ran.err
    assert f"--model {folder}" in ran.err
    assert (folder / "training" / "log.png").is_file()
    asked = longvu("ask", clip, QUESTION, "--model", folder, "--max-new-tokens=2", "--json", "--no-cache")
    assert asked.code == 0, asked
    assert json.loads(asked.out)["model"]["source"] == str(folder)


def test_it_goes_on_with_resume_only(longvu: Longvu, data: Path, tmp_path: Path) -> None:
    words = ("train", "finetune", data, "--output", tmp_path / "new", *SHORT, *FEW)
    first = longvu(*words, "--quiet")
    assert (first.code, first.out, first.err) == (0, "", "")
    again = longvu(*words)
    assert again.code == 2
    assert "go on with it with --resume" in again.err
    resumed = longvu(*words, "--resume", "--json")
    assert resumed.code == 0, resumed
    assert json.loads(resumed.out)["steps"] is None  # there was nothing left to do


@pytest.mark.parametrize(
    ("line", "flags", "message"),
    [
        ("{}", (), "line 3: video is missing"),
        ("", ("--train=towers",), "'towers' is no part that is trained"),
        ("", ("--epochs=1", "--steps=1"), "exclude each other"),
        ("", ("--quantize=4bit",), "4bit is not trained"),
    ],
    ids=str,
)
def test_what_is_wrong_is_told_before_anything_is_loaded(
    longvu: Longvu, data: Path, tmp_path: Path, line: str, flags: tuple[str, ...], message: str
) -> None:
    data.write_text(data.read_text() + line)
    nowhere = ("--model", tmp_path / "nowhere")
    ran = longvu("train", "finetune", data, "--output", tmp_path / "new", *nowhere, *flags, "--json")
    assert ran.code == 2, ran
    assert message in json.loads(ran.out)["error"]["message"]
    assert not (tmp_path / "new").exists()


def test_the_config_file_counts(longvu: Longvu, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f'[train]\nmodel = "{tmp_path / "nowhere"}"\n')
    monkeypatch.setenv("LONGVU_CONFIG", str(config))
    monkeypatch.delenv("LONGVU_MODEL")
    ran = longvu("train", "finetune", data, "--output", tmp_path / "new")
    assert ran.code == 4, ran
    assert "nowhere" in ran.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("train",), "world"),
        (("train", "--help"), "finetune"),
        (("train", "finetune", "--help"), "finetune"),
        (("train", "world", "--help"), "--minutes"),
    ],
    ids=str,
)
def test_help_is_quick(words: tuple[str, ...], told: str, cli_environment: dict[str, str]) -> None:
    code = (
        "import sys; from longvu_cli.cli.app import main\n"
        f"sys.argv[:] = ['longvu', *{words!r}]\n"
        "try: main()\n"
        "finally: print('HEAVY', *[n for n in ('torch', 'transformers', 'accelerate', 'av') if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S, env=cli_environment
    )
    assert done.returncode == 0, done.stderr
    assert told in done.stdout
    assert done.stdout.strip().endswith("HEAVY")


def test_two_processes_train_together(data: Path, tmp_path: Path, cli_environment: dict[str, str]) -> None:
    folder = tmp_path / "new"
    words: list[Any] = ["train", "finetune", data, "--output", folder, *SHORT, *FEW, "--json", "--device=cpu"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    program = tmp_path / "longvu.py"
    program.write_text("from longvu_cli.cli.app import main\nmain()\n")
    done = subprocess.run(
        [*launcher, str(program), *map(str, words)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        env=cli_environment,
    )
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)  # one, of the main process
    assert record["steps"] == 2
    assert (folder / "model.safetensors").is_file()


TOY = ("--steps=1", "--scale=0.01", "--workers=0")


def test_a_stage_of_the_world_is_trained(longvu: Longvu, tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    ran = longvu("train", "world", "towers", "--output", folder, *TOY, "--json")
    assert ran.code == 0, ran
    record = json.loads(ran.out)
    assert (record["command"], record["output"], record["shipped"]) == ("train world", str(folder), None)
    (stage,) = record["stages"]
    assert (stage["stage"], stage["steps"]) == ("towers", 1)
    assert stage["loss"] > 0
    assert {"dinov2_drawing", "siglip_colour"} <= set(stage["values"])
    assert "longvu: towers  step      1  100%  loss " in ran.err
    assert (folder / "training" / "towers" / "log.png").is_file()
    again = longvu("train", "world", "towers", "--output", folder, *TOY)
    assert again.code == 2
    assert "go on with it with --resume" in again.err
    resumed = longvu("train", "world", "towers", "--output", folder, *TOY, "--resume", "--json", "--quiet")
    assert (resumed.code, resumed.err) == (0, "")
    assert json.loads(resumed.out)["stages"][0]["steps"] is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("images",), "there are no towers"),
        (("videos",), "there are no towers"),
        (("towers", "--steps=1", "--minutes=1"), "exclude each other"),
        (("towers", "--minutes=0"), "--minutes 0 is too small"),
        (("towers", "--learning-rate=-1"), "--learning-rate -1 is too small"),
        (("towers", "--scale=2"), "2.0 is no scale"),
        (("towers", "--steps=0"), "0 is no number of steps"),
        (("towers", "--workers=-1"), "workers"),
        (("towers", "--run=-1"), "run"),
        (("pictures",), "pictures"),
    ],
    ids=str,
)
def test_what_is_wrong_with_the_training_of_the_world_is_told(
    longvu: Longvu, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    ran = longvu("train", "world", *words, "--output", tmp_path / "tiny", "--json")
    assert ran.code == 2, ran
    assert message in json.loads(ran.out)["error"]["message"]
    assert not (tmp_path / "tiny").exists()


def test_every_stage_can_be_named() -> None:
    assert [stage.value for stage in WorldStage] == ["all", *(stage.value for stage in Stage)]
    assert WorldStage.ALL.stages() == tuple(Stage)
    assert WorldStage.CLIPS.stages() == (Stage.CLIPS,)


def test_a_share_of_nothing_is_no_number(longvu: Longvu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"share": math.nan, "other": 0.5}
    result = StageResult(Stage.TOWERS, tmp_path, LogRow(1, 1.0, 0.5, 1e-3, 2.0, values, None))
    done = WorldTrained((result,), tmp_path / "shipped", is_main=True)
    monkeypatch.setattr(world_stages, "train_world", lambda *_, **__: done)
    monkeypatch.setattr("longvu_cli.training.loop.plot_log", lambda folder: folder)
    ran = longvu("train", "world", "all", "--output", tmp_path, "--json")
    assert ran.code == 0, ran
    record = json.loads(ran.out)
    assert record["stages"][0]["values"] == {"share": None, "other": 0.5}
    assert record["shipped"] == str(tmp_path / "shipped")
    assert f"--model {tmp_path / 'shipped'}" in ran.err
