"""Questions with options to choose from: how they are put, and which one an answer means."""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Sequence

ORDER = "Answer with the option's letter from the given choices directly and only give the best option."

# What takes an option out of the choice, at most a few words before its letter.
_DENIED = re.compile(
    r"\b(?:not|isn't|neither|nor|except|rather than|instead of|rule out|rules out|wrong|incorrect)\b"
    r"(?:\s+(?:the|option|answer|choice|is|it|be|to|a))*\W*$",
    re.IGNORECASE,
)
# What takes it out after its letter: "(A) is wrong". With "B, not A" it is another one that is denied.
_REFUTED = re.compile(
    r"^\W*(?:is|are|was|would be|can be|seems)?\s*"
    r"(?:not\b(?!\W+(?-i:[A-Z])\b)|n't|wrong|incorrect|false|ruled out|excluded)",
    re.IGNORECASE,
)
# How many characters before or after a letter can be about it: an answer of thousands of letters is read in no time.
_NEAR = 200
# "the answer is …", "option: …", "I choose …", with emphasis, quotes and brackets before the letter.
_LEADS = (
    r"(?:\b(?:final |correct |right |best |my )*(?:answer|option|choice)\b(?:\s+(?:is|would be|should be|must be))?"
    r"|\bI(?: would| will|'d|'ll)? (?:choose|pick|select|say|go with)\b|\bit(?: is|'s| must be| should be)|\bletter\b)"
    r"(?:\s+(?:the )?(?:option|answer|choice|letter))?\s*[:=]?"
)


def with_choices(question: str, choices: Sequence[str]) -> str:
    """The question with its options, lettered, as the reference puts those of MVBench."""
    if not choices:
        return question
    options = "".join(f"({letter}) {choice}\n" for letter, choice in zip(string.ascii_uppercase, choices, strict=False))
    return f"Question: {question}\nOptions:\n{options}{ORDER}"


def chosen(answer: str, choices: Sequence[str]) -> str | None:
    """The letter of the option that an answer means; None: it means none, or more than one.

    What is tried, in this order, and the first that names anything decides:

    1. the answer is the text of an option, with its letter or without;
    2. it is a letter and no other word: "B", "(b)", "**B**", "B!", and "(B", which is cut off;
    3. it repeats options with their letters: one is meant, and several are none;
    4. it begins with a letter: "(B) On the table", "B. On the table", "B is right";
    5. it says so: "The best option is B", "Answer: b", "Final answer - B", "I choose B";
    6. it has letters in brackets: "I think it is (B), really.";
    7. it has the whole text of one option, and of no other, in it.

    A letter is an option only where the answer does not deny it ("not (A)", "(A) is wrong"), and "A" and "I" only where
    they cannot be words: "A man" is none. Several letters are none. Letters of full width are letters.
    """
    if not choices:
        return None
    letters = string.ascii_uppercase[: len(choices)]
    text = re.sub(r"[*_`\"“”‘]", "", _visible(answer).replace("’", "'")).strip()
    for found in (
        _same(text, choices, letters),
        _alone(text, letters),
        _recited(text, choices, letters),
        _leading(text, letters),
        _declared(text, letters),
        _bracketed(text, letters),
    ):
        if found:
            return found.pop() if len(found) == 1 else None
    mentioned = _mentioned(text, choices, letters)
    return mentioned.pop() if len(mentioned) == 1 else None


def _same(text: str, choices: Sequence[str], letters: str) -> set[str]:
    said = _plain(text)
    return {
        letter
        for letter, choice in zip(letters, choices, strict=True)
        if said
        in (_plain(choice), *(_plain(f"{form} {choice}") for form in (f"({letter})", f"{letter}.", f"{letter})")))
    }


def _alone(text: str, letters: str) -> set[str]:
    """The letter that is the only word of an answer, however often: "B", "'b'", "B! B"."""
    match = re.fullmatch(rf"\W*([{letters}{letters.lower()}])(?:\W+\1)*\W*", text)
    return set() if match is None else {match[1].upper()}


