"""pFedGraph's collaboration graph by hand and against a solver: limits, absent clients, a checkpoint."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import minimize
from toy_rounds import replies, strategy_of, toy_roster

from subfl_flower.strategies.subgraphs.pfedgraph import PFedGraph, nearest_on_simplex

INITIAL = {"conv1.weight": np.array([[1.0], [1.0]], np.float32)}
MODELS = np.array([[[3.0], [1.0]], [[5.0], [1.0]], [[1.0], [4.0]]])
"""Changes (2, 0), (4, 0) and (0, 3): the first two have the cosine 1, the third is orthogonal to them."""


def pfedgraph(*num_examples: int, **settings: Any) -> PFedGraph:
    return strategy_of(PFedGraph, toy_roster(*num_examples), INITIAL, settings)


def test_the_nearest_point_of_the_simplex() -> None:
    points = np.array([[0.5, 0.5, 0.5], [0.9, 0.5, -2.0], [3.0, 0.0, 0.0], [0.2, 0.3, 0.5]])
    # The second: t = (0.9 + 0.5 - 1) / 2 = 0.2 with two positive entries; the last is on the simplex already.
    expected = [[1 / 3] * 3, [0.7, 0.3, 0], [1, 0, 0], [0.2, 0.3, 0.5]]
    np.testing.assert_allclose(nearest_on_simplex(points), expected, atol=1e-12)


def test_the_closed_form_solves_the_quadratic_program() -> None:
    rng = np.random.default_rng(0)
    prior, average, similarity = 0.3, np.array([0.1, 0.4, 0.2, 0.3]), rng.uniform(-1, 1, (5, 4))
    found = nearest_on_simplex(average + similarity / (2 * prior))
    for row, similar in zip(found, similarity, strict=True):
        solved = minimize(
            lambda m, s=similar: prior * ((m - average) ** 2).sum() - m @ s,
            np.full(4, 0.25),
            bounds=[(0, 1)] * 4,
            constraints={"type": "eq", "fun": lambda m: m.sum() - 1},
            options={"ftol": 1e-12},
        )
        np.testing.assert_allclose(row, solved.x, atol=1e-5)


def test_clients_average_with_those_that_changed_in_the_same_direction() -> None:
    """β = 1 and p = (1/4, 1/4, 1/2): y of the first two is (3/4, 3/4, 1/2), less t = 1/3; the third's (1/4, 1/4, 1)."""
    strategy = pfedgraph(1, 1, 2, prior=1)
    strategy.take(replies([0, 1, 2], 3, conv1__weight=MODELS))
    third = [1 / 12, 1 / 12, 5 / 6]  # t = 1/6
    np.testing.assert_allclose(strategy.mixing, [[5 / 12, 5 / 12, 1 / 6]] * 2 + [third], atol=1e-7)
    received = strategy.instructions(2, [0, 2])["conv1.weight"][:, :, 0]
    # 5/12 · 3 + 5/12 · 5 + 1/6 · 1 = 3.5, and 5/6 · 1 + 1/6 · 4 = 1.5; 8/12 + 5/6 = 1.5, and 2/12 + 20/6 = 3.5.
    np.testing.assert_allclose(received, [[3.5, 1.5], [1.5, 3.5]], rtol=1e-6)


def test_limits_of_the_prior_are_fedavg_and_training_alone() -> None:
    models = MODELS + np.array([[[0.0], [0.0]], [[0.0], [1.0]], [[0.0], [0.0]]])  # no two changes are parallel
    average, alone = pfedgraph(1, 1, 2, prior=1e9), pfedgraph(1, 1, 2, prior=1e-6)
    for strategy in (average, alone):
        strategy.take(replies([0, 1, 2], 3, conv1__weight=models))
    np.testing.assert_allclose(average.mixing, [[0.25, 0.25, 0.5]] * 3, atol=1e-8)
    np.testing.assert_allclose(alone.mixing, np.eye(3), atol=1e-8)


def test_an_absent_client_is_compared_by_its_last_change_and_one_never_heard_gets_the_average() -> None:
    strategy = pfedgraph(1, 1, 2, prior=0.25)
    strategy.take(replies([0, 1], 3, conv1__weight=MODELS[:2]))
    np.testing.assert_allclose(strategy.mixing, [[0.5, 0.5, 0]] * 3)
    strategy.take(replies([1, 2], 3, conv1__weight=MODELS[1:]))
    # Client 0 is like client 1: y = (1/3 + 2, 2/3).
    np.testing.assert_allclose(strategy.mixing, [[0, 1, 0], [0, 1, 0], [0, 0, 1]], atol=1e-7)


def test_a_checkpoint_has_the_changes_of_absent_clients() -> None:
    first, second = pfedgraph(1, 1, 2, prior=0.25), pfedgraph(1, 1, 2, prior=0.25)
    first.take(replies([0, 1], 3, conv1__weight=MODELS[:2]))
    second.load_state(first.state())
    for strategy in (first, second):
        strategy.take(replies([1, 2], 3, conv1__weight=MODELS[1:]))
    np.testing.assert_allclose(second.mixing, first.mixing)
    np.testing.assert_allclose(second.mixing[0], [0, 1, 0], atol=1e-7)
