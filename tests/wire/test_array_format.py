"""Bytes of arrays: numbers in NumPy's format, and nothing else."""

from __future__ import annotations

import math
import struct
from io import BytesIO

import numpy as np
import pytest
from flwr.app import Array
from hypothesis import given, settings
from hypothesis import strategies as st

from subfl_flower.wire.array_bytes import read_array, to_array


def npy(header: str | bytes, values: bytes = b"", version: bytes = b"\x01\x00") -> Array:
    text = header if isinstance(header, bytes) else header.encode()
    return Array(
        "float32", (1,), "numpy.ndarray", b"\x93NUMPY" + version + struct.pack("<H", len(text)) + text + values
    )


@pytest.mark.parametrize("dtype", ["?", "i1", "u1", "i2", "u2", "f2", "i4", "u4", "f4", "i8", "u8", "f8"])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0, 4), (1, 1, 1, 1)], ids=str)
def test_numbers_of_every_kind_and_shape_are_read(dtype: str, shape: tuple[int, ...]) -> None:
    values = np.arange(math.prod(shape)).reshape(shape).astype(dtype)
    for array in (Array(values), to_array(values)):
        np.testing.assert_array_equal(read_array(array), values, strict=True)


@pytest.mark.parametrize(
    "array",
    [
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }\n", bytes(4)),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }\n", bytes(4)),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }\n", bytes(8)),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1.0,), }\n", bytes(4)),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (True,), }\n", bytes(4)),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': 1, }\n", bytes(4)),
        npy("{'descr': '<f4', 'fortran_order': True, 'shape': (1,), }\n", bytes(4)),
        npy("{'descr': '>f4', 'fortran_order': False, 'shape': (1,), }\n", bytes(4)),
        npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n", bytes(8)),
        npy("{'descr': '<U4', 'fortran_order': False, 'shape': (1,), }\n", bytes(16)),
        npy("{'descr': '|S4', 'fortran_order': False, 'shape': (1,), }\n", bytes(4)),
        npy("{'descr': '|V4', 'fortran_order': False, 'shape': (1,), }\n", bytes(4)),
        npy("{'descr': '<c8', 'fortran_order': False, 'shape': (1,), }\n", bytes(8)),
        npy("{'descr': '<M8[s]', 'fortran_order': False, 'shape': (1,), }\n", bytes(8)),
        npy("{'descr': '<f1', 'fortran_order': False, 'shape': (1,), }\n", bytes(1)),
        npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }\n", bytes(4)),
        npy("{'descr': ('<f4', (1000000000,)), 'fortran_order': False, 'shape': (), }\n", bytes(4)),
        npy(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({10**30}, 0), }}\n"),
        npy(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({10**17}, {10**17}, 0), }}\n"),
        npy(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({'1, ' * 70}), }}\n", bytes(4)),
        npy("{" * 900),
        npy("-" * 1000 + "1"),
        npy("(" * 1000),
        npy("[" * 60000),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1L,), }\n", bytes(4)),
        npy("  {\n 1"),
        npy(b"\xff\xfe\x00"),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }\n", bytes(4), version=b"\x03\x00"),
        npy(""),
        Array("float32", (1,), "numpy.ndarray", b""),
        Array("float32", (1,), "numpy.ndarray", b"\x93NUMPY"),
        Array("float32", (1,), "numpy.ndarray", b"\x93NUMPY\x01\x00\xff"),
    ],
    ids=lambda array: repr(array.data[10:70]),
)
def test_bytes_that_are_no_array_of_numbers_are_refused(array: Array) -> None:
    with pytest.raises(ValueError):
        read_array(array)


@settings(max_examples=400, deadline=None)
@given(
    st.builds(
        npy,
        st.one_of(
            st.binary(max_size=80),
            st.builds(
                "{{'descr': {}, 'fortran_order': {}, 'shape': {}, }}{}\n".format,
                st.sampled_from(["'<f4'", "'|O'", "'<i8'", "[('a','<f4')]", "'<f4,<i4'", "None", "'('", "'|b1'"]),
                st.sampled_from(["False", "True", "0", "{}"]),
                st.sampled_from(["(1,)", "()", "(-1,)", "(2, -2)", "(99999999999,)", "(0, 9)", "[1]", "(1,,)", "(1"]),
                st.text(" ", max_size=20),
            ),
        ),
        st.binary(max_size=16),
    )
)
def test_whatever_the_bytes_there_is_an_array_of_their_size_or_a_value_error(array: Array) -> None:
    try:
        values = read_array(array)
    except ValueError:
        return
    assert values.dtype.kind in "biuf" and array.data.endswith(values.tobytes())


def test_arrays_of_objects_are_not_unpickled() -> None:
    buffer = BytesIO()
    np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="objects"):
        read_array(Array("object", (1,), "numpy.ndarray", buffer.getvalue()))
