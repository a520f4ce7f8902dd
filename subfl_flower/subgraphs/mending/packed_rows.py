"""Rows of a matrix as arrays for a message: sparse where that is shorter, as for sums of word counts."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from subfl_flower.data.graph import FeatureMatrix

Arrays = dict[str, np.ndarray]

_DENSE, _SPARSE = {"rows"}, {"values", "columns", "lengths"}


def packed_rows(rows: FeatureMatrix) -> Arrays:
    """Pack rows in the shorter of two forms.

    Args:
        rows: `[R, F]`, dense or CSR; kept as float32.

    Returns:
        ``rows``, float32 `[R, F]`; or ``values`` float32 and ``columns`` of the entries that are not zero, row by row,
        and ``lengths`` `[R]`, the number of them in each row, both unsigned integers of two bytes, or of four where F
        needs them.
    """
    number, width = rows.shape
    kind = _integer(width)
    entries = np.count_nonzero(rows if isinstance(rows, np.ndarray) else rows.data)
    if entries * (4 + kind.itemsize) + number * kind.itemsize >= 4 * number * width:
        return {"rows": np.ascontiguousarray(dense(rows), dtype=np.float32)}
    matrix = sp.csr_array(rows, dtype=np.float32, copy=True)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    return {
        "values": matrix.data,
        "columns": matrix.indices.astype(kind),
        "lengths": np.diff(matrix.indptr).astype(kind),
    }


def dense(rows: FeatureMatrix) -> np.ndarray:
    """Rows as a dense matrix."""
    return rows if isinstance(rows, np.ndarray) else rows.toarray()


def unpacked_rows(arrays: Arrays, width: int) -> FeatureMatrix:
    """Restore the rows that `packed_rows` packed, float32 `[R, F]`.

    Args:
        arrays: untrusted; arrays of no form must be taken out before.
        width: F.

    Raises:
        ValueError: they are not the arrays of rows of this width, or a value is not finite.
    """
    if set(arrays) == _DENSE:
        rows = arrays["rows"]
        if rows.dtype != np.float32 or rows.ndim != 2 or rows.shape[1] != width:
            raise ValueError(f"rows are {rows.dtype} {list(rows.shape)}, where float32 [any, {width}] belongs")
        values = rows
    elif set(arrays) == _SPARSE:
        rows = _sparse(arrays, width)
        values = arrays["values"]
    else:
        raise ValueError(f"rows are made of {', '.join(sorted(arrays)) or 'nothing'}")
    if not np.isfinite(values).all():
        raise ValueError("rows hold a number that is not finite")
    return rows


def _sparse(arrays: Arrays, width: int) -> sp.csr_array:
    kind = _integer(width)
    for name, expected in (("values", np.dtype(np.float32)), ("columns", kind), ("lengths", kind)):
        if arrays[name].dtype != expected or arrays[name].ndim != 1:
            raise ValueError(f"{name} are {arrays[name].dtype} {list(arrays[name].shape)}, not {expected} [any]")
    starts = np.concatenate([[0], np.cumsum(arrays["lengths"], dtype=np.int64)])
    columns = arrays["columns"].astype(np.int64)
    if not len(columns) == len(arrays["values"]) == starts[-1]:
        raise ValueError(
            f"{len(arrays['values'])} values have {len(columns)} columns, and the lengths add up to {starts[-1]}"
        )
    if len(columns):
        row = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
        if columns.max() >= width or (np.diff(row * width + columns) <= 0).any():
            raise ValueError(f"the columns of a row must ascend, from 0 to {width - 1}")
    return sp.csr_array((arrays["values"], columns, starts), shape=(len(starts) - 1, width))


def _integer(width: int) -> np.dtype:
    """Type for columns, and for the number of them in a row."""
    return np.dtype(np.uint16 if width < 1 << 16 else np.uint32)
