"""training/world.py and world_stages.py: four stages at toy size leave a model that can be asked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from longvu_cli import LongVU, ModelOptions
from longvu_cli.config import GenerationOptions
from longvu_cli.errors import LongVUError, UsageError
from longvu_cli.training import world
from longvu_cli.training.loop import LogRow, read_log
from longvu_cli.training.world import PLANS, Stage, StagePlan, WorldTraining, finish, train_stage
from longvu_cli.training.world_stages import WorldTrained, stage_folder, train_world
from longvu_cli.world.film import write_film
from longvu_cli.world.questions import questions
from longvu_cli.world.story import LONGEST_S, Split, story

TOY = WorldTraining(steps=2, scale=0.01)
ALL = tuple(Stage)


def short(plan: StagePlan) -> StagePlan:
    """A plan whose videos are drawn in no time."""
    groups = tuple(replace(group, seconds=(1, min(12, group.seconds[1])), questions=2) for group in plan.groups)
    return replace(plan, groups=groups)


@pytest.fixture(autouse=True, scope="module")
def toy_world() -> Iterator[None]:
    """Short videos, on one thread: the models are so small that more of them only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world, "PLANS", {stage: short(plan) for stage, plan in PLANS.items()})
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def heard() -> list[tuple[Stage, LogRow]]:
    return []


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, heard: list[tuple[Stage, LogRow]]) -> WorldTrained:
    folder = tmp_path_factory.mktemp("tiny")
    return train_world(ALL, folder, TOY, on_log=lambda stage, row: heard.append((stage, row)))


def folder_of(trained: WorldTrained) -> Path:
    assert trained.shipped is not None
    return trained.shipped.parent


def unheard(*_: object) -> None:
    """Nobody listens."""


def test_all_stages_are_run_in_their_order(trained: WorldTrained, heard: list[tuple[Stage, LogRow]]) -> None:
    assert [(stage, row.step) for stage, row in heard] == [(stage, step) for stage in Stage for step in (1, 2)]
    assert trained.is_main
    for result, stage in zip(trained.stages, Stage, strict=True):
        assert result.stage is stage
        assert result.last is not None
        assert result.last.step == 2
        assert [row["step"] for row in read_log(result.folder)] == [1, 2]
    assert all(row.values["right"] >= 0 for stage, row in heard if stage is not Stage.TOWERS)


@pytest.mark.parametrize("form", ["as trained", "shipped"])
def test_the_model_answers(trained: WorldTrained, form: str, tmp_path: Path) -> None:
    told = story(Split.TEST.seed(4), 3)
    write_film(told, tmp_path / "film.mp4", fps=1)
    folder = folder_of(trained) if form == "as trained" else trained.shipped
    model = LongVU.from_pretrained(str(folder), options=ModelOptions(device="cpu"))
    answer = model.answer(
        tmp_path / "film.mp4", questions(told)[0].text, generation=GenerationOptions(max_new_tokens=3)
    )
    assert 1 <= len(answer.token_ids) <= 3
    assert answer.compression.statistics.frames.sampled == 3


def test_loading_is_strict(trained: WorldTrained, tmp_path: Path) -> None:
    finish(folder_of(trained), tmp_path / "copy")
    file = tmp_path / "copy" / "model.safetensors"
    tensors = load_file(file)
    tensors.pop("model.image_newline")
    save_file(tensors, file)
    with pytest.raises(LongVUError, match="image_newline"):
        LongVU.from_pretrained(str(tmp_path / "copy"), options=ModelOptions(device="cpu"))


def test_what_is_shipped_is_the_model_in_half_precision(trained: WorldTrained) -> None:
    folder = folder_of(trained)
    assert trained.shipped is not None
    assert not (trained.shipped / "training").exists()
    for name in ("", "dinov2", "siglip"):
        before, after = (load_file(place / name / "model.safetensors") for place in (folder, trained.shipped))
        assert before.keys() == after.keys()
        for key, tensor in before.items():
            assert tensor.dtype == torch.float32
            assert after[key].equal(tensor.half())
    assert (trained.shipped / "config.json").read_bytes() == (folder / "config.json").read_bytes()


def test_towers_are_frozen_after_their_stage(trained: WorldTrained) -> None:
    """The state of a later stage has nothing of the towers."""
    for stage in ALL[1:]:
        state = torch.load(stage_folder(folder_of(trained), stage) / "state" / "state.pt", weights_only=True)
        names = set(state["parameters"])
        assert {"connector", "decoder"} <= {name.split(".")[0] for name in names}
        # What the layers of both towers are called.
        assert not any("encoder.layer" in name for name in names)


def test_resuming_goes_on_where_it_ended(trained: WorldTrained) -> None:
    folder = folder_of(trained)
    before = load_file(folder / "model.safetensors")
    done = train_world(ALL, folder, replace(TOY, resume=True), on_log=unheard)
    assert [result.last for result in done.stages] == [None] * 4
    same = load_file(folder / "model.safetensors")
    assert all(same[name].equal(tensor) for name, tensor in before.items())
    rows: list[LogRow] = []
    train_stage(Stage.VIDEOS, folder, replace(TOY, steps=3, resume=True), on_log=rows.append)
    assert [row.step for row in rows] == [3]
    after = load_file(folder / "model.safetensors")
    assert not all(after[name].equal(tensor) for name, tensor in before.items())


def test_nothing_that_was_trained_is_lost(trained: WorldTrained) -> None:
    folder = folder_of(trained)
    with pytest.raises(UsageError, match="holds a training of the stage `towers`"):
        train_world(ALL, folder, TOY, on_log=unheard)
    with pytest.raises(UsageError, match="holds a training of the stage `images`"):
        train_world([Stage.IMAGES], folder, TOY, on_log=unheard)
    with pytest.raises(UsageError, match="`videos` has gone on with what `clips` left"):
        train_world([Stage.CLIPS], folder, replace(TOY, resume=True), on_log=unheard)


@pytest.mark.parametrize("stage", ALL[1:])
def test_a_stage_needs_the_one_before(stage: Stage, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there are no towers") as error:
        train_world([stage], tmp_path, TOY, on_log=unheard)
    assert error.value.hint is not None
    assert "`towers`" in error.value.hint


def test_a_model_is_needed_after_the_towers(trained: WorldTrained, tmp_path: Path) -> None:
    (tmp_path / "siglip").mkdir()
    (tmp_path / "siglip" / "model.safetensors").touch()
    with pytest.raises(UsageError, match="there is no model") as error:
        train_world([Stage.VIDEOS], tmp_path, TOY, on_log=unheard)
    assert "`clips`" in str(error.value.hint)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is no folder"):
        train_world(ALL, tmp_path / "file", TOY, on_log=unheard)


@pytest.mark.parametrize("scale", [0, -1, 1.5, np.nan])
def test_batches_are_scaled_down_only(scale: float) -> None:
    with pytest.raises(UsageError, match="no scale"):
        WorldTraining(scale=scale)


def test_plans_are_sound() -> None:
    assert set(PLANS) == set(Stage)
    assert not PLANS[Stage.TOWERS].groups
    for stage, plan in PLANS.items():
        assert plan.minutes > 0 and 0 < plan.learning_rate < 0.1
        names = [group.name for group in plan.groups]
        assert len(set(names)) == len(names)
        assert sum(group.share for group in plan.groups) == pytest.approx(0 if stage is Stage.TOWERS else 1)
        for group in plan.groups:
            assert 1 <= group.seconds[0] <= group.seconds[1] <= LONGEST_S
            assert group.videos > 0 and group.questions > 0
