"""Norms of updates, and updates that are scaled back."""

from __future__ import annotations

import numpy as np
import pytest

from subfl_flower.aggregation.changes import bound_factors, flat_changes, lower_median, norms, scaled_back
from subfl_flower.models.row_stack import RowStack, as_array

RNG = np.random.default_rng(5)


def usual_factors(found: np.ndarray) -> np.ndarray:
    """Factors of a bound of three times the lower median."""
    return bound_factors(found, 3.0, lower_median(found))


def stacks(clients: int = 4) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Uploads and downloads of clients, of two arrays."""
    shapes = {"weight": (3, 2), "bias": (2,)}
    sent = {name: RNG.standard_normal((clients, *shape)).astype(np.float32) for name, shape in shapes.items()}
    received = {name: RNG.standard_normal((clients, *shape)).astype(np.float32) for name, shape in shapes.items()}
    return sent, received


def flat(arrays: dict[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([np.asarray(values).reshape(len(values), -1) for values in arrays.values()], axis=1)


def test_norms_are_over_all_arrays_together() -> None:
    sent, received = stacks()
    expected = np.linalg.norm(flat(sent) - flat(received), axis=1)
    np.testing.assert_allclose(norms(sent, received), expected, rtol=1e-6)
    np.testing.assert_allclose(flat_changes(sent, received), flat(sent) - flat(received), rtol=1e-6)


def test_entries_of_zero_are_no_part_where_they_were_not_sent() -> None:
    sent, received = stacks()
    sent["weight"][:, 0] = 0
    change = flat(sent) - flat(received)
    change[:, :2] = 0
    np.testing.assert_allclose(norms(sent, received, kept_alone=True), np.linalg.norm(change, axis=1), rtol=1e-6)
    back = scaled_back(sent, received, np.array([1, 0.5, 1, 1]), kept_alone=True)
    assert not back["weight"][1, 0].any()
    np.testing.assert_allclose(back["bias"][1], (sent["bias"][1] + received["bias"][1]) / 2, rtol=1e-5)


@pytest.mark.parametrize("rows_received", [False, True])
def test_rows_alone_are_as_the_whole_stack(rows_received: bool) -> None:
    sent, received = stacks()
    sent["weight"][RNG.random((4, 3)) < 0.5] = 0
    received["weight"][sent["weight"].any(2) & (RNG.random((4, 3)) < 0.3)] = 0
    factors = np.array([1, 0.5, 1, 1e-6])
    rows = {**sent, "weight": as_array(RowStack.of(sent["weight"]))}
    before = {**received, "weight": as_array(RowStack.of(received["weight"]))} if rows_received else received
    np.testing.assert_allclose(norms(rows, before, True), norms(sent, received, True), rtol=1e-6)
    expected, found = scaled_back(sent, received, factors, True), scaled_back(rows, before, factors, True)
    assert isinstance(found["weight"], RowStack)
    np.testing.assert_allclose(np.asarray(found["weight"]), expected["weight"], rtol=1e-6)
    np.testing.assert_allclose(flat_changes(rows, before, True), flat_changes(sent, received, True), rtol=1e-6)


@pytest.mark.parametrize("scale", [1e6, -30, 9.9e11, 3e37])
def test_attack_long_updates_come_back_to_the_usual_norm(scale: float) -> None:
    sent, received = stacks(6)
    honest = norms(sent, received)
    for name in sent:
        sent[name][2] = received[name][2] + np.float32(scale) * (sent[name][2] - received[name][2])
    factors = usual_factors(norms(sent, received))
    assert np.flatnonzero(factors < 1).tolist() == [2]
    back = scaled_back(sent, received, factors)
    found = norms(back, received)
    assert found[2] == pytest.approx(lower_median(np.delete(honest, 2)), rel=1e-3)
    for name in sent:
        np.testing.assert_array_equal(np.delete(back[name], 2, 0), np.delete(sent[name], 2, 0))


def test_honest_updates_keep_their_bits() -> None:
    sent, received = stacks()
    assert (usual_factors(norms(sent, received)) == 1).all()


@pytest.mark.parametrize(
    ("values", "expected"), [([1, 1e6], 1), ([0, 0, 0, 2, 3], 2), ([1, 2, 3], 2), ([1, 2, 3, 4], 2), ([0, 0], 0)]
)
def test_the_usual_norm_is_the_lower_median_of_those_that_moved(values: list[float], expected: float) -> None:
    assert lower_median(np.array(values, dtype=float)) == expected


def test_where_nobody_moves_nothing_is_scaled() -> None:
    assert usual_factors(np.zeros(3)).tolist() == [1, 1, 1]
