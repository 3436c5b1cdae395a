"""``--coverage``, with the tiny model, in a world where it is known what is shown when."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from cli.conftest import Longvu
from longvu_cli import coverage
from longvu_cli.errors import DeviceOutOfMemory
from longvu_cli.longvu import LongVU
from longvu_cli.results import Answer
from longvu_cli.world.film import write_film
from longvu_cli.world.story import Story, needle_story

# Of what stands on the card, and nowhere else.
# An odd seed puts one thing on the card.
_ON_THE_CARD = needle_story(7, 60, 0.7).cards[0].thing
BRIEF = f"Which colour does the {_ON_THE_CARD.kind} have?"


@pytest.fixture(scope="session")
def needle_film(tmp_path_factory: pytest.TempPathFactory) -> tuple[Story, Path]:
    """A minute of the drawn world, in which a card with one thing on it is shown for one second."""
    told = needle_story(7, 60, 0.7)
    film = tmp_path_factory.mktemp("films") / "needle.mp4"
    write_film(told, film, fps=1)
    return told, film


@pytest.fixture(autouse=True)
def short_segments(monkeypatch: pytest.MonkeyPatch, trained_tiny: LongVU) -> None:
    """The tiny model, and segments of twenty seconds, so that a minute has three."""
    for tower in ("LONGVU_DINOV2", "LONGVU_SIGLIP"):
        monkeypatch.delenv(tower)
    monkeypatch.setenv("LONGVU_MODEL", "tiny")
    monkeypatch.setattr(coverage, "_MOST_FRAMES", 25)


def needle_of(told: Story) -> tuple[str, float]:
    """The colour of what the card shows, as the model says it, and when."""
    (card,) = told.cards
    assert card.thing == _ON_THE_CARD
    return card.thing.colour.capitalize(), card.start_s


def test_the_answer_is_that_of_the_segment_that_shows_it(longvu: Longvu, needle_film: tuple[Story, Path]) -> None:
    told, film = needle_film
    name, at = needle_of(told)
    ran = longvu("ask", film, BRIEF, "--coverage", "--no-stats")
    assert ran.code == 0
    assert ran.out == f"{name}.\n"
    *pieces, merge = ran.err.splitlines()
    assert [piece.split(": ")[1] for piece in pieces] == ["1 of 3, 0:00–0:20", "2 of 3, 0:20–0:40", "3 of 3, 0:40–end"]
    assert merge == "longvu: coverage: of 3 segments, the answer is that of 0:40–end"
    record = json.loads(longvu("ask", film, BRIEF, "--coverage", "--json").out)
    assert record["answer"] == f"{name}."
    assert [(one["start_s"], one["end_s"], one["chosen"]) for one in record["segments"]] == [
        (0, 20, False),
        (20, 40, False),
        (40, None, True),
    ]
    assert record["segments"][2]["best_time_s"] == at  # of the whole video
    assert record["segments"][2]["relevance"] == max(one["relevance"] for one in record["segments"])
    assert record["settings"]["start_s"] == 40
    assert all(frame["time_s"] >= 40 for frame in record["compression"]["per_frame"])
    evidence = longvu("ask", film, BRIEF, "--coverage", "--evidence", 1, "--no-stats")
    assert f"0:{at:g}" in evidence.err


def test_descriptions_are_put_one_after_another(longvu: Longvu, needle_film: tuple[Story, Path]) -> None:
    _, film = needle_film
    ran = longvu("describe", film, "--coverage", "--no-stats")
    lines = ran.out.splitlines()
    assert [line.split("]")[0] for line in lines] == ["[0:00–0:20", "[0:20–0:40", "[0:40–end"]
    assert len(set(lines)) == 3
    assert ran.err == "longvu: coverage: 3 of 3 segments, one after another\n"
    record = json.loads(longvu("describe", film, "--coverage", "--json").out)
    assert record["answer"] == ran.out.removesuffix("\n")
    assert [one["chosen"] for one in record["segments"]] == [True] * 3


def test_a_short_video_is_asked_as_a_whole(longvu: Longvu, short_film: tuple[Story, Path]) -> None:
    _, film = short_film
    plain = longvu("ask", film, BRIEF, "--no-stats")
    ran = longvu("ask", film, BRIEF, "--coverage", "--no-stats")
    assert (ran.code, ran.out) == (0, plain.out)
    assert ran.err == "longvu: coverage: the video was asked as a whole, for nothing of it had to go\n"
    assert longvu("describe", film, "--coverage", "--no-stats").out == longvu("describe", film, "--no-stats").out


def test_a_segment_that_fails_is_told_and_the_others_go_on(
    longvu: Longvu, needle_film: tuple[Story, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = LongVU.answer

    def failing(self: LongVU, *arguments: object, **settings: object) -> Answer:
        if settings["sampling"].start_s == 20:  # type: ignore[attr-defined]
            raise DeviceOutOfMemory("the device is full")
        return answer(self, *arguments, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(LongVU, "answer", failing)
    ran = longvu("describe", needle_film[1], "--coverage", "--no-stats")
    assert ran.code == 6
    assert [line.split("]")[0] for line in ran.out.splitlines()] == ["[0:00–0:20", "[0:40–end"]
    assert "longvu: error: 2 of 3, 0:20–0:40: the device is full\n" in ran.err
    record = json.loads(longvu("ask", needle_film[1], BRIEF, "--coverage", "--json").out)
    assert record["segments"][1]["error"]["type"] == "DeviceOutOfMemory"
    assert record["segments"][1]["answer"] is None


def test_frames_of_segments_are_not_mixed_up(longvu: Longvu, needle_film: tuple[Story, Path], tmp_path: Path) -> None:
    ran = longvu("ask", needle_film[1], BRIEF, "--coverage", "--save-frames", tmp_path / "frames")
    assert ran.code == 2
    assert "--save-frames and --coverage do not go together" in ran.err


def test_a_row_of_a_batch_can_be_asked_piece_by_piece(
    longvu: Longvu, needle_film: tuple[Story, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    told, film = needle_film
    row = {"video": str(film), "question": BRIEF, "coverage": True, "subtitles": "auto"}
    manifest = "\n".join(json.dumps(one) for one in (row, {**row, "coverage": False, "subtitles": None, "end": 20}))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(manifest.encode())))
    ran = longvu("batch", "-")
    first, second = (json.loads(line) for line in ran.out.splitlines())
    assert (ran.code, len(first["segments"]), "segments" in second) == (0, 3, False)
    assert first["answer"] == f"{needle_of(told)[0]}."
    assert "longvu: warning: there are no subtitles beside the video" in ran.err