def _recited(text: str, choices: Sequence[str], letters: str) -> set[str]:
    """The options that stand in the answer with their letters, where they are several."""
    said = _plain(text)
    found = set()
    for letter, choice in zip(letters, choices, strict=True):
        match = re.search(rf"(?<!\w){letter.lower()}[).:]\s*{re.escape(_plain(choice))}(?!\w)", said)
        if match is not None and not _is_denied(said, match.start()):
            found.add(letter)
    return found if len(found) > 1 else set()


def _leading(text: str, letters: str) -> set[str]:
    """A letter alone, between brackets or before a stop; or, except for A and I, before a verb."""
    match = re.match(
        rf"(?:[(\[]([{letters}])[)\]]|([{letters}])(?=[).:,;/&\]]|\s*$|\s*\n|\s*(?:and|or)\s*\(?[{letters}]\b)"
        rf"|([{letters}])(?=\s+(?:is|was)\b))",
        text,
    )
    if match is None:
        return set()
    letter = match[1] or match[2] or match[3]
    if _is_refuted(text, match.end()):
        return set()
    return {letter} | _listed(text[match.end() :], letters)


def _declared(text: str, letters: str) -> set[str]:
    """Every letter after "answer is", "option:" and the like."""
    found: set[str] = set()
    for match in re.finditer(rf"{_LEADS}\s*[-–]?\s*[(\[]?([{letters}])\b(?![a-z'])(.?)", text, re.IGNORECASE):
        letter, rest = match[1], text[match.end(1) :]
        # Of the words "a" and "I" the answer may have many; only the capital, before no other word, is an option.
        if letter in "AI" and re.match(r"\s+(?!or\b|and\b|because\b|since\b|is\b)[a-z]", rest):
            continue
        if not letter.isupper() and (letter in "ai" or not re.fullmatch(r"\W*", rest)):
            continue
        if _is_denied(text, match.start(1)) or _is_refuted(text, match.end(1)):
            continue
        found |= {letter.upper()} | _listed(rest, letters)
    return found


def _bracketed(text: str, letters: str) -> set[str]:
    """Letters in brackets, of which the last may be cut off, that are not denied."""
    return {
        match[1]
        for match in re.finditer(rf"[(\[]([{letters}])(?:[)\]]|$)", text)
        if not (_is_denied(text, match.start()) or _is_refuted(text, match.end()))
    }


def _mentioned(text: str, choices: Sequence[str], letters: str) -> set[str]:
    """The options whose whole text is in the answer, but those that are part of a longer one that is, too."""
    said = _plain(text)
    inside = {
        letter: words
        for letter, choice in zip(letters, choices, strict=True)
        if (words := _plain(choice)) and _has(said, words)
    }
    whole = {
        letter
        for letter, words in inside.items()
        if not any(words != longer and _has(longer, words) for longer in inside.values())
    }
    return {letter for letter in whole if not _is_denied(said, said.index(inside[letter]))}


def _has(text: str, words: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(words)}(?!\w)", text) is not None


def _listed(rest: str, letters: str) -> set[str]:
    """Letters that follow the first one in a list: "A or C", "A, B", "A. B. C."."""
    found: set[str] = set()
    following = re.compile(rf"[)\]]?[\s.,;/&]*(?:(?:and|or)\s+)?[(\[]?([{letters}])(?=[).:,;\]]|\s*$|\s+(?:and|or)\b)")
    at = 0
    while (match := following.match(rest, at)) is not None:
        found.add(match[1])
        at = match.end(1)
    return found


def _is_denied(text: str, start: int) -> bool:
    """Whether what comes before an option takes it out of the choice."""
    return _DENIED.search(text[max(0, start - _NEAR) : start]) is not None


def _is_refuted(text: str, end: int) -> bool:
    """Whether what comes after an option takes it out of the choice."""
    return _REFUTED.match(text[end : end + _NEAR]) is not None


def _visible(text: str) -> str:
    """Without what cannot be seen; letters and brackets of full width are the usual ones."""
    return "".join(
        character
        for character in unicodedata.normalize("NFKC", text)
        if character.isspace() or unicodedata.category(character) not in ("Cc", "Cf")
    )


def _plain(text: str) -> str:
    return " ".join(_visible(text).casefold().split()).rstrip(".")
