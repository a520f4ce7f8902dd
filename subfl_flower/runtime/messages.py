"""What travels: stacks of arrays with a leading client axis, packed without their zeros.

A *stack* maps a name to an array [clients, ...]. Packing is lossless. Per client and array the smaller of two forms is
sent: the plain values, or the non-zero ones with a bitmap that tells where they belong. Whatever a method sets to
zero (pruned weights, rows of features that a client does not have) is therefore not sent. Rows that are one row in
memory, as FedAvg makes them by broadcasting, are stored once. Payload bytes are counted per client, as if each had a
message of its own, so that they do not depend on which node hosts whom.
"""

from __future__ import annotations

import math
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


def pack(stack: Stack, num_clients: int | None = None) -> Packed:
    """Pack a stack; every array must have the same leading length, the number of clients.

    `num_clients` need be given only where the stack may be empty.
    """
    if num_clients is None:
        num_clients = len(next(iter(stack.values()))) if stack else 0
    arrays: dict[str, Array] = {}
    layout: dict[str, Any] = {"clients": num_clients}
    bytes_per_client = np.zeros(num_clients, dtype=np.int64)
    for name, values in stack.items():
        layout[f"{name}.shape"] = list(values.shape)
        shared = layout[f"{name}.shared"] = num_clients > 1 and values.strides[0] == 0
        clients = np.ascontiguousarray(values[:1] if shared else values)
        width = clients.shape[-1] if clients.ndim > 1 else 1
        lines = clients.reshape(len(clients), math.prod(clients.shape[1:-1]) if clients.ndim > 1 else 1, width)
        sparse = [_SparseClient.of(client) for client in lines]
        plain = np.array([client is None for client in sparse], dtype=bool)
        sizes = np.full(len(clients), lines[0].nbytes if len(lines) else 0, dtype=np.int64)
        if not plain.all():
            layout[f"{name}.sparse"] = (~plain).tolist()
            chosen = [client for client in sparse if client is not None]
            sizes[~plain] = [client.nbytes for client in chosen]
            for part in _PARTS:
                arrays[f"{name}.{part}"] = to_array(np.concatenate([getattr(client, part) for client in chosen]))
        if plain.any():
            arrays[name] = to_array(clients if plain.all() else clients[plain])
        bytes_per_client += sizes
    return Packed(ArrayRecord(arrays), ConfigRecord(layout), bytes_per_client)


def unpack(content: RecordDict) -> Stack:
    """The stack that `pack` was given. Arrays may be read-only views.

    Raises:
        ValueError: the records do not fit each other.
    """
    try:
        return _unpacked(content.array_records[ARRAYS], content.config_records[LAYOUT])
    except KeyError as error:
        raise ValueError(f"the records lack {error}") from error


def _unpacked(arrays: ArrayRecord, layout: ConfigRecord) -> Stack:
    num_clients = _integer(layout["clients"])
    stack: Stack = {}
    for key, shape_values in layout.items():
        if not key.endswith(".shape"):
            continue
        name = key.removesuffix(".shape")
        shape = tuple(_integers(shape_values))
        if not shape or shape[0] != num_clients or min(shape) < 0:
            raise ValueError(f"{name}: shape {shape} is not one of {num_clients} clients")
        shared = bool(layout[f"{name}.shared"])
        sent = (1 if shared else num_clients, *shape[1:])
        marks = layout.get(f"{name}.sparse")
        if marks is None:
            clients = _values(arrays, name, sent)
        else:
            clients = _unpack_sparse(arrays, name, np.asarray(marks, dtype=bool), sent)
        stack[name] = np.broadcast_to(clients, shape) if shared else clients
    return stack


_PARTS = ("lines", "bitmap", "values")


@dataclass(frozen=True)
class _SparseClient:
    """One client's array without its zeros, seen as lines along its last axis.

    Attributes:
        lines: bitmap of the lines that are not all zero, uint8.
        bitmap: bitmap of the entries that are not zero, of these lines only, uint8.
        values: these entries.
    """

    lines: np.ndarray
    bitmap: np.ndarray
    values: np.ndarray

    @property
    def nbytes(self) -> int:
        return int(self.lines.nbytes + self.bitmap.nbytes + self.values.nbytes)

    @classmethod
    def of(cls, client: np.ndarray) -> _SparseClient | None:
        """The sparse form of `client` [lines, width], or None where plain values are no longer."""
        if client.size < _SMALLEST_PACKED or client.dtype.kind != "f":
            return None
        kept = client != 0
        in_line = np.count_nonzero(kept, axis=1)
        present = in_line > 0
        entries = kept if present.all() else kept[present]
        nbytes = (len(client) + 7) // 8 + (entries.size + 7) // 8 + int(in_line.sum()) * client.itemsize
        if nbytes >= client.nbytes:
            return None
        values = (client if entries is kept else client[present]).reshape(-1)
        if len(values) != in_line.sum():
            values = np.compress(entries.reshape(-1), values)
        return cls(np.packbits(present), np.packbits(entries), values)


