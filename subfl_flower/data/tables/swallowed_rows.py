"""Fields that span several rows because of a stray quote."""

from __future__ import annotations

import re


def holds_rows(field: str, position: int, width: int, delimiter: str) -> bool:
    """True if a field holds the end of a row, whole rows, and the begin of another one.

    A quote that opens a field and is closed in a later row turns all text in between into one field. A text of several
    lines that by chance has the same number of delimiters in each cannot be distinguished from it.

    Args:
        field: with its line breaks.
        position: of its column, the first is 0.
        width: number of columns.
        delimiter: between fields.
    """
    lines = [line for line in re.split("[\r\n]+", field) if line.strip()]
    if len(lines) < 2 or width < 2:
        return False
    counts = [line.count(delimiter) for line in lines]
    inner = counts[1:-1]
    if width > 2 and width - 1 in inner:
        return True
    ends = (counts[0], counts[-1]) == (width - 1 - position, position)
    return ends and all(count == width - 1 for count in inner)
