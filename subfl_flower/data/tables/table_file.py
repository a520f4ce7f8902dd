"""Strict reader for users' tables: every field as it was written, or one sentence for all errors."""

from __future__ import annotations

import codecs
import gc
import gzip
import io
import stat
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, BinaryIO, TextIO

import numpy as np
from pydantic import AfterValidator

from subfl_flower.data.in_memory import is_in_memory, object_at
from subfl_flower.data.tables.delimited_text import name_problems, parsed
from subfl_flower.data.tables.leftover_index import Column, without_index
from subfl_flower.data.tables.parquet_file import parquet_columns
from subfl_flower.errors import SubflError

SUFFIXES = (".csv", ".tsv", ".txt", ".dat", ".data", ".inter", ".parquet")
"""Suffixes of tables, in upper or lower case; all but Parquet may be followed by .gz."""

_FOREIGN = {
    b"PK\x03\x04": "a zip archive; unpack it, or save it as CSV where it is an Excel workbook",
    b"\xd0\xcf\x11\xe0": "a document of Microsoft Office; save it as CSV",
    b"PAR1": "a Parquet file; give it a name that ends in .parquet",
    b"\xfd7zXZ\x00": "packed by xz; unpack it, or pack it by gzip",
    b"\x28\xb5\x2f\xfd": "packed by zstd; unpack it, or pack it by gzip",
    **{b"BZh%d1AY&SY" % level: "packed by bzip2; unpack it, or pack it by gzip" for level in range(1, 10)},
}
_UTF_16 = {
    codecs.BOM_UTF16_LE: "encoded in UTF-16; dataset.encoding=utf-16 reads it",
    codecs.BOM_UTF16_BE: "encoded in UTF-16; dataset.encoding=utf-16 reads it",
}


def _known_encoding(value: str) -> str:
    try:
        known = "a,b".encode(value).decode(value) == "a,b"  # other codecs than those of text raise LookupError
    except (LookupError, UnicodeError):
        known = False
    if not known:
        raise ValueError("must be an encoding that Python knows for text, for instance utf-8, latin-1, cp1252")
    return value


Encoding = Annotated[str, AfterValidator(_known_encoding)]
"""An encoding of text by its name in Python."""


@dataclass(frozen=True)
class TableFormat:
    """Facts about a text file that the file itself does not state.

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
"""The default format of a file."""


class Columns(dict[str, np.ndarray]):
    """Entries `[rows]` of columns by name; a column that cannot be read is refused on access.

    Args:
        found: name and entries of each, in the file's order.
        refused: by name, the reason why a column cannot be read.
        path: of the file.
    """

    def __init__(self, found: Sequence[Column], refused: Mapping[str, str], path: Path) -> None:
        super().__init__(found)
        self._refused = refused
        self._path = path

    def __getitem__(self, name: str) -> np.ndarray:
        """A column's entries.

        Raises:
            KeyError: there is no such column.
            SubflError: it cannot be read.
        """
        if name in self._refused:
            raise SubflError(f"{self._path}: {name} {self._refused[name]}")
        return super().__getitem__(name)


@dataclass(frozen=True, eq=False)
class Table:
    """The columns of a file, in its order. Data rows count from 1.

    Attributes:
        path: of the file.
        columns: by name: text with `""` for an empty field, blanks around it stripped, as an object array `[rows]`; a
            Parquet file's numbers, truth values and dates as NumPy arrays.
        dropped: columns and rows that the reader left out, a sentence each.
    """

    path: Path
    columns: Columns
    dropped: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        """Number of rows."""
        return next((len(values) for values in self.columns.values()), 0)


def table_suffix(path: Path) -> str | None:
    """The suffix of a table's format, in lower case and without `.gz`; None where the name has no such suffix."""
    name = path.name.lower().removesuffix(".gz")
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), None)


def table_stem(path: Path) -> str | None:
    """The name of a table in lower case and without suffixes; None where it has no suffix of a table."""
    suffix = table_suffix(path)
    return None if suffix is None else path.name.lower().removesuffix(".gz").removesuffix(suffix)


