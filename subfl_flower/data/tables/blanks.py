"""Blanks around fields of a table, those that take no width included, and text shown so that each can be seen."""

from __future__ import annotations

_ZERO_WIDTH = "\u200b\u200c\u200d\u2060\ufeff"
BLANKS = "".join(filter(str.isspace, map(chr, range(0x3001)))) + _ZERO_WIDTH
"""Characters that say nothing at the ends of a field."""


def stripped(text: str) -> str:
    """Text without blanks and characters of no width at its ends."""
    return text.strip(BLANKS)


def shown(value: object) -> str:
    """A value as an error shows it: in quotes and escaped where it holds what cannot be seen."""
    text = str(value)
    return text if text.isprintable() else repr(text)
