"""MVBench: twenty tasks about short videos of eleven sources.

It is published twice. With whole videos::

    json/action_sequence.json …   [{"video", "question", "candidates", "answer", ("start", "end")}, …]: a file per task
    video/star/Charades_v1_480/ … what was packed in the archives, each in its own folder; what was missing in them, and
                                  came later, in video/data0613/star/Charades_v1_480/ …

and (its revision "video") with the parts that the questions are about as files of their own, beside the lists::

    json/action_sequence.json …   the same; "video" is the name of the part
    star/Charades_segment/ …      folders of their own for what was cut or converted; the others are named as above
"""

from __future__ import annotations

import os
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
        parts: folder of what was cut from them or converted, where there is such a one.
        bounded: whether a question is about a part of its video.
        picture_rate: frames per second, where videos are folders of pictures.
    """

    name: str
    folder: str
    parts: str | None = None
    bounded: bool = False
    picture_rate: float | None = None


_CHARADES, _CHARADES_PARTS = "star/Charades_v1_480", "star/Charades_segment"
_CLEVRER, _PERCEPTION = "clevrer/video_validation", "perception/videos"
_TASKS = (
    _Task("action_sequence", _CHARADES, _CHARADES_PARTS, bounded=True),
    _Task("action_prediction", _CHARADES, _CHARADES_PARTS, bounded=True),
    _Task("action_antonym", "ssv2_video", "ssv2_video_mp4"),
    _Task("fine_grained_action", "Moments_in_Time_Raw/videos"),
    _Task("unexpected_action", "FunQA_test/test"),
    _Task("object_existence", _CLEVRER),
    _Task("object_interaction", _CHARADES, _CHARADES_PARTS, bounded=True),
    _Task("object_shuffle", _PERCEPTION),
    _Task("moving_direction", _CLEVRER),
    _Task("action_localization", "sta/sta_video", "sta/sta_video_segment", bounded=True),
    _Task("scene_transition", "scene_qa/video"),
    _Task("action_count", _PERCEPTION),
    _Task("moving_count", _CLEVRER),
    _Task("moving_attribute", _CLEVRER),
    _Task("state_change", _PERCEPTION),
    _Task("fine_grained_pose", "nturgbd", "nturgbd_convert"),
    _Task("character_order", _PERCEPTION),
    _Task("egocentric_navigation", "vlnqa"),
    _Task("episodic_reasoning", "tvqa/frames_fps3_hq", "tvqa/video_fps3_hq_segment", bounded=True, picture_rate=3.0),
    _Task("counterfactual_inference", _CLEVRER),
)


# Where the folders of the tasks are, in the order in which they are looked into.
_ROOTS = ("video", "video/data0613", "")


def read(folder: Path) -> Reading:
    """The questions of all tasks.

    Raises:
        BadBenchmark: a file is missing or says something else.
    """
    return Reading(
        tuple(
            _question(entry, task, number, folder)
            for task in _TASKS
            for number, entry in enumerate(read_entries(folder / "json" / f"{task.name}.json"))
        )
    )


def _question(entry: Entry, task: _Task, number: int, folder: Path) -> Question:
    text, choices = entry.text("question"), entry.texts("candidates")
    video, is_part = _video(entry.text("video"), task, folder)
    bounded = task.bounded and not is_part
    return Question(
        id=f"{task.name}/{number}",
        video=video,
        text=text,
        choices=choices,
        put=with_choices(text, choices),
        answer=letter_of(entry.text("answer"), choices, entry.place),
        groups=(Group("task", task.name),),
        start_s=max(0.0, entry.seconds("start")) if bounded else 0.0,
        end_s=entry.seconds("end") if bounded else None,
        picture_rate=task.picture_rate,
    )


def _video(name: str, task: _Task, folder: Path) -> tuple[Path, bool]:
    """The video of a question, and whether it is no more than the part that is asked about.

    Where there is none, the path at which it should be.
    """
    whole = [folder / root / task.folder / name for root in _ROOTS]
    parts = [] if task.parts is None else [folder / root / task.parts / name for root in _ROOTS]
    for path in (*whole, *parts):
        if os.path.exists(path):  # not Path's own, which raises for names that are too long
            return path, path in parts
    there = [path for path in (*whole, *parts) if os.path.isdir(path.parent)]
    return (there[0], there[0] in parts) if there else (whole[0], False)


MVBENCH = Benchmark(name="mvbench", title="MVBench", preset=Preset(fps=2.0, stc_threshold=0.8), read=read)
