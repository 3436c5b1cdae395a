"""subtitles.py and text_track.py: from files and tracks to the lines that stand in the prompt."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import pytest
from media import picture, steady, write_video

from longvu_cli.config import CompressionOptions, DecodingOptions, GenerationOptions, PromptOptions, SamplingOptions
from longvu_cli.cues import Cue
from longvu_cli.errors import BadSubtitles, VideoNotFound
from longvu_cli.longvu import TRACK, LongVU
from longvu_cli.results import SubtitleUse
from longvu_cli.subtitles import HEADING, block, fitting, lines_of, sidecar
from longvu_cli.video import subtitle_cues, text_track
from longvu_cli.world.questions import is_right, questions
from longvu_cli.world.story import Story

SRT = """1
00:00:01,000 --> 00:00:02,500
Good <i>morning</i>,
everybody.

2
00:01:05,000 --> 00:01:06,000
{\\an8}Bye &amp; bye <font color="white">now</font>
"""
VTT = """WEBVTT

NOTE nobody reads this

00:01.000 --> 00:02.000 align:left
<v Bob>Good <b>morning</b></v>

01:00:03.000 --> 01:00:04.000
Bye
"""
ASS = """[Script Info]
ScriptType: v4.00+

[V4+ Styles]
Format: Name, Fontname, Fontsize
Style: Default,Arial,20

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
Comment: 0,0:00:00.00,0:00:01.00,Default,,0,0,0,,nobody reads this
Dialogue: 0,0:00:01.00,0:00:02.00,Default,,0,0,0,,{\\b1}Good\\Nmorning
Dialogue: 0,0:00:01.00,0:00:02.00,Default,,0,0,0,,{\\p1}m 0 0 l 100 0{\\p0}
"""


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def lines(path: Path, **range_s: float) -> tuple[str, ...]:
    return lines_of(subtitle_cues(path), SamplingOptions(**range_s))


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "wanted"),
    [
        ("a.srt", SRT, ("[0:01] Good morning, everybody.", "[1:05] Bye & bye now")),
        ("a.vtt", VTT, ("[0:01] Good morning", "[1:00:03] Bye")),
        ("a.ass", ASS, ("[0:01] Good morning",)),
        ("a.txt", SRT, ("[0:01] Good morning, everybody.", "[1:05] Bye & bye now")),
    ],
)
def test_each_kind_of_file_becomes_lines_with_times(
    tmp_path: Path, name: str, content: str, wanted: tuple[str, ...]
) -> None:
    assert lines(written(tmp_path, name, content)) == wanted


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_letters_are_read_whatever_wrote_them(tmp_path: Path, encoding: str) -> None:
    file = written(tmp_path, "a.srt", SRT.replace("Good", "Schöne Grüße").encode(encoding))
    assert lines(file)[0] == "[0:01] Schöne Grüße morning, everybody."


@pytest.mark.parametrize("content", ["", "nothing", "{1}{25}of MicroDVD", "\x00\x01", "MPL2: [0][10]this"])
def test_what_is_no_subtitles_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(BadSubtitles, match=r"holds no subtitles|is empty"):
        subtitle_cues(written(tmp_path, "a.srt", content))


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadSubtitles, match="no such file"):
        subtitle_cues(tmp_path / "none.srt")
    with pytest.raises(BadSubtitles, match="is a directory"):
        subtitle_cues(tmp_path)
    with pytest.raises(BadSubtitles, match="null character"):
        subtitle_cues(Path("a\0b.srt"))
    large = tmp_path / "large.srt"
    with large.open("wb") as file:
        file.truncate(20_000_001)
    with pytest.raises(BadSubtitles, match="too large"):
        subtitle_cues(large)


def test_a_file_that_is_made_to_take_for_ever_is_given_up(tmp_path: Path) -> None:
    """The library looks for the end of each tag anew."""
    file = written(tmp_path, "a.srt", "1\n00:00:01,000 --> 00:00:02,000\n" + "<a" * 200_000)
    with pytest.raises(BadSubtitles, match="was given up"):
        subtitle_cues(file, DecodingOptions(patience_s=0.5))


# --- lines -----------------------------------------------------------------------------------------------------------

CUES = tuple(Cue(float(start), start + 2.0, f"line {start}") for start in range(0, 10, 2))


@pytest.mark.parametrize(
    ("range_s", "wanted"),
    [
        ({}, [0, 2, 4, 6, 8]),
        ({"start_s": 4.0}, [4, 6, 8]),
        ({"start_s": 3.9}, [2, 4, 6, 8]),
        ({"end_s": 4.0}, [0, 2]),
        ({"end_s": 4.1}, [0, 2, 4]),
        ({"start_s": 20.0}, []),
    ],
)
def test_only_what_is_shown_within_the_range_counts(range_s: dict[str, float], wanted: list[int]) -> None:
    assert lines_of(CUES, SamplingOptions(**range_s)) == tuple(f"[0:0{start}] line {start}" for start in wanted)


def test_repetitions_music_and_controls_are_left_out() -> None:
    texts = ["Hello", "Hello", "[Music]", "[applause]", " ", "Hello", "Bye\x1b[31m\u202e"]
    cues = [Cue(float(number), number + 1.0, text) for number, text in enumerate(texts)]
    assert lines_of(cues, SamplingOptions()) == ("[0:00] Hello", "[0:06] Bye\\x1b[31m\\u202e")


def test_what_does_not_fit_is_thinned_evenly() -> None:
    ten = [f"[0:0{number}] {number}" for number in range(10)]
    head, each = len(HEADING) + 1, len(ten[0]) + 1

    def fitted(room: int) -> str:
        return "".join(line[-1] for line in fitting(ten, room, len))

    assert fitted(head + 10 * each) == "0123456789"
    assert fitted(head + 10 * each - 1) == "012345678"
    assert fitted(head + 5 * each) == "02468"
    assert fitted(head + each) == "0"
    assert fitted(head + each - 1) == fitted(0) == ""


def test_what_began_before_the_video_is_timed_at_its_beginning() -> None:
    assert lines_of((Cue(-2.0, 3.0, "Hello"),), SamplingOptions()) == ("[0:00] Hello",)


def test_of_very_many_lines_only_as_many_as_could_fit_are_tried() -> None:
    sums = 0

    class Size(int):
        def __radd__(self, other: int) -> int:
            nonlocal sums
            sums += 1
            return int(other) + int(self)

    room = len(HEADING) + 1 + 100 * 10
    assert len(fitting(["[0:00] ab"] * 3_000, room, lambda text: Size(len(text)))) == 100
    assert sums < 50_000


def test_the_lines_stand_under_the_heading_of_the_reference() -> None:
    assert block(["[0:01] Hello", "[0:02] Bye"]) == f"{HEADING}\n[0:01] Hello\n[0:02] Bye\n"
    assert HEADING == "This video's subtitles are listed below:"
    assert block([]) == ""


# --- beside the video, and within it ---------------------------------------------------------------------------------


def test_the_file_beside_the_video_is_found(tmp_path: Path) -> None:
    video = written(tmp_path, "movie.mkv", b"x")
    for name in ("other.srt", "movie2.srt", "movie.txt", "movie.fr.forced.srt"):
        written(tmp_path, name, SRT)
    assert sidecar(video) is None
    for name in ("movie.fr.srt", "movie.en.srt", "movie.ass", "movie.vtt", "movie.SRT"):
        found = written(tmp_path, name, SRT)
        wanted = {"movie.fr.srt": "movie.fr.srt", "movie.en.srt": "movie.en.srt"}.get(name, name)
        assert sidecar(video) == tmp_path / wanted == found
    assert sidecar(tmp_path / "none" / "movie.mkv") is None


@pytest.fixture(scope="session")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A video of three seconds with a text track, in a container of a kind; the video begins at 5 s of its clock."""
    folder = tmp_path_factory.mktemp("tracks")

    def make(container: str) -> Path:
        path = folder / f"tracked.{container}"
        if path.exists():
            return path
        source = written(folder, "track.srt", SRT)
        with av.open(str(path), "w") as output, av.open(str(source)) as texts:
            video = output.add_stream("libx264", rate=10)
            video.width, video.height, video.pix_fmt = 128, 72, "yuv420p"
            track = output.add_stream_from_template(texts.streams.subtitles[0])
            packets = []
            for number in range(30):
                frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
                frame.pts = number + 50
                packets += video.encode(frame)
            for packet in [*packets, *video.encode(None)]:
                output.mux(packet)
            for packet in texts.demux():
                if packet.size:
                    packet.pts += 5_000
                    packet.dts, packet.stream = packet.pts, track
                    output.mux(packet)
        return path

    return make


