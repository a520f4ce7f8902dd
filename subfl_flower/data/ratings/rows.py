"""Arrays of rows grouped by owner, a user or an item, with any number of rows for each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def rows_of(offsets: np.ndarray, positions: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the rows of some owners, in the order of `positions`.

    Args:
        offsets: int64 `[owners + 1]`; the owner at position p has the rows `offsets[p]` to `offsets[p + 1]`.
        positions: positions of the owners.

    Returns:
        The offsets of the part, int64 `[len(positions) + 1]`, and its rows in the whole, int64.
    """
    chosen = np.asarray(positions, dtype=np.int64)
    starts = offsets[chosen]
    of_part = np.concatenate([[0], np.cumsum(offsets[chosen + 1] - starts)])
    return of_part, np.arange(of_part[-1]) + np.repeat(starts - of_part[:-1], np.diff(of_part))
