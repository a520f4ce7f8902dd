"""One strict reader for the tables that people bring: every field as its owner wrote it, or one sentence."""

from __future__ import annotations

import codecs
import csv
import gc
import gzip
import io
import re
import sys
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Annotated, BinaryIO, TextIO

import numpy as np
from pydantic import AfterValidator

from subfl_flower.data.parquet_file import parquet_columns
from subfl_flower.errors import SubflError

SUFFIXES = (".csv", ".tsv", ".txt", ".dat", ".data", ".inter", ".parquet")
"""Names of tables end so, in any case; all but Parquet may have .gz after it."""

_DELIMITERS = (",", "\t", ";", "|")
_ROWS_A_BLOCK = 1 << 12
_LEFTOVER_INDEX = re.compile(r"(Unnamed: \d+)?")
_FOREIGN = {
    b"PK\x03\x04": "a zip archive; unpack it, or name the table inside",
    b"PAR1": "a Parquet file; give it a name that ends in .parquet",
    codecs.BOM_UTF16_LE: "encoded in UTF-16; dataset.encoding=utf-16 reads it",
    codecs.BOM_UTF16_BE: "encoded in UTF-16; dataset.encoding=utf-16 reads it",
}


def _known_encoding(value: str) -> str:
    try:
        codecs.lookup(value)
    except LookupError:
        raise ValueError("must be an encoding that Python knows, for instance utf-8, latin-1, cp1252") from None
    return value


Encoding = Annotated[str, AfterValidator(_known_encoding)]
"""An encoding of text by its name in Python."""


@dataclass(frozen=True)
class TableFormat:
    """Facts about a file of text that it does not say itself.

    Attributes:
        encoding: of the text; UTF-8 may begin with a byte order mark.
        header: names of the columns of a file whose first row is data; None: the first row names them.
        implied_header: names for a file separated by `::` that begins with data, as MovieLens has them.
        without_header: advice on a file whose first row is data, for errors.
    """

    encoding: str = "utf-8"
    header: tuple[str, ...] | None = None
    implied_header: tuple[str, ...] | None = None
    without_header: str = "add a row with names of columns before them"


PLAIN = TableFormat()
"""The format of a file of which nothing is said."""


@dataclass(frozen=True, eq=False)
class Table:
    """The columns of a file, in its order. Data rows count from 1.

    Attributes:
        path: of the file.
        columns: by name: text with `""` for an empty field, blanks around it stripped, as an object array `[rows]`; a
            Parquet file's numbers, truth values and dates as NumPy has them.
        dropped: columns and rows that the reader left out, a sentence each.
    """

    path: Path
    columns: dict[str, np.ndarray]
    dropped: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        """Number of rows."""
        return len(next(iter(self.columns.values()))) if self.columns else 0


def table_suffix(path: Path) -> str | None:
    """The suffix that says how a table is stored, in lower case and without `.gz`; None where the name says nothing."""
    name = path.name.lower().removesuffix(".gz")
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), None)


def table_stem(path: Path) -> str | None:
    """The name of a table in lower case and without suffixes; None where it is not named as a table."""
    suffix = table_suffix(path)
    return None if suffix is None else path.name.lower().removesuffix(".gz").removesuffix(suffix)


def require_table(path: Path, what: str) -> Path:
    """A path without `~`, whose file exists and is named as a table.

    Args:
        path: as the user gave it.
        what: to begin an error with.

    Raises:
        SubflError: there is no such file, or its name does not end as a table's.
    """
    path = path.expanduser()
    if not path.is_file():
        raise SubflError(f"{what}: {path} does not exist (looked for at {path.absolute()})")
    if table_suffix(path) is None:
        raise SubflError(f"{what}: {path} is no table; its name must end in {', '.join(SUFFIXES)} (.gz may follow)")
    return path


