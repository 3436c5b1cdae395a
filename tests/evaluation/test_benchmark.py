"""evaluation/benchmark.py: which questions are asked, and with which settings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from longvu_cli.config import CompressionOptions, GenerationOptions, PromptOptions, SamplingOptions
from longvu_cli.errors import UsageError
from longvu_cli.evaluation.benchmark import (
    Part,
    Preset,
    Question,
    Variant,
    departures,
    manifest_of,
    missing_videos,
    plan,
    settings_of,
)
from longvu_cli.evaluation.mlvu import MLVU
from longvu_cli.manifest import Settings

CHOICES = ("red", "blue")


def question(name: str, video: str = "film.mp4") -> Question:
    return Question(name, Path(video), "Which?", CHOICES, f"Which, {name}?", "A")


def variant(name: str = "") -> Variant:
    return Variant(name, Settings(SamplingOptions(fps=0.5), CompressionOptions(), GenerationOptions(max_new_tokens=5)))


def test_a_preset_stands_where_nothing_else_is_said() -> None:
    preset = Preset(fps=0.5, dino_threshold=0.82, stc_threshold=0.77, thin_above=1000)
    settings = settings_of(preset, CompressionOptions(context_length=3000))
    assert settings.sampling == SamplingOptions(fps=0.5, thin_above=1000)
    assert settings.compression == CompressionOptions(context_length=3000, dino_threshold=0.82, stc_threshold=0.77)
    assert settings.generation == GenerationOptions(max_new_tokens=5)
    assert settings.prompting == PromptOptions()


def test_what_is_said_wins_over_the_preset() -> None:
    preset = Preset(fps=0.5, dino_threshold=0.82, stc_threshold=0.77, thin_above=1000, subtitles=True)
    given = CompressionOptions(dino_threshold=0.5, stc_threshold=0.6)
    settings = settings_of(preset, given, fps=2.0, thin_above=0, max_new_tokens=9, subtitles=False)
    assert settings.sampling == SamplingOptions(fps=2.0)
    assert settings.compression == given
    assert settings.generation.max_new_tokens == 9
    assert settings.prompting.subtitles is None
    assert settings_of(preset, given).prompting.subtitles == "auto"


def test_what_is_not_as_the_preset_has_it_is_named() -> None:
    preset = Preset(fps=0.5, dino_threshold=0.82, stc_threshold=0.77, thin_above=1000, subtitles=True)
    assert departures(preset, settings_of(preset, CompressionOptions(), subtitles=False)) == {}
    # 1.0 is what other commands have for frames per second, and 0.77 the preset's own.
    other = settings_of(preset, CompressionOptions(stc_threshold=0.77, context_length=900), fps=1.0)
    assert departures(preset, other) == {"fps": 1.0, "context_length": 900}


def test_videos_that_are_not_there_are_counted_once_each(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    asked = [question(name, str(tmp_path / f"{name[0]}.mp4")) for name in ("a1", "b1", "b2", "c1")]
    assert missing_videos(asked) == f"2 of 3 videos are not there; the first is {tmp_path / 'b.mp4'}"
    assert missing_videos(asked[:1]) is None
    assert missing_videos([question("long", "a" * 5000)]) is not None


def test_every_question_is_a_row_in_each_way() -> None:
    trials = plan([question("one"), question("two")], [variant("dino"), variant("uniform")])
    rows = manifest_of(MLVU, trials).rows
    assert [(row.number, row.id) for row in rows] == [
        (1, "dino: one"),
        (2, "uniform: one"),
        (3, "dino: two"),
        (4, "uniform: two"),
    ]
    assert {row.question for row in rows} == {"Which, one?", "Which, two?"}
    assert [trial.row.id for trial in plan([question("one")], [variant()])] == ["one"]


def test_the_range_and_the_subtitles_are_those_of_the_question() -> None:
    read = replace(variant().settings, prompting=PromptOptions(subtitles="auto"))
    asked = replace(question("one"), start_s=3.0, end_s=5.0, subtitles=Path("one.srt"))
    first, second, third = plan([asked], [Variant("with", read), Variant("without", variant().settings)]) + plan(
        [question("one")], [Variant("none", read)]
    )
    assert first.row.settings.sampling == SamplingOptions(fps=0.5, start_s=3.0, end_s=5.0)
    assert first.row.settings.prompting.subtitles == "one.srt"
    assert second.row.settings.prompting.subtitles is None
    assert third.row.settings.prompting.subtitles is None, "a video without a file of its own has none"


def test_a_question_about_no_time_at_all_is_named() -> None:
    with pytest.raises(UsageError, match=r"question 'one': --end 2 is not after --start 3"):
        plan([replace(question("one"), start_s=3.0, end_s=2.0)], [variant()])


def test_shards_have_all_questions_once_and_leave_those_of_a_video_together() -> None:
    asked = [question(f"{video}{number}", f"{video}.mp4") for video in "abcde" for number in range(2)]
    shards = [Part(shard, 3).of(asked) for shard in (1, 2, 3)]
    assert sorted(one.id for shard in shards for one in shard) == sorted(one.id for one in asked)
    assert [{one.video.stem for one in shard} for shard in shards] == [{"a", "d"}, {"b", "e"}, {"c"}]


def test_a_limit_spreads_over_all_questions_and_is_shared_by_the_shards() -> None:
    asked = [question(str(number), f"{number}.mp4") for number in range(10)]
    assert [one.id for one in Part(limit=4).of(asked)] == ["0", "2", "5", "7"]
    assert [one.id for one in Part(2, 2, limit=4).of(asked)] == ["2", "7"]
    assert len(Part(limit=99).of(asked)) == 10


@pytest.mark.parametrize(("shard", "shards", "limit"), [(0, 3, None), (4, 3, None), (1, 0, None), (1, 1, 0)])
def test_a_part_that_is_none_is_refused(shard: int, shards: int, limit: int | None) -> None:
    with pytest.raises(UsageError, match=r"--shard|--limit"):
        Part(shard, shards, limit)
