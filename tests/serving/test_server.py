"""The server, driven by OpenAI's own client: the tiny model answers questions about a film of its world."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import pytest
from openai import OpenAI

from longvu_cli.serving.options import ServingOptions
from longvu_cli.world.questions import is_right
from serving.conftest import Film
from serving.served import Served, question


@pytest.fixture
def client(served: Served) -> Iterator[OpenAI]:
    with served.client() as opened:
        yield opened


def messages(film: Film, text: str, url: str | None = None) -> list:  # type: ignore[type-arg]
    return question(film.path if url is None else url, text)["messages"]


def test_the_answer_is_right_and_has_its_numbers(client: OpenAI, film: Film) -> None:
    asked = film.questions[0]
    completion = client.chat.completions.create(model="tiny", messages=messages(film, asked.text))
    (choice,) = completion.choices
    assert is_right(asked, choice.message.content or "")
    assert choice.finish_reason == "stop"
    assert completion.model == "tiny"
    record = completion.longvu  # type: ignore[attr-defined]
    assert (record["command"], record["question"]) == ("serve", asked.text)
    assert record["video"]["path"] == str(film.path)
    assert record["compression"]["frames"] == {"sampled": 6, "kept": 6, "high_resolution": 6}
    usage = completion.usage
    assert usage is not None
    compression = record["compression"]
    assert usage.prompt_tokens == compression["text_tokens"] + compression["tokens"]["visual"]
    assert usage.completion_tokens == len(record["token_ids"])


def test_every_question_in_a_stream(client: OpenAI, film: Film) -> None:
    for asked in film.questions:
        pieces = list(
            client.chat.completions.create(
                model="longvu",
                messages=messages(film, asked.text),
                stream=True,
                stream_options={"include_usage": True},
            )
        )
        *told, counted = pieces
        assert is_right(asked, "".join(piece.choices[0].delta.content or "" for piece in told))
        assert [piece.choices[0].finish_reason for piece in told] == [None] * (len(told) - 1) + ["stop"]
        assert told[0].choices[0].delta.role == "assistant"
        assert told[-1].longvu["question"] == asked.text  # type: ignore[attr-defined]
        assert counted.choices == [] and counted.usage is not None and counted.usage.completion_tokens > 0
        assert len({piece.id for piece in pieces}) == 1


def test_a_stream_ends_with_done(served: Served, film: Film) -> None:
    response = served.post(question(film.path, film.questions[0].text, stream=True))
    assert response.headers["content-type"].startswith("text/event-stream")
    events = response.text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    assert all(event.startswith("data: ") for event in events[:-1])


def test_an_upload_is_asked_about_and_goes(client: OpenAI, film: Film, served: Served) -> None:
    kept = client.files.create(file=film.path, purpose="user_data")
    assert (kept.bytes, kept.filename, kept.purpose) == (film.path.stat().st_size, "film é.mp4", "user_data")
    assert client.files.retrieve(kept.id) == kept
    for asked in film.questions[:2]:
        completion = client.chat.completions.create(model="tiny", messages=messages(film, asked.text, kept.id))
        assert is_right(asked, completion.choices[0].message.content or "")
        assert completion.longvu["video"]["path"] == "film é.mp4"  # type: ignore[attr-defined]
    again = client.files.create(file=film.path, purpose="user_data")
    asked = film.questions[0]
    completion = client.chat.completions.create(model="tiny", messages=messages(film, asked.text, again.id))
    # The same content is known again, although it is another file.
    assert completion.longvu["cache"] == {"features": "hit"}  # type: ignore[attr-defined]
    for name in (kept.id, again.id):
        assert client.files.delete(name).deleted
        with pytest.raises(openai.NotFoundError, match="no upload of this id"):
            client.chat.completions.create(model="tiny", messages=messages(film, "What is it?", name))
    assert served.metric("longvu_upload_bytes") == 0


def test_other_forms_of_naming_a_video(client: OpenAI, film: Film, served: Served) -> None:
    asked = film.questions[0]
    data = f"data:video/mp4;base64,{base64.b64encode(film.path.read_bytes()).decode()}"
    parts = (
        {"type": "video_url", "video_url": {"url": str(film.path)}},
        {"type": "video_url", "video_url": str(film.path)},
        {"type": "video", "video": film.path.as_uri()},
        {"type": "video_url", "video_url": {"url": data}},
        {"type": "file", "file": {"filename": "film.mp4", "file_data": data}},
    )
    for part in parts:
        content = [part, {"type": "text", "text": asked.text}]
        body = {"messages": [{"role": "user", "content": content}]}
        assert is_right(asked, served.post(body).json()["choices"][0]["message"]["content"])
    assert served.metric("longvu_upload_bytes") == 0


def test_what_was_said_before_is_read(client: OpenAI, film: Film) -> None:
    talk = messages(film, film.questions[0].text)
    first = client.chat.completions.create(model="tiny", messages=talk)
    talk += [
        {"role": "assistant", "content": first.choices[0].message.content},
        {"role": "user", "content": film.questions[1].text},
    ]
    second = client.chat.completions.create(model="tiny", messages=talk)
    assert is_right(film.questions[1], second.choices[0].message.content or "")
    assert second.longvu["conversation"] == {"turns": 1, "dropped": 0}  # type: ignore[attr-defined]
    assert second.longvu["question"] == film.questions[1].text  # type: ignore[attr-defined]
    alone = client.chat.completions.create(model="tiny", messages=messages(film, film.questions[1].text))
    assert alone.usage is not None and second.usage is not None
    assert second.usage.prompt_tokens > alone.usage.prompt_tokens


def test_options_are_those_of_a_row(client: OpenAI, film: Film) -> None:
    completion = client.chat.completions.create(
        model="tiny",
        messages=[{"role": "system", "content": "Be brief."}, *messages(film, film.questions[0].text)],
        max_completion_tokens=1,
        temperature=0.5,
        top_p=0.9,
        seed=3,
        extra_body={"fps": 0.5, "start": "0:02", "recipe": "paper", "choices": ["Red", "White"]},
    )
    assert completion.choices[0].finish_reason == "length"
    record = completion.longvu  # type: ignore[attr-defined]
    settings = record["settings"]
    assert (settings["fps"], settings["start_s"], settings["recipe"]) == (0.5, 2.0, "paper")
    assert (settings["temperature"], settings["top_p"], settings["seed"]) == (0.5, 0.9, 3)
    assert (settings["max_new_tokens"], record["compression"]["frames"]["sampled"]) == (1, 2)
    assert record["prompt"]["system"] == "Be brief."
    assert record["prompt"]["choices"] == ["Red", "White"]


def test_200_at_once_are_all_right(served: Served, film: Film) -> None:
    before = served.metric('longvu_answers_total{outcome="answered"}')
    asked = [film.questions[number % len(film.questions)] for number in range(200)]

    def answer(number: int) -> str:
        body = question(film.path, asked[number].text, fps=0.2, stream=number % 2 == 1)
        response = served.post(body)
        assert response.status_code == 200
        if number % 2 == 0:
            return str(response.json()["choices"][0]["message"]["content"])
        pieces = [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: {")]
        return "".join(piece["choices"][0]["delta"].get("content", "") for piece in pieces)

    with ThreadPoolExecutor(200) as pool:
        answers = list(pool.map(answer, range(200)))
    assert all(is_right(known, text) for known, text in zip(asked, answers, strict=True))
    assert served.metric('longvu_answers_total{outcome="answered"}') == before + 200
    assert (served.metric("longvu_waiting"), served.metric("longvu_working")) == (0, 0)
    assert served.bugs == []


def test_the_model_is_listed(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "longvu"
    with pytest.raises(openai.NotFoundError, match="the model here is tiny"):
        client.models.retrieve("7b")


def test_health_and_metrics(served: Served, client: OpenAI, film: Film) -> None:
    health = served.http.get("/health")
    assert health.status_code == 200
    assert health.json() == {"schema_version": 1, "status": "ok", "model": "tiny", "waiting": 0, "working": False}
    visual = served.metric('longvu_tokens_total{kind="video"}')
    completion = client.chat.completions.create(model="tiny", messages=messages(film, film.questions[0].text))
    tokens = completion.longvu["compression"]["tokens"]["visual"]  # type: ignore[attr-defined]
    assert served.metric('longvu_tokens_total{kind="video"}') == visual + tokens
    text = served.http.get("/metrics").text
    assert re.search(r"^longvu_work_seconds_count \d", text, re.MULTILINE)
    assert re.search(r'^longvu_requests_total{path="/v1/chat/completions",status="200"} ', text, re.MULTILINE)


# --- what is refused ------------------------------------------------------------------------------------------------


def test_errors_are_openais_and_ours(client: OpenAI, film: Film) -> None:
    with pytest.raises(openai.BadRequestError) as refusal:
        client.chat.completions.create(model="tiny", messages=messages(film, "Who?"), extra_body={"fps": 0})
    error = refusal.value.body
    assert isinstance(error, dict)
    assert (error["type"], error["code"]) == ("invalid_request_error", "UsageError")
    assert error["hint"] == "1 is usual"
    with pytest.raises(openai.NotFoundError, match="the model here is tiny"):
        client.chat.completions.create(model="7b", messages=messages(film, "Who?"))


def test_what_the_video_is_not(client: OpenAI, film: Film, served: Served) -> None:
    text = film.path.with_name("text.mp4")
    text.write_text("no video at all")
    with pytest.raises(openai.UnprocessableEntityError, match=r"text\.mp4"):
        client.chat.completions.create(model="tiny", messages=messages(film, "Who?", str(text)))
    with pytest.raises(openai.UnprocessableEntityError):
        client.chat.completions.create(model="tiny", messages=messages(film, "Who?", str(text)), stream=True)
    uploaded = client.files.create(file=text, purpose="user_data")
    for streamed in (False, True):
        with pytest.raises(openai.UnprocessableEntityError, match=r"text\.mp4 is not a video") as refusal:
            client.chat.completions.create(model="tiny", messages=messages(film, "Who?", uploaded.id), stream=streamed)
        assert uploaded.id not in str(refusal.value.body)
    client.files.delete(uploaded.id)
    missing = film.path.with_name("missing.mp4")
    with pytest.raises(openai.NotFoundError, match="no such file"):
        client.chat.completions.create(model="tiny", messages=messages(film, "Who?", str(missing)))
    assert served.bugs == []


def test_a_path_outside_and_a_link_that_leads_out(served: Served, film: Film, tmp_path: Path) -> None:
    outside = tmp_path / "secret.mp4"
    outside.write_bytes(film.path.read_bytes())
    link = film.path.with_name("link.mp4")
    link.symlink_to(outside)
    inner = film.path.with_name("inner.mp4")
    inner.symlink_to(film.path)
    dotted = f"{film.path.parent}/../{tmp_path.name}/secret.mp4"
    for path in (str(outside), str(link), dotted, "/etc/passwd", str(tmp_path / "missing.mp4"), "/dev/zero"):
        response = served.post(question(path))
        assert (response.status_code, response.json()["error"]["code"]) == (403, "PathNotAllowed")
        assert "none of the folders" in response.json()["error"]["message"]
    assert served.post(question(inner, film.questions[0].text)).status_code == 200


def test_nothing_is_fetched(served: Served) -> None:
    for url in ("http://127.0.0.1:1/film.mp4", "https://example.com/a.mp4", "concat:/a|/b", "file://other/a.mp4"):
        response = served.post(question(url))
        assert (response.status_code, response.json()["error"]["code"]) == (400, "BadVideoUrl")


def test_bodies_that_are_malformed(served: Served) -> None:
    for body in (b"", b"{", b"[]", b"\xff", b'{"messages": []}', b'{"messages": 1}', b"[" * 10_000, b'{"a": NaN}'):
        response = served.post(body)
        assert response.status_code == 400
        assert response.json()["error"]["type"] == "invalid_request_error"
    assert served.http.post("/v1/files", content=b"no form").json()["error"]["code"] == "BadUpload"
    assert served.http.post("/health").status_code == 405
    assert served.http.get("/v1/nothing").json()["error"]["code"] == "NoSuchRoute"
    assert served.bugs == []


def test_bodies_that_are_too_large(served: Served, client: OpenAI, tmp_path: Path) -> None:
    most = ServingOptions().max_body_bytes
    response = served.post(b" " * (most + 1))
    assert (response.status_code, response.json()["error"]["code"]) == (413, "TooLarge")

    def unannounced() -> Iterator[bytes]:
        for _ in range(most // 10**6 + 1):
            yield b" " * 10**6

    response = served.http.post("/v1/chat/completions", content=unannounced())
    assert response.status_code == 413
    large = tmp_path / "large.mp4"
    large.write_bytes(bytes(1_050_000))
    with pytest.raises(openai.APIStatusError, match="too large") as refusal:
        client.files.create(file=large, purpose="user_data")
    assert refusal.value.status_code == 413
    assert served.metric("longvu_upload_bytes") == 0
