"""All arrays of a message as one, compressed or not, from somebody who may be hostile."""

from __future__ import annotations

import tracemalloc
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from subfl_flower.wire.array_bytes import to_array
from subfl_flower.wire.bundle import BUNDLE, bundle, scaled, unbundle

RNG = np.random.default_rng(3)
ABOUT = "bundle.records"


def content() -> RecordDict:
    weights = RNG.normal(scale=0.05, size=(200, 64)).astype(np.float32)
    arrays = {"w": weights, "w.bitmap": RNG.integers(0, 255, 90, dtype=np.uint8), "none": np.zeros((0, 5), np.float32)}
    return RecordDict(
        {
            "arrays": ArrayRecord({name: to_array(values) for name, values in arrays.items()}),
            "ragged": ArrayRecord({"rows": to_array(np.arange(12, dtype=np.int64).reshape(4, 3))}),
            "empty": ArrayRecord(),
            "layout": ConfigRecord({"clients": 1}),
        }
    )


def data(found: RecordDict) -> dict[tuple[str, str], bytes]:
    return {(record, name): a.data for record, arrays in found.array_records.items() for name, a in arrays.items()}


@pytest.mark.parametrize("compression", ["none", "zlib"])
def test_every_array_comes_out_as_it_went_in(compression: str) -> None:
    before, message = content(), content()
    for name in before.array_records:
        message[name] = before[name]
    plain = data(before)
    total = sum(map(len, plain.values()))
    share = bundle(message, compression)
    assert list(message.array_records) == [BUNDLE] and len(message.array_records[BUNDLE]) == 1
    travels = len(message.array_records[BUNDLE][BUNDLE].data)
    assert share == pytest.approx(travels / total)
    assert travels == total if compression == "none" else travels < 0.9 * total
    assert unbundle(message, total) == pytest.approx(share)
    assert data(message) == plain
    assert set(message.array_records) == set(before.array_records)
    assert message.config_records == before.config_records


def test_a_message_without_a_bundle_is_left_as_it_is() -> None:
    message = content()
    before = data(message)
    assert unbundle(message, 1) == 1.0
    assert data(message) == before


def test_clients_share_the_bytes_that_travel() -> None:
    assert scaled(np.array([100, 300]), 0.5).tolist() == [50, 150]
    assert scaled(np.array([101]), 1.0).tolist() == [101]


def test_what_is_larger_than_expected_takes_no_memory() -> None:
    stated, actual = 100 << 20, 1000
    bomb = zlib.compress(bytes(stated), 9)
    for states, complaint in ((stated, "its arrays would take 104857600 bytes"), (actual, "does not hold the 1000")):
        message = RecordDict(
            {
                BUNDLE: ArrayRecord({BUNDLE: Array("uint8", (len(bomb),), "bytes", bomb)}),
                ABOUT: ConfigRecord(
                    {"all": ["a"], "records": ["a"], "names": ["w"], "lengths": [states], "compression": "zlib"}
                ),
            }
        )
        tracemalloc.start()
        with pytest.raises(ValueError, match=complaint):
            unbundle(message, 10_000)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
        tracemalloc.stop()


def put(key: str, value: object) -> Callable[[RecordDict], None]:
    return lambda message: message.config_records[ABOUT].__setitem__(key, value)


def cut(message: RecordDict) -> None:
    array = message.array_records[BUNDLE][BUNDLE]
    message.array_records[BUNDLE][BUNDLE] = Array("uint8", array.shape, "bytes", array.data[:-3])


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (put("lengths", [1, 2]), "does not say what it consists of"),
        (put("lengths", [-1] * 4), "does not say what it consists of"),
        (put("lengths", "many"), "is not a list of integers"),
        (put("names", 3), "names no arrays"),
        (put("all", ["arrays"]), "records that it does not list"),
        (put("all", [BUNDLE, "arrays", "ragged"]), "records that it does not list"),
        (put("compression", "bz2"), "compressed by 'bz2'"),
        (lambda message: message.config_records[ABOUT].pop("names"), "lacks 'names'"),
        (lambda message: message.config_records.pop(ABOUT), "lacks"),
        (lambda message: message.__setitem__("more", ArrayRecord()), "in addition to its bundle"),
        (cut, "cannot be decompressed|does not hold"),
    ],
)
def test_a_bundle_that_contradicts_itself_is_refused(change: Callable[[RecordDict], None], complaint: str) -> None:
    message = content()
    bundle(message, "zlib")
    change(message)
    with pytest.raises(ValueError, match=complaint):
        unbundle(message, 1 << 20)
