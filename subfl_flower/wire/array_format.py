"""Arrays as they travel: numbers in NumPy's format, and rows without their zeros.

Each row of an array [rows, ...] is sent in the smaller of two forms: its plain values, or the non-zero ones with a
bitmap of their places. Both are lossless, unless float32 values are asked to travel in a short form (`short_floats`).
An array that is read is compared with its expected shape, because anybody
may have sent it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord

from subfl_flower.wire.short_floats import SHORT, restored, shortened

Stack = dict[str, np.ndarray]
"""Arrays by name, each [clients, ...]."""

_PARTS = ("lines", "bitmap", "values")
"""Names of the arrays that hold an array's sparse rows, as ``<array>.<part>``."""

# Below this many entries a bitmap is not worth its bookkeeping.
_SMALLEST_PACKED = 256

# The header of `to_array`: NumPy's format of numbers in row-major order. Its other forms can hold Python objects.
_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00(..)\{'descr': '([<|][biuf][1248])', 'fortran_order': False, "
    rb"'shape': \(((?:\d{1,18}(?:, \d{1,18}){0,31},?)?)\), \} *\n",
    re.DOTALL,
)
_LONGEST_HEADER = 1024


# Bytes ----------------------------------------------------------------------------------------------------------------


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


# Rows -----------------------------------------------------------------------------------------------------------------


def pack_array(
    name: str, values: np.ndarray, short: str = "float32"
) -> tuple[dict[str, Array], dict[str, Any], np.ndarray]:
    """Pack an array [rows, ...]: the arrays and the entries of a layout that `Claim.of` reads, and payload bytes.

    Rows that are one row in memory are stored once. Bytes are those of each row, int64 [rows], or [1] where it is one.

    Args:
        name: of the array.
        values: the array.
        short: number format of float32 values.
    """
    shared = len(values) > 1 and values.strides[0] == 0
    rows = np.ascontiguousarray(values[:1] if shared else values)
    layout: dict[str, Any] = {f"{name}.shape": list(values.shape), f"{name}.shared": shared}
    steps = None
    if short in SHORT and rows.dtype == np.float32:
        rows, steps = shortened(rows, short)
        layout[f"{name}.short"] = short
    width = rows.shape[-1] if rows.ndim > 1 else 1
    lines = rows.reshape(len(rows), math.prod(rows.shape[1:-1]) if rows.ndim > 1 else 1, width)
    packed = [_SparseRow.of(row) if row.dtype.kind == "f" or steps is not None else None for row in lines]
    chosen = [row for row in packed if row is not None]
    sparse = np.array([row is not None for row in packed], dtype=bool)
    sizes = np.full(len(rows), lines[0].nbytes if len(lines) else 0, dtype=np.int64)
    arrays: dict[str, Array] = {}
    if chosen:
        layout[f"{name}.sparse"] = sparse.tolist()
        sizes[sparse] = [row.nbytes for row in chosen]
        for part in _PARTS:
            arrays[f"{name}.{part}"] = to_array(np.concatenate([getattr(row, part) for row in chosen]))
    if not chosen or not sparse.all():
        arrays[name] = to_array(rows[~sparse] if chosen else rows)
    if steps is not None:
        arrays[f"{name}.steps"] = to_array(steps)
        sizes += steps.itemsize
    return arrays, layout, sizes


