from __future__ import annotations

import math
from typing import Any

import numpy as np
import pydantic
import pytest
from toy_rounds import replies, strategy_of, toy_roster

from subfl_flower.server.updates import Updates
from subfl_flower.strategies.subgraphs.fedavg import FedAvg
from subfl_flower.strategies.subgraphs.fedpub import FedPUB

INITIAL = {"conv1.weight": np.full((2, 2), 8.0, np.float32), "conv1.bias": np.zeros(2, np.float32)}
ZEROS = {"conv1__bias": [[1, 1], [1, 1]]}


def fedpub(*num_examples: int, overlapping: bool = False, **settings: Any) -> FedPUB:
    return strategy_of(FedPUB, toy_roster(*num_examples, overlapping=overlapping), INITIAL, settings)


def sent(positions: list[int], clients: int, **arrays: Any) -> Updates:
    """Replies of clients that want no row that they do not send, unless told otherwise."""
    return replies(positions, clients, **{"wanted_features": [[0, 0]] * len(positions), **arrays})


def constant(*values: float) -> list[list[list[float]]]:
    return [[[value] * 2] * 2 for value in values]


def test_the_matrix_is_the_softmax_of_tau_times_the_cosines() -> None:
    strategy = fedpub(1, 1, 50, tau=2)
    strategy.take(
        sent(
            [0, 1, 2],
            3,
            conv1__weight=constant(1, 2, 4),
            conv1__bias=[[1, 1], [2, 2], [4, 4]],
            functional_embedding=[[1, 0], [3, 4], [0, -2]],
        )
    )
    cosines = [[1, 0.6, 0], [0.6, 1, -0.8], [0, -0.8, 1]]
    matrix = [[math.exp(2 * s) / sum(math.exp(2 * t) for t in row) for s in row] for row in cosines]
    np.testing.assert_allclose(strategy.mixing, matrix, rtol=1e-6)  # training nodes play no part
    received = strategy.instructions(2, [0, 1, 2])
    for client, row in enumerate(matrix):
        value = row[0] * 1 + row[1] * 2 + row[2] * 4
        np.testing.assert_allclose(received["conv1.weight"][client], np.full((2, 2), value), rtol=1e-5)
        np.testing.assert_allclose(received["conv1.bias"][client], [value, value], rtol=1e-5)


def test_the_released_variant_averages_all_weights_and_starts_with_a_larger_classifier() -> None:
    initial = {**INITIAL, "classifier.weight": np.full((128, 7), 9.0, np.float32)}
    strategy = strategy_of(FedPUB, toy_roster(1, 1), initial, {"variant": "released", "tau": 0, "missing": "owners"})
    first = strategy.instructions(1, [0, 1])
    assert (first["conv1.weight"] == 8).all()
    classifier = first["classifier.weight"]
    np.testing.assert_array_equal(classifier[0], classifier[1])
    bound = math.sqrt(6 / 135)
    assert 0.95 * bound < np.abs(classifier).max() <= bound and abs(classifier.mean()) < 0.02
    half = [[[1, 0], [3, 0]], [[5, 2], [0, 0]]]  # zeros that happen to be trained are values
    strategy.take(
        sent(
            [0, 1], 2, conv1__weight=half, **ZEROS, classifier__weight=classifier, functional_embedding=[[1, 0], [0, 1]]
        )
    )
    for received in strategy.instructions(2, [0, 1])["conv1.weight"]:
        np.testing.assert_allclose(received, [[3, 1], [1.5, 0]])


def test_tau_zero_is_the_uniform_average() -> None:
    strategy = fedpub(1, 50, tau=0)
    strategy.take(sent([0, 1], 2, conv1__weight=constant(1, 3), **ZEROS, functional_embedding=[[1, 0], [-1, 5]]))
    np.testing.assert_allclose(strategy.mixing, [[0.5, 0.5], [0.5, 0.5]])


