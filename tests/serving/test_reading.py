import json
from typing import Any

import pytest

from longvu_cli.config import CompressionOptions, GenerationOptions, RecipeName, SamplingOptions
from longvu_cli.manifest import Settings
from longvu_cli.serving.failures import Refused
from longvu_cli.serving.paths import NamedPath
from longvu_cli.serving.reading import Asked, read_asked
from longvu_cli.serving.schema import read_request

DEFAULTS = Settings(SamplingOptions(fps=2.0), CompressionOptions(), GenerationOptions(max_new_tokens=50))
VIDEO = {"type": "video_url", "video_url": {"url": "/film.mp4"}}


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


def user(*parts: object) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


def read(*messages: dict[str, Any], **fields: Any) -> Asked:
    request = read_request(json.dumps({"messages": messages, **fields}).encode())
    return read_asked(request, DEFAULTS, longest_answer=100)


def test_a_question() -> None:
    assert read(user(VIDEO, text("Who?"))) == Asked(NamedPath("/film.mp4"), "Who?", (), DEFAULTS)


def test_a_file_that_is_meant() -> None:
    part = {"type": "video_url", "video_url": {"url": "/film.mp4", "bytes": 3, "modified_ns": 4}}
    assert read(user(part, text("Who?"))).video == NamedPath("/film.mp4", 3, 4)


def test_what_was_said_before() -> None:
    asked = read(
        {"role": "system", "content": "Be brief."},
        user(VIDEO),
        user(text("Who?"), text("Say the name.")),
        {"role": "assistant", "content": "Anna.", "refusal": None, "tool_calls": None},
        {"role": "user", "content": "Where?"},
        {"role": "assistant", "content": [text("Here.")]},
        user(text("Why?")),
        {"role": "developer", "content": "In English."},
    )
    assert asked.question == "Why?"
    assert asked.history == (("Who?\nSay the name.", "Anna."), ("Where?", "Here."))
    assert asked.settings.prompting.system == "Be brief.\nIn English."


def test_options_of_a_row_and_of_openai() -> None:
    settings = read(
        user(VIDEO, text("Who?")),
        start="1:30",
        end=100,
        recipe="paper",
        max_tokens=7,
        temperature=1,
        top_p=0.5,
        seed=3,
        user="someone",
        metadata={"a": "b"},
        n=1,
        stop=None,
        frequency_penalty=0,
    ).settings
    assert settings.sampling == SamplingOptions(fps=2.0, start_s=90.0, end_s=100.0)
    assert settings.compression.recipe is RecipeName.PAPER
    assert settings.generation == GenerationOptions(max_new_tokens=7, temperature=1.0, top_p=0.5, seed=3)
    same = read(user(VIDEO, text("Who?")), max_tokens=7, max_completion_tokens=7, max_new_tokens=7, temperature=None)
    assert same.settings.generation == GenerationOptions(max_new_tokens=7)


@pytest.mark.parametrize(
    ("fields", "message", "param"),
    [
        ({"fps": 0}, "--fps 0", None),
        ({"fps": "2"}, "fps = '2' is no number", None),
        ({"start": "soon"}, "start = 'soon' is no time", None),
        ({"end": 1, "start": 2}, "is not after", None),
        ({"speed": 1}, "'speed' is no option", None),
        ({"video": "/other.mp4"}, "'video' is no option", None),
        ({"question": "Who?"}, "'question' is no option", None),
        ({"top_p": 0.5}, "no effect on greedy decoding", None),
        ({"seed": -1}, "is no seed", None),
        ({"max_tokens": 0}, "no positive number of tokens", None),
        ({"max_tokens": 101}, "more than this server gives", "max_tokens"),
        ({"max_tokens": 1, "max_completion_tokens": 2}, "several different limits", "max_tokens"),
        ({"max_new_tokens": [1]}, "is no whole number", None),
        ({"max_tokens": 1, "max_new_tokens": {}}, "several different limits", "max_tokens"),
        ({"max_tokens": "5"}, "max_tokens: Input should be a valid integer", "max_tokens"),
        ({"n": 2}, "n is not supported", "n"),
        ({"stop": ["."]}, "stop is not supported", "stop"),
        ({"tools": [{"type": "function"}]}, "tools is not supported", "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format is not supported", "response_format"),
        ({"subtitles": "/etc/passwd"}, "subtitles is not supported", "subtitles"),
        ({"coverage": True}, "coverage is not supported", "coverage"),
        ({"stream": 3}, "stream: Input should be a valid boolean", "stream"),
    ],
)
def test_options_that_are_refused(fields: dict[str, Any], message: str, param: str | None) -> None:
    with pytest.raises(Refused, match=message) as refusal:
        read(user(VIDEO, text("Who?")), **fields)
    assert (refusal.value.failure.status, refusal.value.failure.param) == (400, param)


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([user(VIDEO)], "the question is empty"),
        ([user(text("Who?"))], "there is no video"),
        ([user(VIDEO, {**VIDEO, "video_url": "/other.mp4"}, text("Who?"))], "several videos"),
        ([{"role": "assistant", "content": "Hi."}, user(VIDEO, text("Who?"))], "begin and end with the user's"),
        ([user(VIDEO, text("Who?")), {"role": "assistant", "content": "Anna."}], "begin and end with the user's"),
        ([{"role": "system", "content": "Be brief."}], "begin and end with the user's"),
        (
            [user(VIDEO, text("x" * 600_000)), {"role": "assistant", "content": "x" * 600_000}, user(text("Who?"))],
            "said before has 1,200,000 characters",
        ),
        ([user(text("Who?"))] * 4097, "messages: List should have at most 4096 items"),
        ([user(VIDEO, *[text("Who?")] * 4096)], "content: List should have at most 4096 items"),
        ([{"role": "tool", "content": "x"}], "role"),
        ([user({"type": "input_audio"})], "input_audio"),
        ([user({"type": "video_url"})], "Field required"),
        ([user({"type": "file", "file": {}}, text("Who?"))], "either file_id or file_data"),
        (
            [user({"type": "file", "file": {"file_id": "a", "file_data": "b"}}, text("Who?"))],
            "either file_id or file_data",
        ),
    ],
)
def test_messages_that_are_refused(messages: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(Refused, match=message) as refusal:
        read(*messages)
    assert refusal.value.failure.status == 400


def test_what_is_wrong_is_not_repeated_at_length() -> None:
    with pytest.raises(Refused, match="Input tag 'xxx") as refusal:
        read(user({"type": "x" * 10_000}))
    assert len(refusal.value.failure.message) == 500


def test_two_system_texts() -> None:
    with pytest.raises(Refused, match="two system texts"):
        read({"role": "system", "content": "Be brief."}, user(VIDEO, text("Who?")), system="Be long.")


def test_a_text_that_is_no_text() -> None:
    with pytest.raises(Refused, match="Invalid JSON"):
        read_request(b'{"messages": [{"role": "user", "content": "\\ud800"}]}')
