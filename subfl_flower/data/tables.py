"""Tables that users bring, CSV or Parquet: reading them, and saying which of their rows are wrong."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from subfl_flower.errors import SubflError


def read_table(path: Path, id_columns: list[str], other_columns: Sequence[str] = ()) -> pd.DataFrame:
    """A table that has certain columns.

    Args:
        path: a .csv file, or else a Parquet file.
        id_columns: those of ids, which a CSV file gives as text.
        other_columns: further ones that it must have.

    Raises:
        SubflError: the file cannot be read, or one of the columns is missing.
    """
    try:
        if path.suffix == ".csv":
            table = pd.read_csv(path, dtype=dict.fromkeys(id_columns, str))
        else:
            table = pd.read_parquet(path)
    except ImportError as error:
        raise SubflError(f"{path}: reading Parquet needs pyarrow: pip install 'subfl-flower[parquet]'") from error
    except (OSError, ValueError) as error:
        raise SubflError(f"{path} cannot be read as {path.suffix[1:]}: {error}") from error
    missing = [column for column in (*id_columns, *other_columns) if column not in table]
    if missing:
        raise SubflError(
            f"{path}: the column {' and '.join(missing)} is missing; its columns are {', '.join(map(str, table))}"
        )
    return table


def read_ids(table: pd.DataFrame, column: str, path: Path) -> pd.Series:
    """A column of ids as text.

    Raises:
        SubflError: a row has no id.
    """
    empty = table[column].isna().to_numpy()
    if empty.any():
        raise SubflError(f"{path}: {count_rows(empty, f'empty {column}')}; every row needs one")
    return table[column].astype(str)


def read_numbers(table: pd.DataFrame, column: str, path: Path) -> np.ndarray:
    """A column of numbers, float64 `[rows]`; NaN where a row is empty.

    Raises:
        SubflError: a value is no number.
    """
    values = table[column]
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    wrong = np.isnan(numbers) & values.notna().to_numpy()
    if wrong.any():
        first = values.iloc[int(np.flatnonzero(wrong)[0])]
        raise SubflError(f"{path}: {count_rows(wrong, f'{column} that is no number')} ({first}); mend or drop them")
    return numbers


def count_rows(mask: np.ndarray, what: str) -> str:
    """For example `3 x unknown target, first in row 17`; data rows count from 1."""
    return f"{np.count_nonzero(mask)} x {what}, first in row {int(np.flatnonzero(mask)[0]) + 1}"