@pytest.mark.parametrize(("settings", "overlapping", "tau"), [({}, False, 3), ({}, True, 5), ({"tau": 7}, True, 7)])
def test_tau_auto_is_three_for_disjoint_and_five_for_overlapping_clients(
    settings: dict[str, Any], overlapping: bool, tau: float
) -> None:
    strategy = fedpub(1, 1, overlapping=overlapping, **settings)
    assert strategy.similarity.tau == tau
    strategy.take(sent([0, 1], 2, conv1__weight=constant(1, 3), **ZEROS, functional_embedding=[[1, 0], [0, 1]]))
    assert strategy.mixing is not None
    assert strategy.mixing[0, 0] / strategy.mixing[0, 1] == pytest.approx(math.exp(tau), rel=1e-5)


def test_similarity_none_is_fedavg() -> None:
    ablated, fedavg = fedpub(10, 30, similarity="none"), strategy_of(FedAvg, toy_roster(10, 30), INITIAL)
    for strategy in (ablated, fedavg):
        strategy.take(sent([0, 1], 2, conv1__weight=constant(4, 8), **ZEROS, functional_embedding=[[1, 0], [0, 1]]))
    np.testing.assert_allclose(ablated.mixing, [[0.25, 0.75]] * 2)
    for name in INITIAL:
        np.testing.assert_allclose(ablated.instructions(2, [0, 1])[name], fedavg.instructions(2, [0, 1])[name])
    np.testing.assert_allclose(ablated.instructions(2, [0])["conv1.weight"], constant(7))


PRUNED = [[[2, 0], [4, 6]], [[0, 0], [8, 2]]]
"""Two clients' weights; the first pruned one of four, the second two."""


@pytest.mark.parametrize(
    ("missing", "received"),
    [
        # M = [[.25, .75], [.25, .75]]. Owned by both: .25·4 + .75·8 = 7 and .25·6 + .75·2 = 3; by the first only: 2.
        ("owners", [[[2, 0], [7, 3]], [[0, 0], [7, 3]]]),
        ("zero", [[[0.5, 0], [7, 3]], [[0, 0], [7, 3]]]),
    ],
)
def test_what_a_pruned_weight_counts_for_and_that_it_does_not_go_back(missing: str, received: Any) -> None:
    strategy = fedpub(10, 30, similarity="none", missing=missing)
    strategy.take(sent([0, 1], 2, conv1__weight=PRUNED, **ZEROS, functional_embedding=[[1, 0], [0, 1]]))
    np.testing.assert_allclose(strategy.instructions(2, [0, 1])["conv1.weight"], received, rtol=1e-6)


def test_with_a_client_away_what_the_others_pruned_does_not_go_back_to_them() -> None:
    strategy = fedpub(10, 60, 30, similarity="none", missing="owners")
    strategy.take(sent([0, 2], 3, conv1__weight=PRUNED, **ZEROS, functional_embedding=[[1, 0], [0, 1]]))
    # As in the test above, client 2 in client 1's place; the absent client's mask is unknown, it gets every average.
    expected = [[[2, 0], [7, 3]], [[2, 0], [7, 3]], [[0, 0], [7, 3]]]
    np.testing.assert_allclose(strategy.instructions(2, [0, 1, 2])["conv1.weight"], expected, rtol=1e-6)


def test_owners_of_a_personal_average_are_weighted_by_their_own_row() -> None:
    strategy = fedpub(1, 1, 1, tau=1)
    weights = [[[1, 1], [1, 1]], [[3, 0], [3, 3]], [[5, 5], [0, 5]]]
    strategy.take(
        sent(
            [0, 1, 2],
            3,
            conv1__weight=weights,
            conv1__bias=[[1, 1]] * 3,
            functional_embedding=[[1, 0], [0, 1], [1, 0]],
        )
    )
    # Client 0: cosines 1, 0, 1 with the three, so weights e, 1, e before normalising.
    e = math.e
    everyone, without_1, without_2 = (6 * e + 3) / (2 * e + 1), 6 * e / (2 * e), (e + 3) / (e + 1)
    found = strategy.instructions(2, [0])["conv1.weight"][0]
    np.testing.assert_allclose(found, [[everyone, without_1], [without_2, everyone]], rtol=1e-5)


