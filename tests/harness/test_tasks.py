"""lmms-eval itself, from its command line, on its own tasks with data of the drawn world in place of theirs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from harness.miniature import Asked, make
from longvu_cli.config import GenerationOptions, SamplingOptions
from longvu_cli.longvu import LongVU

pytest.importorskip("lmms_eval", reason="lmms-eval is installed on request (README.md, lmms-eval)")

TASKS = Path(__file__).parent / "tasks"
Samples = Callable[[str], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("harness")


@pytest.fixture(scope="module")
def asked(folder: Path) -> list[Asked]:
    return make(folder)


@pytest.fixture(scope="module")
def results(folder: Path, asked: list[Asked]) -> dict[str, Any]:
    """What the harness wrote, with a few of the questions of every task."""
    names = "mvbench_state_change,mvbench_episodic_reasoning,egoschema_subset,videomme,mlvu_dev,drawn_world"
    command = [sys.executable, "-m", "lmms_eval", "--model", "longvu", "--tasks", names, "--include_path", str(TASKS)]
    command += ["--model_args", "pretrained=tiny,fps=0.5,no_cache=True", "--batch_size", "1", "--limit", "3"]
    command += ["--output_path", "out", "--log_samples", "--verbosity", "DEBUG"]
    surroundings = {**os.environ, "HF_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=surroundings, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    (written,) = folder.glob("out/*/*_results.json")
    return json.loads(written.read_text(encoding="utf-8"))["results"]


@pytest.fixture(scope="module")
def samples(folder: Path, results: dict[str, Any]) -> Samples:
    def of(task: str) -> list[dict[str, Any]]:
        (written,) = folder.glob(f"out/*/*_samples_{task}.jsonl")
        return [json.loads(line) for line in written.read_text(encoding="utf-8").splitlines()]

    return of


def test_the_entry_point_is_that_of_the_harness() -> None:
    (entry,) = metadata.entry_points(group="lmms_eval.models", name="longvu")
    manifest = entry.load()()
    assert (manifest.model_id, manifest.chat_class_path) == ("longvu", None)


@pytest.mark.parametrize(
    ("task", "place"),
    [
        ("mvbench_state_change", "mvbench_video/perception/videos/{}.mp4"),
        ("egoschema_subset", "egoschema/videos/{}.mp4"),
        ("videomme", "videomme/data/{}.mp4"),
        ("mlvu_dev", "mlvu/{}.mp4"),
    ],
)
def test_the_tasks_of_the_harness_get_the_answers_of_the_library(
    folder: Path, asked: list[Asked], samples: Samples, trained_tiny: LongVU, task: str, place: str
) -> None:
    answered = samples(task)
    assert len(answered) == len(asked)
    for row, sample in zip(asked, answered, strict=True):
        assert row.question in sample["input"]
        expected = trained_tiny.answer(
            folder / "home" / place.format(row.film),
            sample["input"],
            sampling=SamplingOptions(fps=0.5),
            generation=GenerationOptions(max_new_tokens=16),
        )
        assert sample["filtered_resps"] == expected.text.strip()


def test_the_harness_scores_what_was_answered(results: dict[str, Any], samples: Samples) -> None:
    """The tiny model knows nothing of letters: what is scored is compared, not how well it does."""
    scored = [sample["mvbench_accuracy"] for sample in samples("mvbench_state_change")]
    assert [each["gt_answer"] for each in scored] == ["A", "B", "C"]
    share = 100 * sum(each["pred_answer"] == each["gt_answer"] for each in scored) / len(scored)
    assert results["mvbench_state_change"]["mvbench_accuracy,none"] == pytest.approx(share)


def test_a_video_that_is_a_folder_of_frames_is_answered(samples: Samples) -> None:
    assert all(sample["filtered_resps"] for sample in samples("mvbench_episodic_reasoning"))


def test_open_questions_about_the_world_are_answered_right(results: dict[str, Any], samples: Samples) -> None:
    right = [sample["filtered_resps"] == sample["target"] for sample in samples("drawn_world")]
    assert len(right) == 3
    assert sum(right) >= 2
    assert results["drawn_world"]["exact_match,none"] == pytest.approx(sum(right) / 3)
