"""Columns of a text file with one row a line and a delimiter between fields."""

from __future__ import annotations

import csv
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import numpy as np

from subfl_flower.data.tables.blanks import BLANKS, stripped
from subfl_flower.data.tables.delimiters import about_other_forms, likely_delimiter, stated_delimiter
from subfl_flower.data.tables.leftover_index import Column
from subfl_flower.data.tables.swallowed_rows import holds_rows
from subfl_flower.errors import SubflError

if TYPE_CHECKING:
    from subfl_flower.data.tables.table_file import TableFormat

_LOOKED_AT = 50
_ROWS_A_BLOCK = 1 << 12


def parsed(path: Path, text: TextIO, suffix: str | None, format: TableFormat) -> tuple[list[Column], list[str]]:
    """Read the columns of an open file, with remarks on rows that were left out.

    A column is its name and its fields, text `[rows]`, without blanks around them.

    Args:
        path: of the file, for errors.
        text: the file, at its begin.
        suffix: suffix of its name; `.tsv` and `.inter` mean a tab.
        format: the user's facts about the file.

    Raises:
        SubflError: all errors in the form of the file.
    """
    first, skipped = _first_line(path, text)
    delimiter = stated_delimiter(first)
    if delimiter is not None:
        first, more = _first_line(path, text)
        skipped += more + 1
    lines = [first.removeprefix("\ufeff")]
    lines += islice(text, _LOOKED_AT)
    if suffix in (".tsv", ".inter"):
        delimiter = "\t"
    delimiter = delimiter or likely_delimiter(lines, len(lines) <= _LOOKED_AT, format.header)
    if problem := about_other_forms(lines, delimiter):
        raise SubflError(f"{path}: {problem}")
    quoted = suffix != ".inter"
    rows = _rows(path, chain(lines, text), delimiter or ",", quoted, skipped)
    if format.header is not None:
        names = list(format.header)
    else:
        names = next(rows)
        implied = format.implied_header
        if delimiter == "::" and implied is not None and _is_data(names) and len(names) <= len(implied):
            rows, names = chain([names], rows), list(implied[: len(names)])
    reading = _Reading([stripped(name) for name in names], delimiter or ",", format.header is not None)
    reading.read(rows)
    return reading.columns(path, format.without_header)


def _first_line(path: Path, text: TextIO) -> tuple[str, int]:
    """The next line with content, and the number of lines before it."""
    for skipped, line in enumerate(text):
        if stripped(line):
            return line, skipped
    raise SubflError(f"{path} cannot be read as a table: it is empty")


def _is_data(fields: Sequence[str]) -> bool:
    """True for a row of ids, a rating and perhaps a time, which cannot be a header."""
    return len(fields) > 2 and all(re.fullmatch(r"[0-9.]+", value.strip()) for value in fields[2:])


def _rows(path: Path, lines: Iterable[str], delimiter: str, quoted: bool, skipped: int) -> Iterator[list[str]]:
    if delimiter == "::":
        for line in lines:
            if content := line.strip("\r\n"):
                yield content.split("::")
        return
    reader = csv.reader(
        lines,
        delimiter=delimiter,
        quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
        strict=True,
        skipinitialspace=True,
    )
    try:
        yield from reader
    except csv.Error as error:
        what = str(error)
        if "field limit" in what:
            what = f"a field has more than {csv.field_size_limit():,} characters, or its closing quote is missing"
        raise SubflError(
            f"{path} cannot be read as a table: {what} (line {skipped + reader.line_num}); "
            'a field with quotes stands in quotes, and a quote inside is doubled, as in "the ""cut"""'
        ) from error


