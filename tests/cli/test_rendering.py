import dataclasses
from collections.abc import Collection
from typing import Any

import pytest
from rich.console import Console

from longvu_cli.cli.rendering import STRIP_WIDTH, clock, evidence_told, stats, summary
from longvu_cli.config import (
    Anchor,
    FrameResolution,
    Orientation,
    Recipe,
    RecipeName,
    SamplingOptions,
    StillMode,
    TemporalReduction,
)
from longvu_cli.results import CacheUse, Compression, Memory, ModelInfo, Timing
from longvu_cli.statistics import (
    CompressionStatistics,
    Fate,
    FrameCounts,
    FrameStatistics,
    Regime,
    Resolution,
    Timeline,
    TokenCounts,
)
from longvu_cli.video import VideoInfo

HIGH, LOW = Resolution.HIGH, Resolution.LOW


def compression(
    fates: dict[int, Resolution | None], sampled: int, *, video: dict[str, Any] | None = None, **changes: Any
) -> Compression:
    """A compression whose kept frames have these resolutions."""
    frames = tuple(FrameStatistics(index, float(index), kind, 0.1, 0.2, 84, 0) for index, kind in fates.items())
    high = sum(kind is HIGH for kind in fates.values())
    statistics = CompressionStatistics(
        regime=Regime.MIXED,
        spatial_compression=False,
        text_tokens=75,
        visual_budget=8101,
        frames=FrameCounts(sampled, len(fates), high),
        tokens=TokenCounts(sampled * 84, len(fates) * 84, 4321, 1234),
        truncated_tokens=0,
        per_frame=frames,
    )
    info = VideoInfo("a.mp4", 63.24, 1280, 720, 29.97, 0, "h264", False, ())
    recipe = Recipe(
        name=RecipeName.RELEASED,
        orientation=Orientation.RELEASED,
        temporal_reduction=TemporalReduction.DINOV2,
        anchor=Anchor.FIRST,
        frame_position_encoding=False,
        context_length=8192,
        reply_tokens=16,
        dino_threshold=0.83,
        stc_threshold=0.8,
        high_side=12,
        low_side=8,
        image_checkpoint=False,
        still=StillMode.IMAGE,
        query_guided=True,
        spatial_compression=True,
        resolution=FrameResolution.AUTO,
    )
    made = Compression(
        video=dataclasses.replace(info, **(video or {})),
        question="?",
        statistics=statistics,
        model=ModelInfo("3b", "org/model", None, "float32", "none", "cpu"),
        sampling=SamplingOptions(),
        recipe=recipe,
        kept=tuple(fates),
        timeline=timeline(fates, sampled),
        notices=(),
        timing=Timing(1.0, 2.0, 0.01, 0.0, 3.25, 0.0, 0.0, 0.5, 1.5, 4.0, 9.75),
        memory=Memory(0, 1),
        cache=CacheUse.OFF,
    )
    own = {name: changes.pop(name) for name in list(changes) if hasattr(statistics, name)}
    return dataclasses.replace(made, statistics=dataclasses.replace(statistics, **own), **changes)


def timeline(kept: Collection[int], sampled: int) -> Timeline:
    """The frames that were not kept are too similar."""
    fates = tuple(Fate.KEPT if index in kept else Fate.SIMILAR for index in range(sampled))
    return Timeline(tuple(map(float, range(sampled))), (0.9,) * sampled, fates)


def shown(*renderables: object) -> list[str]:
    console = Console(width=120, no_color=True, markup=False)
    with console.capture() as capture:
        for renderable in renderables:
            console.print(renderable)
    return [line.rstrip() for line in capture.get().splitlines()]


def strip(lines: list[str]) -> dict[str, tuple[str, int]]:
    """Rows of the strip: name → its bars and its count."""
    found = {}
    for line in lines:
        name, rest = line[:8].strip(), line[8:]
        if name in ("full", "low", "kept", "dropped") and set(rest) <= set(" ▁▂▃▄▅▆▇█0123456789,"):
            bars, count = rest.rsplit("  ", 1)
            found[name] = (bars, int(count.replace(",", "")))
    return found


def test_the_summary() -> None:
    assert shown(summary(compression({0: HIGH, 5: LOW}, 1200))) == [
        "frames  1,200 sampled → 2 kept → 1 at full resolution",
        "tokens  100,800 dense → 1,234 read (1.2%)",
        "seconds decode 2.0 · siglip 3.2 · prefill 0.5 · generate 1.5 · total 9.8 "
        "(load 1.0 before, first token after 4.0)",
    ]


def test_the_summary_tells_what_was_cut() -> None:
    lines = shown(summary(compression({0: HIGH}, 10, truncated_tokens=1500)))
    assert lines[1] == "tokens  840 dense → 1,234 read (146.9%), 1,500 cut for lack of room"


