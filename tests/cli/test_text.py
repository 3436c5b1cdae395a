import json
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import av
import pytest

from cli.conftest import Longvu
from cli.running import QUESTION
from longvu_cli.cli.bars import Bar
from longvu_cli.cli.text import neutralise
from longvu_cli.errors import WeightsGated

HOSTILE = "\x1b[31mred\x1b[0m \x07\x9b2J\u202eevil\u2066\r[red]markup[/red] :boom: \u2028\x7f\x08"
SHOWN = r"\x1b[31mred\x1b[0m \x07\x9b2J\u202eevil\u2066\r[red]markup[/red] :boom: \u2028\x7f\x08"

# What fits into the metadata of a container.
TITLE = "\x1b]0;owned\x07\u202e[red]tag[/red]"


def assert_harmless(text: str) -> None:
    """Nothing that a terminal obeys, but line breaks."""
    raw = {letter for letter in text if unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp")}
    assert raw <= {"\n"}


def test_what_a_terminal_would_obey_is_shown_instead() -> None:
    assert neutralise(HOSTILE) == SHOWN
    assert_harmless(neutralise(HOSTILE))


def test_text_that_does_no_harm_stays() -> None:
    for text in ("Grüße, 世界, مرحبا!", "👩\u200d👩\u200d👧 nu\u200cn", "[bold]x[/bold]", "\\x1b"):
        assert neutralise(text) == text


def test_only_the_characters_that_are_asked_for_are_let_through() -> None:
    assert neutralise("a\n\tb\r", keep="\n\t") == "a\n\tb\\r"
    assert neutralise("a\n") == "a\\n"


@pytest.mark.parametrize("code", [*range(0x20), *range(0x7F, 0xA0), 0xAD, 0x200E, 0xFEFF, 0xD800, 0xDCFF, 0xE0041])
def test_every_control_is_escaped(code: int) -> None:
    assert_harmless(neutralise(chr(code)))
    assert chr(code) not in neutralise(chr(code))


def test_a_sequence_split_over_pieces_is_neutralised_all_the_same() -> None:
    assert "".join(map(neutralise, HOSTILE)) == neutralise(HOSTILE)


def answer_with(monkeypatch: pytest.MonkeyPatch, pieces: list[str]) -> None:
    def made(tokenizer: object, ids: Iterator[int]) -> Iterator[tuple[int, str]]:
        yield from zip(ids, pieces, strict=False)

    monkeypatch.setattr("longvu_cli.longvu.decode_stream", made)


@pytest.mark.parametrize("pieces", [[HOSTILE], list(HOSTILE), [HOSTILE[:1], HOSTILE[1:]]], ids=["one", "each", "two"])
def test_an_answer_cannot_reach_the_terminal(
    longvu: Longvu, clip: Path, monkeypatch: pytest.MonkeyPatch, pieces: list[str]
) -> None:
    answer_with(monkeypatch, pieces)
    ran = longvu("ask", clip, QUESTION, f"--max-new-tokens={len(pieces)}")
    assert ran.out == SHOWN + "\n"
    assert_harmless(ran.err)


def test_an_answer_keeps_its_line_breaks(longvu: Longvu, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer_with(monkeypatch, ["one\n", "\ttwo\n"])
    assert longvu("ask", clip, QUESTION, "-q", "--max-new-tokens=2").out == "one\n\ttwo\n"


def test_json_gives_a_hostile_answer_back_as_it_was(
    longvu: Longvu, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer_with(monkeypatch, list(HOSTILE))
    ran = longvu("ask", clip, QUESTION, f"--max-new-tokens={len(HOSTILE)}", "--json")
    assert_harmless(ran.out)
    assert json.loads(ran.out)["answer"] == HOSTILE


@pytest.fixture
def hostile_file(tmp_path: Path, clip: Path) -> Path:
    file = tmp_path / f"a{HOSTILE.replace('/', '')}\n\udcff.mp4"
    file.write_bytes(clip.read_bytes())
    return file


def test_a_file_name_cannot_reach_the_terminal(longvu: Longvu, hostile_file: Path, clip: Path, tmp_path: Path) -> None:
    ran = longvu("describe", hostile_file, clip, "--max-new-tokens=2", "-v")
    assert ran.code == 0
    assert_harmless(ran.out)
    assert_harmless(ran.err)
    assert ran.out.splitlines()[0].startswith("==> ")
    ran = longvu("stats", hostile_file, "--save-frames", tmp_path / "\x1b]0;title\x07")
    assert ran.code == 0
    assert_harmless(ran.out)
    assert_harmless(ran.err)
    assert r"\x1b]0;title\x07" in ran.err


def test_json_gives_a_hostile_file_name_back_as_it_was(longvu: Longvu, hostile_file: Path) -> None:
    ran = longvu("stats", hostile_file, "--json")
    assert_harmless(ran.out)
    assert json.loads(ran.out)["video"]["path"] == str(hostile_file)


@pytest.mark.parametrize("json_flag", [(), ("--json",)])
@pytest.mark.parametrize(
    "arguments",
    [
        ("ask", HOSTILE, QUESTION),
        ("describe", HOSTILE, HOSTILE),
        ("ask", "{clip}", QUESTION, "-m", f"./{HOSTILE}"),
        ("ask", "{clip}", QUESTION, "-m", HOSTILE),
        ("ask", "{clip}", QUESTION, "--dinov2", HOSTILE),
        ("ask", "{clip}", QUESTION, "--device", HOSTILE),
        ("ask", "{clip}", QUESTION, "--recipe", HOSTILE),
        ("ask", "{clip}", QUESTION, "--start", HOSTILE),
        ("ask", "{clip}", QUESTION, f"--{HOSTILE}"),
        (HOSTILE,),
    ],
    ids=lambda arguments: "-".join(arguments[:1]) if isinstance(arguments, tuple) else None,
)
def test_an_error_cannot_reach_the_terminal(
    longvu: Longvu, clip: Path, arguments: tuple[str, ...], json_flag: tuple[str, ...]
) -> None:
    ran = longvu(*(argument.replace("{clip}", str(clip)) for argument in arguments), *json_flag)
    assert ran.code in (2, 3, 4, 5, 6)
    assert_harmless(ran.out)
    assert_harmless(ran.err)
    if json_flag:
        assert all("error" in json.loads(line) for line in ran.out.splitlines())


def test_a_traceback_cannot_reach_the_terminal(longvu: Longvu, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError(HOSTILE)

    monkeypatch.setattr("longvu_cli.longvu.LongVU.stream", broken)
    ran = longvu("ask", clip, QUESTION, "--verbose")
    assert ran.code == 1
    assert "Traceback (most recent call last)" in ran.err
    assert_harmless(ran.err)


def test_a_question_cannot_reach_the_terminal(longvu: Longvu, clip: Path) -> None:
    for arguments in (("ask", clip, HOSTILE), ("stats", clip, HOSTILE)):
        ran = longvu(*arguments, "-v", *(("--max-new-tokens=2",) if arguments[0] == "ask" else ()))
        assert ran.code == 0
        assert_harmless(ran.out)
        assert_harmless(ran.err)
    record = json.loads(longvu("ask", clip, HOSTILE, "--max-new-tokens=2", "--json").out)
    assert record["question"] == HOSTILE


def test_what_a_container_says_of_itself_cannot_reach_the_terminal(longvu: Longvu, clip: Path, tmp_path: Path) -> None:
    titled = tmp_path / "titled.mkv"
    with av.open(str(clip)) as source, av.open(str(titled), "w") as target:
        target.metadata["title"] = TITLE
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    for arguments in (("ask", titled, QUESTION, "--max-new-tokens=2"), ("stats", titled), ("describe", titled, "-v")):
        ran = longvu(*arguments, "--no-cache")
        assert ran.code == 0
        assert_harmless(ran.out)
        assert_harmless(ran.err)
        assert (
            json.loads(longvu(*arguments[:-1] if arguments[-1] == "-v" else arguments, "--json").out)["video"]["title"]
            == TITLE
        )


def test_rows_of_a_manifest_cannot_reach_the_terminal(longvu: Longvu, clip: Path, tmp_path: Path) -> None:
    rows = [
        {"video": str(clip), "question": HOSTILE, "id": HOSTILE, "max_new_tokens": 2},
        {"video": HOSTILE, "question": HOSTILE},
        {"video": str(clip), "question": QUESTION, HOSTILE: 1},
        {"video": str(clip), "question": QUESTION, "fps": HOSTILE},
    ]
    manifest = tmp_path / "m.jsonl"
    manifest.write_text("".join(f"{json.dumps(row)}\n" for row in rows) + f"{HOSTILE.splitlines()[0]}\n")
    ran = longvu("batch", manifest)
    assert ran.code == 6
    assert_harmless(ran.out)
    assert_harmless(ran.err)
    answered = [record for record in map(json.loads, ran.out.splitlines()) if "answer" in record]
    assert [(record["question"], record["id"]) for record in answered] == [(HOSTILE, HOSTILE)]


def test_the_bar_of_a_download_shows_no_control(capsys: pytest.CaptureFixture[str]) -> None:
    bar = Bar(total=2, desc=HOSTILE, disable=False)
    bar.set_description(HOSTILE)
    bar.close()
    shown = capsys.readouterr().err
    assert r"\x1b[31mred" in shown
    assert_harmless(shown.replace("\r", ""))
    assert "\u202e" not in shown and "\x9b" not in shown


def test_a_password_in_an_address_is_not_repeated(longvu: Longvu, tmp_path: Path) -> None:
    address = "http://me:S3CRET@127.0.0.1:9/v.mp4?token=S3CRET"
    manifest, results = tmp_path / "rows.jsonl", tmp_path / "results.jsonl"
    manifest.write_text(json.dumps({"video": address, "question": "What is shown?"}))
    for arguments in (
        ("describe", address, address),
        ("describe", "--json", address, address),
        ("batch", manifest, "--output", results),
    ):
        ran = longvu(*arguments)
        assert ran.code == 6 and "URLs are not supported" in ran.out + ran.err
        assert "S3CRET" not in ran.out + ran.err
    assert "S3CRET" not in results.read_text()


@pytest.mark.parametrize(
    "arguments",
    [
        ("ask", "{clip}", QUESTION, "-m", "{address}"),
        ("ask", "{clip}", QUESTION, "--dinov2", "{address}"),
        ("ask", "{clip}", "@{address}"),
        ("ask", "{clip}", QUESTION, "--subtitles", "{address}"),
        ("batch", "{address}"),
        ("plan", "{address}"),
        ("report", "{address}"),
    ],
    ids=["model", "tower", "question", "subtitles", "manifest", "plan", "report"],
)
def test_no_error_repeats_a_password(longvu: Longvu, clip: Path, arguments: tuple[str, ...]) -> None:
    address = "http://me:S3CRET@127.0.0.1:9/v"
    words = [word.format(clip=clip, address=address) for word in arguments]
    for ran in (longvu(*words), longvu(*words, "--json")):
        assert ran.code in (2, 3, 4)
        assert "S3CRET" not in ran.out + ran.err


def test_an_endpoint_with_a_password_is_shown_without_it(
    longvu: Longvu, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gated(*_: object, **__: object) -> None:
        raise WeightsGated("no", hint="accept the licence at https://me:S3CRET@hub/org/name, and set HF_TOKEN")

    monkeypatch.setattr("longvu_cli.longvu.LongVU.from_pretrained", gated)
    for ran in (longvu("ask", clip, QUESTION), longvu("ask", clip, QUESTION, "--json")):
        assert ran.code == 4
        assert "https://hub/org/name" in ran.out + ran.err
        assert "S3CRET" not in ran.out + ran.err
