"""conversation.py: one question after another, with the video watched and read once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from longvu_cli.config import CompressionOptions, GenerationOptions
from longvu_cli.errors import QuestionTooLong
from longvu_cli.longvu import LongVU
from longvu_cli.prompt import Turn
from longvu_cli.results import CacheUse, History
from longvu_cli.video import Video
from longvu_cli.world.questions import is_right, questions
from longvu_cli.world.story import Story

SHORT = GenerationOptions(max_new_tokens=6)
QUESTIONS = ("Where is the cup?", "Is it red?", "And the car?")


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Gets one item whenever the frames of a video are decoded."""
    decoded: list[str] = []
    frames = Video.frames

    def counted(self: Video) -> object:
        decoded.append(self.info.path)
        return frames(self)

    monkeypatch.setattr(Video, "frames", counted)
    return decoded


@pytest.fixture
def read(qwen: LongVU, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Gets the number of rows that the language model reads of each prompt."""
    language_model = vars(qwen)["_modules"].language_model
    rows: list[int] = []

    def counted(module: torch.nn.Module, arguments: object, inputs: dict[str, object]) -> None:
        if isinstance(embeddings := inputs.get("inputs_embeds"), torch.Tensor):
            rows.append(embeddings.shape[1])

    handle = language_model.decoder.register_forward_pre_hook(counted, with_kwargs=True)
    yield rows
    handle.remove()


def test_the_video_is_watched_once_and_read_once(
    qwen: LongVU, parity: Path, watched: list[str], read: list[int]
) -> None:
    talk = qwen.conversation(parity / "one_frame.mkv", generation=SHORT)
    answers = [talk.answer(question) for question in QUESTIONS]
    assert len(watched) == 1
    assert [answer.compression.cache for answer in answers] == [CacheUse.OFF, CacheUse.MEMORY, CacheUse.MEMORY]
    lengths = [answer.compression.statistics.text_tokens + 84 for answer in answers]
    assert [answer.reused_tokens for answer in answers] == [0, lengths[0], lengths[1]]
    assert read == [lengths[0], lengths[1] - lengths[0], lengths[2] - lengths[1]]


def test_answers_are_those_of_reading_everything_anew(qwen: LongVU, parity: Path, read: list[int]) -> None:
    video = parity / "one_frame.mkv"
    talk = qwen.conversation(video, generation=SHORT)
    for number, question in enumerate(QUESTIONS):
        turns = talk.turns
        answer = talk.answer(question)
        anew = qwen.conversation(video, generation=SHORT)
        vars(anew)["_remembered"].turns = turns
        assert anew.answer(question).token_ids == answer.token_ids
        assert read[-1] > read[-2] or number == 0
    assert len({turn.answer for turn in talk.turns}) == 3  # or the test would not see much


def test_the_first_answer_is_that_of_a_single_question(qwen: LongVU, parity: Path) -> None:
    alone = qwen.answer(parity / "one_frame.mkv", QUESTIONS[0], generation=SHORT)
    first = qwen.conversation(parity / "one_frame.mkv", generation=SHORT).answer(QUESTIONS[0])
    assert (first.token_ids, first.history) == (alone.token_ids, History(0, 0))
    assert first.compression.statistics == alone.compression.statistics


def test_each_question_chooses_its_frames_as_if_it_were_the_only_one(qwen: LongVU, parity: Path) -> None:
    options = CompressionOptions(context_length=1000)  # some of the twelve frames at full resolution
    talk = qwen.conversation(parity / "short_window.mkv", compression=options, generation=SHORT)
    talk.answer("What?")
    second = talk.answer(QUESTIONS[0])
    alone = qwen.answer(parity / "short_window.mkv", QUESTIONS[0], compression=options, generation=SHORT)
    frames, wanted = second.compression.statistics.per_frame, alone.compression.statistics.per_frame
    assert [frame.relevance for frame in frames] == [frame.relevance for frame in wanted]
    # What was said takes room from the video.
    assert second.compression.statistics.visual_budget < alone.compression.statistics.visual_budget
    assert second.history == History(turns=1, dropped=0)
    # Where the choice of frames is another one, what comes before the first difference is all that can be kept.
    assert 0 < second.reused_tokens < second.compression.statistics.tokens.visual


def test_the_oldest_turns_are_dropped_when_they_take_too_much(qwen: LongVU, parity: Path) -> None:
    options = CompressionOptions(context_length=700)
    talk = qwen.conversation(
        parity / "one_frame.mkv", compression=options, generation=GenerationOptions(max_new_tokens=20)
    )
    answers = [talk.answer(f"Where is cup number {number}?") for number in range(4)]
    assert [answer.history for answer in answers] == [History(0, 0), History(1, 0), History(2, 0), History(2, 1)]
    assert len(talk.turns) == 4
    for answer in answers:
        alone = qwen.answer(parity / "one_frame.mkv", answer.question, compression=options, generation=SHORT)
        room = alone.compression.statistics.visual_budget
        assert room * 3 / 4 <= answer.compression.statistics.visual_budget <= room


def test_a_question_that_fails_leaves_the_conversation_as_it_was(qwen: LongVU, parity: Path) -> None:
    options = CompressionOptions(context_length=700)
    talk = qwen.conversation(parity / "one_frame.mkv", compression=options, generation=SHORT)
    first = talk.answer(QUESTIONS[0])
    with pytest.raises(QuestionTooLong):
        talk.answer("Where? " * 200)
    stream = talk.stream(QUESTIONS[1])
    next(stream)
    stream.close()
    assert talk.turns == (Turn(QUESTIONS[0], first.token_ids),)
    assert talk.answer(QUESTIONS[1]).history == History(turns=1, dropped=0)


def test_the_end_of_a_turn_is_the_templates(qwen: LongVU, parity: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    talk = qwen.conversation(parity / "one_frame.mkv", generation=SHORT)
    ids = qwen.answer(parity / "one_frame.mkv", QUESTIONS[0], generation=SHORT).token_ids
    monkeypatch.setattr(qwen, "_stop_ids", lambda: (ids[2],))
    answer = talk.answer(QUESTIONS[0])
    assert answer.token_ids == ids[:3]
    assert talk.turns == (Turn(QUESTIONS[0], ids[:2]),)


def test_what_was_said_can_be_forgotten(qwen: LongVU, parity: Path, watched: list[str]) -> None:
    talk = qwen.conversation(parity / "one_frame.mkv", generation=SHORT)
    first = talk.answer(QUESTIONS[0])
    talk.answer(QUESTIONS[1])
    talk.reset()
    assert talk.turns == ()
    again = talk.answer(QUESTIONS[0])
    assert (again.token_ids, again.history) == (first.token_ids, History(0, 0))
    assert again.reused_tokens > 84
    assert len(watched) == 1


def test_more_room_than_before_has_the_video_watched_again(qwen: LongVU, parity: Path, watched: list[str]) -> None:
    """With a long question fewer frames are kept; a short one asks for all of them."""
    options = CompressionOptions(context_length=1100, dino_threshold=0.6)
    talk = qwen.conversation(parity / "short_window.mkv", compression=options, generation=SHORT)
    few = talk.answer("Where is the cup? " * 20)
    talk.reset()
    all_of_them = talk.answer(QUESTIONS[0])
    assert few.compression.statistics.frames.kept < all_of_them.compression.statistics.frames.kept == 12
    assert all_of_them.compression.cache is CacheUse.OFF
    assert talk.answer("Is it red?").compression.cache is CacheUse.MEMORY
    assert len(watched) == 2


# --- in the world that the tiny model knows --------------------------------------------------------------------------


def test_a_talk_about_a_film_of_the_world(trained_tiny: LongVU, short_film: tuple[Story, Path]) -> None:
    """The tiny model saw no conversation in training; a few turns do not confuse it."""
    told, film = short_film
    talk = trained_tiny.conversation(film, generation=GenerationOptions(max_new_tokens=24))
    asked = [question for question in questions(told) if question.kind in ("colour", "place")][:4]
    answers = [talk.answer(question.text) for question in asked]
    assert all(is_right(question, answer.text) for question, answer in zip(asked, answers, strict=True))
    assert all(answer.reused_tokens > answer.compression.statistics.tokens.visual for answer in answers[1:])
