import io
import json
import os
import shutil
import sys
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from media import UPRIGHT, corners_of, number_of, picture, steady, write_video
from PIL import Image

from cli.conftest import Longvu
from cli.running import PARITY, QUESTION, QWEN, run_here
from longvu_cli.choices import ORDER, chosen
from longvu_cli.config import CompressionOptions, GenerationOptions, PromptOptions
from longvu_cli.errors import DeviceOutOfMemory
from longvu_cli.longvu import LongVU
from longvu_cli.prompt import SYSTEM as SYSTEM_TEXT
from longvu_cli.results import Chunk
from longvu_cli.subtitles import HEADING
from longvu_cli.world.questions import questions
from longvu_cli.world.story import Story

ONE_FRAME = PARITY / "one_frame.mkv"
STILL = PARITY / "still_image_landscape.png"
SHORT = "--max-new-tokens=4"

NUMBER = (int, float)
NULLABLE_NUMBER = (int, float, type(None))
VIDEO = {
    "path": str,
    "duration_s": NUMBER,
    "width": int,
    "height": int,
    "fps": NUMBER,
    "rotation": int,
    "codec": str,
    "is_still": bool,
    "warnings": list,
    "title": (str, type(None)),
}
MODEL = {
    "name": str,
    "source": str,
    "revision": (str, type(None)),
    "dtype": str,
    "compiled": bool,
    "quantization": str,
    "device": str,
    "notices": list,
}
SETTINGS = {
    "recipe": str,
    "orientation": str,
    "fps": float,
    "start_s": float,
    "end_s": (float, type(None)),
    "thin_above": int,
    "context_length": int,
    "dino_threshold": float,
    "stc_threshold": float,
    "temporal_reduction": str,
    "anchor": str,
    "frame_position_encoding": bool,
    "still": str,
    "query_guided": bool,
    "spatial_compression": bool,
    "resolution": str,
}
GENERATION = {"temperature": float, "top_p": float, "max_new_tokens": int, "seed": (int, type(None))}
FRAMES = {"sampled": int, "kept": int, "high_resolution": int}
TOKENS = {"dense": int, "after_temporal": int, "after_query": int, "visual": int}
PER_FRAME = {
    "index": int,
    "time_s": float,
    "resolution": str,
    "relevance": float,
    "similarity": float,
    "tokens": int,
    "truncated_tokens": int,
}
MOMENT = {
    **dict.fromkeys(("start_s", "end_s", "peak_s", "relevance", "token_share"), float),
    **dict.fromkeys(("first_frame", "last_frame", "peak_frame", "frames", "high_resolution", "tokens"), int),
    "resolution": str,
    "deviations": NULLABLE_NUMBER,
    "clip": (str, type(None)),
}
DROPPED = {
    **dict.fromkeys(("start_s", "end_s"), float),
    "frames": int,
    "fate": str,
    "similarity": NULLABLE_NUMBER,
    "resembles_s": list,
}
STAGES = ("load", "decode", "preprocess", "dinov2", "siglip", "connector", "compression", "prefill", "generate")
TIMING = dict.fromkeys((*STAGES, "first_token", "total"), float)


def assert_has(record: dict[str, Any], fields: dict[str, Any]) -> None:
    """Exactly these fields, of these types; a bool is no number."""
    assert set(record) == set(fields)
    wrong = {
        name: record[name]
        for name, kind in fields.items()
        if not isinstance(record[name], kind) or (isinstance(record[name], bool) and kind is not bool)
    }
    assert not wrong


def one_record(out: str) -> dict[str, Any]:
    """The only line of stdout, as JSON."""
    assert out.endswith("\n")
    assert out.count("\n") == 1
    record = json.loads(out)
    assert isinstance(record, dict)
    return record


# --- ask -----------------------------------------------------------------------------------------------------------


