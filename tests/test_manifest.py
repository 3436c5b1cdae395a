import json
import os

import pytest

from longvu_cli.config import (
    CompressionOptions,
    FrameResolution,
    GenerationOptions,
    PromptOptions,
    RecipeName,
    SamplingOptions,
    StillMode,
)
from longvu_cli.errors import UsageError
from longvu_cli.manifest import Manifest, Row, Settings, read_manifest

DEFAULTS = Settings(SamplingOptions(fps=0.5), CompressionOptions(), GenerationOptions(max_new_tokens=7))


def of(*rows: object, name: str = "m.jsonl") -> Manifest:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    return read_manifest("\n".join(lines).encode(), name, DEFAULTS)


def one(**options: object) -> Row:
    manifest = of({"video": "a.mp4", "question": "What?", **options})
    assert not manifest.misfits, manifest.misfits
    return manifest.rows[0]


def problem(row: object) -> str:
    manifest = of({"video": "a.mp4", "question": "What?"}, row)
    assert len(manifest.rows) == len(manifest.misfits) == 1
    assert manifest.misfits[0].number == 2
    return str(manifest.misfits[0].error)


def test_a_row_takes_the_defaults() -> None:
    row = one()
    assert (row.number, row.id, row.video, row.question, row.settings) == (1, None, "a.mp4", "What?", DEFAULTS)


def test_every_option_of_a_row() -> None:
    options = {
        "fps": 2,
        "thin_above": 1000,
        "start": "1:30",
        "end": 95.5,
        "recipe": "paper",
        "orientation": "upright",
        "still": "video",
        "context_length": 4000,
        "dino_threshold": 0.5,
        "stc-threshold": 0,
        "temporal_reduction": "uniform",
        "anchor": "middle",
        "frame_position_encoding": True,
        "query_guided": False,
        "spatial-compression": False,
        "resolution": "full",
        "max_new_tokens": 3,
        "temperature": 1,
        "top_p": 0.5,
        "seed": 4,
    }
    settings = one(**options, id="first").settings
    assert settings.sampling == SamplingOptions(fps=2.0, start_s=90.0, end_s=95.5, thin_above=1000)
    assert settings.generation == GenerationOptions(max_new_tokens=3, temperature=1.0, top_p=0.5, seed=4)
    compression = settings.compression
    assert (compression.recipe, compression.still) == (RecipeName.PAPER, StillMode.VIDEO)
    assert (compression.context_length, compression.dino_threshold, compression.stc_threshold) == (4000, 0.5, 0.0)
    assert (compression.frame_position_encoding, compression.anchor.value) == (True, "middle")
    assert (compression.query_guided, compression.spatial_compression) == (False, False)
    assert compression.resolution is FrameResolution.FULL


def test_null_says_nothing() -> None:
    assert one(fps=None, seed=None, id=None).settings == DEFAULTS


def test_what_differs_from_the_defaults_of_the_package_identifies_the_settings() -> None:
    assert one().settings.changed() == {"fps": 0.5, "max_new_tokens": 7}
    assert one(fps=1, max_new_tokens=128).settings.changed() == {}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("{", "row 2 cannot be read: it is no JSON"),
        ("[" * 100_000, "row 2 cannot be read: it is no JSON"),
        ('["a.mp4", "What?"]', "row 2 cannot be read: it is no JSON object"),
        ({"question": "What?"}, "row 2: video is missing"),
        ({"video": "a.mp4"}, "row 2: question is missing"),
        ({"video": 3, "question": "What?"}, "row 2: video is no text"),
        ({"video": "a.mp4", "question": " "}, "row 2: question is empty"),
        ({"video": "a.mp4", "question": "\ud800"}, "row 2: question is no valid text"),
        *(
            ({"video": "a.mp4", "question": "What?", key: value}, expected)
            for key, value, expected in (
                ("sped", 1, "'sped' is no option"),
                ("model", "7b", "'model' is no option"),
                ("fps", "fast", "fps = 'fast' is no number"),
                ("fps", True, "fps = True is no number"),
                ("fps", "x" * 201, f"fps = '{'x' * 199}… is no number"),
                ("x" * 201, 1, f"'{'x' * 199}… is no option"),
                ("fps", 0, "is not a rate"),
                ("fps", 10**400, "is too large"),
                ("start", "1:60", "is no time"),
                ("end", -1, "is not after"),
                ("max_new_tokens", 3.5, "is no whole number"),
                ("frame_position_encoding", 1, "is neither true nor false"),
                ("recipe", "own", "is none of released, paper"),
                ("top_p", 0.5, "has no effect on greedy decoding"),
                ("id", [1], "id is neither a text nor a number"),
                ("id", float("nan"), "id is neither a text nor a number"),
            )
        ),
    ],
)
def test_what_is_wrong_with_a_row(row: object, expected: str) -> None:
    assert expected in problem(row)


