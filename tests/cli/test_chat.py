"""``longvu chat``: piped questions, someone at a terminal, and the commands."""

from __future__ import annotations

import io
import json
import os
import pty
import select
import sys
import termios
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import PipeInput, create_pipe_input

from cli.conftest import Longvu
from cli.running import PARITY, PATIENCE_S, QUESTION, Ran, start
from longvu_cli.config import GenerationOptions
from longvu_cli.conversation import Conversation
from longvu_cli.longvu import LongVU
from longvu_cli.results import Chunk
from longvu_cli.video import Video
from longvu_cli.world.questions import is_right, questions
from longvu_cli.world.story import Story

CLIP = PARITY / "one_frame.mkv"
SHORT = "--max-new-tokens=4"

Chat = Callable[..., Ran]


@pytest.fixture
def chat(longvu: Longvu, monkeypatch: pytest.MonkeyPatch) -> Chat:
    """``chat("a question", "/stats")``: lines that are piped in."""

    def run(*lines: str | bytes, video: Path = CLIP, options: tuple[object, ...] = (SHORT,)) -> Ran:
        piped = b"".join((line if isinstance(line, bytes) else line.encode()) + b"\n" for line in lines)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(piped)))
        return longvu("chat", video, *options)

    return run


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def typed(longvu: Longvu, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Ran]]:
    """``typed("a question\\r")``: keys that are pressed at a terminal, which shows nothing of them here."""
    with create_pipe_input() as keys, create_app_session(input=keys):

        def run(*pressed: str, options: tuple[object, ...] = (SHORT,)) -> Ran:
            monkeypatch.setattr(sys, "stdin", Terminal())
            monkeypatch.setattr("longvu_cli.cli.output.Output.at_terminal", True)
            press(keys, *pressed)
            return longvu("chat", CLIP, *options)

        yield run


def press(keys: PipeInput, *pressed: str) -> None:
    keys.send_text("".join(pressed))


class Scripted(Conversation):
    """Says what it was told to say; "stop" is a question that Ctrl-C comes into."""

    def __init__(self, model: LongVU, answers: dict[str, str]) -> None:
        super().__init__(model, CLIP)
        self._like = model.answer(CLIP, QUESTION, generation=GenerationOptions(max_new_tokens=1))
        self._answers = answers

    def stream(self, question: str, **_: object) -> Generator[Chunk, None, None]:
        text = self._answers[question]
        yield Chunk(text=text, token_id=1)
        if question == "stop":
            raise KeyboardInterrupt
        yield Chunk(text="", token_id=None, answer=replace(self._like, text=text))


@pytest.fixture
def says(qwen: LongVU, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, str]], None]:
    """Have every conversation give these answers."""
    return lambda answers: monkeypatch.setattr(LongVU, "conversation", lambda *_, **__: Scripted(qwen, answers))


# --- piped -----------------------------------------------------------------------------------------------------------


def test_each_answer_is_a_line_and_nothing_else_is_on_stdout(chat: Chat, qwen: LongVU) -> None:
    talk = qwen.conversation(CLIP)
    ran = chat(QUESTION, "", "  Is it red?  ", options=("--max-new-tokens", 30))
    assert ran.code == 0
    lines = ran.out.split("\n")
    assert len(lines) == 3 and lines[2] == ""
    # Line breaks of an answer would make two lines of it.
    first = talk.answer(QUESTION)
    assert "\n" not in lines[0]
    assert lines[0].startswith(first.text.replace("\n", " ")[:10])
    assert ran.err == ""


def test_line_breaks_in_answers_do_not_make_more_lines(chat: Chat, says: Callable[[dict[str, str]], None]) -> None:
    says({"a": "one\ntwo\r", "b": "three"})
    assert chat("a", "b").out == "one two\\r\nthree\n"


def test_json_gives_an_object_per_question(chat: Chat) -> None:
    ran = chat(QUESTION, "Is it red?", "/reset", "Is it red?", options=(SHORT, "--json"))
    records = [json.loads(line) for line in ran.out.splitlines()]
    assert [(record["command"], record["question"]) for record in records] == [
        ("chat", QUESTION),
        ("chat", "Is it red?"),
        ("chat", "Is it red?"),
    ]
    talks = [record["conversation"] for record in records]
    assert [(talk["turn"], talk["turns"], talk["dropped"]) for talk in talks] == [(1, 0, 0), (2, 1, 0), (1, 0, 0)]
    assert talks[0]["reused_tokens"] == 0
    assert all(talk["reused_tokens"] > 84 for talk in talks[1:])
    assert [record["cache"]["features"] for record in records][1:] == ["memory", "memory"]


