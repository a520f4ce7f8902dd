from __future__ import annotations

import numpy as np
import pytest
from toy_rounds import replies, strategy_of, toy_roster

from subfl_flower.strategies.subgraphs.fedavg import FedAvg
from subfl_flower.strategies.subgraphs.local import Local

INITIAL = {"w": np.array([[8.0, 8.0]], np.float32), "b": np.array([0.0], np.float32)}


def test_fedavg_weights_by_training_nodes() -> None:
    strategy = strategy_of(FedAvg, toy_roster(10, 30), INITIAL)
    strategy.aggregate(replies([0, 1], 2, w=[[[4, 0]], [[8, 4]]], b=[[-1], [3]]))
    sent = strategy.instructions(2, [0, 1])
    np.testing.assert_allclose(sent["w"], [[[7, 3]], [[7, 3]]])  # (10·4 + 30·8) / 40, (30·4) / 40
    np.testing.assert_allclose(sent["b"], [[2], [2]])
    np.testing.assert_allclose(strategy.mixing, [[0.25, 0.75], [0.25, 0.75]])


def test_fedavg_uniform_counts_every_client_the_same() -> None:
    strategy = strategy_of(FedAvg, toy_roster(10, 30), INITIAL, {"weighting": "uniform"})
    strategy.aggregate(replies([0, 1], 2, w=[[[4, 0]], [[8, 4]]], b=[[-1], [3]]))
    np.testing.assert_allclose(strategy.instructions(2, [1])["w"], [[[6, 2]]])


def test_fedavg_counts_all_the_same_where_nobody_has_an_example() -> None:
    strategy = strategy_of(FedAvg, toy_roster(0, 0, 8), INITIAL)
    strategy.aggregate(replies([0, 1], 3, w=[[[4, 0]], [[8, 4]]], b=[[-1], [3]]))
    np.testing.assert_allclose(strategy.instructions(2, [2])["w"], [[[6, 2]]])


@pytest.mark.parametrize(("present", "average"), [([0, 2], 5.0), ([1], 3.0)])
def test_fedavg_averages_those_who_took_part_and_sends_it_to_all(present: list[int], average: float) -> None:
    strategy = strategy_of(FedAvg, toy_roster(10, 20, 30), INITIAL)
    values = {0: 2.0, 1: 3.0, 2: 6.0}  # 0 and 2 alone: (10·2 + 30·6) / 40
    strategy.aggregate(replies(present, 3, w=[[[values[c]] * 2] for c in present], b=[[values[c]] for c in present]))
    np.testing.assert_allclose(strategy.instructions(2, [0, 1, 2])["w"], np.full((3, 1, 2), average))
    assert strategy.mixing is not None
    np.testing.assert_allclose(strategy.mixing.sum(1), 1)
    assert not strategy.mixing[:, [c for c in range(3) if c not in present]].any()


def test_local_is_the_identity_and_absent_clients_keep_what_they_had() -> None:
    strategy = strategy_of(Local, toy_roster(10, 20, 30), INITIAL)
    strategy.aggregate(replies([0, 1, 2], 3, w=[[[1, 1]], [[2, 2]], [[3, 3]]], b=[[1], [2], [3]]))
    np.testing.assert_array_equal(strategy.instructions(2, [0, 1, 2])["b"], [[1], [2], [3]])
    np.testing.assert_array_equal(strategy.mixing, np.eye(3))
    strategy.aggregate(replies([0, 2], 3, w=[[[5, 5]], [[7, 7]]], b=[[5], [7]]))
    np.testing.assert_array_equal(strategy.instructions(3, [0, 1, 2])["w"], [[[5, 5]], [[2, 2]], [[7, 7]]])
    np.testing.assert_array_equal(strategy.mixing, np.diag([1, 0, 1]))
