"""Text that is safe to show: what files, models and users wrote never reaches a terminal as a command."""

from __future__ import annotations

import unicodedata

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


def _shown(character: str, keep: str) -> str:
    if character in keep or character in _HARMLESS or unicodedata.category(character) not in _UNSAFE:
        return character
    return character.encode("unicode_escape").decode("ascii")