@pytest.mark.parametrize("isolated", [True, False])
def test_a_text_track_is_read_with_the_times_of_the_video(tracked: Callable[[str], Path], isolated: bool) -> None:
    cues = text_track(tracked("mkv"), DecodingOptions(isolated=isolated))
    assert [(cue.start_s, cue.end_s) for cue in cues] == [(1.0, 2.5), (65.0, 66.0)]
    assert lines_of(cues, SamplingOptions())[0] == "[0:01] Good morning, everybody."


def test_a_video_without_a_track_has_no_lines(tmp_path: Path, parity: Path) -> None:
    assert text_track(write_video(tmp_path / "plain.mp4", steady(3))) == ()
    assert text_track(parity / "still_image_landscape.png") == ()
    with pytest.raises(VideoNotFound):
        text_track(tmp_path / "none.mp4")


# --- in the prompt ---------------------------------------------------------------------------------------------------


def ask(model: LongVU, video: Path, **settings: object) -> SubtitleUse | None:
    compression = model.compress(video, "Why?", prompting=PromptOptions(subtitles="auto"), **settings)  # type: ignore
    return compression.subtitles


def test_subtitles_are_looked_for_beside_the_video_and_then_within_it(
    qwen: LongVU, tracked: Callable[[str], Path], tmp_path: Path
) -> None:
    video = tracked("mkv")
    assert ask(qwen, video) == SubtitleUse(TRACK, 2, 2)
    assert ask(qwen, video, sampling=SamplingOptions(end_s=3.0)) == SubtitleUse(TRACK, 1, 1)
    beside = written(video.parent, "tracked.srt", VTT)
    assert ask(qwen, video, sampling=SamplingOptions(end_s=3.0)) == SubtitleUse(str(beside), 1, 1)
    beside.unlink()
    plain = write_video(tmp_path / "plain.mp4", steady(3))
    none = qwen.compress(plain, "Why?", prompting=PromptOptions(subtitles="auto"))
    assert none.subtitles is None
    assert none.notices == ("there are no subtitles beside the video, and no text track in it",)


