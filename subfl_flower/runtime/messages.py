"""What travels: stacks of arrays with a leading client axis, packed without their zeros.

A *stack* maps a name to an array [clients, ...]. Packing is lossless. Per client and array the smaller of two forms is
sent: the plain values, or a bitmap of the non-zero entries and their values. Whatever a method sets to zero (pruned
weights, rows of features that a client does not have) is therefore not sent. Rows that are one row in memory, as FedAvg
makes them by broadcasting, are stored once. Payload bytes are counted per client, as if each had a message of its
own, so that they do not depend on which node hosts whom.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

Stack = dict[str, np.ndarray]

ARRAYS, LAYOUT = "arrays", "layout"

# Below this many entries a bitmap is not worth its bookkeeping.
_SMALLEST_PACKED = 256


@dataclass(frozen=True)
class Packed:
    """A packed stack: two Flower records, and the payload bytes of each client [clients]."""

    arrays: ArrayRecord
    layout: ConfigRecord
    bytes_per_client: np.ndarray

    def into(self, content: RecordDict) -> None:
        """Put the two records into a message's content."""
        content[ARRAYS] = self.arrays
        content[LAYOUT] = self.layout


def pack(stack: Stack) -> Packed:
    """Pack a stack; every array must have the same leading length, the number of clients."""
    num_clients = len(next(iter(stack.values()))) if stack else 0
    arrays: dict[str, Array] = {}
    layout: dict[str, Any] = {"clients": num_clients}
    bytes_per_client = np.zeros(num_clients, dtype=np.int64)
    for name, values in stack.items():
        layout[f"{name}.shape"] = list(values.shape)
        shared = num_clients > 1 and values.strides[0] == 0
        rows = values[:1] if shared else values
        flat = np.ascontiguousarray(rows).reshape(len(rows), -1)
        kept = _kept_entries(flat)
        sparse = np.array([mask is not None for mask in kept], dtype=bool)
        weights = np.full(len(flat), flat.shape[1] * flat.itemsize, dtype=np.int64)
        if sparse.any():
            bitmaps = np.stack([np.packbits(mask) for mask in kept if mask is not None])
            chosen = [np.compress(mask, row) for mask, row in zip(kept, flat, strict=True) if mask is not None]
            arrays[f"{name}.bitmap"] = Array(bitmaps)
            arrays[f"{name}.values"] = Array(np.concatenate(chosen))
            weights[sparse] = [bitmaps.shape[1] + part.nbytes for part in chosen]
            layout[f"{name}.sparse"] = sparse.tolist()
        if not sparse.all():
            arrays[name] = Array(flat[~sparse] if sparse.any() else flat)
        layout[f"{name}.shared"] = shared
        bytes_per_client += weights
    return Packed(ArrayRecord(arrays), ConfigRecord(layout), bytes_per_client)


def unpack(content: RecordDict) -> Stack:
    """The stack that `pack` was given. Arrays may be read-only views.

    Raises:
        ValueError: the records do not fit each other.
    """
    arrays, layout = content.array_records[ARRAYS], content.config_records[LAYOUT]
    num_clients = _integer(layout["clients"])
    stack: Stack = {}
    for key, shape_values in layout.items():
        if not key.endswith(".shape"):
            continue
        name = key.removesuffix(".shape")
        shape = tuple(_integers(shape_values))
        shared = bool(layout[f"{name}.shared"])
        num_rows, size = (1 if shared else num_clients), int(np.prod(shape[1:], dtype=np.int64))
        if shape[0] != num_clients or min(shape) < 0:
            raise ValueError(f"{name}: shape {shape} is not one of {num_clients} clients")
        sparse = layout.get(f"{name}.sparse")
        if sparse is None:
            flat = _values(arrays, name, num_rows * size).reshape(num_rows, size)
        else:
            flat = _unpack_sparse(arrays, name, np.asarray(sparse, dtype=bool), num_rows, size)
        rows = flat.reshape(num_rows, *shape[1:])
        stack[name] = np.broadcast_to(rows, shape) if shared else rows
    return stack


def _kept_entries(flat: np.ndarray) -> list[np.ndarray | None]:
    """For each row the mask of its non-zero entries, or None where plain values are no longer."""
    size = flat.shape[1]
    if size < _SMALLEST_PACKED or flat.dtype.kind != "f":
        return [None] * len(flat)
    bitmap_bytes = (size + 7) // 8
    masks = (row != 0 for row in flat)
    return [
        mask if bitmap_bytes + np.count_nonzero(mask) * flat.itemsize < size * flat.itemsize else None for mask in masks
    ]


def _unpack_sparse(arrays: ArrayRecord, name: str, sparse: np.ndarray, num_rows: int, size: int) -> np.ndarray:
    if len(sparse) != num_rows:
        raise ValueError(f"{name}: {len(sparse)} marks for {num_rows} rows")
    num_sparse = int(sparse.sum())
    bitmap_bytes = (size + 7) // 8
    bitmaps = _values(arrays, f"{name}.bitmap", num_sparse * bitmap_bytes).reshape(num_sparse, bitmap_bytes)
    values = read_array(arrays[f"{name}.values"])
    flat = np.zeros((num_rows, size), dtype=values.dtype)
    if num_sparse < num_rows:
        flat[~sparse] = _values(arrays, name, (num_rows - num_sparse) * size).reshape(-1, size)
    start = 0
    for row, bitmap in zip(np.flatnonzero(sparse), bitmaps, strict=True):
        kept = np.flatnonzero(np.unpackbits(bitmap, count=size))
        if start + len(kept) > len(values):
            raise ValueError(f"{name}: fewer values than its bitmap marks")
        flat[row, kept] = values[start : start + len(kept)]
        start += len(kept)
    if start != len(values):
        raise ValueError(f"{name}: more values than its bitmap marks")
    return flat


def _values(arrays: ArrayRecord, name: str, size: int) -> np.ndarray:
    values = read_array(arrays[name])
    if values.size != size:
        raise ValueError(f"{name}: {values.size} values where {size} belong")
    return values


def read_array(array: Array) -> np.ndarray:
    """The values of a Flower array, as a read-only view of its bytes (`Array.numpy` copies them).

    Raises:
        ValueError: the bytes are not those of a plain NumPy array.
    """
    if array.stype != "numpy.ndarray":
        raise ValueError(f"arrays are sent as NumPy's format, not as {array.stype!r}")
    header = BytesIO(array.data[:1024])
    version = np.lib.format.read_magic(header)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran_order, dtype = read_header(header)
    if dtype.hasobject or fortran_order:
        raise ValueError("arrays of objects and column-major arrays are not accepted")
    count = int(np.prod(shape, dtype=np.int64))
    return np.frombuffer(array.data, dtype=dtype, count=count, offset=header.tell()).reshape(shape)


def _integer(value: Any) -> int:
    if not isinstance(value, int):
        raise ValueError(f"{value!r} is not an integer")
    return value


def _integers(values: Any) -> Sequence[int]:
    if not isinstance(values, list) or not all(isinstance(value, int) for value in values):
        raise ValueError(f"{values!r} is not a list of integers")
    return values
