"""Columns of a Parquet file, or of a DataFrame: numbers as NumPy arrays, and all else as text."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from subfl_flower.data.tables.blanks import stripped
from subfl_flower.data.tables.leftover_index import Column
from subfl_flower.errors import SubflError
from subfl_flower.installed import optional_module


@dataclass(frozen=True)
class ParquetColumns:
    """The columns of a file.

    Attributes:
        columns: name and entries `[rows]` of each, in the file's order; names may stand twice.
        refused: why a column cannot be read, by its name; its entries are then empty text.
    """

    columns: list[Column]
    refused: dict[str, str]


def parquet_columns(path: Path) -> ParquetColumns:
    """Read all columns of a Parquet file, and the named index that pandas stored with them.

    Numbers without gaps are NumPy arrays; all else is text, `""` where missing. Whole numbers keep every digit, also
    with gaps.

    Raises:
        SubflError: the file cannot be read, or an index has the name of a column that holds something else.
    """
    return frame_columns(_frame(path), path)


def frame_columns(frame: Any, path: Path) -> ParquetColumns:
    """All columns of a pandas DataFrame, and its named index; see `parquet_columns`.

    Args:
        frame: the table.
        path: its file, or name, for errors.

    Raises:
        SubflError: an index has the name of a column that holds something else.
    """
    columns: list[Column] = []
    refused = {}
    named = ((stripped(str(name)), frame.iloc[:, i]) for i, name in enumerate(frame.columns))
    for name, column in [*_index_levels(path, frame), *named]:
        try:
            columns.append((name, _plain(column)))
        except TypeError as error:
            columns.append((name, np.full(len(frame), "", dtype=object)))
            refused[name] = str(error)
    return ParquetColumns(columns, refused)


def _frame(path: Path) -> Any:
    import pandas as pd  # slow to import

    pa = optional_module("pyarrow", "parquet", f"{path}: reading Parquet")
    parquet = optional_module("pyarrow.parquet", "parquet", f"{path}: reading Parquet")
    nullable = {
        getattr(pa, kind.lower())(): getattr(pd, f"{kind}Dtype")()
        for kind in ("Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64")
    }
    try:
        with warnings.catch_warnings(), path.open("rb") as file:
            warnings.simplefilter("ignore")
            return parquet.ParquetFile(file).read().to_pandas(types_mapper=nullable.get)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise SubflError(f"{path} cannot be read as parquet: {' '.join(str(error).split())}") from error


def _index_levels(path: Path, frame: Any) -> list[tuple[str, Any]]:
    """Name and entries of each named level of an index, except those that a column repeats.

    Raises:
        SubflError: a level has the name of a column that holds something else.
    """
    index = frame.index
    if all(name is None for name in index.names):
        return []
    levels = []
    for number, name in enumerate(index.names):
        entries = index.get_level_values(number).to_series(index=frame.index)
        if name is None or name not in frame.columns:
            levels.append((f"__index_level_{number}__" if name is None else stripped(str(name)), entries))
        elif not np.array_equal(_plain(entries), _plain(frame[name])):
            raise SubflError(
                f"{path}: its index and a column are both named {name} and differ; write it without the index "
                "(to_parquet(path, index=False)), or rename one"
            )
    return levels


def _plain(column: Any) -> np.ndarray:
    """A Parquet column as numbers, truth values or dates without gaps, and else as text.

    Raises:
        TypeError: an entry is a list or a mapping; says so and where.
    """
    from pandas.api import types

    if types.is_numeric_dtype(column) and not types.is_bool_dtype(column) and not types.is_complex_dtype(column):
        if not column.isna().any() and types.is_integer_dtype(column):
            return np.asarray(column.to_numpy())
        if types.is_float_dtype(column) and not types.is_extension_array_dtype(column):
            return np.asarray(column.to_numpy())
    texts = []
    for row, (value, missing) in enumerate(zip(column.tolist(), column.isna().tolist(), strict=True), start=1):
        if isinstance(value, list | tuple | dict | np.ndarray):
            kind = "a struct" if isinstance(value, dict) else "a list"
            raise TypeError(
                f"is {kind} in row {row}; several values are text, parted by |, in an attribute of ratings, and "
                "columns of one number each in features"
            )
        texts.append("" if missing is True else _text(value))
    return np.array(texts, dtype=object)


def _text(value: Any) -> str:
    if hasattr(value, "isoformat"):
        return str(value.isoformat())
    return stripped(value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value))
