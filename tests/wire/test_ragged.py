"""Rows of each client's own number: how they travel, and what no node can make the server take for them."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from subfl_flower.tasks.metric import COUNT, Metric
from subfl_flower.wire.contract import Contract
from subfl_flower.wire.payload import ArraySpec, pack
from subfl_flower.wire.ragged import LENGTHS, RAGGED, Ragged, RaggedSpec, pack_ragged, unpack_ragged
from subfl_flower.wire.replies import METRICS, OUTCOME, Reply, combine, read_reply

MANY = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
WIDTH, ITEMS = 3, 9
SPECS = {
    "ids": RaggedSpec((), "int32", ITEMS, below=ITEMS),
    "rows": RaggedSpec((WIDTH,), "float32", ITEMS, like="ids"),
}


def ragged(*clients: list[Any], dtype: str = "float32") -> Ragged:
    """Of clients with these rows."""
    lengths = np.array([len(rows) for rows in clients], dtype=np.int64)
    return Ragged(np.array([row for rows in clients for row in rows], dtype=dtype), lengths)


def as_lists(rows: Ragged) -> list[list[Any]]:
    return [rows.of(client).tolist() for client in range(len(rows.lengths))]


THREE = ragged([[1, 2], [3, 4]], [], [[5, 6]])


def test_rows_lie_one_client_after_the_other() -> None:
    assert THREE.offsets.tolist() == [0, 2, 2, 3]
    assert THREE.owners.tolist() == [0, 0, 2]
    assert as_lists(THREE) == [[[1, 2], [3, 4]], [], [[5, 6]]]
    assert THREE.bytes_per_client.tolist() == [2 * 2 * 4, 0, 2 * 4]
    assert ragged([7, 8, 9], [1], dtype="int32").bytes_per_client.tolist() == [12, 4]


@pytest.mark.parametrize("chosen", [[0, 1, 2], [2, 0], [1], [2, 1, 2], []], ids=str)
def test_rows_of_some_clients_in_their_order(chosen: list[int]) -> None:
    taken = THREE.take(chosen)
    assert as_lists(taken) == [as_lists(THREE)[client] for client in chosen]
    assert taken.values.shape == (sum(len(rows) for rows in as_lists(taken)), 2)
    assert taken.values.dtype == np.float32 and taken.lengths.dtype == np.int64


def test_clients_of_several_one_after_the_other() -> None:
    other = ragged([[7, 8]], [])
    assert as_lists(Ragged.joined([THREE, other, THREE])) == as_lists(THREE) + as_lists(other) + as_lists(THREE)
    assert Ragged.joined([THREE]) is THREE


# On the wire ----------------------------------------------------------------------------------------------------------

DTYPES = st.sampled_from(["float32", "int32", "uint8", "float64", "int64"])


@st.composite
def any_rows(draw: st.DrawFn, num_clients: int) -> Ragged:
    lengths = np.array(draw(st.lists(st.integers(0, 4), min_size=num_clients, max_size=num_clients)), dtype=np.int64)
    shape = (int(lengths.sum()), *draw(st.lists(st.integers(0, 3), max_size=2)))
    values = np.random.default_rng(draw(st.integers(0, 99))).integers(0, 250, shape).astype(draw(DTYPES))
    return Ragged(values, lengths)


@st.composite
def messages(draw: st.DrawFn) -> tuple[int, dict[str, Ragged]]:
    num_clients = draw(st.integers(0, 5))
    names = draw(st.sets(st.sampled_from(["a", "b/c", "d.e"])))
    return num_clients, {name: draw(any_rows(num_clients)) for name in sorted(names)}


@MANY
@given(messages(), st.data())
def test_what_was_packed_is_unpacked_after_a_journey(sent: tuple[int, dict[str, Ragged]], data: st.DataObject) -> None:
    num_clients, rows = sent
    content = RecordDict()
    pack_ragged(rows, content)
    arrived = recorddict_from_proto(recorddict_to_proto(content))
    specs = {
        name: RaggedSpec(own.values.shape[1:], str(own.values.dtype), int(own.lengths.max(initial=0)))
        for name, own in rows.items()
    }
    for expected in (None, specs):
        found = unpack_ragged(arrived, expected, num_clients)
        assert found.keys() == rows.keys()
        for name, own in rows.items():
            np.testing.assert_array_equal(found[name].values, own.values, strict=True)
            np.testing.assert_array_equal(found[name].lengths, own.lengths, strict=True)
            assert found[name].bytes_per_client.sum() == own.values.nbytes
            chosen = data.draw(st.lists(st.integers(0, num_clients - 1), max_size=4)) if num_clients else []
            assert as_lists(found[name].take(chosen)) == [as_lists(own)[client] for client in chosen]


def test_what_nobody_has_takes_no_record() -> None:
    content = RecordDict()
    pack_ragged({}, content)
    assert not content and unpack_ragged(content, {}, 3) == {}


def test_payload_bytes_are_those_of_the_arrays_without_numpys_header() -> None:
    content = RecordDict()
    pack_ragged({"rows": THREE}, content)
    data = content.array_records[RAGGED]["rows"].data
    header = 10 + int.from_bytes(data[8:10], "little")
    assert len(data) - header == THREE.bytes_per_client.sum() == 24


# What is refused ------------------------------------------------------------------------------------------------------


def upload(ids: list[list[int]] | None = None, rows: np.ndarray | None = None) -> RecordDict:
    """Uploads of three clients: numbers of rows, and the rows."""
    own = ragged(*([[0, 4], [8], []] if ids is None else ids), dtype="int32")
    given_rows = np.arange(len(own.values) * WIDTH, dtype=np.float32).reshape(-1, WIDTH) if rows is None else rows
    content = RecordDict()
    pack_ragged({"ids": own, "rows": Ragged(given_rows, own.lengths)}, content)
    return content


def with_lengths(lengths: Any, name: str = "rows") -> RecordDict:
    content = upload()
    content.config_records[LENGTHS][name] = lengths
    return content


def with_array(values: np.ndarray, name: str = "rows") -> RecordDict:
    content = upload()
    content.array_records[RAGGED][name] = Array(values)
    return content


def without(kind: str, name: str | None = None) -> RecordDict:
    content = upload()
    if name is None:
        del content[kind]
    else:
        del content[kind][name]
    return content


def with_another() -> RecordDict:
    content = upload()
    pack_ragged({"ids": THREE, "rows": THREE, "more": THREE}, content)
    return content


REFUSED: dict[str, tuple[Callable[[], RecordDict], str]] = {
    "nothing": (RecordDict, "it holds the rows none, where ids, rows belong"),
    "no lengths": (lambda: without(LENGTHS), "the lengths of ids, rows and its rows do not fit"),
    "no rows": (lambda: without(RAGGED), "the lengths of ids, rows and its rows do not fit"),
    "no lengths of one": (lambda: without(LENGTHS, "ids"), "the lengths of ids and its rows do not fit"),
    "no array": (lambda: without(RAGGED, "rows"), "the lengths of rows and its rows do not fit"),
    "another array": (with_another, "it holds the rows ids, more, rows, where ids, rows belong"),
    "one length": (lambda: with_lengths(3), "rows: its lengths are no integers"),
    "real lengths": (lambda: with_lengths([2.0, 1.0, 0.0]), "rows: its lengths are no integers"),
    "truths": (lambda: with_lengths([True, True, True]), "rows: its lengths are no integers"),
    "two clients": (lambda: with_lengths([2, 1]), "rows: its lengths are not those of 3 clients"),
    "four clients": (lambda: with_lengths([2, 1, 0, 0]), "rows: its lengths are not those of 3 clients"),
    "negative": (lambda: with_lengths([4, -1, 0]), "rows: its lengths are not those of 3 clients"),
    "too few rows": (lambda: with_lengths([2, 1, 1]), "rows: an array [3, 3] does not hold 4 rows"),
    "far too few": (lambda: with_lengths([2**62, 2**62, 2**62]), f"rows: an array [3, 3] does not hold {3 * 2**62} r"),
    "a number": (lambda: with_array(np.array(3.0)), "rows: an array [] does not hold 3 rows"),
    "wider": (lambda: with_array(np.zeros((3, 4), np.float32)), "rows: its rows are float32 [4], not float32 [3]"),
    "doubles": (lambda: with_array(np.zeros((3, 3))), "rows: its rows are float64 [3], not float32 [3]"),
    "wide ids": (lambda: with_array(np.zeros(3, np.int64), "ids"), "ids: its rows are int64 [], not int32 []"),
    "too many": (lambda: upload([[0] * 10, [], []]), "ids: a client has 10 rows, and may have 9"),
    "an id too high": (lambda: upload([[0, 9], [], []]), "ids: entries must be from 0 to 8"),
    "a negative id": (lambda: upload([[0], [-1], []]), "ids: entries must be from 0 to 8"),
    "other lengths": (lambda: with_lengths([1, 2, 0]), "it has not as many rows of rows as of ids"),
}


@pytest.mark.parametrize("wrong", REFUSED)
def test_rows_that_are_not_as_expected_are_refused_in_words(wrong: str) -> None:
    make, sentence = REFUSED[wrong]
    with pytest.raises(ValueError, match=r"rows|ids") as error:
        unpack_ragged(make(), SPECS, 3)
    assert str(error.value).startswith(sentence) and "\n" not in str(error.value)


def test_rows_that_are_not_needed_may_be_left_out_for_all_clients_and_are_checked_where_they_are_there() -> None:
    """Those without which others make no sense stay needed."""
    specs = {**SPECS, "rows": replace(SPECS["rows"], needed=False)}
    assert list(unpack_ragged(upload(), specs, 3)) == list(SPECS)
    content = upload()
    for kind in (RAGGED, LENGTHS):
        del content[kind]["rows"]
    found = unpack_ragged(content, specs, 3)
    assert list(found) == ["ids"] and as_lists(found["ids"]) == [[0, 4], [8], []]
    for kind in (RAGGED, LENGTHS):
        del content[kind]
    with pytest.raises(ValueError, match=r"^it holds the rows none, where ids, rows belong$"):
        unpack_ragged(content, specs, 3)
    assert unpack_ragged(content, {name: replace(spec, needed=False) for name, spec in SPECS.items()}, 3) == {}
    with pytest.raises(ValueError, match=r"^it has not as many rows of rows as of ids$"):
        unpack_ragged(with_lengths([1, 2, 0]), specs, 3)
    alone = upload()
    for kind in (RAGGED, LENGTHS):
        del alone[kind]["ids"]
    with pytest.raises(ValueError, match=r"^it has not as many rows of rows as of ids$"):
        unpack_ragged(alone, {name: replace(spec, needed=False) for name, spec in SPECS.items()}, 3)


def test_rows_that_a_node_left_out_are_none_for_its_clients() -> None:
    """Whichever of the nodes it was: the first one does not decide for the others."""
    specs = {**SPECS, "rows": replace(SPECS["rows"], needed=False)}
    contract = Contract(uploads={**EXPECTED, **specs}, metrics=MEASURED)
    lacking = upload([[1], [], []])
    lacking.config_records[LENGTHS]["ids"] = [1]
    for kind in (RAGGED, LENGTHS):
        del lacking[kind]["rows"]
    pack({"bias": np.array([[4]], np.float32)}).into(lacking)
    lacking[METRICS] = MetricRecord({"num_examples": [1]})
    lacking[OUTCOME] = ConfigRecord({"clients": [4], "failures": "{}", "round": 4, "seconds": 1.0})
    one, two = read_reply(lacking, [4], contract, 4), read_reply(reply(), ASKED, contract, 4)
    for order in ([one, two], [two, one]):
        together = combine(order, contract)
        assert together.clients == [3, 4, 5, 7]
        assert as_lists(together.ragged["ids"]) == [[8], [1], [], [0, 4]]
        assert as_lists(together.ragged["rows"]) == [[[6, 7, 8]], [], [], [[0, 1, 2], [3, 4, 5]]]
    assert list(combine([one], contract).ragged) == ["ids"]


def test_a_client_may_name_an_item_twice() -> None:
    found = unpack_ragged(upload([[4, 4], [8], []]), SPECS, 3)
    assert as_lists(found["ids"]) == [[4, 4], [8], []]


# In a reply -----------------------------------------------------------------------------------------------------------

ASKED = [7, 3, 5]
EXPECTED = {"bias": ArraySpec((1,), "float32")}
MEASURED = {"num_examples": Metric(COUNT.low, COUNT.high, needed=True)}
CONTRACT = Contract(uploads={**EXPECTED, **SPECS}, metrics=MEASURED)


def reply(ids: list[list[int]] | None = None, rows: np.ndarray | None = None) -> RecordDict:
    """Clients 7, 3 and 5 send a bias each, and rows."""
    content = upload(ids, rows)
    pack({"bias": np.array([[7], [3], [5]], np.float32)}).into(content)
    content[METRICS] = MetricRecord({"num_examples": [2, 1, 0]})
    content[OUTCOME] = ConfigRecord({"clients": ASKED, "failures": "{}", "round": 4, "seconds": 1.0})
    return content


def read(content: RecordDict) -> Reply:
    return read_reply(content, ASKED, CONTRACT, 4)


def test_a_sound_reply_has_rows_and_their_bytes() -> None:
    found = read(reply())
    assert found.clients == ASKED and as_lists(found.ragged["ids"]) == [[0, 4], [8], []]
    assert found.bytes_per_client.tolist() == [4 + 2 * (4 + 12), 4 + (4 + 12), 4]


def test_rows_follow_their_clients_when_replies_are_put_together() -> None:
    other = upload([[1], [], []])
    pack({"bias": np.array([[4]], np.float32)}).into(other)
    other.config_records[LENGTHS].update({"ids": [1], "rows": [1]})
    other[METRICS] = MetricRecord({"num_examples": [1]})
    other[OUTCOME] = ConfigRecord({"clients": [4], "failures": "{}", "round": 4, "seconds": 1.0})
    second = read_reply(other, [4], CONTRACT, 4)
    together = combine([read(reply()), second], CONTRACT)
    assert together.clients == [3, 4, 5, 7]
    assert as_lists(together.ragged["ids"]) == [[8], [1], [], [0, 4]]
    assert as_lists(together.ragged["rows"]) == [[[6, 7, 8]], [[0, 1, 2]], [], [[0, 1, 2], [3, 4, 5]]]


@pytest.mark.parametrize(
    ("value", "problem"), [(math.nan, "not finite"), (-math.inf, "not finite"), (1e13, "larger than 1e+12")]
)
@pytest.mark.parametrize(("row", "client", "left"), [(0, 7, [3, 5]), (1, 7, [3, 5]), (2, 3, [7, 5])])
def test_a_row_that_no_training_gives_fails_its_client_alone(
    value: float, problem: str, row: int, client: int, left: list[int]
) -> None:
    rows = np.ones((3, WIDTH), np.float32)
    rows[row, 1] = value
    found = read(reply(rows=rows))
    assert found.failures == {client: f"its update of rows is {problem}"} and found.clients == left
    whole = dict(zip(ASKED, [[0, 4], [8], []], strict=True))
    assert as_lists(found.ragged["ids"]) == [whole[other] for other in left]
    assert found.stack["bias"][:, 0].tolist() == left and np.isfinite(found.ragged["rows"].values).all()
    assert len(found.bytes_per_client) == len(found.metrics["num_examples"]) == 2


def test_a_reply_with_rows_that_nobody_expects_is_refused() -> None:
    with pytest.raises(ValueError, match="it holds the rows ids, rows, where none belong"):
        read_reply(reply(), ASKED, Contract(uploads=EXPECTED, metrics=MEASURED), 4)


# Anything at all ------------------------------------------------------------------------------------------------------

LENGTH_VALUES = st.one_of(
    st.lists(st.integers(-1, 4), max_size=4),
    st.lists(st.sampled_from([0, 1, 2, 2**31, 2**62, -(2**63), 2**64, 10**40]), max_size=4),
    st.lists(st.floats(), max_size=4),
    st.lists(st.booleans(), min_size=3, max_size=3),
    st.integers(-2, 5),
    st.text(max_size=4),
    st.binary(max_size=4),
)
NAMES = st.sampled_from(["ids", "rows", "more", ""])


@st.composite
def arrays(draw: st.DrawFn) -> Array:
    """An array of any kind and shape, whole, flipped or cut."""
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=3)))
    dtype = np.dtype(draw(st.sampled_from(["int32", "float32", "float64", "uint8", "bool", "complex64", ">i4", "S3"])))
    size = dtype.itemsize * math.prod(shape)
    raw = np.random.default_rng(draw(st.integers(0, 50))).bytes(size)
    data = bytearray(Array(np.frombuffer(raw, np.uint8).view(dtype).reshape(shape)).data)
    for _ in range(draw(st.integers(0, 3))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return Array(str(dtype), shape, "numpy.ndarray", bytes(data[: draw(st.sampled_from([len(data)] * 3 + [10, 0]))]))


@st.composite
def spoilt(draw: st.DrawFn) -> RecordDict:
    """A sound reply in which lengths, arrays or records were replaced, dropped or flipped."""
    content = copy.deepcopy(reply())
    for _ in range(draw(st.integers(1, 3))):
        action = draw(
            st.sampled_from(["lengths", "lengths", "array", "array", "flip", "flip", "drop", "record", "like"])
        )
        if action == "drop":
            content.pop(draw(st.sampled_from([RAGGED, LENGTHS])), None)
        elif action == "record":
            content[RAGGED] = ArrayRecord(draw(st.dictionaries(NAMES, arrays(), max_size=3)))
        elif action == "like":  # both alike, so that what is said is not refused for that alone
            lengths = draw(st.lists(st.integers(0, 3), min_size=3, max_size=3))
            content[LENGTHS] = ConfigRecord({"ids": lengths, "rows": list(lengths)})
        elif action == "lengths" and LENGTHS in content:
            content.config_records[LENGTHS][draw(NAMES)] = draw(LENGTH_VALUES)
        elif RAGGED in content:
            record = content.array_records[RAGGED]
            name = draw(NAMES)
            if action == "array":
                record[name] = draw(arrays())
            elif name in record and record[name].data:
                array = record[name]
                data = bytearray(array.data)
                for _ in range(draw(st.integers(1, 4))):
                    data[draw(st.integers(0, len(data) - 1))] ^= draw(st.integers(1, 255))
                record[name] = Array(array.dtype, array.shape, array.stype, bytes(data))
    return content


def check_rows(rows: dict[str, Ragged], num_clients: int) -> None:
    """Whatever was accepted can be indexed and summed without a further look."""
    assert rows.keys() == SPECS.keys()
    ids, values = rows["ids"], rows["rows"]
    assert ids.values.dtype == np.int32 and values.values.dtype == np.float32
    assert ids.values.ndim == 1 and values.values.shape == (len(ids.values), WIDTH)
    for own in rows.values():
        assert len(own.lengths) == num_clients and own.lengths.sum() == len(own.values)
        assert ((own.lengths >= 0) & (own.lengths <= ITEMS)).all()
    assert (ids.lengths == values.lengths).all()
    assert ((ids.values >= 0) & (ids.values < ITEMS)).all()


@MANY
@given(spoilt())
def test_rows_of_anything_at_all(content: RecordDict) -> None:
    try:
        rows = unpack_ragged(content, SPECS, 3)
    except ValueError as error:
        assert "\n" not in str(error)
        return
    check_rows(rows, 3)


@MANY
@given(spoilt())
def test_replies_with_rows_of_anything_at_all(content: RecordDict) -> None:
    try:
        found = read(content)
    except ValueError:
        return
    assert sorted([*found.clients, *found.failures]) == sorted(ASKED)
    everyone = combine([found], CONTRACT)
    if everyone.clients:
        check_rows(everyone.ragged, len(everyone.clients))
        assert (np.abs(everyone.ragged["rows"].values) <= 1e12).all()
        held = everyone.ragged["ids"].bytes_per_client + everyone.ragged["rows"].bytes_per_client
        np.testing.assert_array_equal(everyone.bytes_per_client, 4 + held)
    assert json.dumps({str(client): reason for client, reason in found.failures.items()})


def test_the_reply_that_the_others_are_made_of_is_accepted() -> None:
    assert read(reply()).clients == ASKED
