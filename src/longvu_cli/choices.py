"""Questions with options to choose from: how they are put, and which one an answer means."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence

ORDER = "Answer with the option's letter from the given choices directly and only give the best option."


def with_choices(question: str, choices: Sequence[str]) -> str:
    """The question with its options, lettered, as the reference puts those of MVBench."""
    if not choices:
        return question
    options = "".join(f"({letter}) {choice}\n" for letter, choice in zip(string.ascii_uppercase, choices, strict=False))
    return f"Question: {question}\nOptions:\n{options}{ORDER}"


def chosen(answer: str, choices: Sequence[str]) -> str | None:
    """The letter of the option that an answer means; None: it means none, or more than one.

    An answer begins with a letter ("B", "(B) On the table", "B. On the table", "The best option is B."), or it is the
    text of an option.
    """
    if not choices:
        return None
    letters = string.ascii_uppercase[: len(choices)]
    said = _plain(answer)
    same = [letter for letter, choice in zip(letters, choices, strict=True) if _plain(choice) == said]
    if len(same) == 1:
        return same[0]
    # A letter alone, between brackets or before a full stop: "A" is a word, too.
    alone = rf"\(?([{letters}])(?:[).:,]|\s*$)"
    another = rf"\)?[\s.,/&]*(?:(?:and|or)\s)?\s*{alone}"
    patterns = (
        rf"^\s*{alone}",
        rf"\boption(?: is)?:? \(?([{letters}])\b",
        rf"\banswer(?: is)?:? \(?([{letters}])\b",
        rf"\(([{letters}])\)",
    )
    for pattern in patterns:
        named = {match[1] for match in re.finditer(pattern, answer)}
        named |= {
            more[1] for match in re.finditer(pattern, answer) if (more := re.match(another, answer[match.end(1) :]))
        }
        if named:
            return named.pop() if len(named) == 1 else None
    return None


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).rstrip(".")
