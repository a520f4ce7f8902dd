from __future__ import annotations

import math
from typing import Any

import numpy as np
import pydantic
import pytest
from toy_rounds import replies, strategy_of, toy_roster

from subfl_flower.server.updates import Updates
from subfl_flower.strategies.subgraphs.fedavg import FedAvg
from subfl_flower.strategies.subgraphs.fedsg import FedSG
from subfl_flower.strategies.subgraphs.mixing import MixingStrategy
from subfl_flower.wire.payload import ArraySpec

INITIAL = {
    "conv1.weight": np.zeros((1, 2), np.float32),
    "conv1.bias": np.zeros(2, np.float32),
    "topology1.weight": np.zeros((1, 2), np.float32),
    "topology1.bias": np.zeros(2, np.float32),
    "classifier.weight": np.zeros((4, 1), np.float32),
    "classifier.bias": np.zeros(1, np.float32),
}
SENT = {
    "conv1__weight": [[[1, 2]], [[3, 6]]],
    "conv1__bias": [[0, 1], [2, 1]],
    "topology1__weight": [[[10, 20]], [[30, 60]]],
    "topology1__bias": [[4, 0], [0, 8]],
    "classifier__weight": [[[1], [2], [3], [4]], [[5], [2], [-1], [0]]],
    "classifier__bias": [[100], [200]],
}
EMBEDDINGS = {"feature_embedding": [[1, 0], [3, 4]], "topology_embedding": [[0, 2], [0, -1]]}
"""Cosines 0.6 and -1."""


def fedsg(*num_examples: int, **settings: Any) -> FedSG:
    chosen = {"tau_feature": 2, "tau_topology": 3, **settings}
    return strategy_of(FedSG, toy_roster(*num_examples), INITIAL, chosen)


def two_by_two(tau: float, cosine: float) -> np.ndarray:
    """softmax(τ S) of two clients, by hand."""
    own, other = math.exp(tau), math.exp(tau * cosine)
    return np.array([[own, other], [other, own]]) / (own + other)


OF_FEATURES, OF_TOPOLOGY = two_by_two(2, 0.6), two_by_two(3, -1)


