"""Haystacks of the synthetic world: a long film in which nothing happens but a card that is shown for one second.

Half of the cards show one thing, which can be read at either resolution; half show four small ones, which can be told
apart at full resolution only. The question is what colour one of them has.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from longvu_cli.evaluation.needle import SAMPLING
from longvu_cli.world.film import write_film
from longvu_cli.world.questions import Question, is_right, questions
from longvu_cli.world.story import Story, needle_story


class Haystack:
    """A story with one card, and the question about it.

    Args:
        seconds: of the film.
        depth: where the card is shown, from 0 to 1.
    """

    def __init__(self, seed: int, seconds: int, depth: float) -> None:
        self.story: Story = needle_story(seed, seconds, depth)

    @cached_property
    def needle(self) -> Question:
        """The question about the card."""
        (card,) = self.story.cards
        shown = ((float(card.start_s), float(card.end_s)),)
        return next(q for q in questions(self.story) if q.kind == "colour" and q.evidence == shown)

    def film(self, path: Path) -> None:
        """Write the video, with the frames that are looked at and no others."""
        write_film(self.story, path, fps=int(SAMPLING.fps))

    def is_right(self, answer: str) -> bool:
        """Whether an answer names what is on the card."""
        return is_right(self.needle, answer)
