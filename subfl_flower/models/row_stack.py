"""Stacks of matrices of which most rows are zero, and are not stored.

Clients on subgraphs have few of a data set's features. Where a method sends no others' rows of the first layer,
messages have no values of them. A `RowStack` keeps it so on both sides of a message.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np


@dataclass(frozen=True, eq=False)
class RowStack(np.lib.mixins.NDArrayOperatorsMixin):
    """A stack [A, F, H] that holds some rows of each client, the others being zero.

    It can stand where an array is read: NumPy's functions see the whole stack, and an index along the client axis gives
    what it gives of an array.

    Attributes:
        values: [N, H], the rows that are held, one client after the other.
        index: int64 [N], the number of each row within its client, from 0 to F - 1, ascending within a client.
        counts: int64 [A], rows held of each client.
        height: F.
    """

    values: np.ndarray
    index: np.ndarray
    counts: np.ndarray
    height: int

    @classmethod
    def of(cls, stack: np.ndarray) -> RowStack:
        """The rows of a stack [A, F, H] that are not all zero."""
        if isinstance(stack, RowStack):
            return stack
        held = (stack != 0).any(2)
        return cls(stack[held], np.nonzero(held)[1], held.sum(1), stack.shape[1])

    @property
    def shape(self) -> tuple[int, int, int]:
        """[A, F, H]."""
        return len(self.counts), self.height, self.values.shape[1]

    @property
    def ndim(self) -> int:
        """3."""
        return 3

    @property
    def dtype(self) -> np.dtype:
        """Type of the values."""
        return self.values.dtype

    @cached_property
    def ends(self) -> np.ndarray:
        """The place in `values` after each client's rows, int64 [A]."""
        return np.cumsum(self.counts)

    @cached_property
    def owners(self) -> np.ndarray:
        """The client of each row, int64 [N]."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    def part(self, client: int) -> tuple[np.ndarray, np.ndarray]:
        """The numbers [n] and the values [n, H] of a client's rows."""
        rows = slice(self.ends[client] - self.counts[client], self.ends[client])
        return self.index[rows], self.values[rows]

    def over(self, whole: np.ndarray) -> np.ndarray:
        """A copy of a `whole` stack [A, F, H] with these rows in place of its own."""
        replaced = np.array(whole)
        replaced[self.owners, self.index] = self.values
        return replaced

    def take(self, clients: Sequence[int]) -> RowStack:
        """The stack of some clients, in their order."""
        if list(clients) == list(range(len(self))):
            return self
        return concatenated([self._alone(int(client)) for client in clients]) if len(clients) else self._none()

    def _alone(self, client: int) -> RowStack:
        index, values = self.part(client)
        return RowStack(values, index, self.counts[client : client + 1], self.height)

    def _none(self) -> RowStack:
        return RowStack(self.values[:0], self.index[:0], self.counts[:0], self.height)

    def copy(self) -> np.ndarray:
        """The whole stack, as an array that may be written to."""
        return np.asarray(self)

    def __len__(self) -> int:
        """A."""
        return len(self.counts)

    def __getitem__(self, key: Any) -> Any:
        """The clients at a slice, list or vector as a `RowStack`; by any other key what the whole stack has there."""
        if isinstance(key, slice) or (isinstance(key, list | np.ndarray) and np.ndim(key) == 1):
            return self.take(np.arange(len(self))[key].tolist())
        return np.asarray(self)[key]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """The whole stack [A, F, H]."""
        whole = np.zeros(self.shape, dtype=self.dtype if dtype is None else dtype)
        whole[self.owners, self.index] = self.values
        return whole

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        """Apply a function of NumPy to the whole stack."""
        whole = (np.asarray(value) if isinstance(value, RowStack) else value for value in inputs)
        return getattr(ufunc, method)(*whole, **options)


def concatenated(parts: Sequence[Any]) -> Any:
    """Arrays one after the other along the client axis; one `RowStack` where all of them are such stacks."""
    if len(parts) == 1:
        return parts[0]
    if not all(isinstance(part, RowStack) for part in parts):
        return np.concatenate(parts)
    return RowStack(
        np.concatenate([part.values for part in parts]),
        np.concatenate([part.index for part in parts]),
        np.concatenate([part.counts for part in parts]),
        parts[0].height,
    )


def completed(sent: np.ndarray, received: np.ndarray) -> np.ndarray:
    """A stack [A, F, H] in which rows that are not sent, or are all zero, are those that were received."""
    stack = RowStack.of(sent)
    kept = stack.values.any(1)
    whole = np.array(received)
    whole[stack.owners[kept], stack.index[kept]] = stack.values[kept]
    return whole


def as_array(stack: RowStack) -> np.ndarray:
    """The stack, to be read as the array that it stands for."""
    return cast(np.ndarray, stack)
