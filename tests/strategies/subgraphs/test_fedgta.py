"""FedGTA's averages by hand: partners, confidences, absent clients, limits, a checkpoint."""

from __future__ import annotations

from typing import Any

import numpy as np
from toy_rounds import replies, strategy_of, toy_roster

from subfl_flower.strategies.subgraphs.fedgta import FedGTA

INITIAL = {"conv1.weight": np.zeros((2, 1), np.float32), "classifier.bias": np.zeros(2, np.float32)}
MOMENTS = np.array([[1.0, 0, 0, 0], [1.0, 0.5, 0, 0], [0, 0, 1.0, 0]])
"""The first two have the cosine 0.89, and the third is orthogonal to both."""


def fedgta(**settings: Any) -> FedGTA:
    return strategy_of(FedGTA, toy_roster(1, 2, 5), INITIAL, {"steps": 1, "orders": 1, **settings})


def sent(confidence: tuple[float, ...] = (1, 3, 7)) -> dict[str, Any]:
    weights = np.array([[[1.0], [2.0]], [[3.0], [5.0]], [[100.0], [200.0]]])
    uploads = {"mixed_moments": MOMENTS, "smoothing_confidence": np.array(confidence)[:, None]}
    return {"conv1__weight": weights, "classifier__bias": np.zeros((3, 2)), **uploads}


def rows(arrays: dict[str, Any], chosen: list[int]) -> dict[str, Any]:
    return {name: values[chosen] for name, values in arrays.items()}


def test_clients_average_over_those_with_similar_moments_by_their_confidence() -> None:
    strategy = fedgta()
    strategy.take(replies([0, 1, 2], 3, **sent()))
    np.testing.assert_allclose(strategy.mixing, [[0.25, 0.75, 0], [0.25, 0.75, 0], [0, 0, 1]])
    received = strategy.instructions(2, [0, 1, 2])["conv1.weight"]
    np.testing.assert_allclose(received[:, :, 0], [[2.5, 4.25], [2.5, 4.25], [100, 200]])


def test_an_absent_client_is_compared_by_its_last_moments_and_keeps_its_model_without_a_partner() -> None:
    strategy = fedgta()
    strategy.take(replies([0, 1, 2], 3, **sent()))
    strategy.take(replies([1], 3, **rows(sent(), [1])))
    np.testing.assert_allclose(strategy.mixing, [[0, 1, 0], [0, 1, 0], [0, 0, 0]])
    np.testing.assert_allclose(strategy.instructions(3, [2])["conv1.weight"][0, :, 0], [100, 200])


def test_a_client_never_heard_receives_the_plain_average() -> None:
    strategy = fedgta()
    strategy.take(replies([0, 1], 3, **rows(sent(), [0, 1])))
    np.testing.assert_allclose(strategy.mixing[2], [1 / 3, 2 / 3, 0])


def test_limits_of_the_threshold_are_one_average_and_none() -> None:
    one, none = fedgta(threshold=-1), fedgta(threshold=1)
    for strategy in (one, none):
        strategy.take(replies([0, 1, 2], 3, **sent()))
    np.testing.assert_allclose(one.mixing, [[1 / 11, 3 / 11, 7 / 11]] * 3)
    np.testing.assert_allclose(none.mixing, np.eye(3))


def test_partners_without_any_confidence_count_alike() -> None:
    strategy = fedgta()
    strategy.take(replies([0, 1, 2], 3, **sent((0, 0, 7))))
    np.testing.assert_allclose(strategy.mixing, [[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 1]])


def test_a_checkpoint_has_the_moments_of_absent_clients() -> None:
    first, second = fedgta(), fedgta()
    first.take(replies([0, 1, 2], 3, **sent()))
    second.load_state(first.state())
    for strategy in (first, second):
        strategy.take(replies([0], 3, **rows(sent(), [0])))
    np.testing.assert_allclose(first.mixing, [[1, 0, 0], [1, 0, 0], [0, 0, 0]])
    np.testing.assert_allclose(second.mixing, first.mixing)
