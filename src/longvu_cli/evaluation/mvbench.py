"""MVBench: twenty tasks about short videos of eleven sources.

::

    json/action_sequence.json …   [{"video", "question", "candidates", "answer", ("start", "end")}, …]: a file per task
    video/star/Charades_v1_480/ … what was packed in the archives, each in its own folder
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from longvu_cli.choices import with_choices
from longvu_cli.evaluation.annotations import Entry, letter_of, read_entries
from longvu_cli.evaluation.benchmark import Benchmark, Group, Preset, Question, Reading


@dataclass(frozen=True)
class _Task:
    """A task, by the name of its file.

    Attributes:
        folder: of its videos.
        bounded: whether a question is about a part of its video.
        picture_rate: frames per second, where videos are folders of pictures.
    """

    name: str
    folder: str
    bounded: bool = False
    picture_rate: float | None = None


_CHARADES, _CLEVRER, _PERCEPTION = "star/Charades_v1_480", "clevrer/video_validation", "perception/videos"
_TASKS = (
    _Task("action_sequence", _CHARADES, bounded=True),
    _Task("action_prediction", _CHARADES, bounded=True),
    _Task("action_antonym", "ssv2_video"),
    _Task("fine_grained_action", "Moments_in_Time_Raw/videos"),
    _Task("unexpected_action", "FunQA_test/test"),
    _Task("object_existence", _CLEVRER),
    _Task("object_interaction", _CHARADES, bounded=True),
    _Task("object_shuffle", _PERCEPTION),
    _Task("moving_direction", _CLEVRER),
    _Task("action_localization", "sta/sta_video", bounded=True),
    _Task("scene_transition", "scene_qa/video"),
    _Task("action_count", _PERCEPTION),
    _Task("moving_count", _CLEVRER),
    _Task("moving_attribute", _CLEVRER),
    _Task("state_change", _PERCEPTION),
    _Task("fine_grained_pose", "nturgbd"),
    _Task("character_order", _PERCEPTION),
    _Task("egocentric_navigation", "vlnqa"),
    _Task("episodic_reasoning", "tvqa/frames_fps3_hq", bounded=True, picture_rate=3.0),
    _Task("counterfactual_inference", _CLEVRER),
)


def read(folder: Path) -> Reading:
    """The questions of all tasks.

    Raises:
        BadBenchmark: a file is missing or says something else.
    """
    return Reading(
        tuple(
            _question(entry, task, number, folder / "video" / task.folder)
            for task in _TASKS
            for number, entry in enumerate(read_entries(folder / "json" / f"{task.name}.json"))
        )
    )


def _question(entry: Entry, task: _Task, number: int, videos: Path) -> Question:
    text, choices = entry.text("question"), entry.texts("candidates")
    return Question(
        id=f"{task.name}/{number}",
        video=videos / entry.text("video"),
        text=text,
        choices=choices,
        put=with_choices(text, choices),
        answer=letter_of(entry.text("answer"), choices, entry.place),
        groups=(Group("task", task.name),),
        start_s=max(0.0, entry.seconds("start")) if task.bounded else 0.0,
        end_s=entry.seconds("end") if task.bounded else None,
        picture_rate=task.picture_rate,
    )


MVBENCH = Benchmark(name="mvbench", title="MVBench", preset=Preset(fps=2.0, stc_threshold=0.8), read=read)
