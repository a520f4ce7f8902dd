from __future__ import annotations

import dataclasses
import re
import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from subfl_flower.wire.array_bytes import read_array
from subfl_flower.wire.array_format import Stack
from subfl_flower.wire.payload import ARRAYS, LAYOUT, ArraySpec, pack, unpack

SHAPES = st.lists(st.integers(0, 40), max_size=3).map(tuple)
KINDS = st.sampled_from(["dense", "sparse", "empty rows", "zero", "mixed", "shared", "integers", "double", "nan"])


def made(kind: str, clients: int, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    if kind == "integers":
        return rng.integers(-2, 2, (clients, *shape))
    values = rng.standard_normal((clients, *shape)).astype(np.float64 if kind == "double" else np.float32)
    if kind == "sparse":
        values *= rng.random(values.shape) < 0.1
    elif kind == "empty rows":
        values *= (rng.random((clients, *shape[:1])) < 0.5).reshape(clients, *shape[:1], *([1] * (len(shape) - 1)))
    elif kind == "zero":
        values[:] = 0
    elif kind == "mixed":
        values[::2] *= rng.random(values[::2].shape) < 0.2
    elif kind == "shared":
        values = np.broadcast_to(values[0] * (rng.random(shape) < 0.5), values.shape)
    elif kind == "nan" and values.size:
        values.flat[0] = np.nan
        values.flat[values.size // 2 :] = 0
    return values


@st.composite
def stacks(draw: st.DrawFn) -> Stack:
    clients, rng = draw(st.integers(1, 6)), np.random.default_rng(draw(st.integers(0, 2**32)))
    return {
        f"array{i}.{draw(st.sampled_from(['weight', 'shape', 'sparse', 'bitmap', 'values', 'shared']))}": made(
            draw(KINDS), clients, draw(SHAPES), rng
        )
        for i in range(draw(st.integers(1, 3)))
    }


def content(stack: Stack) -> RecordDict:
    record = RecordDict()
    pack(stack).into(record)
    return record


@settings(max_examples=150, deadline=None)
@given(stacks())
def test_what_is_unpacked_is_what_was_packed(stack: Stack) -> None:
    found = unpack(content(stack))[0]
    assert list(found) == list(stack)
    for name, values in stack.items():
        assert found[name].dtype == values.dtype
        np.testing.assert_array_equal(found[name], values, strict=True)


@settings(max_examples=100, deadline=None)
@given(stacks(), st.randoms())
def test_bytes_of_a_client_do_not_depend_on_who_shares_its_message(stack: Stack, random: object) -> None:
    together = pack(stack).bytes_per_client
    clients = len(together)
    alone = [pack({name: values[[c]] for name, values in stack.items()}).bytes_per_client for c in range(clients)]
    assert together.tolist() == np.concatenate(alone).tolist()
    cut = clients // 2
    if cut:
        halves = [{n: v[s] for n, v in stack.items()} for s in (slice(cut), slice(cut, None))]
        assert np.concatenate([pack(half).bytes_per_client for half in halves]).tolist() == together.tolist()


@settings(max_examples=100, deadline=None)
@given(stacks())
def test_bytes_are_the_sizes_of_the_arrays_that_are_sent(stack: Stack) -> None:
    for c in range(len(next(iter(stack.values())))):
        packed = pack({name: values[[c]] for name, values in stack.items()})
        sizes = [read_array(array).nbytes for array in packed.arrays.values()]
        assert packed.bytes_per_client.tolist() == [sum(sizes)]
        assert sum(sizes) <= sum(values[[c]].nbytes for values in stack.values())


def test_sizes_by_hand() -> None:
    values = np.zeros((4, 320), dtype=np.float32)
    values[1, :10] = 1  # one bit for the line, 320 for its entries, and ten values
    values[2] = 1  # plain
    values[3, :310] = 1  # 1 + 40 + 1240 bytes are more than 1280: plain
    packed = pack({"w": values, "b": np.zeros((4, 3), dtype=np.float32)})
    assert packed.bytes_per_client.tolist() == [1 + 12, 1 + 40 + 40 + 12, 1280 + 12, 1280 + 12]


def test_lines_of_zeros_cost_one_bit_each() -> None:
    values = np.zeros((1, 80, 16), dtype=np.float32)
    values[0, ::4] = 1  # 20 of 80 lines: ten bytes of line bits, 40 of entry bits
    assert pack({"w": values}).bytes_per_client.tolist() == [10 + 20 * 16 // 8 + 20 * 16 * 4]


def test_one_row_for_all_is_stored_once_and_counted_for_each() -> None:
    row = np.arange(300, dtype=np.float32)
    packed = pack({"w": np.broadcast_to(row, (50, 300))})
    assert packed.bytes_per_client.tolist() == [1200] * 50
    assert sum(len(array.data) for array in packed.arrays.values()) < 2 * 1200
    record = RecordDict()
    packed.into(record)
    np.testing.assert_array_equal(unpack(record)[0]["w"], np.broadcast_to(row, (50, 300)))


def test_an_empty_stack_is_an_empty_message() -> None:
    packed = pack({})
    assert (len(packed.arrays), packed.bytes_per_client.tolist()) == (0, [])
    assert unpack(content({}))[0] == {}


def sparse_record() -> RecordDict:
    values = np.zeros((3, 400), dtype=np.float32)
    values[0, :5], values[1] = 1.0, 2.0
    return content({"w": values, "b": np.ones((3, 2), dtype=np.float32)})


def replace_array(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[RecordDict], None]:
    def apply(record: RecordDict) -> None:
        record.array_records[ARRAYS][name] = Array(change(read_array(record.array_records[ARRAYS][name])))

    return apply


def without_array(name: str) -> Callable[[RecordDict], None]:
    return lambda record: record.array_records[ARRAYS].__delitem__(name)


def layout(key: str, value: object) -> Callable[[RecordDict], None]:
    return lambda record: record.config_records[LAYOUT].__setitem__(key, value)  # type: ignore[arg-type]


def without_layout(key: str) -> Callable[[RecordDict], None]:
    return lambda record: record.config_records[LAYOUT].__delitem__(key)


def cut_bytes(record: RecordDict) -> None:
    array = record.array_records[ARRAYS]["b"]
    record.array_records[ARRAYS]["b"] = Array(array.dtype, array.shape, array.stype, array.data[:-4])


def no_header(record: RecordDict) -> None:
    array = record.array_records[ARRAYS]["b"]
    record.array_records[ARRAYS]["b"] = Array(array.dtype, array.shape, array.stype, b"\0" * 40)


def other_format(record: RecordDict) -> None:
    array = record.array_records[ARRAYS]["b"]
    record.array_records[ARRAYS]["b"] = Array(array.dtype, array.shape, "pickle", array.data)


MALFORMED: dict[str, Callable[[RecordDict], None]] = {
    "values too few": replace_array("b", lambda b: b[:2]),
    "values too many": replace_array("b", lambda b: np.concatenate([b, b])),
    "packed values too few": replace_array("w.values", lambda v: v[:-1]),
    "packed values too many": replace_array("w.values", lambda v: np.append(v, v[:1])),
    "bitmap too short": replace_array("w.bitmap", lambda b: b[:-1]),
    "bitmap too long": replace_array("w.bitmap", lambda b: np.append(b, b[:1])),
    "bitmap of two axes": replace_array("w.bitmap", lambda b: b[None]),
    "marks of lines too few": replace_array("w.lines", lambda b: b[:-1]),
    "no marks of lines": without_array("w.lines"),
    "bitmap of numbers": replace_array("w.bitmap", lambda b: b.astype(np.float32)),
    "another bitmap": replace_array("w.bitmap", lambda b: b | np.uint8(1)),
    "no array": without_array("b"),
    "no bitmap": without_array("w.bitmap"),
    "no packed values": without_array("w.values"),
    "no plain rows beside packed ones": without_array("w"),
    "marks for fewer rows": layout("w.sparse", [True, False]),
    "all rows marked packed": layout("w.sparse", [True, True, True]),
    "shape of other clients": layout("b.shape", [2, 2]),
    "negative shape": layout("b.shape", [3, -2]),
    "shape of text": layout("b.shape", ["3", "2"]),
    "shape without an axis": layout("b.shape", []),
    "larger shape": layout("b.shape", [3, 10**15]),
    "clients are text": layout("clients", "3"),
    "another number of clients": layout("clients", 4),
    "no number of clients": without_layout("clients"),
    "no word on sharing": without_layout("b.shared"),
    "shared and not": layout("b.shared", True),
    "bytes cut off": cut_bytes,
    "no header": no_header,
    "another format": other_format,
}


@pytest.mark.parametrize("damage", MALFORMED.values(), ids=MALFORMED)
def test_records_that_do_not_fit_each_other_are_refused(damage: Callable[[RecordDict], None]) -> None:
    record = sparse_record()
    assert unpack(record)[0]["w"].shape == (3, 400)
    damage(record)
    with pytest.raises(ValueError):
        unpack(record)


def test_records_without_the_two_parts_are_refused() -> None:
    for record in (RecordDict(), RecordDict({ARRAYS: ArrayRecord()}), RecordDict({LAYOUT: ConfigRecord()})):
        with pytest.raises(ValueError):
            unpack(record)


def test_packing_changes_nothing_and_keeps_the_given_arrays_apart() -> None:
    values = np.arange(8, dtype=np.float32).reshape(2, 4)
    record = content({"w": values})
    values[:] = -1
    np.testing.assert_array_equal(unpack(record)[0]["w"], [[0, 1, 2, 3], [4, 5, 6, 7]])
    assert dataclasses.is_dataclass(pack({}))


# What is expected ----------------------------------------------------------------------------------------------------


def specs(stack: Stack) -> dict[str, ArraySpec]:
    return {name: ArraySpec(values.shape[1:], str(values.dtype)) for name, values in stack.items()}


@settings(max_examples=150, deadline=None)
@given(stacks())
def test_bytes_are_counted_from_what_arrives_as_they_were_counted_when_packed(stack: Stack) -> None:
    clients = len(next(iter(stack.values())))
    found, counted = unpack(content(stack), specs(stack), num_clients=clients)
    assert counted.tolist() == pack(stack).bytes_per_client.tolist()
    for name, values in stack.items():
        np.testing.assert_array_equal(found[name], values, strict=True)


def test_nothing_is_counted_as_nothing() -> None:
    for clients in (0, 3):
        record = RecordDict()
        pack({}, clients).into(record)
        stack, counted = unpack(record, {}, num_clients=clients)
        assert (stack, counted.tolist()) == ({}, [0] * clients)


EXPECTED = {"w": ArraySpec((400,), "float32"), "b": ArraySpec((2,), "float32")}


def test_what_is_expected_is_unpacked_and_what_is_not_needed_may_be_missing() -> None:
    assert list(unpack(sparse_record(), EXPECTED, num_clients=3)[0]) == ["w", "b"]
    more = {**EXPECTED, "wanted": ArraySpec((7,), "uint8", needed=False)}
    assert list(unpack(sparse_record(), more)[0]) == ["w", "b"]


@pytest.mark.parametrize(
    ("expected", "reason"),
    [
        ({"w": EXPECTED["w"]}, "it holds b, where only w belongs"),
        ({}, "it holds b, w, where only nothing belongs"),
        ({**EXPECTED, "c": ArraySpec((), "float32")}, "it lacks c"),
        (
            {**EXPECTED, "w": ArraySpec((20, 20), "float32")},
            "its w is float32 [400] for a client, where float32 [20, 20] belongs",
        ),
        ({**EXPECTED, "b": ArraySpec((3,), "float32")}, "its b is float32 [2] for a client, where float32 [3] belongs"),
        ({**EXPECTED, "b": ArraySpec((2,), "float64")}, "its b is float32 [2] for a client, where float64 [2] belongs"),
    ],
)
def test_what_is_not_expected_is_refused(expected: dict[str, ArraySpec], reason: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(reason)}$"):
        unpack(sparse_record(), expected)


def test_another_number_of_clients_is_refused() -> None:
    with pytest.raises(ValueError, match="it holds 3 clients, not 2"):
        unpack(sparse_record(), EXPECTED, num_clients=2)


def test_arrays_that_the_layout_does_not_speak_of_are_refused() -> None:
    record = sparse_record()
    record.array_records[ARRAYS]["ballast"] = Array(np.zeros(10**5))
    with pytest.raises(ValueError, match="it holds ballast, which its layout does not speak of"):
        unpack(record, EXPECTED)


def bomb(*shape: int, clients: int = 1, shared: bool = False) -> RecordDict:
    """A message of some hundred bytes that claims an array of zeros of any size."""
    lines = 1 if len(shape) == 1 else shape[0]
    rows = 1 if shared else clients
    arrays = {
        "w.lines": Array(np.zeros((rows, (lines + 7) // 8), np.uint8)),
        "w.bitmap": Array(np.zeros(0, np.uint8)),
        "w.values": Array(np.zeros(0, np.float32)),
    }
    layout = {"clients": clients, "w.shape": [clients, *shape], "w.shared": shared, "w.sparse": [True] * rows}
    return RecordDict({ARRAYS: ArrayRecord(arrays), LAYOUT: ConfigRecord(layout)})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "record",
    [bomb(10**12), bomb(2**18, 10**9), bomb(400, clients=1000), bomb(10**18, shared=True)],
    ids=["wide", "many lines", "many clients", "shared"],
)
def test_a_small_message_that_claims_much_is_refused_before_memory_is_taken(record: RecordDict) -> None:
    size = sum(len(array.data) for array in record.array_records[ARRAYS].values())
    tracemalloc.start()
    try:
        for limits in ({"expected": {"w": EXPECTED["w"]}, "num_clients": 3}, {"largest": 10**6}):
            with pytest.raises(ValueError, match=r"belongs|clients, not 3|would take \d+ bytes, and may take 1000000"):
                unpack(record, **limits)  # type: ignore[arg-type]
        assert tracemalloc.get_traced_memory()[1] < 4 * size + 10**6
    finally:
        tracemalloc.stop()


def test_a_number_of_clients_that_no_federation_has_is_refused() -> None:
    record = RecordDict({ARRAYS: ArrayRecord(), LAYOUT: ConfigRecord({"clients": 10**15})})
    with pytest.raises(ValueError, match="it holds 1000000000000000 clients, not up to a million"):
        unpack(record)
