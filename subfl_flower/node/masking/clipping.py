"""Clients' updates scaled to a norm before they are masked: nobody can do it afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from subfl_flower.wire.batch import Result


def clipped(result: Result, received: Mapping[str, np.ndarray], most: float) -> Result:
    """The result with updates of an L2 norm of at most `most`, over all arrays and rows of a client together.

    Args:
        result: of A clients.
        received: what an upload is compared with [A, ...], by name; an upload that is not among these is an update.
        most: the largest norm.
    """
    start = {name: np.asarray(received[name], np.float64) if name in received else 0.0 for name in result.arrays}
    changes = {name: np.asarray(values, np.float64) - start[name] for name, values in result.arrays.items()}
    squares = np.zeros(len(result.clients))
    for change in changes.values():
        squares += np.square(change).reshape(len(change), -1).sum(1)
    rows = {name: each for name, each in result.rows.items() if each.values.dtype.kind == "f"}
    for each in rows.values():
        of_row = np.square(each.values.astype(np.float64)).reshape(len(each.values), -1).sum(1)
        squares += np.bincount(each.owners, of_row, minlength=len(squares))
    factors = np.minimum(1.0, most / np.maximum(np.sqrt(squares), np.finfo(float).tiny))
    if (factors == 1).all():
        return result
    return replace(
        result,
        arrays={
            name: (start[name] + _along(factors, change) * change).astype(result.arrays[name].dtype)
            for name, change in changes.items()
        },
        rows={
            **result.rows,
            **{
                name: replace(each, values=(_along(factors[each.owners], each.values) * each.values).astype(np.float32))
                for name, each in rows.items()
            },
        },
    )


def _along(factors: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Factors of the first axis of `values`."""
    return factors.reshape(-1, *(1,) * (values.ndim - 1))
