"""evaluation/mvbench.py: where the videos are in its two public layouts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from longvu_cli.errors import BadBenchmark
from longvu_cli.evaluation.benchmark import Question
from longvu_cli.evaluation.mvbench import _TASKS, read

ENTRY = {"question": "Which?", "candidates": ["red", "blue"], "answer": "blue"}
BOUNDS = {"start": 2.5, "end": 9.0}


def asked(folder: Path, task: str, video: str, *there: str, **more: Any) -> Question:
    """The only question of the benchmark, with some files of it there."""
    for path in there:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()
    (folder / "json").mkdir(exist_ok=True)
    for each in _TASKS:
        rows = [{**ENTRY, "video": video, **more}] if each.name == task else []
        (folder / "json" / f"{each.name}.json").write_text(json.dumps(rows))
    (question,) = read(folder).questions
    return question


@pytest.mark.parametrize(
    ("task", "whole", "part"),
    [
        ("action_sequence", "star/Charades_v1_480/A.mp4", "star/Charades_segment/A.mp4"),
        ("object_interaction", "star/Charades_v1_480/A.mp4", "star/Charades_segment/A.mp4"),
        ("action_localization", "sta/sta_video/A.mp4", "sta/sta_video_segment/A.mp4"),
        ("episodic_reasoning", "tvqa/frames_fps3_hq/A/00001.jpg", "tvqa/video_fps3_hq_segment/A/00001.jpg"),
        ("action_antonym", "ssv2_video/A.webm", "ssv2_video_mp4/A.webm"),
        ("fine_grained_pose", "nturgbd/A.avi", "nturgbd_convert/A.avi"),
    ],
)
@pytest.mark.parametrize("root", ["video/", "video/data0613/", ""])
def test_whole_videos_are_bounded_and_parts_are_not(
    tmp_path: Path, task: str, whole: str, part: str, root: str
) -> None:
    name = "A" if task == "episodic_reasoning" else Path(whole).name
    is_bounded = task not in ("action_antonym", "fine_grained_pose")
    for number, (path, bounds) in enumerate(((whole, is_bounded), (part, False))):
        folder = tmp_path / str(number)
        folder.mkdir()
        question = asked(folder, task, name, root + path, **BOUNDS)
        video = folder / root / path
        assert question.video == (video.parent if task == "episodic_reasoning" else video)
        assert (question.start_s, question.end_s) == ((2.5, 9.0) if bounds else (0.0, None))


# As the reference's script has them; those about a part of their video are marked.
PLACES = """
    action_sequence           star/Charades_v1_480       part
    action_prediction         star/Charades_v1_480       part
    action_antonym            ssv2_video
    fine_grained_action       Moments_in_Time_Raw/videos
    unexpected_action         FunQA_test/test
    object_existence          clevrer/video_validation
    object_interaction        star/Charades_v1_480       part
    object_shuffle            perception/videos
    moving_direction          clevrer/video_validation
    action_localization       sta/sta_video              part
    scene_transition          scene_qa/video
    action_count              perception/videos
    moving_count              clevrer/video_validation
    moving_attribute          clevrer/video_validation
    state_change              perception/videos
    fine_grained_pose         nturgbd
    character_order           perception/videos
    egocentric_navigation     vlnqa
    episodic_reasoning        tvqa/frames_fps3_hq        part
    counterfactual_inference  clevrer/video_validation
"""


@pytest.mark.parametrize("line", PLACES.strip().splitlines())
def test_each_task_has_its_folder(tmp_path: Path, line: str) -> None:
    task, folder, *part = line.split()
    question = asked(tmp_path, task, "A.mp4", f"video/{folder}/A.mp4", **BOUNDS)
    assert question.video == tmp_path / "video" / folder / "A.mp4"
    assert (question.start_s, question.end_s) == ((2.5, 9.0) if part else (0.0, None))
    assert question.picture_rate == (3.0 if task == "episodic_reasoning" else None)
    assert [group.name for group in question.groups] == [task]


def test_there_are_twenty_tasks() -> None:
    assert [task.name for task in _TASKS] == [line.split()[0] for line in PLACES.strip().splitlines()]


def test_parts_need_no_times(tmp_path: Path) -> None:
    there = "star/Charades_segment/A_2.5_9.0.mp4"
    assert asked(tmp_path, "action_sequence", "A_2.5_9.0.mp4", there).end_s is None
    (tmp_path / there).unlink()
    missing = asked(tmp_path, "action_sequence", "A_2.5_9.0.mp4")
    assert (missing.video, missing.end_s) == (tmp_path / there, None)


def test_the_whole_video_goes_first_and_needs_its_times(tmp_path: Path) -> None:
    both = ("video/star/Charades_v1_480/A.mp4", "star/Charades_segment/A.mp4")
    assert asked(tmp_path, "action_sequence", "A.mp4", *both, **BOUNDS).video == tmp_path / both[0]
    with pytest.raises(BadBenchmark, match="no time as 'start'"):
        asked(tmp_path, "action_sequence", "A.mp4")


def test_a_video_that_is_missing_is_looked_for_where_others_are(tmp_path: Path) -> None:
    assert asked(tmp_path, "action_count", "A.mp4").video == tmp_path / "video/perception/videos/A.mp4"
    others = ("perception/videos/B.mp4",)
    assert asked(tmp_path, "action_count", "A.mp4", *others).video == tmp_path / "perception/videos/A.mp4"


@pytest.mark.parametrize("name", [f"{'a' * 5000}.mp4", f"{'a' * 5000}/b.mp4", "a\0.mp4"])
def test_a_name_that_no_file_can_have_is_a_video_that_is_missing(tmp_path: Path, name: str) -> None:
    assert asked(tmp_path, "action_count", name).video == tmp_path / "video/perception/videos" / name
