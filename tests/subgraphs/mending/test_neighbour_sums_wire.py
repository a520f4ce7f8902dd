"""Rows in the shorter of two forms, there and back; what is no form is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from subfl_flower.subgraphs.mending.packed_rows import dense, packed_rows, unpacked_rows

MATRICES = arrays(
    np.float32,
    st.tuples(st.integers(0, 6), st.integers(1, 7)),
    elements=st.sampled_from([0.0, 0.0, 0.0, 1.5, -2.25]),
)


@given(MATRICES, st.booleans())
def test_rows_come_back_as_they_were(matrix: np.ndarray, sparse: bool) -> None:
    packed = packed_rows(sp.csr_array(matrix) if sparse else matrix)
    np.testing.assert_array_equal(dense(unpacked_rows(packed, matrix.shape[1])), matrix)
    entries = np.count_nonzero(matrix)
    assert sum(part.nbytes for part in packed.values()) == min(4 * matrix.size, 6 * entries + 2 * len(matrix))


def test_the_shorter_form_is_taken() -> None:
    few, many = np.zeros((2, 10), np.float32), np.ones((2, 10), np.float32)
    few[1, 9] = 3
    packed = packed_rows(few)
    assert {name: values.tolist() for name, values in packed.items()} == {
        "values": [3],
        "columns": [9],
        "lengths": [0, 1],
    }
    assert list(packed_rows(many)) == ["rows"] == list(packed_rows(sp.csr_array(many)))


def test_zeros_and_entries_in_two_parts_do_not_travel() -> None:
    matrix = sp.csr_array(
        (np.array([0, 2, 1], np.float32), np.array([1, 30, 30]), np.array([0, 3])), shape=(1, 40)
    )  # a zero, and 2 + 1
    assert {name: values.tolist() for name, values in packed_rows(matrix).items()} == {
        "values": [3],
        "columns": [30],
        "lengths": [1],
    }


def test_columns_beyond_two_bytes_take_four() -> None:
    for width, kind in ((65535, np.uint16), (65536, np.uint32), (70000, np.uint32)):
        matrix = sp.csr_array(([1.0], ([0], [width - 1])), shape=(1, width), dtype=np.float32)
        packed = packed_rows(matrix)
        assert packed["columns"].dtype == packed["lengths"].dtype == kind
        assert unpacked_rows(packed, width)[0, width - 1] == 1


def sparse(**changes: Any) -> dict[str, np.ndarray]:
    stack = {
        "values": np.array([1, 2, 3], np.float32),
        "columns": np.array([0, 4, 4], np.uint16),
        "lengths": np.array([2, 0, 1], np.uint16),
    }
    return {name: values for name, values in {**stack, **changes}.items() if values is not None}


@pytest.mark.parametrize(
    ("stack", "sentence"),
    [
        ({}, "rows are made of nothing"),
        (sparse(lengths=None), "rows are made of columns, values"),
        (sparse(rows=np.zeros((1, 5))), "rows are made of columns, lengths, rows, values"),
        ({"rows": np.zeros((2, 5))}, r"rows are float64 \[2, 5\], where float32 \[any, 5\] belongs"),
        ({"rows": np.zeros((2, 4), np.float32)}, r"rows are float32 \[2, 4\]"),
        ({"rows": np.full((1, 5), np.inf, np.float32)}, "rows hold a number that is not finite"),
        (sparse(values=np.array([1, np.nan, 3], np.float32)), "rows hold a number that is not finite"),
        (sparse(values=np.ones(3)), r"values are float64 \[3\], not float32"),
        (sparse(columns=np.array([0, 4, 4])), r"columns are int64 \[3\], not uint16"),
        (sparse(lengths=np.ones((1, 3), np.uint16)), r"lengths are uint16 \[1, 3\], not uint16"),
        (sparse(lengths=np.array([2, 0, 2], np.uint16)), "3 values have 3 columns, and the lengths add up to 4"),
        (sparse(columns=np.array([0, 4], np.uint16)), "3 values have 2 columns, and the lengths add up to 3"),
        (sparse(columns=np.array([0, 5, 4], np.uint16)), "the columns of a row must ascend, from 0 to 4"),
        (sparse(columns=np.array([4, 0, 4], np.uint16)), "the columns of a row must ascend"),
        (sparse(columns=np.array([4, 4, 4], np.uint16)), "the columns of a row must ascend"),
    ],
)
def test_what_is_no_form_is_refused(stack: dict[str, np.ndarray], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        unpacked_rows(stack, 5)


def test_sound_rows_are_taken() -> None:
    expected = [[1, 0, 0, 0, 2], [0] * 5, [0, 0, 0, 0, 3]]
    assert dense(unpacked_rows(sparse(), 5)).tolist() == expected
