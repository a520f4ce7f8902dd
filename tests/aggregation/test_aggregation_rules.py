"""Averages of values that a few clients make up, against plain definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from subfl_flower.aggregation.rules import kept_by_krum, trimmed

RNG = np.random.default_rng(3)


@pytest.mark.parametrize(("clients", "left_out"), [(10, 2), (7, 1), (5, 2), (4, 1)])
def test_with_equal_weights_it_is_the_trimmed_mean_of_scipy(clients: int, left_out: int) -> None:
    values = RNG.standard_normal((clients, 3, 4)).astype(np.float32)
    matrix = np.full((2, clients), 1 / clients)
    expected = stats.trim_mean(values, (left_out + 1e-9) / clients, axis=0)
    np.testing.assert_allclose(trimmed(matrix, values, left_out), np.stack([expected] * 2), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("clients", [1, 2, 5, 8])
def test_without_anything_left_it_is_the_median(clients: int) -> None:
    values = RNG.standard_normal((clients, 6)).astype(np.float32)
    found = trimmed(np.full((1, clients), 1 / clients), values, clients)
    np.testing.assert_allclose(found[0], np.median(values, axis=0), rtol=1e-6)


def test_weights_count_as_so_many_equal_clients() -> None:
    values = RNG.standard_normal((4, 9)).astype(np.float32)
    counts = [1, 3, 2, 1]
    as_many = np.repeat(values, counts, axis=0)
    median = trimmed(np.array([counts]) / 7, values, 4)
    np.testing.assert_allclose(median[0], np.median(as_many, axis=0), rtol=1e-6)
    # The heaviest client counts thrice: three of seven are left out at either end, and one is left.
    np.testing.assert_allclose(trimmed(np.array([counts]) / 7, values, 1)[0], np.median(as_many, axis=0), rtol=1e-5)


def test_every_row_of_weights_has_its_own_average() -> None:
    values = RNG.standard_normal((6, 5)).astype(np.float32)
    matrix = RNG.dirichlet(np.ones(6), size=3)
    together = trimmed(matrix, values, 1)
    for row, alone in zip(matrix, together, strict=True):
        np.testing.assert_allclose(trimmed(row[None], values, 1)[0], alone, rtol=1e-6)


def test_values_that_do_not_count_have_no_part() -> None:
    values = np.array([[1.0, 5.0], [2.0, 0.0], [3.0, 0.0], [900.0, 0.0]], np.float32)
    present = values != 0
    found = trimmed(np.full((1, 4), 0.25), values, 1, present)
    # Of the first coordinate 1 and 900 are left out; of the second one value counts.
    np.testing.assert_allclose(found, [[2.5, 5.0]])
    np.testing.assert_array_equal(trimmed(np.full((1, 4), 0.25), values, 1, np.zeros_like(present)), [[0, 0]])


@settings(max_examples=60, deadline=None)
@given(
    clients=st.integers(3, 9),
    hostile=st.integers(1, 3),
    attack=st.floats(-1e12, 1e12, allow_nan=False),
    seed=st.integers(0, 1000),
)
def test_attack_values_of_the_assumed_number_of_clients_stay_between_honest_ones(
    clients: int, hostile: int, attack: float, seed: int
) -> None:
    hostile = min(hostile, (clients - 1) // 2)
    values = np.random.default_rng(seed).standard_normal((clients, 4))
    values[:hostile] = attack
    for num_trimmed in (hostile, clients):
        (found,) = trimmed(np.full((1, clients), 1 / clients), values, num_trimmed)
        assert (found <= values[hostile:].max(0) + 1e-5).all() and (found >= values[hostile:].min(0) - 1e-5).all()


def test_attack_krum_leaves_out_those_far_away() -> None:
    changes = RNG.standard_normal((10, 50)) + 1
    changes[[2, 7]] *= [[1e6], [-30]]
    kept = kept_by_krum(changes, 2)
    assert np.flatnonzero(~kept).tolist() == [2, 7]


@pytest.mark.parametrize("seed", range(40))
def test_krum_scores_are_sums_over_the_nearest_others(seed: int) -> None:
    changes = np.random.default_rng(seed).standard_normal((9, 3))
    distances = ((changes[:, None] - changes[None]) ** 2).sum(2)
    scores = [np.sort(np.delete(distances[i], i))[: 9 - 2 - 2].sum() for i in range(9)]
    worst = set(np.argsort(scores)[-2:].tolist())
    assert set(np.flatnonzero(~kept_by_krum(changes, 2)).tolist()) == worst


@pytest.mark.parametrize(("clients", "left_out"), [(1, 0), (4, 0), (5, 1), (6, 1), (7, 2)])
def test_krum_leaves_out_no_more_than_so_few_allow(clients: int, left_out: int) -> None:
    assert (~kept_by_krum(RNG.standard_normal((clients, 3)), 3)).sum() == left_out