class _Reading:
    """Rows as they are read, block by block, and their errors.

    Args:
        names: of the columns.
        delimiter: of the fields.
        header_stated: the user names the columns, so that a row with these names does not begin a second table.
    """

    def __init__(self, names: list[str], delimiter: str, header_stated: bool) -> None:
        self._names = names
        self._delimiter = delimiter
        self._count = 0
        self._header_stated = header_stated
        self._entries: list[list[str]] = [[] for _ in names]
        self._empty = 0
        self._odd: dict[int, list[int]] = {}  # rows of another width: number of fields, and the rows
        self._nul = 0
        self._headers: list[int] = []
        self._swallowing: list[int] = []

    def read(self, rows: Iterator[list[str]]) -> None:
        """Take in all rows."""
        width = len(self._names)
        while block := list(islice(rows, _ROWS_A_BLOCK)):
            numbers: Sequence[int] = range(self._count + 1, self._count + len(block) + 1)
            if set(map(len, block)) == {width} and all(row[0].strip() for row in block):  # no row needs a check
                self._count += len(block)
            else:
                block, numbers = self._whole_rows(block)
            self._take(block, numbers)

    def _whole_rows(self, block: list[list[str]]) -> tuple[list[list[str]], list[int]]:
        """The rows with as many fields as the header, and their numbers."""
        kept, numbers = [], []
        for row in block:
            if not any(map(stripped, row)):
                self._empty += len(row) > 1
                continue
            self._count += 1
            if len(row) != len(self._names):
                self._odd.setdefault(len(row), []).append(self._count)
            else:
                kept.append(row)
                numbers.append(self._count)
        return kept, numbers

    def _take(self, block: list[list[str]], numbers: Sequence[int]) -> None:
        if not block:
            return
        start = len(self._entries[0])
        for position, (entries, values) in enumerate(zip(self._entries, zip(*block, strict=True), strict=True)):
            joined = "".join(values)
            if "\0" in joined:
                self._nul += sum("\0" in value for value in values)
            if "\n" in joined or "\r" in joined:
                self._look_for_rows(position, values, numbers)
            # Interned: a table of millions of rows has few different ids, and each is kept once.
            if joined.isascii():
                entries.extend(map(sys.intern, map(str.strip, values)))
            else:
                entries.extend(sys.intern(value.strip(BLANKS)) for value in values)
        if self._names[0] in self._entries[0][start:]:
            self._look_for_headers(start, numbers)

    def _look_for_rows(self, position: int, values: Sequence[str], numbers: Sequence[int]) -> None:
        width = len(self._names)
        self._swallowing += [
            number
            for number, value in zip(numbers, values, strict=True)
            if holds_rows(value, position, width, self._delimiter)
        ]

    def _look_for_headers(self, start: int, numbers: Sequence[int]) -> None:
        for number, *fields in zip(numbers, *(entries[start:] for entries in self._entries), strict=True):
            if fields == self._names and not (self._header_stated and number == 1):
                self._headers.append(number)

    def columns(self, path: Path, without_header: str) -> tuple[list[Column], list[str]]:
        """The columns, and a remark on empty rows.

        Raises:
            SubflError: all errors in the form of the file.
        """
        dropped = [f"{path.name}: {self._empty} rows without any content"] if self._empty else []
        named = list(zip(self._names, self._entries, strict=True))
        nameless = [position for position, (name, entries) in enumerate(named, 1) if not name and not any(entries)]
        if len(nameless) > 1:
            named = [(name, entries) for name, entries in named if name or any(entries)]
            which = ", ".join(map(str, nameless))
            dropped.append(f"{path.name}: columns {which}, which have no names and are empty")
        problems = name_problems([name for name, _ in named], without_header)
        problems += _width_problems(self._odd, len(self._names))
        if self._nul:
            problems.append(f"{self._nul} x field with a NUL byte; the file is damaged or no text")
        if self._headers:
            problems.append(
                f"{len(self._headers)} x row that repeats the header, first in row {self._headers[0]}; remove them, "
                "which files that were joined have"
            )
        if self._swallowing:
            problems.append(
                f"{len(self._swallowing)} x field that goes on over several lines which look like rows, first in row "
                f'{self._swallowing[0]}; a field that begins with a quote stands in quotes, as in "the ""cut""", and '
                "a text has no line breaks"
            )
        if problems:
            raise SubflError(f"{path}: {'; '.join(problems)}")
        return [(name, np.array(entries, dtype=object)) for name, entries in named], dropped


def name_problems(names: list[str], without_header: str = "") -> list[str]:
    """A sentence on repeated names; none without repeated names.

    Args:
        names: of the columns.
        without_header: advice where the names are data.
    """
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if not twice:
        return []
    named = " and ".join(repr(name) if name else "a column without a name" for name in twice)
    problem = f"the header has {named} more than once; every column needs a name that no other has"
    return [f"{problem}; if the first row is data, {without_header}" if are_data(names) else problem]


def are_data(names: Sequence[str]) -> bool:
    """True if most names of columns are numbers: the first row is then data."""
    return 2 * sum(bool(re.fullmatch(r"[+-]?[0-9]+([.,][0-9]+)?", name)) for name in names) > len(names)


def _width_problems(odd: dict[int, list[int]], width: int) -> list[str]:
    problems = []
    for fields, found in sorted(odd.items()):
        more = "more" if fields > width else "fewer"
        advice = "name every column in the header, or remove what is too much" if fields > width else "complete them"
        problems.append(
            f"{len(found)} x row with {fields} fields, {more} than the {width} that the header names, first in row "
            f"{found[0]}; {advice}"
        )
    return problems
