"""Ragged arrays, with a number of rows that differs by client, and their form in messages.

A user's upload holds one row for each item that she rated. Padding to the longest history would multiply what most
users send. A `Ragged` keeps the rows of all clients one after the other, and the number of each client's rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from subfl_flower.data.ratings.rows import rows_of
from subfl_flower.wire.array_bytes import read_array, to_array

RAGGED, LENGTHS = "ragged", "ragged_lengths"


@dataclass(frozen=True, eq=False)
class Ragged:
    """Rows of C clients.

    Attributes:
        values: the clients' rows one after the other, [rows, ...].
        lengths: number of each client's rows, int64 [C].
    """

    values: np.ndarray
    lengths: np.ndarray

    @property
    def offsets(self) -> np.ndarray:
        """Bounds int64 [C + 1]; client c has the rows ``offsets[c]:offsets[c + 1]``."""
        return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(self.lengths)])

    @property
    def owners(self) -> np.ndarray:
        """The client of each row, int64 [rows]."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)

    @property
    def bytes_per_client(self) -> np.ndarray:
        """Number of bytes of each client's rows, int64 [C]."""
        return self.lengths * (math.prod(self.values.shape[1:]) * self.values.itemsize)

    def of(self, client: int) -> np.ndarray:
        """One client's rows."""
        start = int(self.lengths[:client].sum())
        return self.values[start : start + int(self.lengths[client])]

    def take(self, clients: Sequence[int] | np.ndarray) -> Ragged:
        """The rows of some clients, in their order."""
        offsets, rows = rows_of(self.offsets, clients)
        return Ragged(self.values[rows], np.diff(offsets))

    @classmethod
    def joined(cls, parts: Sequence[Ragged]) -> Ragged:
        """Join the clients of several, one after the other."""
        if len(parts) == 1:
            return parts[0]
        return cls(np.concatenate([part.values for part in parts]), np.concatenate([part.lengths for part in parts]))


@dataclass(frozen=True)
class RaggedSpec:
    """Requirements on a client's rows.

    Attributes:
        shape: of one row.
        dtype: NumPy's name of it, such as ``float32``.
        most: largest number of rows of a client.
        below: its entries are integers from 0 to below this; None: any numbers.
        like: name of the rows whose number they must have; None: any number.
        needed: False where rows may be left out for all clients.
    """

    shape: tuple[int, ...]
    dtype: str
    most: int
    below: int | None = None
    like: str | None = None
    needed: bool = True

    @property
    def nbytes(self) -> int:
        """Bytes of the most rows that a client may have."""
        return self.most * math.prod(self.shape) * np.dtype(self.dtype).itemsize


def pack_ragged(ragged: Mapping[str, Ragged], content: RecordDict) -> None:
    """Put rows into a message's content: their plain values, and their lengths."""
    if not ragged:
        return
    arrays = {name: to_array(np.ascontiguousarray(rows.values)) for name, rows in ragged.items()}
    content[RAGGED] = ArrayRecord(arrays)
    content[LENGTHS] = ConfigRecord({name: rows.lengths.tolist() for name, rows in ragged.items()})


def unpack_ragged(
    content: RecordDict, expected: Mapping[str, RaggedSpec] | None, num_clients: int
) -> dict[str, Ragged]:
    """Restore the rows that `pack_ragged` packed, as read-only views of the message.

    Args:
        content: the message's content.
        expected: requirements by name on the rows that must be there, and no others; None accepts any.
        num_clients: number of clients of the message.

        Raises:
        ValueError: the records contradict each other, or the expectation.
    """
    arrays = dict(content.array_records[RAGGED]) if RAGGED in content.array_records else {}
    lengths = dict(content.config_records[LENGTHS]) if LENGTHS in content.config_records else {}
    if arrays.keys() != lengths.keys():
        raise ValueError(f"the lengths of {', '.join(sorted(arrays.keys() ^ lengths.keys()))} and its rows do not fit")
    if expected is not None:
        needed = {name for name, spec in expected.items() if spec.needed}
        if not needed <= arrays.keys() <= expected.keys():
            found, wanted = (", ".join(sorted(names)) or "none" for names in (arrays, expected))
            raise ValueError(f"it holds the rows {found}, where {wanted} belong")
    ragged = {
        name: _unpacked(name, array, lengths[name], None if expected is None else expected[name], num_clients)
        for name, array in arrays.items()
    }
    for name, spec in (expected or {}).items():
        if name not in ragged or spec.like is None:
            continue
        if spec.like not in ragged or (ragged[name].lengths != ragged[spec.like].lengths).any():
            raise ValueError(f"it has not as many rows of {name} as of {spec.like}")
    return ragged


def _unpacked(name: str, array: Array, lengths: Any, spec: RaggedSpec | None, num_clients: int) -> Ragged:
    if not isinstance(lengths, list) or not all(type(length) is int for length in lengths):
        raise ValueError(f"{name}: its lengths are no integers")
    if len(lengths) != num_clients or any(length < 0 for length in lengths):
        raise ValueError(f"{name}: its lengths are not those of {num_clients} clients")
    values = read_array(array)
    if values.ndim < 1 or len(values) != sum(lengths):
        raise ValueError(f"{name}: an array {list(values.shape)} does not hold {sum(lengths)} rows")
    if spec is not None:
        if (values.shape[1:], str(values.dtype)) != (spec.shape, spec.dtype):
            raise ValueError(
                f"{name}: its rows are {values.dtype} {list(values.shape[1:])}, not {spec.dtype} {list(spec.shape)}"
            )
        if max(lengths, default=0) > spec.most:
            raise ValueError(f"{name}: a client has {max(lengths)} rows, and may have {spec.most}")
        if spec.below is not None and values.size and not 0 <= values.min() <= values.max() < spec.below:
            raise ValueError(f"{name}: entries must be from 0 to {spec.below - 1}")
    return Ragged(values, np.array(lengths, dtype=np.int64))
