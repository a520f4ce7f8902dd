"""Arrays as bytes: plain numbers in NumPy's format, which anybody may have sent."""

from __future__ import annotations

import math
import re
from io import BytesIO

import numpy as np
from flwr.app import Array

# The header of `to_array`: NumPy's format of numbers in row-major order. Its other forms can hold Python objects.
_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00(..)\{'descr': '([<|][biuf][1248])', 'fortran_order': False, "
    rb"'shape': \(((?:\d{1,18}(?:, \d{1,18}){0,31},?)?)\), \} *\n",
    re.DOTALL,
)
_LONGEST_HEADER = 1024


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