@dataclass(frozen=True, eq=False)
class Claim:
    """Statement of a message on one array.

    Attributes:
        name: the array's.
        shape: with the leading axis, of clients or of rows to choose from.
        shared: True where all of these are one row.
        sparse: flags of the sent rows that are packed, bool [rows]; None where none is.
        dtype: of its values.
        short: the format in which these travel; None where it is `dtype`.
    """

    name: str
    shape: tuple[int, ...]
    shared: bool
    sparse: np.ndarray | None
    dtype: np.dtype
    short: str | None = None

    @classmethod
    def of(cls, name: str, num_rows: int, arrays: ArrayRecord, layout: ConfigRecord) -> Claim:
        """Read the two records' statement on the array of a name.

        Raises:
            KeyError: an entry is missing.
            ValueError: they contradict each other, or it has not `num_rows` rows.
        """
        shape = tuple(integers(layout[f"{name}.shape"]))
        if not 1 <= len(shape) <= 32 or shape[0] != num_rows or min(shape) < 0:
            raise ValueError(f"{name}: shape {shape[:32]} is not one of {num_rows} rows")
        shared, marks = layout[f"{name}.shared"], layout.get(f"{name}.sparse")
        if not isinstance(shared, bool):
            raise ValueError(f"{name}: {shared!r} does not say whether rows are shared")
        sparse = None if marks is None else np.array(_flags(marks), dtype=bool)
        if sparse is not None and len(sparse) != (1 if shared else num_rows):
            raise ValueError(f"{name}: {len(sparse)} marks for {1 if shared else num_rows} rows")
        packed = [f"{name}.values"] if sparse is not None else []
        plain = [name] if sparse is None or not sparse.all() else []
        (dtype, *others) = {read_array(arrays[part]).dtype for part in packed + plain}
        if others:
            raise ValueError(f"{name}: its values are of several types")
        short = layout.get(f"{name}.short")
        if short is None:
            return cls(name, shape, shared, sparse, dtype)
        if short not in SHORT or dtype != short:
            raise ValueError(f"{name}: its values are {dtype}, which is not the short form {short!r}")
        return cls(name, shape, shared, sparse, np.dtype(np.float32), str(short))

    @property
    def sent(self) -> tuple[int, ...]:
        """The shape in which it is stored."""
        return (1 if self.shared else self.shape[0], *self.shape[1:])

    @property
    def nbytes(self) -> int:
        """Number of bytes when unpacked."""
        return math.prod(self.sent) * self.dtype.itemsize

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the arrays that may hold it."""
        packed = _PARTS if self.sparse is not None else ()
        return self.name, *(f"{self.name}.{part}" for part in (*packed, *(("steps",) if self.short == "int8" else ())))

    def unpacked(self, arrays: ArrayRecord) -> tuple[np.ndarray, np.ndarray]:
        """The array [rows, ...], and the payload bytes of each of its rows [rows], or of all together [1].

        Plain values are a view of the message; sparse rows, and those that travel in a short form, take `nbytes`.

        Raises:
            KeyError: an array is missing.
            ValueError: the arrays contradict each other, or the claim.
        """
        rows, sizes = _unpacked_rows(arrays, self.name, self.sparse, self.sent)
        if self.short is not None:
            steps = None
            if self.short == "int8":
                steps = _values(arrays, f"{self.name}.steps", (len(rows),))
                if steps.dtype != np.float32:
                    raise ValueError(f"{self.name}: its steps are {steps.dtype}, where float32 belongs")
                sizes = sizes + steps.itemsize
            rows = restored(rows, steps)
        return np.broadcast_to(rows, self.shape) if self.shared else rows, sizes


@dataclass(frozen=True)
class _SparseRow:
    """One row of an array without its zeros, seen as lines along its last axis.

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
    def of(cls, row: np.ndarray) -> _SparseRow | None:
        """The sparse form of `row` [lines, width], or None where plain values are no longer."""
        if row.size < _SMALLEST_PACKED:
            return None
        kept = row != 0
        in_line = np.count_nonzero(kept, axis=1)
        present = in_line > 0
        entries = kept if present.all() else kept[present]
        nbytes = (len(row) + 7) // 8 + (entries.size + 7) // 8 + int(in_line.sum()) * row.itemsize
        if nbytes >= row.nbytes:
            return None
        values = (row if entries is kept else row[present]).reshape(-1)
        if len(values) != in_line.sum():
            values = np.compress(entries.reshape(-1), values)
        return cls(np.packbits(present), np.packbits(entries), values)


def _unpacked_rows(
    arrays: ArrayRecord, name: str, sparse: np.ndarray | None, shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Values of a shape [rows, ...], of which the rows marked in `sparse` are sparse, and the bytes of each [rows]."""
    if sparse is None:
        values = _values(arrays, name, shape)
        return values, np.full(shape[0], math.prod(shape[1:]) * values.itemsize)
    return _unpack_sparse(arrays, name, sparse, shape)


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
    rows = np.zeros((shape[0], num_lines * width), dtype=values.dtype)
    sizes = np.full(shape[0], rows[0].nbytes if len(rows) else 0)
    if not sparse.all():
        rows[~sparse] = _values(arrays, name, (int((~sparse).sum()), num_lines * width))
    at_bit, at_value = 0, 0
    for row, line_bits in zip(np.flatnonzero(sparse), all_lines, strict=True):
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
            rows[row].reshape(num_lines, width)[lines] = part.reshape(len(lines), width)
        elif len(lines) == num_lines:
            rows[row][entries] = part
        else:
            line, column = np.divmod(entries, width)
            rows[row][lines[line] * width + column] = part
        at_bit, at_value = at_bit + len(bits), at_value + len(part)
        sizes[row] = line_bytes + bits.nbytes + part.nbytes
    if at_value != len(values) or at_bit != len(bitmaps):
        raise ValueError(f"{name}: more values than its bitmap marks")
    return rows.reshape(shape), sizes


def _values(arrays: ArrayRecord, name: str, shape: tuple[int, ...]) -> np.ndarray:
    values = read_array(arrays[name])
    if values.size != math.prod(shape):
        raise ValueError(f"{name}: {values.size} values where {math.prod(shape)} belong")
    return values.reshape(shape)


def integers(values: Any) -> Sequence[int]:
    """An entry of a layout that is a list of integers, else a ValueError."""
    if not isinstance(values, list) or not all(type(value) is int for value in values):
        raise ValueError(f"{values!r} is not a list of integers")
    return values


def _flags(values: Any) -> Sequence[bool]:
    if not isinstance(values, list) or not all(isinstance(value, bool) for value in values):
        raise ValueError(f"{values!r} is not a list of marks")
    return values