def test_a_row_that_a_client_wants_but_does_not_send_goes_to_it() -> None:
    strategy = fedpub(10, 30, similarity="none", missing="owners")
    weights = [[[0, 0], [4, 6]], [[2, 3], [0, 0]]]
    strategy.take(
        sent(
            [0, 1],
            2,
            conv1__weight=weights,
            **ZEROS,
            wanted_features=[[1, 0], [0, 0]],
            functional_embedding=[[1, 0], [0, 1]],
        )
    )
    # Client 0 wants feature 0, which client 1 alone sends; client 1 neither sends nor wants feature 1.
    expected = [[[2, 3], [4, 6]], [[2, 3], [0, 0]]]
    np.testing.assert_allclose(strategy.instructions(2, [0, 1])["conv1.weight"], expected, rtol=1e-6)


def test_to_want_a_feature_many_times_is_to_want_it() -> None:
    arrays = {"conv1__weight": [[[2, 3], [0, 0]], [[0, 0], [4, 6]]], "functional_embedding": [[1, 0], [0, 1]], **ZEROS}
    for wanted in (1, 255):
        strategy = fedpub(1, 1, tau=0)
        strategy.take(sent([0, 1], 2, wanted_features=[[0, wanted], [0, 0]], **arrays))
        expected = [[[2, 3], [4, 6]], [[0, 0], [4, 6]]]
        np.testing.assert_allclose(strategy.instructions(2, [0, 1])["conv1.weight"], expected, rtol=1e-6)


def test_a_bias_that_is_zero_is_a_value_and_not_pruned() -> None:
    # Masks act on weight matrices alone; the bias of a unit that never fired is exactly zero and counts as zero.
    strategy = fedpub(10, 30, similarity="none", missing="owners")
    strategy.take(
        sent(
            [0, 1],
            2,
            conv1__weight=constant(4, 8),
            conv1__bias=[[0, 1], [4, 1]],
            functional_embedding=[[1, 0], [0, 1]],
        )
    )
    np.testing.assert_allclose(strategy.instructions(2, [0, 1])["conv1.bias"], [[3, 1], [3, 1]])


def test_an_absent_client_is_placed_by_its_last_embedding_or_gets_the_plain_average() -> None:
    strategy = fedpub(10, 30, 60, tau=1)
    first = {"conv1__weight": constant(1, 2), "conv1__bias": [[1, 1]] * 2, "functional_embedding": [[1, 0], [0, 1]]}
    strategy.take(sent([0, 1], 3, **first))
    # Client 2 was never heard of: FedAvg's row over those who replied.
    np.testing.assert_allclose(strategy.mixing, [[E, 1 - E, 0], [1 - E, E, 0], [0.25, 0.75, 0]], rtol=1e-6)
    second = {"conv1__weight": constant(3, 4), "conv1__bias": [[1, 1]] * 2, "functional_embedding": [[1, 0], [0, 2]]}
    strategy.take(sent([0, 2], 3, **second))
    # Client 1 is away; its embedding of round 1 lies with client 2's.
    np.testing.assert_allclose(strategy.mixing, [[E, 0, 1 - E], [1 - E, 0, E], [1 - E, 0, E]], rtol=1e-6)
    weight = 3 * (1 - E) + 4 * E
    np.testing.assert_allclose(strategy.instructions(3, [1])["conv1.weight"], constant(weight), rtol=1e-6)


E = math.e / (math.e + 1)


@pytest.mark.parametrize("settings", [{"tau": -1}, {"tau": "high"}, {"missing": "some"}, {"similarity": "smell"}])
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(pydantic.ValidationError):
        FedPUB.Settings(**settings)
