"""page.py: what stands in a report, that hostile text stays text, and how it looks in a browser."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from longvu_cli.config import CompressionOptions, GenerationOptions
from longvu_cli.errors import UsageError
from longvu_cli.longvu import LongVU
from longvu_cli.reporting.page import MOST_SPANS, legible, page, pictures_wanted, require_own_page, write_page
from longvu_cli.reporting.thumbnails import data_uri, thumbnails
from longvu_cli.results import Answer, Compression
from longvu_cli.statistics import Fate, Timeline

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUESTIONS = ("Where is the cup?", "Is there a dog?")
PICTURE = data_uri(np.full((36, 64, 3), 90, np.uint8))
# Void elements, which are not closed.
VOID = {"meta", "img", "br", "rect", "path", "line"}


class Page(HTMLParser):
    """Reads a page, and sees to it that its elements are closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open and self._open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def answers(qwen: LongVU, parity: Path) -> list[Answer]:
    return [
        qwen.answer(
            parity / "short_window.mkv",
            question,
            compression=CompressionOptions(context_length=900),
            generation=GenerationOptions(max_new_tokens=2),
        )
        for question in QUESTIONS
    ]


@pytest.fixture(scope="module")
def pictures(parity: Path, answers: list[Answer]) -> dict[int, str]:
    compressions = [answer.compression for answer in answers]
    kept, _ = pictures_wanted(compressions)
    return dict(thumbnails(parity / "short_window.mkv", compressions[0].sampling, kept))


def changed(answer: Answer, **changes: object) -> Answer:
    return replace(answer, compression=replace(answer.compression, **changes))  # type: ignore[arg-type]


def made(*results: Answer | Compression, pictures: dict[int, str] | None = None) -> str:
    return page(results, pictures or {}, made="2026-11-26 12:00")


# --- what stands in it ----------------------------------------------------------------------------------------------


def test_questions_answers_and_their_numbers(answers: list[Answer], pictures: dict[int, str]) -> None:
    read = Page(made(*answers, pictures=pictures))
    words = " ".join(read.text.split())
    for answer in answers:
        assert answer.question in words
        assert " ".join(answer.text.split()) in words
        for moment in answer.compression.evidence().moments:
            assert f"score {moment.relevance:.3g}" in words
    statistics = answers[0].compression.statistics
    for count in (statistics.tokens.dense, statistics.tokens.visual, statistics.visual_budget):
        assert f"{count:,}" in words
    assert "short_window.mkv" in words and "Question 2" in words
    assert "900 tokens" in words and "2026-11-26 12:00" in words
    assert "cut off at the limit of tokens" in words


def test_every_picture_has_a_text_and_every_chart_a_label(answers: list[Answer], pictures: dict[int, str]) -> None:
    read = Page(made(*answers, pictures=pictures))
    images = read.all("img")
    assert len(images) >= len(pictures) == 12
    assert all(image["alt"].startswith("Frame ") and image["src"] in pictures.values() for image in images)
    assert all(chart["role"] == "img" and chart["aria-label"] for chart in read.all("svg"))
    assert len(read.all("h1")) == 1 and len(read.all("title")) == 1
    assert read.all("html") == [{"lang": "en"}]


def test_each_frame_has_the_relevance_for_each_question(answers: list[Answer], pictures: dict[int, str]) -> None:
    html = made(*answers, pictures=pictures)
    assert html.count("<figure") == 12
    assert html.count('<figure class="close"') == len(
        {frame.index for one in answers for frame in one.compression.statistics.per_frame if frame.resolution == "high"}
    )
    assert html.count('class="meter"') == 24
    assert len(re.findall(r"<span>Q[12]</span>", html)) == 24


def test_it_asks_nothing_of_anybody(answers: list[Answer], pictures: dict[int, str]) -> None:
    html = made(*answers, pictures=pictures)
    assert not Page(html).all("script") and not Page(html).all("link")
    assert re.findall(r"""(?:src|href)=["'](?!data:image/jpeg;base64,)""", html) == []
    assert "http:" not in html and "https:" not in html and "url(" not in html
    assert "default-src 'none'" in html


def test_questions_that_come_to_the_same_numbers_share_a_waterfall(answers: list[Answer]) -> None:
    same = replace(answers[0], text="no")
    assert made(answers[0], same).count('<div class="bars">') == 1
    other = replace(
        answers[0].compression.statistics,
        visual_budget=7,
        tokens=replace(answers[0].compression.statistics.tokens, visual=7),
    )
    both = made(answers[0], changed(answers[1], statistics=other), same)
    assert both.count('<div class="bars">') == 2
    assert "For questions 1, 3" in both and "For question 2" in both


def test_without_a_question(qwen: LongVU, parity: Path) -> None:
    compression = qwen.compress(parity / "short_window.mkv")
    read = Page(made(compression, pictures={0: PICTURE}))
    words = " ".join(read.text.split())
    assert "What is kept" in words and "Question" not in words and "relevance," not in words
    assert len(read.all("figure")) == 1 and "1 of 12" in words


