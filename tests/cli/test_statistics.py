import json
import re
from pathlib import Path
from typing import Any

import pytest

from cli.conftest import Longvu
from cli.running import QUESTION
from longvu_cli.longvu import LongVU
from longvu_cli.prompt import build_prompt

MIXED = "--context-length=900"
ALL = "--context-length=8192"


def strip_of(out: str) -> dict[str, tuple[str, int]]:
    """Rows of the strip: name → its bars and its count."""
    names = ("full", "low", "kept", "dropped")
    rows = [line for line in out.splitlines() if line[:8].strip() in names and line[:8].endswith(" ")]
    cut = [(line[:8].strip(), *line[8:].rsplit("  ", 1)) for line in rows]
    return {name: (bars, int(count.replace(",", ""))) for name, bars, count in cut if re.fullmatch(r"[\d,]+", count)}


def numbers_of(out: str, step: str) -> list[str]:
    """The cells beside the name of a step."""
    line = next(line for line in out.splitlines() if line.startswith(step))
    return re.split(r"\s{3,}", line.removeprefix(step).strip())


def compression_of(out: str) -> Any:
    return json.loads(out)["compression"]


def test_the_table_has_the_numbers_of_the_record(longvu: Longvu, busy: Path) -> None:
    ran = longvu("stats", busy, QUESTION, MIXED)
    assert (ran.code, ran.err) == (0, "")
    compression = compression_of(longvu("stats", busy, QUESTION, MIXED, "--json").out)
    frames, tokens = compression["frames"], compression["tokens"]
    assert (frames["kept"], frames["high_resolution"]) == (12, 7)
    assert tokens["visual"] == 7 * 84 + 5 * 40
    assert numbers_of(ran.out, "sampled at 1 per second") == ["12", "1,008", "100.0%"]
    assert numbers_of(ran.out, "temporal reduction by dinov2 (kept all)") == ["12", "1,008", "100.0%"]
    assert numbers_of(ran.out, "query-guided resolution") == ["7 full + 5 low", "788", "78.2%"]
    assert numbers_of(ran.out, "spatial token compression (not needed)") == ["788", "78.2%"]
    assert numbers_of(ran.out, "read by the language model") == ["788"]
    assert numbers_of(ran.out, "room for the video") == [str(compression["visual_budget"])]


def test_the_rows_of_the_strip_add_up_to_the_sampled_frames(longvu: Longvu, busy: Path) -> None:
    decided = strip_of(longvu("stats", busy, QUESTION, MIXED).out)
    assert {name: count for name, (_, count) in decided.items()} == {"full": 7, "low": 5, "dropped": 0}
    record = compression_of(longvu("stats", busy, QUESTION, MIXED, "--json").out)
    highs = "".join("█" if frame["resolution"] == "high" else " " for frame in record["per_frame"])
    assert decided["full"][0] == highs
    assert decided["low"][0] == highs.translate(str.maketrans("█ ", " █"))
    reduced = strip_of(longvu("stats", busy, QUESTION, "--context-length=500", "--temporal-reduction=uniform").out)
    assert sum(count for _, count in reduced.values()) == 12
    assert reduced["dropped"][1] > 0


def test_the_record_is_that_of_ask_without_the_answer(longvu: Longvu, busy: Path) -> None:
    asked = json.loads(longvu("ask", busy, QUESTION, MIXED, "--max-new-tokens=1", "--json").out)
    shown = json.loads(longvu("stats", busy, QUESTION, MIXED, "--json").out)
    assert shown["compression"] == asked["compression"]
    assert (shown["command"], shown["question"], shown["video"]) == ("stats", QUESTION, asked["video"])
    assert asked.keys() - shown.keys() == {"answer", "finish_reason", "token_ids"}
    assert shown["settings"] == asked["settings"] | {"max_new_tokens": 128}
    assert [shown["timing_s"][stage] for stage in ("prefill", "generate", "first_token")] == [0, 0, 0]


def test_evidence_goes_to_stderr_and_needs_a_question(longvu: Longvu, busy: Path, loads: list[str]) -> None:
    plain, told = (longvu("stats", busy, QUESTION, MIXED, *flags) for flags in ((), ("--evidence", 1)))
    assert told.code == 0
    assert told.out.splitlines()[:-1] == plain.out.splitlines()[:-1]  # the last has the seconds
    assert told.err.startswith("moments with the highest relevance for the question\n")
    loads.clear()
    for flags in (("--evidence",), ("--clip", busy.parent)):
        ran = longvu("stats", busy, *flags)
        assert (ran.code, ran.out, loads) == (2, "", [])
        assert "need a question" in ran.err


def test_a_plot_goes_to_its_file(longvu: Longvu, busy: Path, tmp_path: Path, loads: list[str]) -> None:
    ran = longvu("stats", busy, QUESTION, MIXED, "--plot", tmp_path / "plot.png")
    assert (ran.code, ran.err) == (0, f"longvu: plot written: {tmp_path / 'plot.png'}\n")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert ran.out.startswith("0:12")
    loads.clear()
    ran = longvu("stats", busy, "--plot", tmp_path / "plot.svg")
    assert (ran.code, ran.out, loads) == (2, "", [])