def require_table(path: Path, what: str) -> Path:
    """A path without `~`, whose file exists and has a suffix of a table.

    Args:
        path: as the user gave it; that of a table in memory is returned as it is.
        what: begin of an error.

    Raises:
        SubflError: there is no such file, it is a folder or a pipe, or its name has no suffix of a table.
    """
    if is_in_memory(path):
        return path
    path = path.expanduser()
    try:
        kind = path.stat().st_mode
    except OSError as error:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            raise SubflError(f"{what}: {path} cannot be read: {error.strerror}") from error
        raise SubflError(f"{what}: {path} does not exist (looked for at {path.absolute()})") from error
    if stat.S_ISDIR(kind):
        raise SubflError(f"{what}: {path} is a folder; a table is one file (name one in it, or join them)")
    if not stat.S_ISREG(kind):
        raise SubflError(f"{what}: {path} is no plain file; write the table to one")
    if table_suffix(path) is None:
        raise SubflError(f"{what}: {path} is no table; its name must end in {', '.join(SUFFIXES)} (.gz may follow)")
    return path


def open_table(path: Path, format: TableFormat = PLAIN) -> Table:
    """Read a file whole, or take a table in memory.

    The delimiter is a tab for .tsv and .inter; or the one that a first line `sep=;` states; or else the one of ``::``,
    comma, tab, semicolon and ``|`` that splits the first rows into equally many fields, and the most. Fields may be in
    double quotes, except in files separated by ``::``.

    Raises:
        SubflError: the file cannot be read, a name of a column stands twice, rows have more or fewer fields than
            there are names or repeat these, or a stray quote makes one field of several rows; lists all errors in its
            form.
    """
    suffix = table_suffix(path)
    refused: dict[str, str] = {}
    about_rows: list[str] = []
    if suffix == ".parquet" or is_in_memory(path):
        found = object_at(path) if is_in_memory(path) else parquet_columns(path)
        if problems := name_problems([name for name, _ in found.columns]):
            raise SubflError(f"{path}: {'; '.join(problems)}")
        columns, refused = found.columns, found.refused
    else:
        with readable(path, format.encoding), open_text(path, format.encoding) as text, _without_collector():
            columns, about_rows = parsed(path, text, suffix, format)
    columns, about_columns = without_index(columns, str(path), path.name)
    return Table(path, Columns(columns, refused, path), about_rows + about_columns)


@contextmanager
def _without_collector() -> Iterator[None]:
    """Pause Python's collector of cycles, which would scan millions of rows repeatedly without finding a cycle."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def readable(path: Path, encoding: str) -> Iterator[None]:
    """Turn errors of reading a text file in the block into one sentence.

    Raises:
        SubflError: the file cannot be read, or has another encoding.
    """
    try:
        yield
    except UnicodeDecodeError as error:
        raise SubflError(
            f"{path} is not encoded in {encoding} ({_wrong_byte(path, encoding, error)}); "
            "state dataset.encoding, for instance latin-1 or cp1252"
        ) from error
    except UnicodeError as error:
        raise SubflError(f"{path} is not encoded in {encoding} ({error}); state dataset.encoding") from error
    except (OSError, EOFError, zlib.error) as error:  # EOFError: a truncated gzip file
        raise SubflError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _wrong_byte(path: Path, encoding: str, error: UnicodeDecodeError) -> str:
    """The first byte that cannot be decoded, and its position in the file, from 0; `error` gives it within a block."""
    with suppress(OSError, EOFError, zlib.error), _unpacked(path) as file:  # a compressed file may be damaged
        try:
            file.read().decode(encoding)
        except UnicodeDecodeError as whole:
            error = whole
    return f"byte 0x{error.object[error.start]:02x} at {error.start}"


def open_text(path: Path, encoding: str) -> TextIO:
    """Open a text file, compressed by gzip or not, to be read within `readable`.

    Raises:
        OSError: the file cannot be read.
        SubflError: it is no text, or no plain file.
    """
    file = _unpacked(path)
    start = file.peek(10)[:10]  # type: ignore[attr-defined]
    is_utf_8 = codecs.lookup(encoding).name == "utf-8"
    for magic, what in (_FOREIGN | (_UTF_16 if is_utf_8 else {})).items():
        if start.startswith(magic):
            file.close()
            raise SubflError(f"{path} is {what}")
    return io.TextIOWrapper(file, encoding="utf-8-sig" if is_utf_8 else encoding, newline="")


def _unpacked(path: Path) -> BinaryIO:
    """A file's bytes, decompressed where it is a gzip file.

    Raises:
        OSError: the file cannot be read.
        SubflError: it is not a regular file; a pipe might wait for a writer for ever.
    """
    if path.exists() and not path.is_file():
        raise SubflError(f"{path} is no plain file; a table is one")
    file = path.open("rb")
    if file.peek(2)[:2] != b"\x1f\x8b":
        return file
    file.close()
    return gzip.open(path)  # type: ignore[return-value]