def test_the_answer_alone_is_on_stdout_and_a_summary_of_three_lines_on_stderr(
    longvu: Longvu, qwen: LongVU, clip: Path
) -> None:
    expected = qwen.answer(clip, QUESTION, generation=GenerationOptions(max_new_tokens=12)).text
    ran = longvu("ask", clip, QUESTION, "--max-new-tokens", 12)
    assert (ran.code, ran.out) == (0, expected + "\n")
    assert expected.startswith("K")
    frames, tokens, seconds = ran.err.splitlines()
    assert frames == "frames  6 sampled → 6 kept → 6 at full resolution"
    assert tokens == "tokens  504 dense → 504 read (100.0%)"
    assert seconds.startswith("seconds ")


def test_the_summary_is_one_line_each_in_a_narrow_window_of_no_terminal(
    longvu: Longvu, clip: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert len(longvu("ask", clip, QUESTION, SHORT).err.splitlines()) == 3


@pytest.mark.parametrize("flag", ["-q", "--quiet", "--no-stats"])
def test_the_summary_can_be_left_out(longvu: Longvu, clip: Path, flag: str) -> None:
    ran = longvu("ask", clip, QUESTION, SHORT, flag)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("K")


def test_verbose_says_which_model(longvu: Longvu, clip: Path) -> None:
    ran = longvu("ask", clip, QUESTION, SHORT, "-v", "--no-stats")
    assert ran.err == f"longvu: model qwen from {QWEN} (float32 on cpu)\n"


def test_json_is_one_line_with_every_field(longvu: Longvu, qwen: LongVU, clip: Path, fresh_cache: Path) -> None:
    answer = qwen.answer(clip, QUESTION, generation=GenerationOptions(max_new_tokens=12))
    ran = longvu("ask", clip, QUESTION, "--max-new-tokens", 12, "--json")
    assert ran.code == 0
    assert ran.err.startswith("frames  6 sampled")
    record = one_record(ran.out)
    assert set(record) == {
        *("schema_version", "command", "video", "question", "answer", "finish_reason", "token_ids", "model"),
        *("settings", "prompt", "compression", "timing_s", "memory", "cache", "notices", "evidence"),
    }
    assert record["schema_version"] == 1
    assert record["command"] == "ask"
    assert record["question"] == QUESTION
    assert record["answer"] == answer.text
    assert record["token_ids"] == list(answer.token_ids)
    assert record["finish_reason"] == "length"
    assert_has(record["video"], VIDEO)
    assert (record["video"]["path"], record["video"]["duration_s"]) == (str(clip), pytest.approx(6, abs=0.2))
    assert (record["video"]["width"], record["video"]["height"], record["video"]["fps"]) == (128, 72, 10)
    assert_has(record["model"], MODEL)
    assert record["model"] | {"notices": [], "name": "qwen", "source": str(QWEN), "device": "cpu"} == record["model"]
    assert_has(record["settings"], SETTINGS | GENERATION)
    assert record["settings"]["context_length"] == 8192
    compression = record["compression"]
    assert set(compression) == {
        *("regime", "spatial_compression", "text_tokens", "visual_budget", "frames", "tokens", "truncated_tokens"),
        "per_frame",
    }
    assert_has(compression["frames"], FRAMES)
    assert_has(compression["tokens"], TOKENS)
    for number, frame in enumerate(compression["per_frame"]):
        assert_has(frame, PER_FRAME)
        assert (frame["index"], frame["resolution"], frame["tokens"]) == (number, "high", 84)
        assert frame["time_s"] == pytest.approx(number, abs=0.01)
    assert (compression["regime"], compression["spatial_compression"]) == ("all_high", False)
    assert compression["text_tokens"] + compression["visual_budget"] + 16 == 8192
    assert_has(record["timing_s"], TIMING)
    assert all(record["timing_s"][stage] > 0 for stage in TIMING)
    assert record["timing_s"]["first_token"] <= record["timing_s"]["total"]
    assert_has(record["memory"], {"peak_device_bytes": int, "peak_host_bytes": int})
    assert record["memory"]["peak_host_bytes"] > 50e6
    assert record["cache"] == {"features": "miss"}
    assert set(record["evidence"]) == {"steers", "moments", "dropped", "truncated"}
    assert (record["evidence"]["steers"], record["evidence"]["dropped"], record["evidence"]["truncated"]) == (
        *(False, [], []),
    )
    assert 1 <= len(record["evidence"]["moments"]) <= 3
    for moment in record["evidence"]["moments"]:
        assert_has(moment, MOMENT)


def test_an_end_id_is_among_the_token_ids_and_not_in_the_answer(
    longvu: Longvu, checkpoint_copy: Path, clip: Path
) -> None:
    usual = json.loads(longvu("ask", clip, QUESTION, "--max-new-tokens", 3, "--json").out)
    config = json.loads((checkpoint_copy / "config.json").read_text())
    config["eos_token_id"] = [258, usual["token_ids"][2]]
    (checkpoint_copy / "config.json").write_text(json.dumps(config))
    ended = json.loads(longvu("ask", clip, QUESTION, "-m", checkpoint_copy, "--max-new-tokens", 9, "--json").out)
    assert ended["finish_reason"] == "stop"
    assert ended["token_ids"] == usual["token_ids"]


def test_one_new_token_is_one(longvu: Longvu, clip: Path) -> None:
    record = json.loads(longvu("ask", clip, QUESTION, "--max-new-tokens", 1, "--json").out)
    assert (len(record["token_ids"]), record["finish_reason"]) == (1, "length")


def test_a_seed_makes_sampling_repeatable(longvu: Longvu, clip: Path) -> None:
    def ids(seed: int) -> list[int]:
        ran = longvu("ask", clip, QUESTION, "--temperature", 2, "--seed", seed, "--max-new-tokens", 10, "--json")
        record = json.loads(ran.out)
        assert (record["settings"]["seed"], record["settings"]["temperature"]) == (seed, 2.0)
        return list(record["token_ids"])

    assert ids(1) == ids(1)
    assert ids(1) != ids(2)


def test_the_answer_streams_as_it_is_made(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    seen: list[str] = []

    def pieces(tokenizer: object, ids: Iterator[int]) -> Iterator[tuple[int, str]]:
        for token_id, text in zip(ids, ("On the ", "tab", "le."), strict=False):
            yield token_id, text
            seen.append(buffer.getvalue().decode())

    monkeypatch.setattr("longvu_cli.longvu.decode_stream", pieces)
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(buffer, encoding="utf-8"))
    run_here(("ask", clip, QUESTION, "--max-new-tokens=3", "-q"), monkeypatch, None)
    assert seen == ["On the ", "On the tab", "On the table."]
    assert buffer.getvalue() == b"On the table.\n"


@pytest.mark.parametrize(
    ("flags", "times"),
    [
        ((), [0, 1, 2, 3, 4, 5]),
        (("--start", "2"), [2, 3, 4, 5]),
        (("--start", "0:02.5"), [2.5, 3.5, 4.5, 5.5]),
        (("--start", "00:00:04"), [4, 5]),
        (("--end", "2"), [0, 1]),
        (("--start", "1.5", "--end", "0:03.5"), [1.5, 2.5]),
        (("--fps", "0.5"), [0, 2, 4]),
        (("--fps", "2", "--start", "4"), [4, 4.5, 5, 5.5]),
    ],
)
def test_the_moments_that_are_looked_at(longvu: Longvu, clip: Path, flags: tuple[str, ...], times: list[float]) -> None:
    record = json.loads(longvu("ask", clip, QUESTION, "--max-new-tokens=1", "--json", *flags).out)
    assert [frame["time_s"] for frame in record["compression"]["per_frame"]] == pytest.approx(times, abs=0.01)
    assert record["compression"]["frames"]["sampled"] == len(times)


def test_the_kept_frames_are_saved_by_their_number_among_the_sampled(
    longvu: Longvu, clip: Path, tmp_path: Path
) -> None:
    flags = ("--context-length=300", "--fps=2", "--start=2", "--temporal-reduction=uniform", SHORT)
    ran = longvu("ask", clip, QUESTION, *flags, "--json", "--no-stats", "--save-frames", tmp_path / "new" / "frames")
    assert ran.code == 0
    kept = [frame["index"] for frame in json.loads(ran.out)["compression"]["per_frame"]]
    assert 0 < len(kept) < 8
    assert kept[-1] > 0
    saved = sorted((tmp_path / "new" / "frames").iterdir())
    assert [file.name for file in saved] == [f"{index:06d}.png" for index in kept]
    for index, file in zip(kept, saved, strict=True):
        assert number_of(np.asarray(Image.open(file))) == 20 + 5 * index
    assert ran.err == f"longvu: {len(kept)} frames written to {tmp_path / 'new' / 'frames'}\n"


def test_saved_frames_are_upright(longvu: Longvu, tmp_path: Path) -> None:
    video = write_video(
        tmp_path / "turned.mp4",
        steady(2, 1),
        pictures=[np.rot90(picture(number), -1).copy() for number in range(2)],
        display=(90, False),
    )
    assert longvu("ask", video, QUESTION, SHORT, "--save-frames", tmp_path / "frames").code == 0
    pixels = np.asarray(Image.open(tmp_path / "frames" / "000001.png"))
    assert pixels.shape == (72, 128, 3)
    assert corners_of(pixels) == UPRIGHT
    assert number_of(pixels) == 1


# --- evidence ------------------------------------------------------------------------------------------------------


def test_evidence_follows_the_answer_on_stderr(longvu: Longvu, busy: Path) -> None:
    ran = longvu("ask", busy, QUESTION, SHORT, "--context-length=900", "--evidence", "2")
    assert ran.code == 0 and ran.out.count("\n") == 1
    record = json.loads(longvu("ask", busy, QUESTION, SHORT, "--context-length=900", "--json", "--evidence=2").out)
    lines = ran.err.splitlines()
    assert lines[0] == "moments with the highest relevance for the question"
    found = record["evidence"]["moments"]
    assert record["evidence"]["steers"] and len(found) == 2
    rows = [line.split() for line in lines[2:4]]
    assert [row[0] for row in rows] == ["1", "2"]
    for row, moment in zip(rows, found, strict=True):
        assert f"{moment['relevance']:.4g}" in row
        assert f"{moment['tokens']:,}" in row and f"{moment['token_share']:.1%}" in row
    assert found[0]["relevance"] == max(frame["relevance"] for frame in record["compression"]["per_frame"])
    assert "not seen" in lines and any(line.startswith("frames ") for line in lines)


def test_where_the_score_steers_nothing_it_says_so(longvu: Longvu, clip: Path) -> None:
    ran = longvu("ask", clip, QUESTION, SHORT, "--evidence", "--no-stats")
    assert ran.code == 0
    assert "(a diagnostic: it decided nothing, every frame is read at full resolution)" in ran.err
    assert "nothing: every sampled frame was kept" in ran.err
    assert "frames  6 sampled" not in ran.err


def test_what_was_dropped_is_told(longvu: Longvu, busy: Path) -> None:
    flags = ("--context-length=500", "--temporal-reduction=uniform", "--evidence=1")
    record = json.loads(longvu("ask", busy, QUESTION, SHORT, *flags, "--json").out)
    for span in record["evidence"]["dropped"]:
        assert_has(span, DROPPED)
    frames = record["compression"]["frames"]
    dropped = sum(span["frames"] for span in record["evidence"]["dropped"])
    assert dropped == frames["sampled"] - frames["kept"] > 0
    told = longvu("ask", busy, QUESTION, SHORT, *flags).err
    assert f"{dropped} of {frames['sampled']} sampled frames" in told
    assert "evenly spaced frames were asked for" in told


@pytest.mark.parametrize("place", ["before", "between", "after", "end"])
def test_the_number_of_moments_may_be_left_out(longvu: Longvu, clip: Path, place: str) -> None:
    words = [str(clip), QUESTION, SHORT, "--json", "-q"]
    at = {"before": 0, "between": 1, "after": 2, "end": 5}[place]
    ran = longvu("ask", *words[:at], "--evidence", *words[at:])
    assert ran.code == 0
    assert len(one_record(ran.out)["evidence"]["moments"]) <= 3


@pytest.mark.parametrize("count", ["0", "-1"])
def test_a_number_of_moments_that_is_none_is_refused(longvu: Longvu, clip: Path, count: str) -> None:
    ran = longvu("ask", clip, QUESTION, "--evidence", count)
    assert (ran.code, ran.out) == (2, "")
    assert "--evidence" in ran.err


def test_evidence_and_quiet_contradict_each_other(longvu: Longvu, clip: Path, loads: list[str]) -> None:
    for command in ("ask", "stats"):
        ran = longvu(command, clip, QUESTION, "--evidence", "-q")
        assert (ran.code, ran.out, loads) == (2, "", [])
        assert "--quiet leaves --evidence nothing to say" in ran.err


def test_clips_and_frames_together(longvu: Longvu, clip: Path, tmp_path: Path) -> None:
    flags = ("--clip", tmp_path / "clips", "--save-frames", tmp_path / "frames", "--evidence=1")
    ran = longvu("ask", clip, QUESTION, SHORT, *flags, "--json", "--no-stats")
    assert ran.code == 0
    record = one_record(ran.out)
    (moment,) = record["evidence"]["moments"]
    assert [str(path) for path in (tmp_path / "clips").iterdir()] == [moment["clip"]]
    assert (tmp_path / "frames" / f"{moment['peak_frame']:06}.png").is_file()
    assert f"longvu: clip written: {moment['clip']}\n" in ran.err
    before = Path(moment["clip"]).read_bytes()
    again = one_record(longvu("ask", clip, QUESTION, SHORT, *flags, "--json", "-q").out)["evidence"]["moments"][0]
    assert again["clip"] != moment["clip"]
    assert Path(moment["clip"]).read_bytes() == before


def test_a_folder_for_clips_that_cannot_be_made_is_noticed_first(
    longvu: Longvu, clip: Path, tmp_path: Path, loads: list[str]
) -> None:
    (tmp_path / "file").touch()
    ran = longvu("ask", clip, QUESTION, "--clip", tmp_path / "file")
    assert (ran.code, ran.out, loads) == (2, "", [])
    assert "clips cannot be written" in ran.err


def test_a_picture_has_no_clips(longvu: Longvu, tmp_path: Path) -> None:
    ran = longvu("ask", STILL, QUESTION, SHORT, "--clip", tmp_path)
    assert ran.code == 0
    assert "a picture has no clips" in ran.err and list(tmp_path.iterdir()) == []


def test_a_folder_for_frames_that_cannot_be_made_leaves_one_record(longvu: Longvu, clip: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ran = longvu("ask", clip, QUESTION, SHORT, "--json", "--save-frames", tmp_path / "file")
    assert ran.code == 2
    assert "error" in one_record(ran.out)


def test_a_picture_is_answered_about(longvu: Longvu, qwen: LongVU) -> None:
    expected = qwen.answer(STILL, QUESTION, generation=GenerationOptions(max_new_tokens=4))
    record = json.loads(longvu("ask", STILL, QUESTION, SHORT, "--json").out)
    assert record["token_ids"] == list(expected.token_ids)
    assert (record["video"]["is_still"], record["video"]["duration_s"], record["video"]["fps"]) == (True, None, None)


def test_an_empty_answer_is_an_empty_line(longvu: Longvu, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("longvu_cli.longvu.decode_stream", lambda tokenizer, ids: ((i, "") for i in ids))
    assert longvu("ask", clip, QUESTION, SHORT, "-q").out == "\n"


def test_the_compression_flags_arrive(longvu: Longvu, qwen: LongVU, busy: Path) -> None:
    options = CompressionOptions(context_length=900)
    expected = qwen.compress(busy, QUESTION, compression=options).statistics
    ran = longvu("ask", busy, QUESTION, SHORT, "--context-length=900")
    assert "frames  12 sampled → 12 kept → 7 at full resolution\n" in ran.err
    assert f"tokens  1,008 dense → {expected.tokens.visual} read (78.2%)\n" in ran.err


# --- describe ------------------------------------------------------------------------------------------------------


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    file = tmp_path / "bad.mp4"
    file.write_text("no video")
    return file


def test_one_video_is_described_without_a_heading(longvu: Longvu, qwen: LongVU, clip: Path) -> None:
    from longvu_cli.prompt import DESCRIBE

    expected = qwen.answer(clip, DESCRIBE, generation=GenerationOptions(max_new_tokens=4)).text
    assert longvu("describe", clip, SHORT).out == expected + "\n"


def test_several_videos_are_described_under_headings_with_one_load(
    longvu: Longvu, clip: Path, loads: list[str]
) -> None:
    alone = [longvu("describe", video, SHORT, "-q").out for video in (clip, ONE_FRAME)]
    loads.clear()
    ran = longvu("describe", clip, ONE_FRAME, SHORT)
    assert ran.code == 0
    assert ran.out == f"==> {clip} <==\n{alone[0]}\n==> {ONE_FRAME} <==\n{alone[1]}"
    assert len(loads) == 1
    assert ran.err.count("frames  ") == 2


def test_each_video_is_one_record_as_soon_as_it_is_done(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()  # holds what was flushed
    before_each: list[int] = []
    original = LongVU.stream

    def watched(self: LongVU, *arguments: Any, **settings: Any) -> Any:
        before_each.append(buffer.getvalue().count(b"\n"))
        return original(self, *arguments, **settings)

    monkeypatch.setattr(LongVU, "stream", watched)
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(buffer, encoding="utf-8"))
    ran = run_here(("describe", clip, ONE_FRAME, clip, SHORT, "--json"), monkeypatch, None)
    assert ran.code == 0
    assert before_each == [0, 1, 2]
    records = [json.loads(line) for line in buffer.getvalue().splitlines()]
    assert [(record["command"], record["video"]["path"]) for record in records] == [
        ("describe", str(video)) for video in (clip, ONE_FRAME, clip)
    ]


def test_a_bad_video_among_good_ones_is_told_and_the_others_are_described(
    longvu: Longvu, clip: Path, bad: Path
) -> None:
    ran = longvu("describe", clip, bad, ONE_FRAME, SHORT, "-q")
    assert ran.code == 6
    headings = [line for line in ran.out.splitlines() if line.startswith("==> ")]
    assert headings == [f"==> {video} <==" for video in (clip, bad, ONE_FRAME)]
    assert longvu("describe", ONE_FRAME, SHORT, "-q").out in ran.out
    assert len(ran.err.splitlines()) == 1
    assert ran.err.startswith("longvu: error: ")
    assert str(bad) in ran.err


def test_a_bad_video_among_good_ones_is_a_record_that_names_it(longvu: Longvu, clip: Path, bad: Path) -> None:
    ran = longvu("describe", bad, clip, bad.parent / "missing.mp4", SHORT, "--json", "--no-stats")
    assert (ran.code, ran.err) == (6, "")
    first, second, third = (json.loads(line) for line in ran.out.splitlines())
    assert (first["video"]["path"], first["error"]["type"]) == (str(bad), "NotAVideo")
    assert (second["video"]["path"], second["finish_reason"]) == (str(clip), "length")
    assert (third["video"]["path"], third["error"]["type"]) == (str(bad.parent / "missing.mp4"), "VideoNotFound")


def test_all_videos_bad_is_still_some_of_several(longvu: Longvu, bad: Path) -> None:
    assert longvu("describe", bad, bad, "-q").code == 6


@pytest.mark.parametrize("command", [("describe",), ("ask", QUESTION), ("stats",)])
def test_a_single_bad_video_has_its_own_code_and_no_model_is_loaded(
    longvu: Longvu, bad: Path, loads: list[str], command: tuple[str, ...]
) -> None:
    ran = longvu(command[0], bad, *command[1:])
    assert (ran.code, ran.out, loads) == (3, "", [])


def test_a_question_of_spaces_points_to_describe(longvu: Longvu, clip: Path, loads: list[str]) -> None:
    ran = longvu("ask", clip, "  ")
    assert (ran.code, ran.out, loads) == (2, "", [])
    assert "`longvu describe`" in ran.err


def test_the_same_video_under_another_name_says_its_own_name(longvu: Longvu, clip: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copy2(clip, tmp_path / "copy.mp4"))
    longvu("ask", clip, QUESTION, SHORT)
    record = json.loads(longvu("ask", copy, QUESTION, SHORT, "--json").out)
    assert (record["video"]["path"], record["cache"]["features"]) == (str(copy), "hit")


def test_the_memory_of_a_video_that_did_not_fit_is_free_again(
    longvu: Longvu, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[weakref.ref[torch.Tensor]] = []
    alive: list[bool] = []
    original = LongVU.stream

    def too_large(self: LongVU, video: str, question: str, **settings: Any) -> Iterator[Any]:
        if held:
            alive.append(held[0]() is not None)
            yield from original(self, video, question, **settings)
            return
        tensor = torch.zeros(3)
        held.append(weakref.ref(tensor))
        raise DeviceOutOfMemory("cuda:0 ran out of memory", hint="try less")

    monkeypatch.setattr(LongVU, "stream", too_large)
    ran = longvu("describe", clip, clip, SHORT, "-q")
    assert ran.code == 6
    assert alive == [False]


def test_each_of_several_videos_has_a_folder_for_its_frames(longvu: Longvu, clip: Path, tmp_path: Path) -> None:
    ran = longvu("describe", clip, clip, SHORT, "-q", "--save-frames", tmp_path / "frames")
    assert ran.code == 0
    assert [len(list(folder.iterdir())) for folder in sorted((tmp_path / "frames").iterdir())] == [6, 6]


def test_frames_that_cannot_be_written_are_told_in_place_of_the_record(
    longvu: Longvu, clip: Path, tmp_path: Path
) -> None:
    (tmp_path / "000000.png").mkdir()
    ran = longvu("ask", clip, QUESTION, SHORT, "--json", "--no-stats", "--save-frames", tmp_path)
    assert ran.code == 2
    assert one_record(ran.out).keys() == {"schema_version", "error"}


# --- the prompt -----------------------------------------------------------------------------------------------------

SRT = "1\n00:00:01,000 --> 00:00:02,500\nGood morning\n\n2\n00:00:05,000 --> 00:00:06,000\nBye\n"


def test_what_the_prompt_held_is_in_the_record(longvu: Longvu, clip: Path, tmp_path: Path) -> None:
    subtitles = tmp_path / "said.srt"
    subtitles.write_text(SRT)
    plain = one_record(longvu("ask", clip, QUESTION, SHORT, "--json").out)
    assert plain["prompt"] == {"system": None, "template": None, "choices": [], "subtitles": None}
    assert "choice" not in plain
    options = ("--system", "Be brief.", "--prompt-template", "Look. {question}", "--choices", "red| blue |green")
    ran = longvu("ask", clip, QUESTION, SHORT, "--json", *options, "--subtitles", subtitles, "--end", 3)
    record = one_record(ran.out)
    assert record["prompt"] == {
        "system": "Be brief.",
        "template": "Look. {question}",
        "choices": ["red", "blue", "green"],
        "subtitles": {"source": str(subtitles), "lines": 1, "read": 1},
    }
    assert record["question"] == QUESTION
    assert record["choice"] is None
    assert "longvu: warning: the answer names none of the options\n" in ran.err
    said = [SYSTEM_TEXT, "Be brief."], [QUESTION, f"Look. Question: {QUESTION}"]
    grown = sum(len(new) - len(old) for old, new in said)
    grown += len(f"\nOptions:\n(A) red\n(B) blue\n(C) green\n{ORDER}") + len(f"{HEADING}\n[0:01] Good morning\n")
    # The tiny tokenizer has an id per letter.
    assert record["compression"]["text_tokens"] == plain["compression"]["text_tokens"] + grown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--prompt-template", "no place"), "the prompt template has no place for the question"),
        (("--choices", "one"), "1 options are no choice"),
        (("--choices", "one||two"), "an option is empty"),
        (("--subtitles", "/no/where.srt"), "the subtitles cannot be read: /no/where.srt: no such file"),
    ],
)
def test_prompts_that_cannot_be_are_refused(longvu: Longvu, clip: Path, options: tuple[str, ...], message: str) -> None:
    ran = longvu("ask", clip, QUESTION, *options)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err


def test_the_letter_that_an_answer_means_is_told(
    longvu: Longvu, qwen: LongVU, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompting = PromptOptions(choices=("A red cup", "A blue cup"))
    like = qwen.answer(clip, QUESTION, prompting=prompting, generation=GenerationOptions(max_new_tokens=1))

    def answers(text: str) -> Iterator[Chunk]:
        yield Chunk(text=text, token_id=1)
        yield Chunk(text="", token_id=None, answer=replace(like, text=text))

    for text, letter, note in (("(B)", "B", ""), ("A red cup.", "A", "longvu: the answer is option A\n")):
        monkeypatch.setattr(LongVU, "stream", lambda *_, text=text, **__: answers(text))
        ran = longvu("ask", clip, QUESTION, "--choices", "A red cup|A blue cup", "--no-stats")
        assert (ran.out, ran.err) == (f"{text}\n", note)
        ran = longvu("ask", clip, QUESTION, "--choices", "A red cup|A blue cup", "--json")
        assert one_record(ran.out)["choice"] == letter


def test_a_question_comes_from_a_file_or_stdin(
    longvu: Longvu, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(argument: str) -> str:
        return str(one_record(longvu("ask", clip, argument, SHORT, "--json").out)["question"])

    file = tmp_path / "question.txt"
    file.write_bytes("\ufeffWo ist die Tasse?\r\nUnd der Löffel?\r\n".encode())
    assert asked(f"@{file}") == "Wo ist die Tasse?\r\nUnd der Löffel?"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"Where?\n")))
    assert asked("@-") == "Where?"
    assert asked("@@home?") == "@home?"
    record = one_record(longvu("stats", clip, f"@{file}", "--json").out)
    assert record["question"].startswith("Wo ist")


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot be read: No such file"), (b"Gr\xfc\xdfe", "is no valid text (UTF-8)"), (b"\n", "is empty")],
)
def test_a_question_that_cannot_be_read_is_told(
    longvu: Longvu, clip: Path, tmp_path: Path, content: bytes | None, message: str
) -> None:
    file = tmp_path / "question.txt"
    if content is not None:
        file.write_bytes(content)
    ran = longvu("ask", clip, f"@{file}")
    assert ran.code == 2
    assert message in ran.err


def test_of_a_file_without_end_only_the_beginning_is_read(longvu: Longvu, clip: Path, tmp_path: Path) -> None:
    file = tmp_path / "question.txt"
    file.touch()
    os.truncate(file, 11_000_000)
    ran = longvu("ask", clip, f"@{file}")
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "the question has 10,000,000 characters" in ran.err


def test_what_the_tiny_model_says_is_found_among_options(short_film: tuple[Story, Path], trained_tiny: LongVU) -> None:
    """Options in the prompt confuse it, as it never saw any; what it says without them is one of them all the same."""
    told, film = short_film
    colours = ("Red", "Black", "Orange", "Yellow")
    asked = [question for question in questions(told) if question.kind == "colour"]
    found = [chosen(trained_tiny.answer(film, one.text).text, colours) for one in asked]
    right = ["ABCD"[colours.index(one.answer.rstrip("."))] for one in asked]
    assert sum(one == other for one, other in zip(found, right, strict=True)) >= len(right) - 1