def test_a_cell_per_frame_of_a_short_video() -> None:
    rows = strip(shown(stats(compression({0: HIGH, 2: LOW, 3: HIGH}, 5))))
    assert rows == {"full": ("█  █ ", 2), "low": ("  █  ", 1), "dropped": (" █  █", 2)}


@pytest.mark.parametrize("sampled", [1, 63, 64, 65, 100, 1000, 4097])
def test_the_rows_add_up_however_long_the_video_is(sampled: int) -> None:
    fates = {index: (HIGH if index % 3 else LOW) for index in range(0, sampled, 2)}
    rows = strip(shown(stats(compression(fates, sampled))))
    assert sum(count for _, count in rows.values()) == sampled
    assert {len(bars) for bars, _ in rows.values()} == {min(STRIP_WIDTH, sampled)}
    assert rows["full"][1] == sum(kind is HIGH for kind in fates.values())
    assert rows["low"][1] == sum(kind is LOW for kind in fates.values())


def test_a_single_frame_among_many_can_be_seen_in_its_cell() -> None:
    rows = strip(shown(stats(compression({650: HIGH}, 1280))))
    assert rows["full"] == (" " * 32 + "▁" + " " * 31, 1)
    assert rows["dropped"][0] == "█" * 64


def test_a_frame_without_a_resolution_is_kept() -> None:
    lines = shown(stats(compression({0: None, 1: None}, 4)))
    assert strip(lines) == {"kept": ("██  ", 2), "dropped": ("  ██", 2)}
    assert "          which frames get full resolution depends on the question" in lines


def test_the_time_line_begins_and_ends_with_the_sampled_part() -> None:
    made = compression(dict.fromkeys(range(40), HIGH), 40, sampling=SamplingOptions(fps=0.5, start_s=65))
    assert "        1:05                                2:25" in shown(stats(made))


def test_the_steps() -> None:
    lines = shown(stats(compression({0: HIGH, 1: LOW, 3: LOW}, 10)))
    assert lines[0] == "1:03 · 1280×720 · h264 · 29.97 frames/s"
    table = [line.split() for line in lines[2:9]]
    assert table == [
        ["step", "frames", "tokens", "of", "dense"],
        ["sampled", "at", "1", "per", "second", "10", "840", "100.0%"],
        ["temporal", "reduction", "by", "dinov2", "3", "252", "30.0%"],
        ["query-guided", "resolution", "1", "full", "+", "2", "low", "4,321", "514.4%"],
        ["spatial", "token", "compression", "(not", "needed)", "1,234", "146.9%"],
        ["read", "by", "the", "language", "model", "1,234"],
        ["room", "for", "the", "video", "8,101"],
    ]


def test_the_settings_say_how_the_thresholds_are_meant() -> None:
    made = compression({0: HIGH}, 2)
    assert "dropped   frames with similarity ≥ 0.83, tokens ≥ 0.8" in shown(stats(made))
    paper = dataclasses.replace(made, recipe=dataclasses.replace(made.recipe, name=RecipeName.PAPER))
    assert "dropped   frames with similarity > 0.83, tokens > 0.8" in shown(stats(paper))


@pytest.mark.parametrize("regime", Regime)
def test_every_regime_is_explained(regime: Regime) -> None:
    lines = shown(stats(compression({0: HIGH}, 2, regime=regime)))
    assert any(line.startswith(f"regime    {regime.value}: ") for line in lines)


def test_what_is_said_of_other_files() -> None:
    still = compression({0: HIGH}, 1, video={"is_still": True, "duration_s": None, "fps": None, "codec": "png"})
    lines = shown(stats(still))
    assert lines[0] == "1280×720 · png"
    assert lines[3].split()[:3] == ["the", "picture", "1"]
    assert not any("0:00" in line or "per second" in line for line in lines)
    turned = compression({0: HIGH}, 1, video={"rotation": 90, "duration_s": None, "fps": None})
    assert shown(stats(turned))[0] == "unknown length · 1280×720 · h264 · rotated by 90°"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00"),
        (5.25, "0:05.2"),
        (59.04, "0:59"),
        (60.9, "1:00"),
        (65, "1:05"),
        (3599.9, "59:59"),
        (3600, "1:00:00"),
        (36_061, "10:01:01"),
    ],
)
def test_a_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_steps_that_were_left_out_are_named() -> None:
    made = compression({0: HIGH, 1: LOW}, 10, regime=Regime.SPATIAL, truncated_tokens=1711)
    without = dataclasses.replace(made, recipe=dataclasses.replace(made.recipe, spatial_compression=False))
    lines = shown(stats(without))
    assert any(line.startswith("spatial token compression (off) ") for line in lines)
    assert "regime    spatial: too many frames: the end of the video is cut" in lines
    assert [line.split()[-1] for line in lines if line.startswith("besides, cut for lack of room")] == ["1,711"]
    spread = dataclasses.replace(made, recipe=dataclasses.replace(made.recipe, query_guided=False))
    spread = dataclasses.replace(spread, statistics=dataclasses.replace(made.statistics, regime=Regime.MIXED))
    lines = shown(stats(spread))
    assert any(line.startswith("full resolution, evenly spread ") for line in lines)
    assert "regime    mixed: full resolution evenly spread, low elsewhere" in lines


