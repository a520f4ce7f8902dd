"""Rows of which each client is sent some, and many the same ones: what is stored, counted, read and refused."""

from __future__ import annotations

import copy
import math
import re
import tracemalloc
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from hypothesis import given, settings
from hypothesis import strategies as st

from subfl_flower.tasks.metric import COUNT, SHARE
from subfl_flower.wire.array_bytes import read_array
from subfl_flower.wire.array_format import Stack
from subfl_flower.wire.choice import Choice
from subfl_flower.wire.contract import Contract
from subfl_flower.wire.payload import ARRAYS, LAYOUT, ArraySpec, pack, unpack, unpack_choice
from subfl_flower.wire.replies import METRICS, OUTCOME, read_reply

SHAPES = st.lists(st.integers(0, 25), max_size=3).map(tuple)
KINDS = st.sampled_from(["dense", "sparse", "mixed", "one row", "integers"])


def made(kind: str, length: int, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    values = rng.standard_normal((length, *shape)).astype(np.float32)
    if kind == "integers":
        return rng.integers(0, 9, values.shape)
    if kind == "sparse":
        return values * (rng.random(values.shape) < 0.1)
    if kind == "mixed":
        values[::2] *= rng.random(values[::2].shape) < 0.2
    return np.broadcast_to(values[0], values.shape) if kind == "one row" else values


@st.composite
def choices(draw: st.DrawFn) -> Choice:
    num_rows, clients, each = draw(st.integers(1, 5)), draw(st.integers(1, 7)), draw(st.integers(0, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    values = {f"array{i}": made(draw(KINDS), num_rows, draw(SHAPES), rng) for i in range(draw(st.integers(1, 3)))}
    return Choice(values, rng.integers(0, num_rows, (clients, each)))


def content(packed: Choice | Stack, num_clients: int | None = None) -> RecordDict:
    record = RecordDict()
    pack(packed, num_clients).into(record)
    return record


def chosen(rows: Sequence[Sequence[int]]) -> np.ndarray:
    return np.array(rows, dtype=np.int64)


def sent(choice: Choice, name: str) -> np.ndarray:
    """Rows of an array [clients, r, ...] that each client is sent."""
    return choice.values[name][choice.rows]


def assert_same(found: Choice, wanted: Choice) -> None:
    np.testing.assert_array_equal(found.rows, wanted.rows, strict=True)
    assert list(found.values) == list(wanted.values)
    for name, values in wanted.values.items():
        np.testing.assert_array_equal(found.values[name], values, strict=True)


# What arrives ---------------------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(choices())
def test_what_is_unpacked_is_what_was_packed(choice: Choice) -> None:
    record = content(choice, choice.num_clients)
    assert_same(unpack_choice(record, num_clients=choice.num_clients), choice)
    assert_same(unpack_choice(recorddict_from_proto(recorddict_to_proto(record))), choice)


def test_sparse_rows_beside_plain_ones_arrive() -> None:
    values = np.zeros((3, 20, 20), dtype=np.float32)
    values[0, 3, :7], values[1] = 2, np.arange(400).reshape(20, 20) + 1
    choice = Choice({"w": values}, chosen([[2, 1], [0, 1], [1, 1]]))
    record = content(choice)
    assert record.config_records[LAYOUT]["w.sparse"] == [True, False, True]
    assert read_array(record.array_records[ARRAYS]["w.values"]).tolist() == [2] * 7
    assert_same(unpack_choice(record), choice)


def test_one_row_for_all_is_a_choice_of_one() -> None:
    choice = Choice({"w": np.arange(3.0)[None]}, np.zeros((4, 1), dtype=np.int64))
    found = unpack_choice(content(choice))
    assert (found.num_rows, found.num_clients) == (1, 4)
    assert sent(found, "w").tolist() == [[[0, 1, 2]]] * 4
    assert pack(choice).bytes_per_client.tolist() == [24] * 4


def test_clients_who_are_sent_nothing() -> None:
    choice = Choice({"w": np.ones((2, 3))}, np.zeros((4, 0), dtype=np.int64))
    assert pack(choice).bytes_per_client.tolist() == [0] * 4
    assert unpack_choice(content(choice)).rows.shape == (4, 0)
    assert unpack_choice(content(choice.of([]))).rows.shape == (0, 0)


# Stacks that are read as a choice -------------------------------------------------------------------------------------


def test_a_stack_that_is_one_row_for_all_is_a_choice_of_one_row() -> None:
    stack = {"w": np.broadcast_to(np.arange(5.0), (4, 5)), "b": np.broadcast_to(np.float32(2), (4,))}
    found = unpack_choice(content(stack), num_clients=4)
    assert found.rows.tolist() == [[0]] * 4
    assert {name: values.tolist() for name, values in found.values.items()} == {"w": [[0, 1, 2, 3, 4]], "b": [2]}


def test_a_stack_of_a_row_for_each_client_is_a_choice_of_as_many() -> None:
    stack = {"w": np.arange(12.0).reshape(4, 3), "b": np.broadcast_to(np.float32(2), (4,))}
    found = unpack_choice(content(stack))
    assert found.rows.tolist() == [[0], [1], [2], [3]] and found.rows.dtype == np.int64
    np.testing.assert_array_equal(found.values["w"], stack["w"])
    assert found.values["b"].tolist() == [2] * 4 and found.values["b"].strides == (0,)


def test_a_stack_of_one_client_or_of_nothing() -> None:
    found = unpack_choice(content({"w": np.ones((1, 3))}))
    assert (found.rows.tolist(), found.values["w"].tolist()) == ([[0]], [[1, 1, 1]])
    nothing = unpack_choice(content({}, 3))
    assert (nothing.values, nothing.num_rows, nothing.rows.shape) == ({}, 0, (3, 0))
    assert_same(unpack_choice(content(nothing)), nothing)


@settings(max_examples=50, deadline=None)
@given(choices())
def test_a_stack_and_the_choice_of_its_rows_say_and_cost_the_same(choice: Choice) -> None:
    stack = choice.values
    rows = np.arange(choice.num_rows)[:, None]
    assert pack(stack).bytes_per_client.tolist() == pack(Choice(stack, rows)).bytes_per_client.tolist()
    found = unpack_choice(content(stack))
    for name, values in stack.items():
        np.testing.assert_array_equal(sent(found, name)[:, 0], values)


# Bytes ----------------------------------------------------------------------------------------------------------------


def test_a_client_counts_its_different_rows() -> None:
    values = np.zeros((3, 320), dtype=np.float32)
    values[1, :10] = 1  # sparse: one bit for the line, 320 for its entries, and ten values
    values[2] = 1  # plain
    choice = Choice({"w": values, "b": np.arange(6.0).reshape(3, 2)}, chosen([[0, 1], [2, 2], [2, 0], [1, 1]]))
    zero, few, full = 1 + 16, 1 + 40 + 40 + 16, 1280 + 16
    assert pack(choice).bytes_per_client.tolist() == [zero + few, full, full + zero, few]
    first = Choice(choice.values, choice.rows[:, :1])
    assert pack(first).bytes_per_client.tolist() == [zero, full, full, few]


def test_rows_that_are_one_row_in_memory_are_stored_and_counted_once() -> None:
    row = np.arange(300, dtype=np.float32)
    choice = Choice({"w": np.broadcast_to(row, (6, 300)), "b": np.ones((6, 2), np.float32)}, chosen([[0, 5], [3, 3]]))
    packed = pack(choice)
    assert packed.bytes_per_client.tolist() == [1200 + 16, 1200 + 8]
    assert read_array(packed.arrays["w"]).shape == (1, 300)
    found = unpack_choice(content(choice))
    assert_same(found, choice)
    assert found.values["w"].strides[0] == 0 and found.of([0]).values["w"].strides[0] == 0


@settings(max_examples=100, deadline=None)
@given(choices())
def test_bytes_of_a_client_are_those_of_a_message_of_its_own(choice: Choice) -> None:
    together = pack(choice).bytes_per_client
    for client in range(choice.num_clients):
        own = choice.of([client])
        alone = pack(own)
        assert alone.bytes_per_client.tolist() == [together[client]]
        if own.num_rows:
            assert sum(read_array(array).nbytes for array in alone.arrays.values()) == together[client]


# Some of the clients --------------------------------------------------------------------------------------------------


def test_some_clients_need_some_rows() -> None:
    choice = Choice({"w": np.arange(10.0).reshape(5, 2)}, chosen([[0, 4], [0, 1], [0, 2], [0, 4]]))
    some = choice.of([3, 1, 3])
    assert some.rows.tolist() == [[0, 2], [0, 1], [0, 2]]
    assert some.values["w"].tolist() == [[0, 1], [2, 3], [8, 9]]
    assert choice.rows.tolist() == [[0, 4], [0, 1], [0, 2], [0, 4]]


@settings(max_examples=100, deadline=None)
@given(choices(), st.data())
def test_some_clients_are_sent_what_they_were_to_be_sent(choice: Choice, data: st.DataObject) -> None:
    clients = data.draw(st.lists(st.integers(0, choice.num_clients - 1), min_size=1, max_size=9))
    some = choice.of(clients)
    assert set(some.rows.ravel().tolist()) == set(range(some.num_rows))
    for name in choice.values:
        np.testing.assert_array_equal(sent(some, name), sent(choice, name)[clients], strict=True)


# Memory ---------------------------------------------------------------------------------------------------------------


def test_many_clients_take_no_more_memory_than_the_rows() -> None:
    """A row for each client would be 4 GB here."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal((6, 50_000)).astype(np.float32)
    rows = np.stack([np.zeros(20_000, dtype=np.int64), rng.integers(1, 6, 20_000)], axis=1)
    tracemalloc.start()
    try:
        packed = pack(Choice({"items": values}, rows))
        record = RecordDict()
        packed.into(record)
        found = unpack_choice(record)
        some = found.of(range(20_000))
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 10 * values.nbytes
    assert packed.bytes_per_client.tolist() == [400_000] * 20_000
    message = np.frombuffer(record.array_records[ARRAYS]["items"].data, np.uint8)
    assert len(message) < values.nbytes + 200
    assert np.shares_memory(found.values["items"], message) and np.shares_memory(some.values["items"], message)


def bomb(shape: list[int], clients: int, rows: list[int], stored: int) -> RecordDict:
    """A message of some hundred bytes that claims rows of zeros of any size."""
    arrays = {
        "w.lines": Array(np.zeros((stored, 1), np.uint8)),
        "w.bitmap": Array(np.zeros(0, np.uint8)),
        "w.values": Array(np.zeros(0, np.float32)),
    }
    layout: Any = {"w.shape": shape, "w.shared": False, "w.sparse": [True] * stored}
    layout |= {"clients": clients, "choice": rows, "stored": stored}
    return RecordDict({ARRAYS: ArrayRecord(arrays), LAYOUT: ConfigRecord(layout)})


def test_a_small_message_that_claims_much_is_refused_before_memory_is_taken() -> None:
    expected = {"w": ArraySpec((400,), "float32")}
    assert unpack_choice(bomb([6, 400], 3, [0, 1, 1], 6), expected, each=2).values["w"].shape == (6, 400)
    record, many = bomb([2, 10**12], 3, [0, 1, 1], 2), bomb([10**5, 400], 3, [0, 1, 1], 10**5)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"^its w is float32 \[10{12}\] for"):
            unpack_choice(record, expected)
        with pytest.raises(ValueError, match=r"^it holds 100000 rows for 3 clients, and may hold 2 for each$"):
            unpack_choice(many, expected, each=2)
        with pytest.raises(ValueError, match=r"^it holds 7 rows for 3 clients, and may hold 2 for each$"):
            unpack_choice(bomb([7, 400], 3, [0, 1, 1], 7), expected, each=2)
        with pytest.raises(ValueError, match=r"^a client is sent row 2 of 2$"):
            unpack_choice(bomb([2, 10**12], 3, [0, 1, 2], 2))
        assert tracemalloc.get_traced_memory()[1] < 10**6
    finally:
        tracemalloc.stop()


# What is refused ------------------------------------------------------------------------------------------------------


def sound() -> Choice:
    """Three rows, of which one is plain and two are sparse, for four clients."""
    values = np.zeros((3, 400), dtype=np.float32)
    values[0, :5], values[1] = 1, 2
    return Choice({"w": values, "b": np.ones((3, 2), dtype=np.float32)}, chosen([[0, 1], [0, 2], [0, 1], [0, 0]]))


def with_layout(key: str, value: Any) -> Callable[[RecordDict], None]:
    return lambda record: record.config_records[LAYOUT].__setitem__(key, value)


def without_layout(key: str) -> Callable[[RecordDict], None]:
    return lambda record: record.config_records[LAYOUT].__delitem__(key)


def with_array(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[RecordDict], None]:
    def apply(record: RecordDict) -> None:
        record.array_records[ARRAYS][name] = Array(change(read_array(record.array_records[ARRAYS][name])))

    return apply


def pickled(record: RecordDict) -> None:
    array = record.array_records[ARRAYS]["b"]
    record.array_records[ARRAYS]["b"] = Array(array.dtype, array.shape, "pickle", array.data)


def without_arrays(record: RecordDict) -> None:
    layout = {key: record.config_records[LAYOUT][key] for key in ("clients", "stored", "choice")}
    record[LAYOUT] = ConfigRecord(layout)


MALFORMED: dict[str, tuple[Callable[[RecordDict], None], str]] = {
    "a row too high": (with_layout("choice", [0, 1, 0, 3, 0, 1, 0, 0]), "a client is sent row 3 of 3"),
    "a negative row": (with_layout("choice", [0, 1, 0, -1, 0, 1, 0, 0]), "a client is sent row -1 of 3"),
    "a row beyond int64": (with_layout("choice", [0, 1, 0, 2**70, 0, 1, 0, 0]), f"a client is sent row {2**70} of 3"),
    "rows as floats": (with_layout("choice", [0.0] * 8), r"\[0\.0, .* is not a list of integers"),
    "rows as text": (with_layout("choice", ["0"] * 8), r"\['0', .* is not a list of integers"),
    "rows as marks": (with_layout("choice", [True] * 8), r"\[True, .* is not a list of integers"),
    "rows as a number": (with_layout("choice", 0), "0 is not a list of integers"),
    "rows of fewer clients": (with_layout("choice", [0] * 7), "it names 7 rows, which .* of 4 clients"),
    "rows of more clients": (with_layout("choice", [0] * 9), "it names 9 rows, which .* of 4 clients"),
    "rows of no clients": (with_layout("clients", 0), "it names 8 rows, which .* of 0 clients"),
    "negative clients": (with_layout("clients", -1), "it holds -1 clients, not up to a million"),
    "a billion clients": (with_layout("clients", 10**9), "it holds 1000000000 clients, not up to a million"),
    "clients as a mark": (with_layout("clients", True), "True is not an integer"),
    "no number of clients": (without_layout("clients"), "the records lack 'clients'"),
    "more rows than the arrays have": (with_layout("stored", 4), r"w: shape \(3, 400\) is not one of 4 rows"),
    "fewer rows than are sent": (with_layout("stored", 2), "a client is sent row 2 of 2"),
    "negative rows": (with_layout("stored", -3), "it holds -3 rows, not up to a million"),
    "a billion rows": (with_layout("stored", 10**9), "it holds 1000000000 rows, not up to a million"),
    "rows as no integer": (with_layout("stored", 3.0), "3.0 is not an integer"),
    "no number of rows": (without_layout("stored"), "the records lack 'stored'"),
    "no choice": (without_layout("choice"), r"w: shape \(3, 400\) is not one of 4 rows"),
    "rows of nothing": (without_arrays, "a client is sent row 2 of 0"),
    "another number of rows of one array": (with_layout("b.shape", [2, 2]), r"b: shape \(2, 2\) is not one of 3 rows"),
    "no word on sharing": (without_layout("b.shared"), "the records lack 'b.shared'"),
    "marks of fewer rows": (with_layout("w.sparse", [True, False]), "w: 2 marks for 3 rows"),
    "values too few": (with_array("b", lambda b: b[:2]), "b: 4 values where 6 belong"),
    "packed values too few": (with_array("w.values", lambda v: v[:-1]), "w: fewer values than its bitmap marks"),
    "packed values too many": (
        with_array("w.values", lambda v: np.append(v, v[:1])),
        "w: more values than its bitmap marks",
    ),
    "no NumPy format": (pickled, "arrays are sent as NumPy's format, not as 'pickle'"),
}


@pytest.mark.parametrize(("damage", "reason"), MALFORMED.values(), ids=MALFORMED)
def test_records_that_do_not_fit_each_other_are_refused(damage: Callable[[RecordDict], None], reason: str) -> None:
    record = content(sound())
    assert_same(unpack_choice(record), sound())
    damage(record)
    with pytest.raises(ValueError, match=f"^{reason}$"):
        unpack_choice(record)


def test_records_without_the_two_parts_are_refused() -> None:
    for record in (RecordDict(), RecordDict({ARRAYS: ArrayRecord()}), RecordDict({LAYOUT: ConfigRecord()})):
        with pytest.raises(ValueError, match=r"^the records lack '"):
            unpack_choice(record)


def test_what_is_not_expected_is_refused() -> None:
    expected = {"w": ArraySpec((400,), "float32"), "b": ArraySpec((2,), "float32")}
    assert_same(unpack_choice(content(sound()), expected, num_clients=4, each=1), sound())
    with pytest.raises(ValueError, match=r"^it holds b, where only w belongs$"):
        unpack_choice(content(sound()), {"w": expected["w"]})
    with pytest.raises(ValueError, match=r"^it holds 4 clients, not 3$"):
        unpack_choice(content(sound()), num_clients=3)


CHANGES = st.one_of(
    st.integers(-2, 5),
    st.sampled_from([2**63, 10**30, -(10**400)]),
    st.floats(),
    st.booleans(),
    st.text(max_size=3),
    st.lists(st.one_of(st.integers(-1, 4), st.just(10**20)), max_size=9),
    st.lists(st.booleans(), max_size=4),
)
LAYOUT_KEYS = ["clients", "stored", "choice", "w.shape", "w.shared", "w.sparse", "b.shape", "b.shared", "c.shape"]
SOUND = content(sound())


@settings(max_examples=400, deadline=None)
@given(st.dictionaries(st.sampled_from(LAYOUT_KEYS), CHANGES, min_size=1, max_size=3))
def test_whatever_a_layout_says_there_is_a_choice_or_a_value_error(changes: dict[str, Any]) -> None:
    record = copy.deepcopy(SOUND)
    record[LAYOUT] = ConfigRecord({**record.config_records[LAYOUT], **changes})
    try:
        found = unpack_choice(record)
    except ValueError:
        return
    assert found.num_clients == record.config_records[LAYOUT]["clients"]
    assert {len(values) for values in found.values.values()} == {found.num_rows}
    assert not found.rows.size or 0 <= found.rows.min() <= found.rows.max() < found.num_rows


# Who does not read it, and what is none -------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [[[0, 1], [0, 2]], [[0], [1], [2]], [[0]]], ids=["some", "a row each", "one"])
def test_a_choice_is_no_stack(rows: list[list[int]]) -> None:
    record = content(Choice(sound().values, chosen(rows)))
    reason = "^it holds rows for clients to choose from, where each client's own belong$"
    with pytest.raises(ValueError, match=reason):
        unpack(record)


def test_a_reply_holds_no_choice() -> None:
    def reply(update: Choice | Stack) -> RecordDict:
        record = content(update)
        record[METRICS] = MetricRecord({"num_examples": [3, 4], "test": [0.5, math.nan]})
        about: Any = {"clients": [0, 1], "failures": "{}", "round": 1, "seconds": 1.0, "startup": 0.0}
        record[OUTCOME] = ConfigRecord(about)
        return record

    stack = {"w": np.ones((2, 3), dtype=np.float32)}
    contract = Contract(uploads={"w": ArraySpec((3,), "float32")}, metrics={"num_examples": COUNT, "test": SHARE})
    assert read_reply(reply(stack), [0, 1], contract, 1).clients == [0, 1]
    for expected in (contract, contract.evaluation):
        with pytest.raises(ValueError, match="where each client's own belong"):
            read_reply(reply(Choice(stack, chosen([[0], [1]]))), [0, 1], expected, 1)


@pytest.mark.parametrize(
    ("values", "rows", "reason"),
    [
        ({"w": np.ones((3, 2))}, chosen([[0, 3]]), "a client is sent row 3 of 3"),
        ({"w": np.ones((3, 2))}, chosen([[-1]]), "a client is sent row -1 of 3"),
        ({}, chosen([[0]]), "a client is sent row 0 of 0"),
        ({"w": np.ones((3, 2))}, np.zeros(4, dtype=np.int64), "int64 [4] are no rows int64 [clients, r]"),
        ({"w": np.ones((3, 2))}, np.zeros((4, 1), np.float32), "float32 [4, 1] are no rows int64 [clients, r]"),
        (
            {"w": np.ones((3, 2)), "b": np.ones(2)},
            chosen([[0]]),
            "the arrays to choose rows from have [2, 3] rows, and should have as many",
        ),
    ],
    ids=["too high", "negative", "of nothing", "one axis", "no integers", "two lengths"],
)
def test_what_is_no_choice_is_not_made(values: Stack, rows: np.ndarray, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(reason)}$"):
        Choice(values, rows)


def test_a_choice_is_packed_for_its_own_clients() -> None:
    with pytest.raises(ValueError, match=r"^rows of 4 clients are packed for 3$"):
        pack(sound(), 3)


def test_one_row_for_all_clients() -> None:
    found = Choice.for_all({"w": np.arange(6.0).reshape(2, 3)}, 4)
    assert found.rows.tolist() == [[0]] * 4 and found.values["w"].tolist() == [[[0, 1, 2], [3, 4, 5]]]
    nothing = Choice.for_all({}, 4).of([1, 3])
    assert (nothing.num_clients, nothing.num_rows, nothing.values) == (2, 0, {})
