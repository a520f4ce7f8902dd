"""Blanks around fields of a table, including zero-width ones, and text with visible blanks for errors."""

from __future__ import annotations

_ZERO_WIDTH = "\u200b\u200c\u200d\u2060\ufeff"
BLANKS = "".join(filter(str.isspace, map(chr, range(0x3001)))) + _ZERO_WIDTH
"""Characters without meaning at the ends of a field."""


def stripped(text: str) -> str:
    """Text without blanks and zero-width characters at its ends."""
    return text.strip(BLANKS)


def shown(value: object) -> str:
    """A value as an error shows it: in quotes, and escaped where it holds invisible characters."""
    text = str(value)
    return text if text.isprintable() else repr(text)