def test_a_misfit_keeps_its_id_and_video() -> None:
    misfit = of({"video": "a.mp4", "question": "What?", "id": "x", "fps": 0}).misfits[0]
    assert (misfit.id, misfit.video, type(misfit.error).__name__) == ("x", "a.mp4", "BadRow")


def test_blank_lines_and_line_ends_of_windows() -> None:
    content = b'\xef\xbb\xbf{"video": "a", "question": "x"}\r\n\r\n{"video": "b", "question": "y"}\r\n'
    assert [(row.number, row.video) for row in read_manifest(content, "-", DEFAULTS).rows] == [(1, "a"), (2, "b")]


def test_bytes_that_are_no_text_name_a_file() -> None:
    row = read_manifest(b'{"video": "\xff.mp4", "question": "x"}', "-", DEFAULTS).rows[0]
    assert os.fsencode(row.video) == b"\xff.mp4"


@pytest.mark.parametrize("name", ["m.csv", "-"])
def test_csv(name: str) -> None:
    rows = of(
        "video,question,id,fps,seed,start,frame-position-encoding", 'a,"Is it, or\nnot?",7,2,,0:01,yes', name=name
    )
    (row,) = rows.rows
    assert (row.video, row.question, row.id) == ("a", "Is it, or\nnot?", "7")
    assert (row.settings.sampling.fps, row.settings.sampling.start_s, row.settings.generation.seed) == (2.0, 1.0, None)
    assert row.settings.compression.frame_position_encoding is True


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a.mp4,What?,fast", "fps = 'fast' is no number"),
        ("a.mp4,What?,1,2", "it has 4 cells, the header 3"),
        ("a.mp4", "question is missing"),
        (f"a.mp4,{'x' * 200_000}", "it is no CSV"),
    ],
)
def test_what_is_wrong_with_a_row_of_csv(line: str, expected: str) -> None:
    manifest = of("video,question,fps", "a.mp4,What?,1", line, "b.mp4,What?,1", name="m.csv")
    assert [row.video for row in manifest.rows] == ["a.mp4", "b.mp4"]
    assert expected in str(manifest.misfits[0].error)


@pytest.mark.parametrize("text", ["", "\n\n", "What?\n", "video,fps\na,1", "video,question,sped\na,b,1", "video,video"])
@pytest.mark.parametrize("name", ["-", "m.csv"])
def test_what_is_no_manifest(text: str, name: str) -> None:
    with pytest.raises(UsageError):
        read_manifest(text.encode(), name, DEFAULTS)


def test_what_the_prompt_holds() -> None:
    prompting = {"system": "Be brief.", "prompt_template": "{question}!", "subtitles": "a\udcff.srt"}
    row = one(**prompting, choices=["red | blue", "green"])
    assert row.settings.prompting == PromptOptions(**prompting, choices=("red | blue", "green"))
    assert one(choices="red| blue").settings.prompting.choices == ("red", "blue")
    csv = "video,question,choices,system\na.mp4,What?,1|2,007\n"
    (row,) = read_manifest(csv.encode(), "m.csv", DEFAULTS).rows
    assert row.settings.prompting == PromptOptions(choices=("1", "2"), system="007")


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        ({"choices": ["one"]}, "no choice"),
        ({"choices": 3}, "no list of texts"),
        ({"choices": ["a", 2]}, "no text"),
        ({"system": 3}, "no text"),
        ({"system": "\ud800"}, "no valid text"),
        ({"prompt_template": "nothing"}, "no place for the question"),
        ({"subtitles": ["a.srt"]}, "no text"),
    ],
)
def test_what_no_prompt_can_hold_is_the_rows_own_error(options: dict[str, object], wrong: str) -> None:
    assert wrong in problem({"video": "a.mp4", "question": "What?", **options})


def test_options_of_the_prompt_leave_the_identity_of_other_rows_alone() -> None:
    assert one().settings.changed() == {"fps": 0.5, "max_new_tokens": 7}
    assert one(system="x").settings.changed()["system"] == "x"
