"""MLVU: tasks about videos of three minutes to two hours; the part that is published with its answers ("dev").

::

    json/1_plotQA.json …   [{"video", "question", "candidates", "answer"}, …]: a file per task
    video/1_plotQA/ …      its videos

Both may be within a folder ``MLVU``. Sub-scene captioning and summaries have no options: their answers are texts that
another model has to judge.
"""

from __future__ import annotations

from pathlib import Path

from longvu_cli.evaluation.annotations import Entry, letter_of, read_entries, with_letters, within
from longvu_cli.evaluation.benchmark import Benchmark, Group, Preset, Question, Reading

_TASKS = (
    ("1_plotQA", "plotQA"),
    ("2_needle", "needle"),
    ("3_ego", "ego"),
    ("4_count", "count"),
    ("5_order", "order"),
    ("6_anomaly_reco", "anomaly_reco"),
    ("7_topic_reasoning", "topic_reasoning"),
)
_GENERATION = (("8_sub_scene", "sub-scene captioning"), ("9_summary", "video summary"))
# As the reference puts it, however many options there are.
_ORDER = "Respond with only the letter (A, B, C or D) of the correct option."


def read(folder: Path) -> Reading:
    """The questions of the seven tasks with options.

    Raises:
        BadBenchmark: a file is missing or says something else.
    """
    home = within(folder, "json", "MLVU")
    questions = tuple(
        _question(entry, task, number, home / "video" / stem)
        for stem, task in _TASKS
        for number, entry in enumerate(read_entries(home / "json" / f"{stem}.json"))
    )
    left_out = tuple(
        f"left out, since they have no options to choose from: {len(read_entries(path))} of {task}"
        for stem, task in _GENERATION
        if (path := home / "json" / f"{stem}.json").exists()
    )
    return Reading(questions, left_out)


def _question(entry: Entry, task: str, number: int, videos: Path) -> Question:
    text, choices = entry.text("question"), entry.texts("candidates")
    return Question(
        id=f"{task}/{number}",
        video=videos / entry.text("video"),
        text=text,
        choices=choices,
        put=with_letters(text, choices, _ORDER),
        answer=letter_of(str(entry.values.get("answer")), choices, entry.place),
        groups=(Group("task", task),),
    )


MLVU = Benchmark(
    name="mlvu",
    title="MLVU",
    preset=Preset(fps=0.5, dino_threshold=0.82, stc_threshold=0.77, thin_above=1000),
    read=read,
    average_over="task",
)
