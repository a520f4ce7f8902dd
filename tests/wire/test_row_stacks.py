"""Stacks of which some rows are held: they are read, packed and joined like the arrays that they stand for."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import RecordDict

from subfl_flower.models.row_stack import RowStack, as_array, completed, concatenated
from subfl_flower.wire.payload import ArraySpec, pack, unpack, unpack_choice

HEIGHT, WIDTH = 37, 11


def whole(clients: int = 4, pruned: float = 0.0, seed: int = 0) -> np.ndarray:
    """A stack of which each client has some rows: the first all, the last none."""
    rng = np.random.default_rng(seed)
    stack = rng.standard_normal((clients, HEIGHT, WIDTH)).astype(np.float32)
    stack[rng.random(stack.shape) < pruned] = 0
    stack[rng.random((clients, HEIGHT)) < 0.6] = 0
    stack[0] = rng.standard_normal((HEIGHT, WIDTH)) + 9
    stack[-1] = 0
    return stack


def test_it_reads_as_the_whole_stack() -> None:
    array = whole()
    stack = RowStack.of(array)
    assert len(stack.values) == np.count_nonzero(array.any(2)) and len(stack) == 4
    assert (stack.shape, stack.ndim, stack.dtype) == (array.shape, 3, np.float32)
    np.testing.assert_array_equal(stack, array)
    np.testing.assert_array_equal(stack[1], array[1])
    np.testing.assert_array_equal(stack[1, 3:5], array[1, 3:5])
    np.testing.assert_array_equal(stack + 1, array + 1)
    np.testing.assert_array_equal(stack != 0, array != 0)


@pytest.mark.parametrize(
    "chosen", [[2, 0], [], [0, 1, 2, 3], slice(1, 3), np.array([3, 1]), np.array([True, False, True, False])], ids=str
)
def test_clients_are_taken_as_from_an_array(chosen: object) -> None:
    array = whole()
    taken = RowStack.of(array)[chosen]
    assert isinstance(taken, RowStack)
    np.testing.assert_array_equal(taken, array[chosen])  # type: ignore[call-overload]


def test_stacks_are_joined_and_arrays_with_them() -> None:
    one, other = whole(), whole(3, seed=1)
    joined = concatenated([RowStack.of(one), RowStack.of(other)])
    assert isinstance(joined, RowStack)
    np.testing.assert_array_equal(joined, np.concatenate([one, other]))
    np.testing.assert_array_equal(concatenated([RowStack.of(one), other]), np.concatenate([one, other]))


@pytest.mark.parametrize("pruned", [0.0, 0.4])
@pytest.mark.parametrize("height", [HEIGHT, 5], ids=["packed", "too small to be packed"])
def test_it_is_packed_to_the_bytes_of_the_whole_stack(pruned: float, height: int) -> None:
    array = np.ascontiguousarray(whole(pruned=pruned)[:, :height])
    stack = RowStack.of(array)
    zero_rows = RowStack(  # a row that is held may be zero, too
        np.vstack([stack.values, np.zeros((1, WIDTH), np.float32)]),
        np.append(stack.index, 2),
        stack.counts + np.array([0, 0, 0, 1]),
        height,
    )
    expected = pack({"w": array})
    for held in (stack, zero_rows):
        packed = pack({"w": as_array(held)})
        assert packed.bytes_per_client.tolist() == expected.bytes_per_client.tolist()
        assert dict(packed.layout) == dict(expected.layout)
        assert {name: value.data for name, value in packed.arrays.items()} == {
            name: value.data for name, value in expected.arrays.items()
        }


@pytest.mark.parametrize("pruned", [0.0, 0.4])
@pytest.mark.parametrize("clients", [slice(0, 4), slice(1, 3)], ids=["one plain", "all packed"])
def test_a_message_is_read_as_rows_where_the_reader_asks_for_them(pruned: float, clients: slice) -> None:
    array = whole(pruned=pruned)[clients]
    content = RecordDict()
    packed = pack({"w": array})
    packed.into(content)
    spec = {"w": ArraySpec((HEIGHT, WIDTH), "float32", by_row=True)}
    stack, sizes = unpack(content, spec)
    assert isinstance(stack["w"], RowStack) and sizes.tolist() == packed.bytes_per_client.tolist()
    np.testing.assert_array_equal(stack["w"], array)
    chosen = unpack_choice(content, spec)
    np.testing.assert_array_equal(chosen.of([1]).stack()["w"], array[1:2])
    plain, _ = unpack(content, {"w": ArraySpec((HEIGHT, WIDTH), "float32")})
    assert type(plain["w"]) is np.ndarray
    np.testing.assert_array_equal(plain["w"], array)


def test_rows_that_are_not_sent_are_as_received() -> None:
    array, received = whole(), np.full((4, HEIGHT, WIDTH), 5, dtype=np.float32)
    expected = np.where(array.any(2, keepdims=True), array, 5)
    np.testing.assert_array_equal(completed(as_array(RowStack.of(array)), received), expected)
    np.testing.assert_array_equal(completed(array, received), expected)
    np.testing.assert_array_equal(RowStack.of(array).over(received), expected)
    assert (received == 5).all()
