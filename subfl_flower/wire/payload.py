"""Payloads: stacks of arrays with a leading client axis, packed without their zeros.

A *stack* maps a name to an array [clients, ...]. Packing is lossless. For each client and array the smaller of two
forms is sent (`array_format`). Zeros of a method (pruned weights, rows of features that a client does not have) are
therefore not sent. Rows that are one row in memory, such as a broadcast average of FedAvg, are stored once. Where many
clients share a few rows, such as one model for each cluster, a `Choice` assigns rows to clients, and each row is stored
once, too. Payload bytes are counted per client, as if each had a separate message, so that they do not depend on the
clients' nodes.

The reader may state its expectation (`ArraySpec`). It is compared with the message's claim before memory is allocated,
because a message of some bytes can claim an array of any size.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from subfl_flower.wire.array_format import Claim, Stack, integers, pack_array
from subfl_flower.wire.choice import Choice, require_rows

ARRAYS, LAYOUT = "arrays", "layout"

# Entries of the layout of a `Choice`: its rows, client by client, and how many rows there are to choose from.
_CHOICE, _STORED = "choice", "stored"

# A message that claims more clients is refused.
_MOST_CLIENTS = 1 << 20


@dataclass(frozen=True)
class ArraySpec:
    """Requirements on an array of one client.

    Attributes:
        shape: without the client axis; -1 for a length that varies.
        dtype: NumPy's name of it, such as ``float32``.
        needed: False where it may be left out.
        bounded: False where values are no magnitudes, such as numbers under masks.
        remembered: True where the server keeps the last array of an absent client.
        by_row: True for a matrix of which most rows may be zero; it may be read as a `RowStack`.
    """

    shape: tuple[int, ...]
    dtype: str
    needed: bool = True
    bounded: bool = True
    remembered: bool = False
    by_row: bool = False

    @classmethod
    def like(cls, value: np.ndarray) -> ArraySpec:
        """The shape and type of an array without a client axis."""
        return cls(value.shape, str(value.dtype))

    @property
    def nbytes(self) -> int:
        """Bytes of the plain values, where no length varies."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def allows(self, shape: Sequence[int], dtype: str) -> bool:
        """True for a shape and a type that the array may have."""
        lengths = zip(self.shape, shape, strict=False)
        fits = len(self.shape) == len(shape) and all(own in (-1, length) for own, length in lengths)
        return fits and dtype == self.dtype

    def __str__(self) -> str:
        """Type and shape in words, such as ``float32 [5, 2]``."""
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


def pack(stack: Stack | Choice, num_clients: int | None = None, dtype: str = "float32") -> Packed:
    """Pack a stack, whose arrays have the number of clients as leading length, or a choice, row by row.

    Each different row that a client of a choice is sent is counted once.

    `num_clients` need be given only where the stack may be empty. float32 values travel as `dtype`.

    Raises:
        ValueError: a choice is of another number of clients.
    """
    if isinstance(stack, Choice):
        return _pack_choice(stack, num_clients, dtype)
    if num_clients is None:
        num_clients = len(next(iter(stack.values()))) if stack else 0
    arrays, layout, sizes = _packed(stack, dtype)
    bytes_per_client = sum(sizes, start=np.zeros(num_clients, dtype=np.int64))
    return Packed(ArrayRecord(arrays), ConfigRecord({"clients": num_clients, **layout}), bytes_per_client)


def _pack_choice(choice: Choice, num_clients: int | None, dtype: str) -> Packed:
    if num_clients not in (None, choice.num_clients):
        raise ValueError(f"rows of {choice.num_clients} clients are packed for {num_clients}")
    arrays, layout, sizes = _packed(choice.values, dtype)
    layout |= {"clients": choice.num_clients, _STORED: choice.num_rows, _CHOICE: choice.rows.reshape(-1).tolist()}
    return Packed(ArrayRecord(arrays), ConfigRecord(layout), _bytes_of_rows(choice, sizes))


def _packed(stack: Stack, dtype: str) -> tuple[dict[str, Array], dict[str, Any], list[np.ndarray]]:
    """Packed arrays, their entries of the layout, and bytes of each one's rows, from `pack_array`."""
    arrays: dict[str, Array] = {}
    layout: dict[str, Any] = {}
    sizes = []
    for name, values in stack.items():
        parts, entries, row_sizes = pack_array(name, values, dtype)
        arrays |= parts
        layout |= entries
        sizes.append(row_sizes)
    return arrays, layout, sizes


def _bytes_of_rows(choice: Choice, sizes: Iterable[np.ndarray]) -> np.ndarray:
    """Each client's bytes of its different rows, int64 [clients].

    `sizes` are bytes of every array's rows [M]; [1] where these are all one row, and so not different.
    """
    total = np.zeros(choice.num_clients, dtype=np.int64)
    for row_sizes in sizes:
        rows = np.sort(choice.rows if len(row_sizes) == choice.num_rows else np.zeros_like(choice.rows), axis=1)
        first = np.diff(rows, axis=1, prepend=-1) != 0
        total += (row_sizes[rows] * first).sum(axis=1)
    return total


