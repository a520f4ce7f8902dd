"""Columns of a Parquet file: numbers as NumPy has them, and all else as text."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from subfl_flower.errors import SubflError


def parquet_columns(path: Path) -> list[tuple[str, np.ndarray]]:
    """Name and entries `[rows]` of each column, in the file's order; names may stand twice.

    Numbers without gaps are as NumPy has them; all else is text, `""` where missing.

    Raises:
        SubflError: the file cannot be read, or entries are lists or mappings.
    """
    import pandas as pd  # slow to import

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            frame = pd.read_parquet(path)
    except ImportError as error:
        raise SubflError(f"{path}: reading Parquet needs pyarrow: pip install 'subfl-flower[parquet]'") from error
    except (OSError, ValueError) as error:
        raise SubflError(f"{path} cannot be read as parquet: {error}") from error
    if any(name is not None for name in frame.index.names):
        frame = frame.reset_index()
    names = [str(name).strip() for name in frame.columns]
    problems, columns = [], []
    for name, column in zip(names, (frame.iloc[:, i] for i in range(len(names))), strict=True):
        try:
            columns.append((name, _plain(column)))
        except TypeError as error:
            problems.append(f"{name} {error}")
    if problems:
        raise SubflError(f"{path}: {'; '.join(problems)}")
    return columns


def _plain(column: Any) -> np.ndarray:
    """A Parquet column as numbers, truth values or dates without gaps, and else as text.

    Raises:
        TypeError: an entry is a list or a mapping.
    """
    from pandas.api import types

    if types.is_numeric_dtype(column) and not types.is_bool_dtype(column) and not types.is_complex_dtype(column):
        if not column.isna().any() and types.is_integer_dtype(column):
            return np.asarray(column.to_numpy())
        if types.is_float_dtype(column) and not types.is_extension_array_dtype(column):
            return np.asarray(column.to_numpy())
    texts = []
    for row, (value, missing) in enumerate(zip(column.tolist(), column.isna().tolist(), strict=True), start=1):
        if isinstance(value, list | dict | np.ndarray):
            raise TypeError(f"is a list in row {row}; several values are text, parted by |")
        texts.append("" if missing is True else _text(value))
    return np.array(texts, dtype=object)


def _text(value: Any) -> str:
    if hasattr(value, "isoformat"):
        return str(value.isoformat())
    return value.decode("utf-8", "replace").strip() if isinstance(value, bytes) else str(value).strip()