def test_no_stats_leaves_nothing_to_print(longvu: Longvu, busy: Path) -> None:
    ran = longvu("stats", busy, "--no-stats")
    assert (ran.code, ran.out) == (2, "")
    assert "nothing to print" in ran.err
    assert json.loads(longvu("stats", busy, "--no-stats", "--json").out)["command"] == "stats"


def test_without_a_question_only_what_waits_for_one_is_undecided(longvu: Longvu, busy: Path) -> None:
    ran = longvu("stats", busy, MIXED, "--json")
    record = json.loads(ran.out)
    assert "question" not in record
    frames = record["compression"]["per_frame"]
    assert record["compression"]["regime"] == "mixed"
    assert {(frame["resolution"], frame["tokens"], frame["relevance"]) for frame in frames} == {(None, None, None)}
    assert all(isinstance(frame["similarity"], float) for frame in frames)
    shown = longvu("stats", busy, MIXED).out
    assert {name: count for name, (_, count) in strip_of(shown).items()} == {"kept": 12, "dropped": 0}
    assert "depends on the question" in shown


def test_without_a_question_what_does_not_wait_for_one_is_decided(longvu: Longvu, busy: Path) -> None:
    compression = compression_of(longvu("stats", busy, ALL, "--json").out)
    assert compression["regime"] == "all_high"
    assert {(frame["resolution"], frame["tokens"]) for frame in compression["per_frame"]} == {("high", 84)}
    shown = longvu("stats", busy, ALL).out
    assert {name: count for name, (_, count) in strip_of(shown).items()} == {"full": 12, "low": 0, "dropped": 0}
    assert "depends on the question" not in shown


def test_the_prompt_that_is_counted_is_that_of_the_question(longvu: Longvu, qwen: LongVU, busy: Path) -> None:
    modules = qwen._modules
    for question in (None, QUESTION, QUESTION * 3):
        words = () if question is None else (question,)
        text_tokens = compression_of(longvu("stats", busy, *words, "--json").out)["text_tokens"]
        prompt = build_prompt(modules.tokenizer, modules.config.family, question or "")
        assert text_tokens == len(prompt.before) + len(prompt.after)


def test_no_shard_of_the_language_model_is_needed_without_a_question(longvu: Longvu, busy: Path, sharded: Path) -> None:
    expected = compression_of(longvu("stats", busy, MIXED, "--json").out)
    (sharded / "decoder.safetensors").unlink()
    (sharded / "embeddings.safetensors").unlink()
    ran = longvu("stats", busy, MIXED, "-m", sharded, "--json")
    assert ran.code == 0
    assert compression_of(ran.out) == expected
    assert longvu("stats", busy, QUESTION, "-m", sharded).code == 4


def test_a_question_needs_the_shard_with_the_embeddings_alone(longvu: Longvu, busy: Path, sharded: Path) -> None:
    expected = compression_of(longvu("stats", busy, QUESTION, MIXED, "--json").out)
    (sharded / "decoder.safetensors").unlink()
    ran = longvu("stats", busy, QUESTION, MIXED, "-m", sharded, "--json")
    assert ran.code == 0
    assert compression_of(ran.out) == expected
    missing = longvu("ask", busy, QUESTION, "-m", sharded)
    assert (missing.code, missing.out) == (4, "")
    assert "decoder.safetensors is missing" in missing.err


def test_the_connector_is_needed_always(longvu: Longvu, busy: Path, sharded: Path) -> None:
    (sharded / "connector.safetensors").unlink()
    ran = longvu("stats", busy, "-m", sharded)
    assert (ran.code, ran.out) == (4, "")
    assert "connector.safetensors is missing" in ran.err


def test_the_heading_describes_the_video(longvu: Longvu, clip: Path) -> None:
    assert longvu("stats", clip).out.splitlines()[0] == "0:06 · 128×72 · h264 · 10 frames/s"


def test_quiet_shows_the_statistics_all_the_same(longvu: Longvu, clip: Path) -> None:
    ran = longvu("stats", clip, "-q")
    assert ran.err == ""
    assert numbers_of(ran.out, "sampled at 1 per second")[0] == "6"


def test_frames_are_saved(longvu: Longvu, clip: Path, tmp_path: Path) -> None:
    ran = longvu("stats", clip, "--end=3", "--save-frames", tmp_path / "frames")
    assert (ran.code, ran.err) == (0, f"longvu: 3 frames written to {tmp_path / 'frames'}\n")
    assert len(list((tmp_path / "frames").iterdir())) == 3


@pytest.mark.parametrize("question", ["", " \n"])
def test_a_question_of_spaces_is_refused(longvu: Longvu, clip: Path, question: str) -> None:
    ran = longvu("stats", clip, question)
    assert (ran.code, ran.out) == (2, "")


def test_tokens_cut_for_lack_of_room_are_told(longvu: Longvu, busy: Path) -> None:
    ran = longvu("stats", busy, QUESTION, "--context-length=200")
    compression = compression_of(longvu("stats", busy, QUESTION, "--context-length=200", "--json").out)
    assert (compression["regime"], compression["spatial_compression"]) == ("spatial", True)
    assert compression["tokens"]["visual"] <= compression["visual_budget"]
    assert compression["truncated_tokens"] > 0
    assert numbers_of(ran.out, "besides, cut for lack of room") == [str(compression["truncated_tokens"])]
    assert "(not needed)" not in ran.out
