"""Bundles: the arrays of a message in one.

Flower sends each array by separate requests, from process to process, and a message of FED-PUB has dozens. In a
bundle they are one array: their bytes one after the other, in NumPy's format as before, optionally compressed. An entry
states the name and the number of bytes of each.

Compression sorts the bytes of each array's numbers by their place in the number first, because the exponents of weights
resemble each other and the rest does not; then it is zlib at its fastest level. A message states how long it is when
decompressed. The reader compares that with the most that it expects, and takes no more memory than was stated.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from subfl_flower.wire.array_bytes import read_array
from subfl_flower.wire.array_format import integers

BUNDLE = "bundle"

_RECORDS, _NAMES, _LENGTHS, _COMPRESSION = "records", "names", "lengths", "compression"
_LEVEL = 1
_MOST_PARTS = 1 << 16


def bundle(content: RecordDict, compression: str) -> float:
    """Put all arrays of a message's content into one.

    Returns:
        The bytes that travel, as a share of those of the arrays.
    """
    records = dict(content.array_records)
    parts = [(record, name, array.data) for record, arrays in records.items() for name, array in arrays.items()]
    plain = sum(len(data) for _, _, data in parts)
    if compression == "zlib":
        together = zlib.compress(b"".join(_sorted(data) for _, _, data in parts), _LEVEL)
    else:
        together = b"".join(data for _, _, data in parts)
    for record in records:
        del content[record]
    content[BUNDLE] = ArrayRecord({BUNDLE: Array("uint8", (len(together),), "bytes", together)})
    content[f"{BUNDLE}.{_RECORDS}"] = ConfigRecord(
        {
            "all": list(records),
            _RECORDS: [record for record, _, _ in parts],
            _NAMES: [name for _, name, _ in parts],
            _LENGTHS: [len(data) for _, _, data in parts],
            _COMPRESSION: compression,
        }
    )
    return len(together) / plain if plain else 1.0


def unbundle(content: RecordDict, largest: int | None) -> float:
    """Restore the arrays of a content that `bundle` has put into one; leave any other content as it is.

    Args:
        content: the message's content.
        largest: bytes that the arrays may have together; None: any number.

    Returns:
        The bytes that travelled, as a share of those of the arrays.

    Raises:
        ValueError: the bundle contradicts itself, or is larger.
    """
    if BUNDLE not in content.array_records:
        return 1.0
    try:
        arrays, about = content.array_records[BUNDLE], content.config_records[f"{BUNDLE}.{_RECORDS}"]
        together = arrays[BUNDLE].data
        everything, records, names = _texts(about["all"]), _texts(about[_RECORDS]), _texts(about[_NAMES])
        lengths, compression = integers(about[_LENGTHS]), about[_COMPRESSION]
    except KeyError as error:
        raise ValueError(f"its bundle lacks {error}") from None
    if len(arrays) != 1 or set(content.array_records) != {BUNDLE}:
        raise ValueError("it holds arrays in addition to its bundle")
    if not len(records) == len(names) == len(lengths) <= _MOST_PARTS or min(lengths, default=0) < 0:
        raise ValueError("its bundle does not say what it consists of")
    if not set(records) <= set(everything) or BUNDLE in everything:
        raise ValueError("its bundle speaks of records that it does not list")
    plain = sum(lengths)
    if largest is not None and plain > largest:
        raise ValueError(f"its arrays would take {plain} bytes, and may take {largest}")
    if compression not in ("none", "zlib"):
        raise ValueError(f"its bundle is compressed by {compression!r}, which is not known here")
    compressed = compression == "zlib"
    parts = list(_cut(_decompressed(together, plain) if compressed else together, lengths))
    del content[BUNDLE], content[f"{BUNDLE}.{_RECORDS}"]
    for record in everything:
        content[record] = ArrayRecord(
            {
                name: Array("", (), "numpy.ndarray", _unsorted(part) if compressed else part)
                for owner, name, part in zip(records, names, parts, strict=True)
                if owner == record
            }
        )
    return len(together) / plain if plain else 1.0


def scaled(sizes: np.ndarray, share: float) -> np.ndarray:
    """Payload bytes of each client, int64 [clients], of a message of which a share travels."""
    return sizes if share == 1.0 else np.rint(sizes * share).astype(np.int64)


def _decompressed(data: bytes, length: int) -> bytes:
    """Exactly `length` bytes, and no memory for more."""
    stream = zlib.decompressobj()
    try:
        plain = stream.decompress(data, length + 1)
    except zlib.error as error:
        raise ValueError(f"its bundle cannot be decompressed ({error})") from None
    if len(plain) != length or not stream.eof or stream.unused_data:
        raise ValueError(f"its bundle does not hold the {length} bytes that it states")
    return plain


def _cut(data: bytes, lengths: Any) -> Iterator[bytes]:
    if len(data) != sum(lengths):
        raise ValueError(f"its bundle has {len(data)} bytes, and not the {sum(lengths)} that it states")
    start = 0
    for length in lengths:
        yield data[start : start + length]
        start += length


def _sorted(data: bytes) -> bytes:
    """An array in NumPy's format with the first bytes of all numbers, then the second ones, and so on."""
    values = _values(data)
    header = data[: len(data) - values.nbytes]
    return header + np.ascontiguousarray(_bytes_of(values).T).tobytes()


def _unsorted(data: bytes) -> bytes:
    values = _values(data)
    header = data[: len(data) - values.nbytes]
    planes = values.reshape(-1).view(np.uint8).reshape(values.itemsize, -1)
    return header + np.ascontiguousarray(planes.T).tobytes()


def _bytes_of(values: np.ndarray) -> np.ndarray:
    """The bytes of each number [numbers, bytes]."""
    return values.reshape(-1).view(np.uint8).reshape(-1, values.itemsize)


def _values(data: bytes) -> np.ndarray:
    """The values of an array in NumPy's format, in whatever order their bytes are."""
    return read_array(Array("", (), "numpy.ndarray", data))


def _texts(values: Any) -> list[str]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError("its bundle names no arrays")
    return values
