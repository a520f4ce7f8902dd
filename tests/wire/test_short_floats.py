"""float32 values that travel in two bytes or in one."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import RecordDict

from subfl_flower.wire.array_bytes import to_array
from subfl_flower.wire.choice import Choice
from subfl_flower.wire.payload import ARRAYS, LAYOUT, ArraySpec, pack, unpack, unpack_choice
from subfl_flower.wire.short_floats import restored, shortened

RNG = np.random.default_rng(5)


def sent(stack: dict[str, np.ndarray], dtype: str) -> tuple[dict[str, np.ndarray], np.ndarray, RecordDict, np.ndarray]:
    packed = pack(stack, dtype=dtype)
    content = RecordDict()
    packed.into(content)
    expected = {name: ArraySpec.like(values[0]) for name, values in stack.items()}
    clients = len(next(iter(stack.values())))
    found, sizes = unpack(content, expected, num_clients=clients, largest=sum(v.nbytes for v in stack.values()))
    return found, sizes, content, packed.bytes_per_client


def test_an_entry_of_eight_bits_is_off_by_half_a_step_at_most_and_zeros_stay() -> None:
    rows = RNG.normal(size=(3, 40, 20)).astype(np.float32) * np.array([1, 1e-6, 1e6], np.float32)[:, None, None]
    rows[RNG.random(rows.shape) < 0.5] = 0
    values, steps = shortened(rows, "int8")
    assert steps is not None and values.dtype == np.int8
    np.testing.assert_allclose(steps, np.abs(rows).max(axis=(1, 2)) / 127, rtol=1e-6)
    found = restored(values, steps)
    assert found.dtype == np.float32
    assert (np.abs(found - rows) <= 0.5001 * steps[:, None, None]).all()
    assert (found[rows == 0] == 0).all()
    assert np.abs(found).max(axis=(1, 2)) == pytest.approx(np.abs(rows).max(axis=(1, 2)), rel=1e-6)
    again, same_steps = shortened(found, "int8")  # what has been rounded is not rounded further
    np.testing.assert_array_equal(again, values)
    np.testing.assert_allclose(same_steps, steps, rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_arrives_as_one_and_the_others_as_they_are(bad: float) -> None:
    stack = {"w": RNG.normal(size=(3, 30, 20)).astype(np.float32)}
    stack["w"][1, 3, 4] = bad
    found, *_ = sent(stack, "int8")
    assert np.isnan(found["w"][1]).all()
    assert np.isfinite(found["w"][[0, 2]]).all()
    found, *_ = sent(stack, "float16")
    assert not np.isfinite(found["w"][1, 3, 4]) and np.isfinite(found["w"]).sum() == found["w"].size - 1


def test_half_precision_rounds_to_eleven_bits_and_overflows_visibly() -> None:
    stack = {"w": RNG.uniform(1, 2, size=(2, 300)).astype(np.float32)}
    stack["w"][0, 0] = 70_000
    found, *_ = sent(stack, "float16")
    assert found["w"][0, 0] == np.inf
    np.testing.assert_allclose(found["w"].reshape(-1)[1:], stack["w"].reshape(-1)[1:], rtol=2**-11)


@pytest.mark.parametrize(("dtype", "width", "extra"), [("float32", 4, 0), ("float16", 2, 0), ("int8", 1, 4)])
def test_the_bytes_are_those_that_travel_and_only_float32_is_shortened(dtype: str, width: int, extra: int) -> None:
    dense = RNG.normal(size=(2, 30, 20)).astype(np.float32)
    pruned = dense.copy()
    pruned[:, 10:] = 0
    masks = RNG.integers(0, 2**63, size=(2, 500), dtype=np.uint64)
    masks[:, :400] = 0
    exact = RNG.normal(size=(2, 300))
    found, sizes, content, counted = sent({"d": dense, "p": pruned, "m": masks, "e": exact}, dtype)
    np.testing.assert_array_equal(found["m"], masks)
    np.testing.assert_array_equal(found["e"], exact)
    assert {name: values.dtype for name, values in found.items()} == {
        "d": np.float32, "p": np.float32, "m": np.uint64, "e": np.float64
    }  # fmt: skip
    lines, bitmap = 4, 200 // 8
    zeros = (found["p"][:, :10] == 0).sum(axis=(1, 2))
    dense_zeros = (found["d"] == 0).sum(axis=(1, 2))
    expected = []
    for client in range(2):
        plain, packed = 600 * width, 4 + 600 // 8 + (600 - dense_zeros[client]) * width
        sparse = lines + bitmap + (200 - zeros[client]) * width
        expected.append(min(plain, packed) + sparse + 2 * extra + 500 * 8 + 300 * 8)
    assert sizes.tolist() == counted.tolist() == expected
    assert sum(len(array.data) for array in content.array_records[ARRAYS].values()) - sum(expected) < 130 * 12


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_a_row_that_many_clients_share_is_stored_once(dtype: str) -> None:
    model = {"w": RNG.normal(size=(20, 20)).astype(np.float32)}
    content = RecordDict()
    pack(Choice.for_all(model, 50), dtype=dtype).into(content)
    assert sum(len(array.data) for array in content.array_records[ARRAYS].values()) < 400 * 2 + 300
    found = unpack_choice(content, {"w": ArraySpec.like(model["w"])}, num_clients=50, each=1)
    np.testing.assert_allclose(found.values["w"][0], model["w"], atol=np.abs(model["w"]).max() / 253)


def test_a_short_form_that_contradicts_itself_is_refused() -> None:
    stack = {"w": RNG.normal(size=(2, 300)).astype(np.float32)}
    expected = {"w": ArraySpec((300,), "float32")}
    for change, complaint in (
        (lambda content: content.config_records[LAYOUT].update({"w.short": "float16"}), "not the short form 'float16'"),
        (lambda content: content.config_records[LAYOUT].update({"w.short": "int4"}), "not the short form 'int4'"),
        (lambda content: content.config_records[LAYOUT].pop("w.short"), "its w is int8"),
        (lambda content: content.array_records[ARRAYS].pop("w.steps"), "lack"),
        (
            lambda content: content.array_records[ARRAYS].update({"w.steps": to_array(np.zeros(3, np.float32))}),
            "w.steps: 3 values where 2 belong",
        ),
        (
            lambda content: content.array_records[ARRAYS].update({"w.steps": to_array(np.zeros(2, np.float64))}),
            "steps are float64",
        ),
    ):
        content = RecordDict()
        pack(stack, dtype="int8").into(content)
        change(content)
        with pytest.raises(ValueError, match=complaint):
            unpack(content, expected, num_clients=2)