# --- evidence -------------------------------------------------------------------------------------------------------


def scored(made: Compression, scores: dict[int, float], cut: dict[int, int] | None = None) -> Compression:
    """The same with these relevances, and tokens that were cut; the others score 0."""
    frames = tuple(
        dataclasses.replace(
            frame, relevance=scores.get(frame.index, 0.0), truncated_tokens=(cut or {}).get(frame.index, 0)
        )
        for frame in made.statistics.per_frame
    )
    statistics = dataclasses.replace(made.statistics, per_frame=frames, truncated_tokens=sum((cut or {}).values()))
    return dataclasses.replace(made, statistics=statistics)


def test_one_resolution_for_all_is_named() -> None:
    made = compression({0: LOW, 1: LOW}, 10, regime=Regime.MIXED)
    low = dataclasses.replace(made, recipe=dataclasses.replace(made.recipe, resolution=FrameResolution.LOW))
    lines = shown(stats(low))
    assert any(line.startswith("low resolution for all ") for line in lines)
    assert "regime    mixed: low resolution for all was asked for" in lines
    assert told(scored(low, {1: 9}))[1] == "(a diagnostic: it decided nothing, low resolution for all was asked for)"


def told(made: Compression, count: int = 3) -> list[str]:
    return shown(evidence_told(made, made.evidence(count)))


def test_evidence_as_people_read_it() -> None:
    fates: dict[int, Resolution | None] = dict.fromkeys(range(0, 80, 8), LOW) | {16: HIGH, 24: HIGH}
    assert told(scored(compression(fates, 80), {16: 12.25, 24: 9.5, 64: 3.0}), count=2) == [
        "moments with the highest relevance for the question",
        "    time          peak   score   above mean   frames   read at   tokens   of all",
        "1   0:16 – 0:25   0:16   12.25       +2.3 σ    16–24      full      168    20.0%",
        "2   1:04 – 1:05   1:04       3       +0.1 σ       64       low       84    10.0%",
        "",
        "not seen",
        "70 of 80 sampled frames, in 10 stretches, the 5 longest:",
        "  0:01 – 0:08  7 frames, like 0:00, 0:08 (similarity 0.90)",
        "  0:09 – 0:16  7 frames, like 0:08 (similarity 0.90)",
        "  0:17 – 0:24  7 frames, like 0:16, 0:24 (similarity 0.90)",
        "  0:25 – 0:32  7 frames, like 0:24 (similarity 0.90)",
        "  0:33 – 0:40  7 frames, like 0:32, 0:40 (similarity 0.90)",
    ]


def test_a_moment_of_both_resolutions_says_so() -> None:
    made = scored(compression({0: LOW, 1: HIGH, 2: LOW, 3: LOW, 4: LOW, 5: LOW}, 6), {1: 9, 2: 8})
    assert "   1 of 2 full      168   " in told(made)[2]


def test_nothing_that_was_not_seen() -> None:
    lines = told(scored(compression({0: HIGH, 1: HIGH}, 2, regime=Regime.ALL_HIGH), {0: 1.0}))
    assert lines[1] == "(a diagnostic: it decided nothing, every frame is read at full resolution)"
    assert lines[-2:] == ["not seen", "nothing: every sampled frame was kept, and no token cut for lack of room"]


def test_what_was_cut() -> None:
    made = scored(compression({0: LOW, 1: HIGH, 2: LOW, 3: LOW}, 4), {1: 9}, cut={1: 5, 2: 1200})
    assert told(made)[-3:] == [
        "not seen",
        "1,205 tokens, cut for lack of room, in 1 stretch:",
        "  0:01 – 0:03  1,205 tokens of 2 frames",
    ]


def test_full_resolution_that_is_evenly_spread_makes_the_score_a_diagnostic() -> None:
    made = scored(compression({0: LOW, 1: HIGH}, 2), {1: 9})
    spread = dataclasses.replace(made, recipe=dataclasses.replace(made.recipe, query_guided=False))
    assert told(spread)[1] == "(a diagnostic: it decided nothing, full resolution is evenly spread)"
