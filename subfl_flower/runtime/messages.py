"""What travels: stacks of arrays with a leading client axis, packed without their zeros.

A *stack* maps a name to an array [clients, ...]. Packing is lossless. Per client and array the smaller of two forms is
sent: the plain values, or the non-zero ones with a bitmap that tells where they belong. Whatever a method sets to
zero (pruned weights, rows of features that a client does not have) is therefore not sent. Rows that are one row in
memory, as FedAvg makes them by broadcasting, are stored once. Payload bytes are counted per client, as if each had a
message of its own, so that they do not depend on which node hosts whom.

Whoever unpacks may say what is expected (`ArraySpec`). It is then compared with what a message claims to hold before
anything is made of it, because a message of some bytes can claim an array of any size.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

Stack = dict[str, np.ndarray]

ARRAYS, LAYOUT = "arrays", "layout"

# Below this many entries a bitmap is not worth its bookkeeping.
_SMALLEST_PACKED = 256

# A message that claims more clients is not believed.
_MOST_CLIENTS = 1 << 20

# What `to_array` writes: NumPy's format of numbers in row-major order. Its other forms can hold Python objects.
_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00(..)\{'descr': '([<|][biuf][1248])', 'fortran_order': False, "
    rb"'shape': \(((?:\d{1,18}(?:, \d{1,18}){0,31},?)?)\), \} *\n",
    re.DOTALL,
)
_LONGEST_HEADER = 1024


@dataclass(frozen=True)
class ArraySpec:
    """What an array of one client must be.

    Attributes:
        shape: without the client axis.
        dtype: NumPy's name of it, such as ``float32``.
        needed: whether it may not be left out.
    """

    shape: tuple[int, ...]
    dtype: str
    needed: bool = True

    @property
    def nbytes(self) -> int:
        """Bytes of the plain values."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def __str__(self) -> str:
        """Such as ``float32 [5, 2]``."""
        return f"{self.dtype} {list(self.shape)}"


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


def unpack(
    content: RecordDict,
    expected: Mapping[str, ArraySpec] | None = None,
    *,
    num_clients: int | None = None,
    largest: int | None = None,
) -> Stack:
    """The stack that `pack` was given. Arrays may be read-only views.

    Args:
        content: the message's content.
        expected: arrays by name; no other is accepted, and none that is needed may be missing. None accepts any.
        num_clients: how many clients it must hold; None: any number.
        largest: bytes that the arrays may have in all when unpacked; None: any number.

    Raises:
        ValueError: the records do not fit each other, or not what they are held against. Plain values take no memory
            beyond the message; packed ones take what they claim, once that has passed these checks.
    """
    return unpack_counted(content, expected, num_clients=num_clients, largest=largest)[0]


def unpack_counted(
    content: RecordDict,
    expected: Mapping[str, ArraySpec] | None = None,
    *,
    num_clients: int | None = None,
    largest: int | None = None,
) -> tuple[Stack, np.ndarray]:
    """As `unpack`, with the payload bytes of each client [clients], counted as `pack` counts them."""
    try:
        arrays, layout = content.array_records[ARRAYS], content.config_records[LAYOUT]
        return _unpacked(arrays, layout, expected, num_clients, largest)
    except KeyError as error:
        raise ValueError(f"the records lack {error}") from error


def _unpacked(
    arrays: ArrayRecord,
    layout: ConfigRecord,
    expected: Mapping[str, ArraySpec] | None,
    num_clients: int | None,
    largest: int | None,
) -> tuple[Stack, np.ndarray]:
    claimed = _integer(layout["clients"])
    if not 0 <= claimed <= _MOST_CLIENTS or num_clients not in (None, claimed):
        raise ValueError(f"it holds {claimed} clients, not {'up to a million' if num_clients is None else num_clients}")
    names = [key.removesuffix(".shape") for key in layout if key.endswith(".shape")]
    claims = [_Claim.of(name, claimed, arrays, layout) for name in names]
    if expected is not None:
        _check_expected(claims, expected)
        if unused := set(arrays) - {part for claim in claims for part in claim.parts}:
            raise ValueError(f"it holds {min(unused)}, which its layout does not speak of")
    total = sum(claim.nbytes for claim in claims)
    if largest is not None and total > largest:
        raise ValueError(f"its arrays would take {total} bytes, and may take {largest}")
    stack: Stack = {}
    bytes_per_client = np.zeros(claimed, dtype=np.int64)
    for claim in claims:
        stack[claim.name], sizes = claim.unpacked(arrays)
        bytes_per_client += sizes
    return stack, bytes_per_client


def _check_expected(claims: Sequence[_Claim], expected: Mapping[str, ArraySpec]) -> None:
    found = {claim.name: claim.spec for claim in claims}
    if unknown := found.keys() - expected.keys():
        allowed = ", ".join(expected) or "nothing"
        raise ValueError(f"it holds {', '.join(sorted(unknown))}, where only {allowed} belongs")
    if missing := {name for name, spec in expected.items() if spec.needed} - found.keys():
        raise ValueError(f"it lacks {', '.join(sorted(missing))}")
    for name, spec in found.items():
        if (spec.shape, spec.dtype) != (expected[name].shape, expected[name].dtype):
            raise ValueError(f"its {name} is {spec} for a client, where {expected[name]} belongs")


