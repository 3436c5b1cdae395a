"""Text that is safe to show: what files, models and users wrote never reaches a terminal as a command."""

from __future__ import annotations

import unicodedata

from longvu_cli.errors import UsageError

# Categories that a terminal may act on, or that hide or reorder text: controls, formats (bidirectional overrides
# among them), surrogates, and the separators that some terminals take for line breaks.
_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
# Joiners that emoji and several scripts are written with.
_HARMLESS = frozenset({"\u200c", "\u200d"})


def neutralise(text: str, *, keep: str = "") -> str:
    """Replace every character that a terminal could obey by its escape, such as ``\\x1b``.

    Works character by character, so a sequence that is split over several chunks is neutralised all the same.

    Args:
        keep: control characters to let through, such as a newline.
    """
    return "".join(_shown(character, keep) for character in text)


def spoken(argument: str) -> str:
    """A question as it was typed, in any locale: where that cannot hold it, Python hands over its bytes, disguised.

    Raises:
        UsageError: the bytes are no UTF-8.
    """
    try:
        return argument.encode(errors="surrogateescape").decode()
    except UnicodeError:
        raise UsageError("the question is no valid text (UTF-8)", hint="check the encoding of the terminal") from None


def _shown(character: str, keep: str) -> str:
    if character in keep or character in _HARMLESS or unicodedata.category(character) not in _UNSAFE:
        return character
    return character.encode("unicode_escape").decode("ascii")
