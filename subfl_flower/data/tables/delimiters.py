"""Detection of the delimiter from the first lines of a text file."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence

from subfl_flower.data.tables.blanks import stripped

DELIMITERS = ("::", ",", "\t", ";", "|")
"""Delimiters that are read; the first of them wins where several fit equally well."""

_STATED = re.compile(r'"?sep=([,;|\t])"?')


def stated_delimiter(line: str) -> str | None:
    """The delimiter that Excel's first line `sep=;` states; None for any other line."""
    match = _STATED.fullmatch(line.strip("\r\n\ufeff "))
    return match[1] if match else None


def likely_delimiter(lines: Sequence[str], complete: bool, header: Sequence[str] | None) -> str | None:
    """Choose the delimiter that splits the first lines of a file best.

    It is the one that gives the most rows as many fields as the first row, and among equals the one that gives the
    first row the most fields. Where names of columns are stated, a delimiter that gives the first row as many wins.

    Args:
        lines: the first lines of the file, at least one, with their ends.
        complete: no line follows them.
        header: names that are stated for the columns.

    Returns:
        The delimiter; None where none splits the first row.
    """
    best, found = (False, 0.0, 0), None
    for delimiter in DELIMITERS:
        widths = _widths(lines, delimiter, complete)
        first, others = widths[0], widths[1:]
        if first > 1:
            agreeing = sum(width == first for width in others) / len(others) if others else 1.0
            rank = (header is not None and first == len(header), agreeing, first)
            if rank > best:
                best, found = rank, delimiter
    return found


def _widths(lines: Sequence[str], delimiter: str, complete: bool) -> list[int]:
    """Number of fields in each row; empty rows do not count."""
    if delimiter == "::":
        return [line.count("::") + 1 for line in lines if line.strip()]
    try:
        rows = list(csv.reader(lines, delimiter=delimiter, skipinitialspace=True))
    except csv.Error:
        return [1]
    if not complete and len(rows) > 1:
        rows.pop()  # may continue in lines that were not read
    return [len(row) for row in rows if row and any(map(str.strip, row))] or [1]


def about_other_forms(lines: Sequence[str], delimiter: str | None) -> str | None:
    """Explanation why the first lines of a file are not a supported table; None where there is no sign of it.

    Args:
        lines: the first lines, with their ends.
        delimiter: the delimiter that splits them; None: none does.
    """
    lines = [stripped(line) for line in lines if stripped(line)]
    data = [line for line in lines if not line.startswith("#")]
    said = []
    if lines[0].startswith("#") and data:
        of_data = likely_delimiter(data, True, None)
        as_wide = _widths(lines[:1], of_data or ",", True)[0] == _widths(data[:1], of_data or ",", True)[0]
        if lines[1].startswith("#") or not as_wide:
            said.append(
                f"the file begins with a remark ({lines[0]}); its first row must name the columns: remove the remark"
            )
            delimiter = of_data
    if delimiter is None and _parted_by_blanks(data):
        said.append(
            "no delimiter was found, its fields seem to be parted by blanks; comma, tab, semicolon, | and :: are "
            "read: write it with one of them"
        )
    return "; ".join(said) or None


def _parted_by_blanks(lines: Sequence[str]) -> bool:
    """True if all lines have equally many words. The first may have one fewer: R does not name the row names."""
    words = [len(line.split()) for line in lines]
    if len(words) == 1:
        return False
    rest = set(words[1:])
    return len(rest) == 1 and max(rest) > 1 and words[0] in {max(rest), max(rest) - 1}
