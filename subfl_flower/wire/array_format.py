"""Arrays as they travel: rows without their zeros.

Each row of an array [rows, ...] is sent in the smaller of two forms: its plain values, or the non-zero ones with a
bitmap of their places. Both are lossless, unless float32 values are asked to travel in a short form (`short_floats`).
An array that is read is compared with its expected shape, because anybody may have sent it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord

from subfl_flower.models.row_stack import RowStack, as_array
from subfl_flower.wire.array_bytes import read_array, to_array
from subfl_flower.wire.short_floats import SHORT, restored, shortened

Stack = dict[str, np.ndarray]
"""Arrays by name, each [clients, ...]."""

_PARTS = ("lines", "bitmap", "values")
"""Names of the arrays that hold an array's sparse rows, as ``<array>.<part>``."""

# Below this many entries a bitmap is not worth its bookkeeping.
_SMALLEST_PACKED = 256


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
    if isinstance(values, RowStack):
        if short not in SHORT or values.dtype != np.float32:
            return _pack_rows(name, values)
        values = np.asarray(values)
    shared = len(values) > 1 and values.strides[0] == 0
    rows = np.ascontiguousarray(values[:1] if shared else values)
    layout: dict[str, Any] = {f"{name}.shape": list(values.shape), f"{name}.shared": shared}
    steps = None
    if short in SHORT and rows.dtype == np.float32:
        rows, steps = shortened(rows, short)
        layout[f"{name}.short"] = short
    width = rows.shape[-1] if rows.ndim > 1 else 1
    lines = rows.reshape(len(rows), math.prod(rows.shape[1:-1]) if rows.ndim > 1 else 1, width)
    packed = [_SparseRow.of(row) for row in lines]
    arrays, marks, sizes = _packed_forms(name, packed, lines[0].nbytes if len(lines) else 0)
    plain = np.array([row is None for row in packed], dtype=bool)
    if plain.all() or plain.any():
        arrays[name] = to_array(rows if plain.all() else rows[plain])
    if steps is not None:
        arrays[f"{name}.steps"] = to_array(steps)
        sizes += steps.itemsize
    return arrays, layout | marks, sizes


def _pack_rows(name: str, stack: RowStack) -> tuple[dict[str, Array], dict[str, Any], np.ndarray]:
    """Pack a stack of which some rows are held, as `pack_array` packs the whole one."""
    packed = [_SparseRow.of_lines(*stack.part(client), stack.height) for client in range(len(stack))]
    _, height, width = stack.shape
    arrays, marks, sizes = _packed_forms(name, packed, height * width * stack.dtype.itemsize, stack.values)
    plain = [client for client, row in enumerate(packed) if row is None]
    if plain or not packed:
        arrays[name] = to_array(np.asarray(stack.take(plain)))
    return arrays, {f"{name}.shape": list(stack.shape), f"{name}.shared": False} | marks, sizes


def _packed_forms(
    name: str, packed: Sequence[_SparseRow | None], plain_bytes: int, whole: np.ndarray | None = None
) -> tuple[dict[str, Array], dict[str, Any], np.ndarray]:
    """Arrays of the rows that are packed, the marks of these in a layout, and payload bytes of each row.

    `whole` holds the values of all rows one after the other, and some more where a row leaves zeros out.
    """
    chosen = [row for row in packed if row is not None]
    sparse = np.array([row is not None for row in packed], dtype=bool)
    sizes = np.full(len(packed), plain_bytes, dtype=np.int64)
    if not chosen:
        return {}, {}, sizes
    sizes[sparse] = [row.nbytes for row in chosen]
    parts = {part: [getattr(row, part) for row in chosen] for part in _PARTS}
    if whole is not None and sum(map(len, parts["values"])) == whole.size:  # the same values, and need no copy
        parts["values"] = [np.ascontiguousarray(whole).reshape(-1)]
    arrays = {f"{name}.{part}": to_array(_concatenated(values)) for part, values in parts.items()}
    return arrays, {f"{name}.sparse": sparse.tolist()}, sizes