def test_the_video_is_decoded_once_without_a_cache(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[str] = []
    frames = Video.frames
    monkeypatch.setattr(Video, "frames", lambda self: decoded.append(self.info.path) or frames(self))
    assert chat("One?", "Two?", "Three?", options=(SHORT, "--no-cache")).code == 0
    assert len(decoded) == 1


def test_a_question_that_fails_has_an_empty_line_and_the_others_go_on(chat: Chat) -> None:
    options = (SHORT, "--context-length", 700)
    ran = chat(QUESTION, "Where? " * 200, "Is it red?", options=options)
    assert ran.code == 6
    assert [bool(line) for line in ran.out.split("\n")] == [True, False, True, False]
    assert ran.err.startswith("longvu: error: the question takes ") and ran.err.count("\n") == 1
    records = [json.loads(line) for line in chat(QUESTION, "x" * 1000, options=(*options, "--json")).out.splitlines()]
    assert records[1]["error"]["type"] == "QuestionTooLong"


def test_a_single_question_that_fails_has_its_own_exit_code(chat: Chat) -> None:
    assert chat("Where? " * 200, options=("--context-length", 700)).code == 2


def test_a_line_that_is_no_text_is_told(chat: Chat) -> None:
    ran = chat(b"Wo ist die gro\xdfe Tasse?", "Is it red?")
    assert ran.code == 6
    assert ran.err == "longvu: error: the question is no valid text (UTF-8); check the encoding of the terminal\n"


@pytest.mark.parametrize("lines", [(), ("", "  "), ("/help",)])
def test_no_question_is_an_error(chat: Chat, lines: tuple[str, ...]) -> None:
    ran = chat(*lines)
    assert ran.code == 2
    assert "no question was asked" in ran.err


def test_the_file_is_looked_at_before_the_model_is_loaded(chat: Chat, loads: list[str], tmp_path: Path) -> None:
    assert chat(QUESTION, video=tmp_path / "none.mp4").code == 3
    assert loads == []


def test_that_old_turns_are_left_out_is_said_once_for_each_that_goes(chat: Chat) -> None:
    lines = [f"Where is cup number {number}?" for number in range(5)]
    ran = chat(*lines, options=("--max-new-tokens", 20, "--context-length", 700))
    assert ran.err.splitlines() == [
        f"longvu: the oldest {gone} of {gone + 2} turns no longer fit beside the video, and were left out"
        for gone in (1, 2)
    ]
    assert chat(*lines, options=("--max-new-tokens", 20, "--context-length", 700, "-q")).err == ""


# --- commands --------------------------------------------------------------------------------------------------------


def test_stats_shows_what_was_kept(chat: Chat) -> None:
    ran = chat("/stats", QUESTION, "/stats")
    assert ran.code == 6 or ran.code == 2
    assert "nothing was kept of the video yet" in ran.err
    assert "read by the language model" in ran.err
    assert "read by" not in ran.out


def test_evidence_lists_the_moments_of_the_last_answer(chat: Chat) -> None:
    ran = chat(
        "/evidence", QUESTION, "/evidence", "/evidence 1", "/evidence x", "/evidence 0", options=(SHORT, "--json")
    )
    assert "there is no answer yet" in ran.err
    assert ran.err.count("is no number of moments") == 2
    assert ran.err.count("0:00") >= 2
    assert "0:00" not in ran.out


def test_the_conversation_is_saved_as_text_and_as_json_lines(chat: Chat, tmp_path: Path) -> None:
    text, lines = tmp_path / "talk.txt", tmp_path / "talk.jsonl"
    ran = chat("One?", f"/save {text}", f"/save {lines}", "Two?", f"/save {text}")
    first, second, end = ran.out.split("\n")
    assert (ran.code, end) == (0, "")
    assert text.read_text() == f"> One?\n{first}\n\n> Two?\n{second}\n"
    assert [json.loads(line)["question"] for line in lines.read_text().splitlines()] == ["One?"]
    assert ran.err.splitlines()[-1] == f"longvu: 2 answers written to {text}"


def test_a_file_that_is_there_is_not_written_over(chat: Chat, tmp_path: Path) -> None:
    precious = tmp_path / "precious.txt"
    precious.write_text("mine")
    ran = chat("One?", f"/save {precious}", f"/save {tmp_path}/no/where.txt", "/save")
    assert ran.code == 2
    assert precious.read_text() == "mine"
    assert ran.err.splitlines() == [
        f"longvu: error: {precious} is there already; choose another name",
        f"longvu: error: {tmp_path}/no/where.txt cannot be written: No such file or directory; choose another name",
        "longvu: error: /save needs the name of a file; /save talk.txt, or /save talk.jsonl",
    ]


def test_an_unknown_command_is_no_question_and_two_slashes_begin_one(chat: Chat) -> None:
    ran = chat("/stast", "//stats", options=(SHORT, "--json"))
    assert ran.err.startswith("longvu: error: /stast is no command; /help lists them")
    assert [json.loads(line)["question"] for line in ran.out.splitlines()] == ["/stats"]


def test_quit_ends_it(chat: Chat) -> None:
    ran = chat("One?", "/quit", "Two?")
    assert (ran.code, ran.out.count("\n")) == (0, 1)


# --- at a terminal ---------------------------------------------------------------------------------------------------

UP, CTRL_C, CTRL_D, ENTER = "\x10", "\x03", "\x04", "\r"


def test_what_goes_wrong_at_a_terminal_does_not_end_it(
    typed: Callable[..., Ran], says: Callable[[dict[str, str]], None]
) -> None:
    says({"stop": "half an ans", "on": "an answer\nof two lines"})
    ran = typed("gone", CTRL_C, "/nope", ENTER, "stop", ENTER, "on", ENTER, "/help", ENTER, "/quit", ENTER)
    assert ran.code == 0
    assert ran.out == "half an ans\nan answer\nof two lines\n"
    assert "longvu: error: /nope is no command" in ran.err
    assert "longvu: stopped\n" in ran.err
    assert "/save FILE" in ran.err


def test_lines_are_edited_and_recalled_in_a_real_terminal(cli_environment: dict[str, str]) -> None:
    """What is typed shows there, and is no part of the output."""
    ours, theirs = pty.openpty()
    variables = {**cli_environment, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"}
    process = start(["chat", CLIP, SHORT, "--json"], variables, stdin=theirs, stderr=theirs)
    os.close(theirs)
    try:
        assert "/help lists commands" in until_keys_are_read(ours)
        os.write(ours, b"Where is the cupp\x7f?\r")
        answers = [process.stdout.readline()]
        assert "Where is the cup?" in until_keys_are_read(ours)
        os.write(ours, f"{UP}\x7f, then?\r".encode())
        answers.append(process.stdout.readline())
        until_keys_are_read(ours)
        os.write(ours, CTRL_D.encode())
        rest, _ = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert process.returncode == 0
    assert [json.loads(line)["question"] for line in answers] == ["Where is the cup?", "Where is the cup, then?"]
    assert rest == ""


def until_keys_are_read(terminal: int) -> str:
    """What a terminal shows until keys are read one by one, as they are at the prompt and at no other time.

    Keys that come earlier are the terminal's to edit, which knows nothing of what was asked before. And the prompt is
    no sign, because it is drawn again for what is typed there.
    """
    seen, end = "", time.monotonic() + PATIENCE_S
    while termios.tcgetattr(terminal)[3] & termios.ICANON:
        assert time.monotonic() < end, seen
        seen += shown(terminal, wait_s=0.05)
    return seen + shown(terminal, wait_s=0)


def shown(terminal: int, wait_s: float) -> str:
    """What a terminal has to show now, or soon."""
    text = ""
    while select.select([terminal], [], [], wait_s)[0]:
        text += os.read(terminal, 4096).decode(errors="replace")
    return text


# --- in the world that the tiny model knows --------------------------------------------------------------------------


def test_a_talk_about_a_film_of_the_world(
    chat: Chat, short_film: tuple[Story, Path], monkeypatch: pytest.MonkeyPatch, trained_tiny: LongVU
) -> None:
    told, film = short_film
    for tower in ("LONGVU_DINOV2", "LONGVU_SIGLIP"):
        monkeypatch.delenv(tower)
    asked = [question for question in questions(told) if question.kind in ("colour", "place")][:4]
    ran = chat(*(question.text for question in asked), video=film, options=("--model", "tiny"))
    assert (ran.code, ran.err) == (0, "")
    assert [is_right(question, line) for question, line in zip(asked, ran.out.splitlines(), strict=True)] == [True] * 4
