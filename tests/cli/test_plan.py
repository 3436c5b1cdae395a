import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from cli.conftest import Longvu
from longvu_cli import calibration, device
from longvu_cli.calibration import Speed
from longvu_cli.checkpoint import Checkpoint


@pytest.fixture(autouse=True)
def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of a model may be loaded, and measuring takes no time."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("plan loads no weights")

    monkeypatch.setattr(Checkpoint, "read", refuse)
    monkeypatch.setattr("longvu_cli.hub.remote_listing", refuse)
    monkeypatch.setattr(calibration, "measure_speed", lambda device, dtype: Speed(3e10, 5e9))
    monkeypatch.setattr(device, "free_memory", lambda device: 22 * 2**30)


def planned(longvu: Longvu, *arguments: Any) -> dict[str, Any]:
    ran = longvu("plan", *arguments, "--json")
    assert (ran.code, ran.err) == (0, ""), ran
    record: dict[str, Any] = json.loads(ran.out)
    return record


def test_everything_is_said_before_any_weight_is_loaded(longvu: Longvu, clip: Path) -> None:
    record = planned(longvu, clip, "--device=cpu", "--fps=2")
    assert record["video"]["duration_s"] == 6.0
    assert record["device"]["free_bytes"] == 22 * 2**30
    rows = {row["name"]: row for row in record["models"]}
    assert list(rows) == ["7b", "3b", "1b", "tiny"]
    assert [row["fits"] for row in rows.values()] == [False, True, True, True]
    for row in rows.values():
        assert row["compression"]["sampled"] == 12
        assert row["compression"]["kept"] == {"low": 12, "high": 12}
        assert row["compression"]["regimes"] == ["all_high"]
        assert 0 < row["estimated_s"]["next"]["high"] < row["estimated_s"]["first"]["low"]
    assert rows["7b"]["estimated_s"]["first"]["high"] > 10 * rows["tiny"]["estimated_s"]["first"]["high"]


def test_the_table(longvu: Longvu, clip: Path) -> None:
    ran = longvu("plan", clip, "Where is the cup?", "--device=cpu")
    lines = ran.out.splitlines()
    assert lines[0] == "0:06 · 128×72 · h264 · 6 frames to look at"
    assert lines[1] == "cpu · 22.0 GiB free · float32 · about 30 GFLOP/s"
    assert lines[3].split()[:3] == ["model", "memory", "fits"]
    assert lines[4].split()[:6] == ["7b", "36.3", "GiB", "no", "6", "all_high"]
    # 6 frames of 2.5 TFLOP, and a prompt of some 600 tokens with 14 GFLOP each, at 30 GFLOP/s.
    assert "about 20 min" in lines[4] or "about 10 min" in lines[4]
    assert ran.err.startswith("longvu: times rest on the rates of this CPU, ")


def test_what_a_model_cannot_do_is_said_in_its_row(longvu: Longvu, clip: Path) -> None:
    rows = {row["name"]: row for row in planned(longvu, clip, "--device=cpu", "--context-length=20000")["models"]}
    assert "8192 positions" in rows["tiny"]["refusal"]
    assert (rows["tiny"]["compression"], rows["7b"]["refusal"]) == (None, None)
    table = longvu("plan", clip, "--device=cpu", "--context-length=20000").out
    assert "tiny: --context-length 20000 is more than the model's 8192 positions" in table


def test_quantised_models_are_rows_of_their_own_on_a_gpu(
    longvu: Longvu, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "resolve_device", lambda name: torch.device("cuda", 0))
    monkeypatch.setattr(device, "resolve_dtype", lambda dtype, device: torch.bfloat16)
    monkeypatch.setattr(device, "free_memory", lambda device: 11 * 2**30)
    rows = planned(longvu, clip)["models"]
    assert [(row["name"], row["quantization"], row["fits"]) for row in rows if row["name"] != "1b"] == [
        ("7b", "none", False),
        ("7b", "8bit", False),
        ("7b", "4bit", True),
        ("3b", "none", False),
        ("3b", "8bit", True),
        ("3b", "4bit", True),
        ("tiny", "none", True),
    ]
    assert [row["estimated_s"] is None for row in rows[:3]] == [False, True, False]
    ran = longvu("plan", clip)
    assert "7b --quantize 4bit" in ran.out and "not measured" in ran.out
    assert "H100" in ran.err


def test_a_length_that_nobody_knows(longvu: Longvu, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measure = calibration.measure_decoding
    monkeypatch.setattr(
        calibration,
        "measure_decoding",
        lambda *settings, device: dataclasses.replace(measure(*settings, device=device), frames=None),
    )
    ran = longvu("plan", clip)
    assert (ran.code, ran.out) == (2, "")
    assert "does not say how long it is" in ran.err


def test_the_question_may_be_in_a_file(longvu: Longvu, clip: Path, tmp_path: Path) -> None:
    (tmp_path / "question.txt").write_text("What is this? " * 40)
    told = [
        [model["compression"]["text_tokens"] for model in planned(longvu, clip, question)["models"]]
        for question in ("What is this? " * 40, f"@{tmp_path / 'question.txt'}")
    ]
    assert told[0] == told[1]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("none.mp4",), 3),
        (("CLIP", "@none.txt"), 2),
        (("CLIP", "--device=cuda:7"), 5),
        (("CLIP", "--max-new-tokens=0"), 2),
        (("CLIP", "--fps=0"), 2),
    ],
)
def test_errors_have_their_codes(longvu: Longvu, clip: Path, arguments: tuple[str, ...], code: int) -> None:
    ran = longvu("plan", *(clip if word == "CLIP" else word for word in arguments))
    assert (ran.code, ran.out, ran.err.count("\n")) == (code, "", 1)
