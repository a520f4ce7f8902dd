"""Rows that many clients share: each is sent to some of them, and held once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from subfl_flower.models.row_stack import RowStack, as_array
from subfl_flower.wire.array_format import Stack


@dataclass(frozen=True, eq=False)
class Choice:
    """Arrays of which each client is sent some rows; many clients may share rows.

    Attributes:
        values: by name, each [M, ...].
        rows: numbers of the rows that each client is sent, from 0 to M - 1, int64 [clients, r].

    Raises:
        ValueError: the arrays are not of one length, or a client is sent a row that does not exist.
    """

    values: Stack
    rows: np.ndarray

    def __post_init__(self) -> None:
        if len(lengths := {len(values) for values in self.values.values()}) > 1:
            raise ValueError(f"the arrays to choose rows from have {sorted(lengths)} rows, and should have as many")
        if self.rows.ndim != 2 or self.rows.dtype != np.int64:
            raise ValueError(f"{self.rows.dtype} {list(self.rows.shape)} are no rows int64 [clients, r]")
        require_rows(self.rows.reshape(-1).tolist(), self.num_rows)

    @classmethod
    def of_stack(cls, stack: Stack, num_clients: int) -> Choice:
        """Make a choice in which every client has the row at its position; arrays are [num_clients, ...]."""
        rows = np.arange(num_clients, dtype=np.int64)[:, None]
        return cls(stack, rows if stack else rows[:, :0])

    @classmethod
    def for_all(cls, stack: Stack, num_clients: int) -> Choice:
        """Make a choice in which all clients have the same row; `stack` is without a client axis."""
        values = {name: value[None] for name, value in stack.items()}
        return cls(values, np.zeros((num_clients, 1 if values else 0), dtype=np.int64))

    @property
    def num_rows(self) -> int:
        """M; 0 where there are no arrays."""
        return len(next(iter(self.values.values()), ()))

    @property
    def num_clients(self) -> int:
        """Number of clients that are sent rows."""
        return len(self.rows)

    def stack(self) -> Stack:
        """Each client's first row of every array, [clients, ...]; a row that all share stays one in memory."""
        if not self.values:
            return {}
        first = self.rows[:, 0]
        if self.num_rows == 1:
            return {
                name: np.broadcast_to(value[0], (len(first), *value.shape[1:])) for name, value in self.values.items()
            }
        if len(first) == self.num_rows and (first == np.arange(len(first))).all():
            return dict(self.values)
        return {name: value[first] for name, value in self.values.items()}

    def of(self, clients: Sequence[int]) -> Choice:
        """The choice for some clients, by position, in their order; of the M rows only those that they need.

        Where they need all rows, the arrays are not copied, and one row in memory stays one.
        """
        chosen = self.rows[np.asarray(clients, dtype=np.int64)]
        needed, rows = np.unique(chosen, return_inverse=True)
        values = {name: _taken(values, needed) for name, values in self.values.items()}
        return Choice(values, rows.reshape(chosen.shape))


def _taken(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The ascending `rows` of an array [M, ...]."""
    if len(rows) == len(values):
        return values
    if isinstance(values, RowStack):
        return as_array(values.take(rows.tolist()))
    if values.strides[0] == 0:
        return values[: len(rows)]
    adjacent = len(rows) and rows[-1] - rows[0] == len(rows) - 1
    return values[rows[0] : rows[-1] + 1] if adjacent else values[rows]


def require_rows(rows: Sequence[int], stored: int) -> None:
    """Raise ValueError unless all `rows` are numbers of `stored` rows."""
    if rows and not 0 <= min(rows) <= max(rows) < stored:
        wrong = min(rows) if min(rows) < 0 else max(rows)
        raise ValueError(f"a client is sent row {wrong} of {stored}")