def unpack(
    content: RecordDict,
    expected: Mapping[str, ArraySpec] | None = None,
    *,
    num_clients: int | None = None,
    largest: int | None = None,
) -> tuple[Stack, np.ndarray]:
    """The stack that `pack` packed, and the payload bytes of each client [clients], counted as `pack` counts them.

    Arrays may be read-only views.

    Args:
        content: the message's content.
        expected: arrays by name; no other is accepted, and none that is needed may be missing. None accepts any.
        num_clients: number of clients that it must hold; None: any number.
        largest: bytes that the arrays may have in all when unpacked; None: any number.

    Raises:
        ValueError: the records contradict each other, or the expectation. Plain values take no memory beyond the
            message; packed ones take the memory that they claim, once that has passed these checks.
    """
    with _complete():
        arrays, layout = content.array_records[ARRAYS], content.config_records[LAYOUT]
        if _CHOICE in layout:
            raise ValueError("it holds rows for clients to choose from, where each client's own belong")
        clients = _num_clients(layout, num_clients)
        claims = _claims(arrays, layout, clients, expected, largest)
        unpacked = {claim.name: claim.unpacked(arrays, _by_row(claim, expected)) for claim in claims}
    bytes_per_client = sum((sizes for _, sizes in unpacked.values()), start=np.zeros(clients, dtype=np.int64))
    return {name: values for name, (values, _) in unpacked.items()}, bytes_per_client


def unpack_choice(
    content: RecordDict,
    expected: Mapping[str, ArraySpec] | None = None,
    *,
    num_clients: int | None = None,
    each: int | None = None,
) -> Choice:
    """Restore the choice that `pack` packed; the arrays may be read-only views.

    A packed stack is a choice, too: of one row where all clients have one row of every array, else of a row for each
    client, and of no row where there are no arrays.

    Args:
        content: the message's content.
        expected: as for `unpack`: requirements on a row of each array.
        num_clients: number of clients that it must be for; None: any number.
        each: largest number of rows that the message may hold for each client; None: any number. With `expected` and
            `num_clients` it bounds the memory that a message can claim.

    Raises:
        ValueError: as for `unpack`, or a client is sent a row that does not exist.
    """
    with _complete():
        arrays, layout = content.array_records[ARRAYS], content.config_records[LAYOUT]
        clients = _num_clients(layout, num_clients)
        rows, stored = _chosen_rows(layout, clients) if _CHOICE in layout else (None, clients)
        if each is not None and stored > each * clients:
            raise ValueError(f"it holds {stored} rows for {clients} clients, and may hold {each} for each")
        claims = _claims(arrays, layout, stored, expected)
        values = {claim.name: claim.unpacked(arrays, _by_row(claim, expected))[0] for claim in claims}
    if rows is None and all(claim.shared for claim in claims):
        values = {name: stack[:1] for name, stack in values.items()}
        rows = np.zeros((clients, 1 if values else 0), dtype=np.int64)
    return Choice(values, np.arange(clients, dtype=np.int64)[:, None] if rows is None else rows)


def _by_row(claim: Claim, expected: Mapping[str, ArraySpec] | None) -> bool:
    return expected is not None and expected[claim.name].by_row


@contextmanager
def _complete() -> Iterator[None]:
    """Turn a missing record or entry into a ValueError on the message."""
    try:
        yield
    except KeyError as error:
        raise ValueError(f"the records lack {error}") from error


def _num_clients(layout: ConfigRecord, wanted: int | None) -> int:
    claimed = _count(layout["clients"], "clients")
    if wanted not in (None, claimed):
        raise ValueError(f"it holds {claimed} clients, not {wanted}")
    return claimed


def _count(value: Any, what: str) -> int:
    count = _integer(value)
    if not 0 <= count <= _MOST_CLIENTS:
        raise ValueError(f"it holds {count} {what}, not up to a million")
    return count


def _chosen_rows(layout: ConfigRecord, num_clients: int) -> tuple[np.ndarray, int]:
    """Numbers of the rows that each client is sent, int64 [clients, r], and the number of rows."""
    rows, stored = integers(layout[_CHOICE]), _count(layout[_STORED], "rows")
    each, rest = divmod(len(rows), num_clients) if num_clients else (0, len(rows))
    if rest:
        raise ValueError(f"it names {len(rows)} rows, which are not as many for each of {num_clients} clients")
    require_rows(rows, stored)
    return np.array(rows, dtype=np.int64).reshape(num_clients, each), stored


def _claims(
    arrays: ArrayRecord,
    layout: ConfigRecord,
    num_rows: int,
    expected: Mapping[str, ArraySpec] | None,
    largest: int | None = None,
) -> list[Claim]:
    """Claims of a message on its arrays [num_rows, ...], after all checks that take no memory."""
    names = [key.removesuffix(".shape") for key in layout if key.endswith(".shape")]
    claims = [Claim.of(name, num_rows, arrays, layout) for name in names]
    if expected is not None:
        _check_expected(claims, expected)
        if unused := set(arrays) - {part for claim in claims for part in claim.parts}:
            raise ValueError(f"it holds {min(unused)}, which its layout does not speak of")
    total = sum(claim.nbytes for claim in claims)
    if largest is not None and total > largest:
        raise ValueError(f"its arrays would take {total} bytes, and may take {largest}")
    return claims


def _check_expected(claims: Sequence[Claim], expected: Mapping[str, ArraySpec]) -> None:
    claimed = {claim.name: claim for claim in claims}
    found = {claim.name: ArraySpec(claim.shape[1:], str(claim.dtype)) for claim in claims}
    if unknown := found.keys() - expected.keys():
        allowed = ", ".join(expected) or "nothing"
        raise ValueError(f"it holds {', '.join(sorted(unknown))}, where only {allowed} belongs")
    if missing := {name for name, spec in expected.items() if spec.needed} - found.keys():
        raise ValueError(f"it lacks {', '.join(sorted(missing))}")
    for name, spec in found.items():
        if not expected[name].allows(claimed[name].shape[1:], spec.dtype):
            raise ValueError(f"its {name} is {spec} for a client, where {expected[name]} belongs")


def _integer(value: Any) -> int:
    if type(value) is not int:
        raise ValueError(f"{value!r} is not an integer")
    return value