def test_a_picture_has_no_time_line(qwen: LongVU, parity: Path) -> None:
    answer = qwen.answer(
        parity / "still_image_landscape.png", QUESTIONS[0], generation=GenerationOptions(max_new_tokens=1)
    )
    html = made(answer, pictures={0: PICTURE})
    assert 'class="chart"' not in html and 'class="strip"' not in html and "was dropped" not in html


def test_a_very_long_video_makes_no_very_long_page(answers: list[Answer]) -> None:
    sampled = 40_000
    times = tuple(map(float, range(sampled)))
    fates = tuple(Fate.SIMILAR if index % 2 else Fate.KEPT for index in range(sampled))
    answer = changed(answers[0], timeline=Timeline(times, tuple(index % 9 / 9 for index in range(sampled)), fates))
    html = made(answer)
    assert len(html) < 150_000
    assert f"The {MOST_SPANS} longest; {20_000 - MOST_SPANS:,} shorter ones" in html


def test_no_similarity_is_said(answers: list[Answer]) -> None:
    timeline = replace(answers[0].compression.timeline, similarity=(None,) * 12)
    assert "No similarity was computed" in made(changed(answers[0], timeline=timeline))


def test_warnings_are_told(answers: list[Answer]) -> None:
    html = made(changed(answers[0], notices=("the tiny model knows no such video",)))
    assert '<p class="warning">the tiny model knows no such video</p>' in html


# --- hostile text ---------------------------------------------------------------------------------------------------

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;{{ 7*7 }}\x1b[31m\u202egnp\x00\udc80"


def test_hostile_text_stays_text(answers: list[Answer]) -> None:
    answer = answers[0]
    compression = answer.compression
    video = replace(compression.video, path=f"/tmp/{EVIL}.mp4", title=EVIL, codec=EVIL, warnings=(EVIL,))
    model = replace(compression.model, name=EVIL, source=EVIL, revision=EVIL, notices=(EVIL,))
    evil = replace(
        answer, text=EVIL, compression=replace(compression, video=video, model=model, question=EVIL, notices=(EVIL,))
    )
    html = made(evil, pictures={0: PICTURE})
    read = Page(html)
    assert not read.all("script")
    assert all(image["src"] == PICTURE for image in read.all("img"))
    assert not any(name.startswith("on") for _, attributes in read.elements for name in attributes)
    assert read.text.count("<script>alert(1)</script>") >= 8
    assert "{{ 7*7 }}" in read.text
    assert "\x1b" not in html and "\u202e" not in html and "\x00" not in html
    assert "\\x1b[31m" in html and "\\u202e" in html
    html.encode()


def test_scripts_of_all_directions_and_joined_emoji_are_left_as_they_are() -> None:
    for text in ("שלום", "مرحبا", "क्षि", "👩‍🔬", "a\nb\tc"):
        assert legible(text) == text
    assert legible("a\u2028b\u2066c") == "a\\u2028b\\u2066c"


# --- files ----------------------------------------------------------------------------------------------------------


def test_a_report_may_take_the_place_of_a_report_only(answers: list[Answer], tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    require_own_page(target)
    write_page(made(answers[0]), target)
    require_own_page(target)
    write_page(made(answers[1]), target)
    assert QUESTIONS[1] in target.read_text(encoding="utf-8")
    assert list(tmp_path.iterdir()) == [target]
    target.write_text("<!doctype html><p>mine")
    with pytest.raises(UsageError, match="is there already, and no report"):
        require_own_page(target)


@pytest.mark.parametrize("target", ["missing/report.html", "folder"])
def test_a_report_that_cannot_be_written_is_told(tmp_path: Path, target: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match="cannot be written"):
        require_own_page(tmp_path / target)
    with pytest.raises(UsageError, match="cannot be written"):
        write_page("", tmp_path / target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder"]


# --- in a browser ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def in_browser(
    answers: list[Answer], pictures: dict[int, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("browser")
    long = replace(answers[0], text="W" * 300)
    write_page(made(long, answers[1], pictures=pictures), folder / "report.html")
    yield folder


def browse(folder: Path, *wanted: str) -> str:
    """Open the report in a fresh browser; its output."""
    assert BROWSER is not None
    quiet = ["--disable-quic", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
    profile = folder / f"profile-{len(list(folder.iterdir()))}"
    return subprocess.run(
        [
            *(BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", *quiet, "--hide-scrollbars"),
            *(f"--user-data-dir={profile}", *wanted, (folder / "report.html").as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
@pytest.mark.parametrize(("width", "height"), [(390, 1600), (1200, 1600)])
def test_it_fits_the_screen(in_browser: Path, width: int, height: int) -> None:
    picture = in_browser / f"{width}.png"
    browse(in_browser, f"--screenshot={picture}", f"--window-size={width},{height}")
    with Image.open(picture) as image:
        assert image.size == (width, height)
        pixels = np.asarray(image.convert("RGB")).astype(int)
    ground = pixels[2, 2]
    # Both margins are empty all the way down: nothing runs over the edge of the screen.
    assert (abs(pixels[:, :8] - ground).max(), abs(pixels[:, -8:] - ground).max()) == (0, 0)
    # There are charts in the accent's colour, and pictures.
    assert (abs(pixels - np.array((0x1F, 0x6F, 0x69))).sum(axis=2) < 6).sum() > 3_000
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 1_000