def open_table(path: Path, format: TableFormat = PLAIN) -> Table:
    """Read a file whole.

    The delimiter is a tab for .tsv and .inter, and else the one of ``::``, comma, tab, semicolon and ``|`` that parts
    the first row into most fields. Fields may stand in double quotes, but for files separated by ``::``.

    Raises:
        SubflError: the file cannot be read, a name of a column stands twice, or rows have more or fewer fields than
            there are names; all that is wrong with its form in one sentence.
    """
    if table_suffix(path) == ".parquet":
        found = parquet_columns(path)
        if problems := _name_problems([name for name, _ in found]):
            raise SubflError(f"{path}: {'; '.join(problems)}")
        return _without_index(Table(path, dict(found)))
    with readable(path, format.encoding), open_text(path, format.encoding) as text, _without_collector():
        return _without_index(_parsed(path, text, format))


@contextmanager
def _without_collector() -> Iterator[None]:
    """Pause Python's collector of cycles: it would walk through millions of rows, again and again, and find none."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def readable(path: Path, encoding: str) -> Iterator[None]:
    """Turn what goes wrong with a file of text that is read in the block into one sentence.

    Raises:
        SubflError: the file cannot be read, or is not encoded so.
    """
    try:
        yield
    except UnicodeDecodeError as error:
        raise SubflError(
            f"{path} is not encoded in {encoding} (byte 0x{error.object[error.start]:02x} at {error.start}); "
            "state dataset.encoding, for instance latin-1 or cp1252"
        ) from error
    except UnicodeError as error:
        raise SubflError(f"{path} is not encoded in {encoding} ({error}); state dataset.encoding") from error
    except (OSError, EOFError, zlib.error) as error:  # EOFError: a gzip file that was cut
        raise SubflError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def open_text(path: Path, encoding: str) -> TextIO:
    """Open a file of text, packed by gzip or not, to be read within `readable`.

    Raises:
        OSError: the file cannot be read.
        SubflError: it is no text.
    """
    file: BinaryIO = path.open("rb")
    start = file.read(4)
    file.seek(0)
    if start.startswith(b"\x1f\x8b"):
        file = gzip.open(file)  # type: ignore[assignment]  # noqa: SIM115
    elif encoding.lower().replace("_", "-") in ("utf-8", "utf8"):
        for magic, what in _FOREIGN.items():
            if start.startswith(magic):
                file.close()
                raise SubflError(f"{path} is {what}")
    name = "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding
    return io.TextIOWrapper(file, encoding=name, newline="")


def _parsed(path: Path, text: TextIO, format: TableFormat) -> Table:
    first = ""
    start = 0
    while not first.strip():
        start = text.tell()
        first = text.readline()
        if not first:
            raise SubflError(f"{path} cannot be read as a table: it is empty")
    text.seek(start)
    rows = _rows(path, text, _delimiter(path, first, format.header))
    names = list(format.header) if format.header is not None else None
    if names is None:
        names = next(rows)
        implied = format.implied_header
        if "::" in first and implied is not None and _is_data(names) and len(names) <= len(implied):
            text.seek(start)
            rows, names = _rows(path, text, "::"), list(implied[: len(names)])
    return _columns(path, names, rows, format.without_header)


def _delimiter(path: Path, first: str, header: Sequence[str] | None) -> str:
    if table_suffix(path) in (".tsv", ".inter"):
        return "\t"
    counts = {delimiter: len(next(csv.reader([first], delimiter=delimiter), [])) for delimiter in _DELIMITERS}
    fitting = [delimiter for delimiter, count in counts.items() if header is not None and count == len(header) > 1]
    if fitting:
        return fitting[0]
    if "::" in first:
        return "::"
    return max(counts, key=lambda delimiter: counts[delimiter])


def _is_data(fields: Sequence[str]) -> bool:
    """Whether a row of ids, a rating and perhaps a time cannot be a header."""
    return len(fields) > 2 and all(re.fullmatch(r"[0-9.]+", value.strip()) for value in fields[2:])


def _rows(path: Path, text: TextIO, delimiter: str) -> Iterator[list[str]]:
    if delimiter == "::":
        for line in text:
            if stripped := line.strip("\r\n"):
                yield stripped.split("::")
        return
    reader = csv.reader(
        text,
        delimiter=delimiter,
        quoting=csv.QUOTE_NONE if table_suffix(path) == ".inter" else csv.QUOTE_MINIMAL,
        strict=True,
        skipinitialspace=delimiter != "\t",
    )
    try:
        yield from reader
    except csv.Error as error:
        raise SubflError(
            f"{path} cannot be read as a table: {error} (line {reader.line_num}); "
            'a field with quotes stands in quotes, and a quote inside is doubled, as in "the ""cut"""'
        ) from error


