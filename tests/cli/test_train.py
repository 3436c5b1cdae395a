import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cli.conftest import Longvu
from cli.running import PARITY, PATIENCE_S, QUESTION

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


@pytest.mark.parametrize("words", [("train",), ("train", "--help"), ("train", "finetune", "--help")])
def test_help_is_quick(words: tuple[str, ...], cli_environment: dict[str, str]) -> None:
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
    assert "finetune" in done.stdout
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