def _unpack_sparse(arrays: ArrayRecord, name: str, sparse: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if len(sparse) != shape[0]:
        raise ValueError(f"{name}: {len(sparse)} marks for {shape[0]} clients")
    width = shape[-1] if len(shape) > 1 else 1
    num_lines = math.prod(shape[1:]) // width if width else 0
    line_bytes = (num_lines + 7) // 8
    all_lines = _values(arrays, f"{name}.lines", (int(sparse.sum()), line_bytes))
    bitmaps, values = read_array(arrays[f"{name}.bitmap"]), read_array(arrays[f"{name}.values"])
    if bitmaps.dtype != np.uint8 or all_lines.dtype != np.uint8 or bitmaps.ndim != 1 or values.ndim != 1:
        raise ValueError(f"{name}: bitmaps are vectors of bytes")
    clients = np.zeros((shape[0], num_lines * width), dtype=values.dtype)
    if not sparse.all():
        clients[~sparse] = _values(arrays, name, (int((~sparse).sum()), num_lines * width))
    at_bit, at_value = 0, 0
    for client, line_bits in zip(np.flatnonzero(sparse), all_lines, strict=True):
        lines = np.flatnonzero(np.unpackbits(line_bits, count=num_lines))
        size = len(lines) * width
        bits = bitmaps[at_bit : at_bit + (size + 7) // 8]
        if len(bits) < (size + 7) // 8:
            raise ValueError(f"{name}: fewer bits than its lines need")
        entries = np.flatnonzero(np.unpackbits(bits, count=size))
        part = values[at_value : at_value + len(entries)]
        if len(part) < len(entries):
            raise ValueError(f"{name}: fewer values than its bitmap marks")
        if len(entries) == size:
            clients[client].reshape(num_lines, width)[lines] = part.reshape(len(lines), width)
        elif len(lines) == num_lines:
            clients[client][entries] = part
        else:
            line, column = np.divmod(entries, width)
            clients[client][lines[line] * width + column] = part
        at_bit, at_value = at_bit + len(bits), at_value + len(part)
    if at_value != len(values) or at_bit != len(bitmaps):
        raise ValueError(f"{name}: more values than its bitmap marks")
    return clients.reshape(shape)


def _values(arrays: ArrayRecord, name: str, shape: tuple[int, ...]) -> np.ndarray:
    values = read_array(arrays[name])
    if values.size != math.prod(shape):
        raise ValueError(f"{name}: {values.size} values where {math.prod(shape)} belong")
    return values.reshape(shape)


def to_array(values: np.ndarray) -> Array:
    """A Flower array of contiguous `values`, in NumPy's format, with one copy (`Array(values)` makes several)."""
    header = BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(values))
    data = b"".join((header.getvalue(), values.reshape(-1).view(np.uint8).data))
    return Array(str(values.dtype), tuple(values.shape), "numpy.ndarray", data)


def read_array(array: Array) -> np.ndarray:
    """The values of a Flower array, as a read-only view of its bytes (`Array.numpy` copies them).

    Raises:
        ValueError: the bytes are not those of a plain NumPy array.
    """
    if array.stype != "numpy.ndarray":
        raise ValueError(f"arrays are sent as NumPy's format, not as {array.stype!r}")
    header = BytesIO(array.data[:1024])
    version = np.lib.format.read_magic(header)
    if version != (1, 0):
        raise ValueError(f"NumPy format {version} is not accepted, only (1, 0)")
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(header)
    if dtype.hasobject or fortran_order:
        raise ValueError("arrays of objects and column-major arrays are not accepted")
    return np.frombuffer(array.data, dtype, math.prod(shape), header.tell()).reshape(shape)


def _integer(value: Any) -> int:
    if not isinstance(value, int):
        raise ValueError(f"{value!r} is not an integer")
    return value


def _integers(values: Any) -> Sequence[int]:
    if not isinstance(values, list) or not all(isinstance(value, int) for value in values):
        raise ValueError(f"{values!r} is not a list of integers")
    return values