def _columns(path: Path, names: list[str], rows: Iterator[list[str]], without_header: str) -> Table:
    names = [name.strip() for name in names]
    problems = _name_problems(names, without_header)
    width, count, empty = len(names), 0, 0
    odd: dict[int, list[int]] = {}  # rows of another width: how many fields, and which rows
    nul = 0
    columns: list[list[str]] = [[] for _ in names]
    while block := list(islice(rows, _ROWS_A_BLOCK)):
        if set(map(len, block)) == {width} and all(row[0].strip() for row in block):  # nothing to look at row by row
            kept = block
            count += len(block)
        else:
            kept = []
            for row in block:
                if not any(map(str.strip, row)):
                    empty += len(row) > 1
                    continue
                count += 1
                if len(row) != width:
                    odd.setdefault(len(row), []).append(count)
                else:
                    kept.append(row)
        for column, values in zip(columns, zip(*kept, strict=True), strict=False):
            if "\0" in "".join(values):
                nul += sum("\0" in value for value in values)
            # Interned: a table of millions of rows has few different ids, and each is kept once.
            column.extend(map(sys.intern, map(str.strip, values)))
    problems += _width_problems(odd, names)
    if nul:
        problems.append(f"{nul} x field with a NUL byte; the file is damaged or no text")
    if problems:
        raise SubflError(f"{path}: {'; '.join(problems)}")
    arrays = {}
    for name, column in zip(names, columns, strict=True):
        arrays[name] = np.array(column, dtype=object)
    dropped = [f"{path.name}: {empty} rows without any content"] if empty else []
    return Table(path, arrays, dropped)


def _name_problems(names: list[str], without_header: str = "") -> list[str]:
    twice = sorted({name for name in names if names.count(name) > 1})
    if not twice:
        return []
    named = " and ".join(repr(name) if name else "a column without a name" for name in twice)
    problem = f"the header has {named} more than once; every column needs a name that no other has"
    return [f"{problem}; if the first row is data, {without_header}" if are_data(names) else problem]


def are_data(names: Sequence[str]) -> bool:
    """Whether names of columns are numbers, for the most part: a first row that is data."""
    return 2 * sum(bool(re.fullmatch(r"[+-]?[0-9]+([.,][0-9]+)?", name)) for name in names) > len(names)


def _width_problems(odd: dict[int, list[int]], names: list[str]) -> list[str]:
    problems = []
    width = len(names)
    if odd and width == 1 and names[0].startswith("#"):
        return [f"the file begins with a remark ({names[0]}); its first row must name the columns: remove the remark"]
    for fields, found in sorted(odd.items()):
        more = "more" if fields > width else "fewer"
        advice = "name every column in the header, or remove what is too much" if fields > width else "complete them"
        problems.append(
            f"{len(found)} x row with {fields} fields, {more} than the {width} that the header names, first in row "
            f"{found[0]}; {advice}"
        )
    return problems


def _without_index(table: Table) -> Table:
    """Leave out columns without a name that hold nothing, or the row numbers of a program that wrote the file.

    Raises:
        SubflError: such a column holds something else.
    """
    columns, dropped = dict(table.columns), list(table.dropped)
    for position, (name, values) in enumerate(table.columns.items(), start=1):
        if not _LEFTOVER_INDEX.fullmatch(name):
            continue
        called = f"column {position} ({name})" if name else f"column {position}, which has no name"
        if not any(str(value) for value in values.tolist()):
            dropped.append(f"{table.path.name}: {called} and is empty" if not name else f"{table.path.name}: {called}")
        elif _are_row_numbers(values):
            dropped.append(f"{table.path.name}: {called}: row numbers")
        elif name:
            continue
        else:
            raise SubflError(f"{table.path}: column {position} has values and no name; give it one in the header")
        del columns[name]
    return Table(table.path, columns, dropped)


def _are_row_numbers(values: np.ndarray) -> bool:
    texts = [str(value) for value in values.tolist()]
    return len(set(texts)) == len(texts) and all(re.fullmatch("[0-9]+", text) for text in texts)
