"""Films of the drawn world whose stories no training has seen, and which of their questions are asked."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from longvu_cli.errors import UsageError
from longvu_cli.whole_file import whole_file
from longvu_cli.world.film import write_film
from longvu_cli.world.questions import KINDS, Question, questions
from longvu_cli.world.story import Split, story


@dataclass(frozen=True)
class Film:
    """A film of a test story.

    Attributes:
        number: of the story.
        fps: frames per second.
    """

    number: int
    seconds: int
    fps: int = 1

    @property
    def seed(self) -> int:
        """Decides what is in it."""
        return Split.TEST.seed(self.number)

    @property
    def file(self) -> str:
        """Its name in a folder."""
        return f"{self.number:06}-{self.seconds}s-{self.fps}fps.mp4"

    def write(self, path: Path) -> None:
        """Write the film, whole or not at all.

        Raises:
            OSError: it cannot be written.
        """
        with whole_file(path) as aside:
            write_film(story(self.seed, self.seconds), aside, fps=self.fps)


@dataclass(frozen=True)
class FilmQuestion:
    """A question about a film."""

    film: Film
    question: Question


def questions_about(films: Iterable[Film], per_film: int) -> tuple[FilmQuestion, ...]:
    """Per film, questions of the kinds that were asked least so far; fewer where there are no more."""
    counts: Counter[str] = Counter(dict.fromkeys(KINDS, 0))
    asked: list[FilmQuestion] = []
    for film in films:
        by_kind: dict[str, list[Question]] = defaultdict(list)
        for question in questions(story(film.seed, film.seconds)):
            by_kind[question.kind].append(question)
        for _ in range(per_film):
            if not by_kind:
                break
            kind = min(by_kind, key=lambda kind: counts[kind])
            counts[kind] += 1
            asked.append(FilmQuestion(film, by_kind[kind].pop()))
            by_kind = {kind: rest for kind, rest in by_kind.items() if rest}
    return tuple(asked)


def write_films(films: Sequence[Film], folder: Path, on_progress: Callable[[str, int, int | None], None]) -> None:
    """Write the films that are not there yet.

    Raises:
        UsageError: the folder cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number, film in enumerate(films, 1):
            if not (folder / film.file).is_file():
                film.write(folder / film.file)
            on_progress("films", number, len(films))
    except OSError as error:
        raise UsageError(
            f"the films cannot be written to {folder}: {error.strerror}", hint="name another folder"
        ) from error