def test_subtitles_leave_the_video_its_room_and_say_what_was_cut(qwen: LongVU, parity: Path, tmp_path: Path) -> None:
    many = "".join(f"{n}\n00:00:{n:02},000 --> 00:00:{n:02},900\nNumber {n} of the lines\n\n" for n in range(60))
    prompting = PromptOptions(subtitles=str(written(tmp_path, "many.srt", many)))
    options = CompressionOptions(context_length=1000)
    plain = qwen.compress(parity / "one_frame.mkv", "Why?", compression=options)
    told = qwen.compress(parity / "one_frame.mkv", "Why?", compression=options, prompting=prompting)
    room = plain.statistics.visual_budget
    assert room / 2 <= told.statistics.visual_budget < room / 2 + 40  # less than another line
    assert told.subtitles is not None and 0 < told.subtitles.read < told.subtitles.lines == 60
    assert told.notices == (
        f"the subtitles would take more than half the room for the video: {told.subtitles.read} of 60 lines, "
        "evenly spread, are read",
    )


def test_a_conversation_has_the_subtitles_before_its_first_question(
    qwen: LongVU, parity: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(tmp_path, "a.srt", SRT)
    talk = qwen.conversation(
        parity / "one_frame.mkv",
        prompting=PromptOptions(subtitles=str(file)),
        generation=GenerationOptions(max_new_tokens=3),
    )
    first = talk.answer("Why?")
    file.unlink()
    second = talk.answer("Why not?")
    assert second.compression.subtitles == first.compression.subtitles == SubtitleUse(str(file), 2, 2)
    # The prompt before is a prefix of this one, subtitles and all.
    assert second.reused_tokens == first.compression.statistics.text_tokens + 84


def test_the_tiny_model_still_answers(trained_tiny: LongVU, short_film: tuple[Story, Path], tmp_path: Path) -> None:
    told, film = short_film
    prompting = PromptOptions(subtitles=str(written(tmp_path, "a.srt", SRT)), system="You are a terse assistant.")
    asked = [question for question in questions(told) if question.kind in ("colour", "place")][:4]
    generation = GenerationOptions(max_new_tokens=24)
    right = [
        is_right(question, trained_tiny.answer(film, question.text, prompting=prompting, generation=generation).text)
        for question in asked
    ]
    assert sum(right) >= 3  # it saw neither in training