def _concatenated(parts: Sequence[np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


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

    def unpacked(self, arrays: ArrayRecord, by_row: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """The array [rows, ...], and the payload bytes of each of its rows [rows], or of all together [1].

        Plain values are a view of the message; sparse rows, and those that travel in a short form, take `nbytes`.

        Args:
            arrays: of the message.
            by_row: True to get matrices that are packed as a `RowStack`, without the lines that were not sent.

        Raises:
            KeyError: an array is missing.
            ValueError: the arrays contradict each other, or the claim.
        """
        if by_row and self.sparse is not None and self.short is None and len(self.shape) == 3 and not self.shared:
            return _unpacked_stack(arrays, self.name, self.sparse, self.sent)
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
        if not _may_be_sparse(row.size, row.dtype):
            return None
        kept = row != 0
        count = int(np.count_nonzero(kept))
        if (len(row) + 7) // 8 + (count + 7) // 8 + count * row.itemsize >= row.nbytes:
            return None  # even if no line had a zero
        in_line = np.count_nonzero(kept, axis=1)
        present = in_line > 0
        entries = kept if present.all() else kept[present]
        nbytes = (len(row) + 7) // 8 + (entries.size + 7) // 8 + count * row.itemsize
        if nbytes >= row.nbytes:
            return None
        values = (row if entries is kept else row[present]).reshape(-1)
        if len(values) != count:
            values = np.compress(entries.reshape(-1), values)
        return cls(np.packbits(present), np.packbits(entries), values)

    @classmethod
    def of_lines(cls, index: np.ndarray, lines: np.ndarray, height: int) -> _SparseRow | None:
        """The sparse form of a row of which these `lines` [n, width] of `height` are held, by number; as `of`."""
        kept = lines != 0
        if np.count_nonzero(kept) != lines.size:
            present = kept.any(axis=1)
            index, lines, kept = index[present], lines[present], kept[present]
        size, count = height * lines.shape[1], np.count_nonzero(kept)
        nbytes = (height + 7) // 8 + (lines.size + 7) // 8 + count * lines.itemsize
        if not _may_be_sparse(size, lines.dtype) or nbytes >= size * lines.itemsize:
            return None
        present = np.zeros(height, dtype=bool)
        present[index] = True
        values = lines.reshape(-1)
        if count != lines.size:
            values = np.compress(kept.reshape(-1), values)
        return cls(np.packbits(present), np.packbits(kept), values)


def _may_be_sparse(size: int, dtype: np.dtype) -> bool:
    """True for rows whose zeros may be left out: of floats, and of their short form; other integers are sent whole."""
    return size >= _SMALLEST_PACKED and (np.issubdtype(dtype, np.floating) or dtype == np.int8)


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
    forms = _sparse_forms(arrays, name, int(sparse.sum()), num_lines, width)
    dtype = read_array(arrays[f"{name}.values"]).dtype
    rows = np.zeros((shape[0], num_lines * width), dtype=dtype)
    sizes = np.full(shape[0], rows[0].nbytes if len(rows) else 0)
    if not sparse.all():
        rows[~sparse] = _values(arrays, name, (int((~sparse).sum()), num_lines * width))
    for row, form in zip(np.flatnonzero(sparse), forms, strict=True):
        lines, entries, part = form.lines, form.entries, form.values
        if entries is None:
            rows[row].reshape(num_lines, width)[lines] = part.reshape(len(lines), width)
        elif len(lines) == num_lines:
            rows[row][entries] = part
        else:
            line, column = np.divmod(entries, width)
            rows[row][lines[line] * width + column] = part
        sizes[row] = form.nbytes
    return rows.reshape(shape), sizes


def _unpacked_stack(
    arrays: ArrayRecord, name: str, sparse: np.ndarray, shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """A stack of a shape [rows, lines, width] that holds the lines that were sent, and the bytes of each row [rows]."""
    num_rows, height, width = shape
    found = _sparse_forms(arrays, name, int(sparse.sum()), height, width)
    if sparse.all() and all(form.entries is None for form in found):
        counts, sizes = (np.array(numbers) for numbers in zip(*((len(f.lines), f.nbytes) for f in found), strict=True))
        together = read_array(arrays[f"{name}.values"]).reshape(-1, width)
        return as_array(RowStack(together, np.concatenate([form.lines for form in found]), counts, height)), sizes
    forms = iter(found)
    values, index = [], []
    sizes = np.full(num_rows, height * width * read_array(arrays[f"{name}.values"]).itemsize)
    plain = iter([] if sparse.all() else _values(arrays, name, (int((~sparse).sum()), height, width)))
    for row in range(num_rows):
        if sparse[row]:
            form = next(forms)
            values.append(form.spread(width))
            index.append(form.lines)
            sizes[row] = form.nbytes
        else:
            values.append(next(plain))
            index.append(np.arange(height))
    counts = np.array([len(lines) for lines in index], dtype=np.int64)
    together = _concatenated(values)
    return as_array(RowStack(together, np.concatenate(index), counts, height)), sizes


@dataclass(frozen=True)
class _SparseForm:
    """One row as it was sent without its zeros.

    Attributes:
        lines: numbers of the lines that were sent.
        entries: numbers of the entries of these lines that were sent; None: all.
        values: these entries.
        nbytes: bytes of the form.
    """

    lines: np.ndarray
    entries: np.ndarray | None
    values: np.ndarray
    nbytes: int

    def spread(self, width: int) -> np.ndarray:
        """The lines [n, width]."""
        if self.entries is None:
            return self.values.reshape(len(self.lines), width)
        flat = np.zeros(len(self.lines) * width, dtype=self.values.dtype)
        flat[self.entries] = self.values
        return flat.reshape(len(self.lines), width)


def _sparse_forms(arrays: ArrayRecord, name: str, num_rows: int, num_lines: int, width: int) -> list[_SparseForm]:
    """The sparse forms of `num_rows` rows, whose values are views of the message.

    Raises:
        ValueError: the arrays contradict each other.
    """
    line_bytes = (num_lines + 7) // 8
    all_lines = _values(arrays, f"{name}.lines", (num_rows, line_bytes))
    bitmaps, values = read_array(arrays[f"{name}.bitmap"]), read_array(arrays[f"{name}.values"])
    if bitmaps.dtype != np.uint8 or all_lines.dtype != np.uint8 or bitmaps.ndim != 1 or values.ndim != 1:
        raise ValueError(f"{name}: bitmaps are vectors of bytes")
    forms = []
    at_bit, at_value = 0, 0
    for line_bits in all_lines:
        lines = np.flatnonzero(np.unpackbits(line_bits, count=num_lines))
        size = len(lines) * width
        bits = bitmaps[at_bit : at_bit + (size + 7) // 8]
        if len(bits) < (size + 7) // 8:
            raise ValueError(f"{name}: fewer bits than its lines need")
        marks = np.unpackbits(bits, count=size).view(bool)
        count = int(np.count_nonzero(marks))
        part = values[at_value : at_value + count]
        if len(part) < count:
            raise ValueError(f"{name}: fewer values than its bitmap marks")
        entries = None if count == size else np.flatnonzero(marks)
        forms.append(_SparseForm(lines, entries, part, line_bytes + bits.nbytes + part.nbytes))
        at_bit, at_value = at_bit + len(bits), at_value + len(part)
    if at_value != len(values) or at_bit != len(bitmaps):
        raise ValueError(f"{name}: more values than its bitmap marks")
    return forms


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
