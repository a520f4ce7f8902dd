"""Suggestions for words that were probably meant."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that is most like a misspelt one, whatever the case; None where none is alike."""
    by_lower = {each.lower(): each for each in known}
    for found in get_close_matches(word.lower(), by_lower, n=1, cutoff=0.7):
        return by_lower[found]
    return None


def did_you_mean(word: str, known: Iterable[str], form: str = "{}") -> str:
    """The end of an error: ``; did you mean X?``, or nothing where no known word is alike.

    Args:
        word: the misspelt word.
        known: the words that are allowed.
        form: text with ``{}`` in the place of the suggestion.
    """
    found = nearest(word, known)
    return "" if found is None else f"; did you mean {form.format(found)}?"
