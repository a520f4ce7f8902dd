"""SCAFFOLD's server: models and control variates by hand, with absent clients, weights, steps and a bound."""

from __future__ import annotations

import numpy as np
from toy_rounds import replies, strategy_of, toy_roster

from subfl_flower.aggregation.settings import AggregationSettings
from subfl_flower.strategies.subgraphs.scaffold import Scaffold

INITIAL = {"w": np.array([[8.0, 8.0]], np.float32), "b": np.array([0.0], np.float32)}
HERE = [[[4, 0]], [[8, 4]]], [[-1], [3]]


def test_the_control_variate_moves_by_the_share_of_clients_that_replied() -> None:
    # c + |S| / N · mean change = 1 / 4 · ((4, 8) + (8, 0)) and 1 / 4 · (1 + 2), then 1 / 4 · (4, 4) more.
    strategy = strategy_of(Scaffold, toy_roster(10, 30, 5, 5), INITIAL)
    w, b = HERE
    changes = {"control_change__w": [[[4, 8]], [[8, 0]]], "control_change__b": [[1], [2]]}
    strategy.aggregate(replies([0, 2], 4, w=w, b=b, **changes))
    sent = strategy.instructions(2, [1, 3])
    np.testing.assert_allclose(sent["w"], [[[6, 2]]] * 2)
    np.testing.assert_allclose(sent["control.w"], [[[3, 2]]] * 2)
    np.testing.assert_allclose(sent["control.b"], [[0.75]] * 2)
    again = {"control_change__w": [[[4, 4]]], "control_change__b": [[0]]}
    strategy.aggregate(replies([3], 4, w=[[[1, 1]]], b=[[1]], **again))
    np.testing.assert_allclose(strategy.instructions(3, [0])["control.w"], [[[4, 3]]])


def test_by_examples_a_client_counts_as_its_share_of_all_examples() -> None:
    strategy = strategy_of(Scaffold, toy_roster(10, 30, 60), INITIAL, {"weighting": "examples"})
    w, b = HERE
    changes = {"control_change__w": [[[10, 0]], [[20, 10]]], "control_change__b": [[0], [0]]}
    strategy.aggregate(replies([0, 1], 3, w=w, b=b, **changes))
    sent = strategy.instructions(2, [0])
    np.testing.assert_allclose(sent["w"], [[[7, 3]]])  # (10·4 + 30·8) / 40, 30·4 / 40
    np.testing.assert_allclose(sent["control.w"], [[[7, 3]]], rtol=1e-6)  # 0.1·10 + 0.3·20, 0.3·10


def test_the_global_step_size_scales_the_way_from_the_old_model_to_the_average() -> None:
    strategy = strategy_of(Scaffold, toy_roster(1, 1), INITIAL, {"server_lr": 0.5})
    w, b = HERE
    nothing = {"control_change__w": np.zeros((2, 1, 2)), "control_change__b": np.zeros((2, 1))}
    strategy.aggregate(replies([0, 1], 2, w=w, b=b, **nothing))
    np.testing.assert_allclose(strategy.instructions(2, [0])["w"], [[[7, 5]]])  # half way from (8, 8) to (6, 2)


def test_a_long_change_of_a_control_variate_is_scaled_back_to_the_median() -> None:
    bounded = AggregationSettings(norm_bound=2)
    strategy = strategy_of(Scaffold, toy_roster(1, 1, 1), INITIAL, aggregation=bounded)
    changes = {"control_change__w": [[[3, 4]], [[3, 4]], [[300, 400]]], "control_change__b": [[0], [0], [0]]}
    strategy.aggregate(replies([0, 1, 2], 3, w=[[[8, 7]]] * 3, b=[[0]] * 3, **changes))
    np.testing.assert_allclose(strategy.instructions(2, [0])["control.w"], [[[3, 4]]], rtol=1e-6)


def test_a_strategy_goes_on_with_its_control_variate() -> None:
    strategy, other = (strategy_of(Scaffold, toy_roster(1, 1), INITIAL) for _ in range(2))
    w, b = HERE
    changes = {"control_change__w": [[[4, 8]], [[8, 0]]], "control_change__b": [[1], [2]]}
    strategy.aggregate(replies([0, 1], 2, w=w, b=b, **changes))
    other.load_state({name: np.array(value) for name, value in strategy.state().items()})
    for name, value in strategy.instructions(2, [0, 1]).items():
        np.testing.assert_array_equal(other.instructions(2, [0, 1])[name], value)
    assert strategy.instructions(2, [0])["control.b"] == [[1.5]]
