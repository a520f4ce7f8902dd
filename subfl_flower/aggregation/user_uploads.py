"""Lengths of what users upload, rows of items included, and uploads scaled back to a bound."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np


def largest_rows(arrays: Mapping[str, np.ndarray], rows: np.ndarray, owners: np.ndarray, num_users: int) -> np.ndarray:
    """Lengths of A users' uploads: the L2 norm of all arrays and of the longest row together, float64 [A].

    A user with a long history sends more rows than others, and none that is longer.

    Args:
        arrays: gradients by the parameters that all users share [A, ...], by name.
        rows: gradients by the rows of users' items [rows, d].
        owners: the user of each row [rows], from 0 to A - 1.
        num_users: A.
    """
    squares = np.zeros(num_users)
    np.maximum.at(squares, owners, _squares(rows))
    for values in arrays.values():
        squares += _squares(values)
    lengths: np.ndarray = np.sqrt(squares)
    return lengths


def scaled_uploads(
    arrays: Mapping[str, np.ndarray], rows: np.ndarray, owners: np.ndarray, factors: np.ndarray
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Uploads of `factors` [A] times their size; those with a factor of one to the last bit as they are.

    Args:
        arrays, rows, owners: as in `largest_rows`.
        factors: at most 1.
    """
    return {name: _times(values, factors) for name, values in arrays.items()}, _times(rows, factors[owners])


def _times(values: np.ndarray, factors: np.ndarray) -> np.ndarray:
    wide = factors.reshape(-1, *(1,) * (values.ndim - 1))
    return (values * wide).astype(values.dtype)


def _squares(values: np.ndarray) -> np.ndarray:
    """Squared L2 norm of each of the first axis' entries, float64."""
    flat = values.reshape(len(values), math.prod(values.shape[1:])).astype(np.float64)
    found: np.ndarray = np.einsum("ij,ij->i", flat, flat)
    return found