@dataclass(frozen=True, eq=False)
class _Claim:
    """What a message says of one array.

    Attributes:
        name: the array's.
        shape: with the client axis.
        shared: whether all clients have one row.
        sparse: which of the rows that are sent are packed, bool [rows]; None where none is.
        dtype: of its values.
    """

    name: str
    shape: tuple[int, ...]
    shared: bool
    sparse: np.ndarray | None
    dtype: np.dtype

    @classmethod
    def of(cls, name: str, num_clients: int, arrays: ArrayRecord, layout: ConfigRecord) -> _Claim:
        shape = tuple(_integers(layout[f"{name}.shape"]))
        if not 1 <= len(shape) <= 32 or shape[0] != num_clients or min(shape) < 0:
            raise ValueError(f"{name}: shape {shape[:32]} is not one of {num_clients} clients")
        shared, marks = layout[f"{name}.shared"], layout.get(f"{name}.sparse")
        if not isinstance(shared, bool):
            raise ValueError(f"{name}: {shared!r} does not say whether rows are shared")
        sparse = None if marks is None else np.array(_flags(marks), dtype=bool)
        if sparse is not None and len(sparse) != (1 if shared else num_clients):
            raise ValueError(f"{name}: {len(sparse)} marks for {1 if shared else num_clients} rows")
        packed = [f"{name}.values"] if sparse is not None else []
        plain = [name] if sparse is None or not sparse.all() else []
        (dtype, *others) = {read_array(arrays[part]).dtype for part in packed + plain}
        if others:
            raise ValueError(f"{name}: its values are of several types")
        return cls(name, shape, shared, sparse, dtype)

    @property
    def spec(self) -> ArraySpec:
        return ArraySpec(self.shape[1:], str(self.dtype))

    @property
    def sent(self) -> tuple[int, ...]:
        """The shape in which it is stored."""
        return (1 if self.shared else self.shape[0], *self.shape[1:])

    @property
    def nbytes(self) -> int:
        """Bytes when unpacked."""
        return math.prod(self.sent) * self.dtype.itemsize

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the arrays that may hold it."""
        return self.name, *(f"{self.name}.{part}" for part in _PARTS if self.sparse is not None)

    def unpacked(self, arrays: ArrayRecord) -> tuple[np.ndarray, np.ndarray]:
        """The array [clients, ...], and its payload bytes of each client [clients] or of all alike [1]."""
        if self.sparse is None:
            clients = _values(arrays, self.name, self.sent)
            sizes = np.full(self.sent[0], self.spec.nbytes)
        else:
            clients, sizes = _unpack_sparse(arrays, self.name, self.sparse, self.sent)
        return np.broadcast_to(clients, self.shape) if self.shared else clients, sizes


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


def _unpack_sparse(
    arrays: ArrayRecord, name: str, sparse: np.ndarray, shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    width = shape[-1] if len(shape) > 1 else 1
    num_lines = math.prod(shape[1:]) // width if width else 0
    line_bytes = (num_lines + 7) // 8
    all_lines = _values(arrays, f"{name}.lines", (int(sparse.sum()), line_bytes))
    bitmaps, values = read_array(arrays[f"{name}.bitmap"]), read_array(arrays[f"{name}.values"])
    if bitmaps.dtype != np.uint8 or all_lines.dtype != np.uint8 or bitmaps.ndim != 1 or values.ndim != 1:
        raise ValueError(f"{name}: bitmaps are vectors of bytes")
    clients = np.zeros((shape[0], num_lines * width), dtype=values.dtype)
    sizes = np.full(shape[0], clients[0].nbytes if len(clients) else 0)
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
        sizes[client] = line_bytes + bits.nbytes + part.nbytes
    if at_value != len(values) or at_bit != len(bitmaps):
        raise ValueError(f"{name}: more values than its bitmap marks")
    return clients.reshape(shape), sizes


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
        ValueError: the bytes are not those of an array of numbers in NumPy's format (1, 0), native and row-major.
    """
    if array.stype != "numpy.ndarray":
        raise ValueError(f"arrays are sent as NumPy's format, not as {array.stype!r}")
    header = _HEADER.match(array.data[:_LONGEST_HEADER])
    if header is None or int.from_bytes(header[1], "little") != header.end() - 10:
        raise ValueError("an array is not plain numbers in NumPy's format (1, 0); objects are not accepted")
    shape = tuple(int(length) for length in header[3].replace(b",", b" ").split())
    try:
        dtype = np.dtype(header[2].decode())
        if math.prod(shape) * dtype.itemsize != len(array.data) - header.end():
            raise ValueError(f"an array of {dtype} {list(shape)} has {len(array.data) - header.end()} bytes")
        return np.frombuffer(array.data, dtype, math.prod(shape), header.end()).reshape(shape)
    except (TypeError, OverflowError) as error:
        raise ValueError(f"an array cannot be read: {error}") from error


def _integer(value: Any) -> int:
    if type(value) is not int:
        raise ValueError(f"{value!r} is not an integer")
    return value


def _integers(values: Any) -> Sequence[int]:
    if not isinstance(values, list) or not all(type(value) is int for value in values):
        raise ValueError(f"{values!r} is not a list of integers")
    return values


def _flags(values: Any) -> Sequence[bool]:
    if not isinstance(values, list) or not all(isinstance(value, bool) for value in values):
        raise ValueError(f"{values!r} is not a list of marks")
    return values
