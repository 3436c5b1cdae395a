"""drawn_films.py: the same films and questions each time, of stories that no training has seen."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from longvu_cli.errors import UsageError
from longvu_cli.evaluation.drawn_films import Film, questions_about, write_films
from longvu_cli.world.questions import questions
from longvu_cli.world.story import Split, story

FILMS = tuple(Film(number, seconds) for number, seconds in enumerate((20, 40, 20, 40)))


def test_the_stories_are_of_the_test_split() -> None:
    assert [film.seed for film in FILMS] == [Split.TEST.seed(number) for number in range(4)]
    assert len({film.file for film in FILMS}) == 4


def test_the_kinds_that_were_asked_least_come_next() -> None:
    asked = questions_about(FILMS, 5)
    assert asked == questions_about(FILMS, 5)
    assert Counter(one.film for one in asked) == dict.fromkeys(FILMS, 5)
    counts = Counter(one.question.kind for one in asked)
    assert max(counts.values()) - min(counts.values()) <= 2
    assert len(counts) >= 9
    for one in asked:
        assert one.question in questions(story(one.film.seed, one.film.seconds))


def test_a_film_has_no_more_questions_than_it_has() -> None:
    (film, *_) = FILMS
    asked = questions_about([film], 1000)
    assert len(asked) == len(set(asked)) == len(questions(story(film.seed, film.seconds)))


def test_films_are_written_once(tmp_path: Path) -> None:
    films, told = [Film(0, 2), Film(1, 3)], []
    for _ in range(2):
        write_films(films, tmp_path / "films", lambda *step: told.append(step))
    assert told == [("films", 1, 2), ("films", 2, 2)] * 2
    paths = [tmp_path / "films" / film.file for film in films]
    assert sorted((tmp_path / "films").iterdir()) == sorted(paths)
    before = [path.stat().st_mtime_ns for path in paths]
    write_films(films, tmp_path / "films", lambda *_: None)
    assert [path.stat().st_mtime_ns for path in paths] == before


def test_a_folder_that_cannot_be_written_to_is_told(tmp_path: Path) -> None:
    (tmp_path / "films").write_text("a file")
    with pytest.raises(UsageError, match="the films cannot be written to"):
        write_films([Film(0, 2)], tmp_path / "films", lambda *_: None)