@pytest.mark.parametrize(
    ("classifier", "its"),
    [("feature", OF_FEATURES), ("topology", OF_TOPOLOGY), ("average", (OF_FEATURES + OF_TOPOLOGY) / 2)],
)
def test_each_group_is_mixed_by_its_own_matrix(classifier: str, its: np.ndarray) -> None:
    strategy = fedsg(1, 50, classifier=classifier)
    strategy.take(replies([0, 1], 2, **SENT, **EMBEDDINGS))
    sent = strategy.instructions(2, [0, 1])
    assert list(sent) == list(INITIAL)
    for name, values in sent.items():
        matrix = {"conv1": OF_FEATURES, "topology1": OF_TOPOLOGY, "classifier": its}[name.split(".")[0]]
        expected = np.einsum("ij,j...->i...", matrix, np.array(SENT[name.replace(".", "__")], dtype=float))
        np.testing.assert_allclose(values, expected, rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(strategy.mixing, OF_FEATURES, rtol=1e-6)
    np.testing.assert_allclose(strategy.report(None)["topology_mixing"], OF_TOPOLOGY, rtol=1e-6)


class TwoGroups(MixingStrategy):
    """Client 1 takes no biases, and client 0's weights; client 0 takes no weights."""

    recorded_group = "weight"

    def group(self, name: str) -> str:
        return name.split(".")[1]

    def mixing_matrix(self, updates: Updates) -> np.ndarray:
        return np.array([[0.0, 0.0], [1.0, 0.0]])

    def mixing_matrices(self, updates: Updates) -> dict[str, np.ndarray]:
        return {"bias": np.array([[0.25, 0.75], [0.0, 0.0]]), "weight": self.mixing_matrix(updates)}


def test_who_takes_nothing_of_a_group_keeps_what_it_had_of_that_group_alone() -> None:
    initial = {"a.weight": np.array([7.0], np.float32), "a.bias": np.array([9.0], np.float32)}
    strategy = strategy_of(TwoGroups, toy_roster(1, 1), initial)
    strategy.take(replies([0, 1], 2, a__weight=[[1], [2]], a__bias=[[4], [8]]))
    sent = strategy.instructions(2, [0, 1])
    np.testing.assert_allclose(sent["a.weight"], [[7], [1]])
    np.testing.assert_allclose(sent["a.bias"], [[7], [9]])
    np.testing.assert_array_equal(strategy.mixing, [[0, 0], [1, 0]])
    np.testing.assert_array_equal(strategy.mixing_of("bias"), [[0.25, 0.75], [0, 0]])


def test_with_both_taus_zero_it_is_fedavg_with_uniform_weights() -> None:
    average = strategy_of(FedAvg, toy_roster(10, 30, 60), INITIAL, {"weighting": "uniform"})
    plain = fedsg(10, 30, 60, tau_feature=0, tau_topology=0, classifier="average")
    for present in ([0, 1], [1, 2]):
        for strategy in (average, plain):
            strategy.take(replies(present, 3, **SENT, **EMBEDDINGS))
        np.testing.assert_allclose(plain.mixing, average.mixing)
        for name, expected in average.instructions(2, [0, 1, 2]).items():
            found = plain.instructions(2, [0, 1, 2])[name]
            np.testing.assert_allclose(found, expected)
            assert found.strides[0] == 0  # one row for all, as FedAvg's


def test_an_absent_client_counts_by_what_it_sent_last_and_an_unknown_one_gets_the_plain_average() -> None:
    strategy = fedsg(1, 1, 1)
    strategy.take(replies([0, 1], 3, **SENT, **EMBEDDINGS))
    np.testing.assert_allclose(strategy.mixing[2], [0.5, 0.5, 0])
    again = {"feature_embedding": [[0, 5], [1, 0]], "topology_embedding": [[0, 1], [1, 0]]}
    strategy.take(replies([1, 2], 3, **SENT, **again))
    # Client 0 is (1, 0) by features and (0, 2) by topology, from the round before.
    features = np.array([[math.exp(0), math.exp(2)], [math.exp(2), 1], [1, math.exp(2)]])
    topology = np.array([[math.exp(3), 1], [math.exp(3), 1], [1, math.exp(3)]])
    for found, powers in ((strategy.mixing, features), (strategy.mixing_of("topology"), topology)):
        assert found is not None and not found[:, 0].any()
        np.testing.assert_allclose(found[:, 1:], powers / powers.sum(1, keepdims=True), rtol=1e-6)
    sent = strategy.instructions(3, [0])["topology1.bias"][0]
    np.testing.assert_allclose(
        sent, [4 * strategy.mixing_of("topology")[0, 1], 8 * strategy.mixing_of("topology")[0, 2]]
    )


def test_after_a_crash_it_goes_on_as_if_there_had_been_none() -> None:
    strategy, resumed = fedsg(1, 1, 1), fedsg(1, 1, 1)
    strategy.take(replies([0, 1], 3, **SENT, **EMBEDDINGS))
    resumed.load_state({name: strategy.state()[name].copy() for name in sorted(strategy.state())})
    np.testing.assert_array_equal(resumed.mixing, strategy.mixing)
    assert resumed.report(None) == strategy.report(None)
    for each in (strategy, resumed):
        each.take(replies([1, 2], 3, **SENT, **EMBEDDINGS))
    assert resumed.state().keys() == strategy.state().keys()
    for name, values in strategy.state().items():
        np.testing.assert_array_equal(resumed.state()[name], values, err_msg=name)


def test_what_is_personal_is_not_mixed_and_its_extractor_is_still_compared() -> None:
    strategy = fedsg(1, 1, personal_layers=("topology1",))
    shared = {name: values for name, values in SENT.items() if not name.startswith("topology")}
    strategy.take(replies([0, 1], 2, **shared, **EMBEDDINGS))
    assert not any(name.startswith("topology1") for name in strategy.instructions(2, [0, 1]))
    np.testing.assert_allclose(strategy.mixing_of("topology"), OF_TOPOLOGY, rtol=1e-6)


def test_an_update_holds_two_embeddings_as_wide_as_the_extractors() -> None:
    expected = fedsg(1).contract.uploads
    assert set(expected) == {*INITIAL, "feature_embedding", "topology_embedding"}
    assert (
        expected["feature_embedding"] == expected["topology_embedding"] == ArraySpec((2,), "float32", remembered=True)
    )


def test_a_report_before_the_first_round_says_nothing() -> None:
    assert fedsg(1, 1).report(None) == {} and fedsg(1, 1).mixing is None


@pytest.mark.parametrize("settings", [{"tau_topology": -1}, {"tau_feature": -0.1}, {"classifier": "both"}, {"tau": 3}])
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(pydantic.ValidationError):
        FedSG.Settings(**settings)
