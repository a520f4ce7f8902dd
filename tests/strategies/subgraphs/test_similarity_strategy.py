from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pydantic
import pytest
from run_outcomes import SMALL_DIGITS, Outcome
from toy_rounds import SimilarityAlone, replies, strategy_of, toy_roster

from subfl_flower.strategies.subgraphs.fedavg import FedAvg
from subfl_flower.strategies.subgraphs.fedpub import FedPUB

INITIAL = {"w": np.array([[8.0, 6.0]], np.float32), "b": np.array([5.0], np.float32)}
ANY = {"w": [[[1, 2]], [[3, 4]], [[5, 6]]], "b": [[1], [2], [3]]}
"""Parameters of three clients, where they play no part."""


def similarity(*num_examples: int, overlapping: bool = False, **settings: Any) -> SimilarityAlone:
    roster = toy_roster(*num_examples, overlapping=overlapping)
    return strategy_of(SimilarityAlone, roster, INITIAL, {"tau": 2, **settings})


def softmax_of(cosines: list[list[float]], tau: float = 2) -> list[list[float]]:
    return [[math.exp(tau * s) / sum(math.exp(tau * t) for t in row) for s in row] for row in cosines]


@pytest.mark.parametrize(("kind", "sent"), [("functional", "functional_embedding"), ("label", "label_distribution")])
def test_what_clients_send_for_comparison_is_compared_by_its_cosine(kind: str, sent: str) -> None:
    strategy = similarity(1, 1, 50, similarity=kind)
    strategy.take(replies([0, 1, 2], 3, **ANY, **{sent: [[1, 0], [3, 4], [0, 2]]}))
    np.testing.assert_allclose(strategy.mixing, softmax_of([[1, 0.6, 0], [0.6, 1, 0.8], [0, 0.8, 1]]), rtol=1e-6)


def test_four_clients_and_more_are_compared_without_their_mean_embedding() -> None:
    embeddings = [[11, 10], [9, 10], [10, 12], [10, 8]]  # around (10, 10): nearly parallel as they are
    centred, plain = (similarity(1, 1, 1, 1, centred=choice) for choice in (True, False))
    sent = {"w": [[[1, 2]]] * 4, "b": [[1]] * 4, "functional_embedding": embeddings}
    for strategy in (centred, plain):
        strategy.take(replies([0, 1, 2, 3], 4, **sent))
    expected = softmax_of([[1, -1, 0, 0], [-1, 1, 0, 0], [0, 0, 1, -1], [0, 0, -1, 1]])
    np.testing.assert_allclose(centred.mixing, expected, rtol=1e-6)
    assert plain.mixing is not None and plain.mixing.max() < 0.26


def test_an_absent_client_is_centred_with_the_others_and_an_unknown_one_is_not() -> None:
    strategy = similarity(1, 1, 1, 1, 1)
    two = {"w": [[[1, 2]]] * 2, "b": [[1]] * 2}
    strategy.take(replies([0, 1], 5, **two, functional_embedding=[[11, 10], [9, 10]]))  # two alone: as they are
    strategy.take(replies([2, 3], 5, **two, functional_embedding=[[10, 12], [10, 8]]))
    weight = 1 / (math.exp(2) + math.exp(-2))
    assert strategy.mixing is not None  # by round 2's participants, of five clients, one of which is unknown
    np.testing.assert_allclose(
        strategy.mixing[:4, 2], [0.5, 0.5, math.exp(2) * weight, math.exp(-2) * weight], rtol=1e-6
    )
    np.testing.assert_allclose(strategy.mixing[4, 2:4], [0.5, 0.5])


def test_parameters_are_compared_all_together() -> None:
    strategy = similarity(1, 1, 50, similarity="parameter")
    # As vectors (1, 0, 0), (3, 4, 0) and (0, -3, 4); by w alone the last two would have cosine -0.8.
    strategy.take(replies([0, 1, 2], 3, w=[[[1, 0]], [[3, 4]], [[0, -3]]], b=[[0], [0], [4]]))
    expected = softmax_of([[1, 0.6, 0], [0.6, 1, -0.48], [0, -0.48, 1]])
    np.testing.assert_allclose(strategy.mixing, expected, rtol=1e-6)


def test_a_gradient_is_what_was_sent_less_what_was_received() -> None:
    strategy = similarity(1, 1, 1, similarity="gradient")
    for server_round, changes in (
        (1, np.array([[1, 0, 0], [3, 4, 0], [0, -3, 4]], np.float32)),
        (2, np.array([[0, 0, 2], [0, 3, 4], [1, 0, 0]], np.float32)),  # to what each client received for itself
    ):
        sent = strategy.instructions(server_round, [0, 1, 2])
        strategy.take(replies([0, 1, 2], 3, w=sent["w"] + changes[:, None, :2], b=sent["b"] + changes[:, 2:]))
        unit = changes / np.linalg.norm(changes, axis=1, keepdims=True)
        np.testing.assert_allclose(strategy.mixing, softmax_of((unit @ unit.T).tolist()), rtol=1e-4)
    assert np.ptp(strategy.instructions(3, [0, 1, 2])["w"], axis=0).min() > 0.01


def test_a_weight_that_was_pruned_is_no_gradient() -> None:
    strategy = similarity(1, 1, similarity="gradient")
    # From (8, 6 | 5): the changes are (3, 4 | 0) and (1, 0 | -5); the zero of a bias is a value like any other.
    strategy.take(replies([0, 1], 2, w=[[[11, 10]], [[9, 0]]], b=[[5], [0]]))
    cosine = 3 / (5 * math.sqrt(26))
    np.testing.assert_allclose(strategy.mixing, softmax_of([[1, cosine], [cosine, 1]]), rtol=1e-6)


def test_none_is_fedavg() -> None:
    strategy, fedavg = (
        similarity(10, 30, 60, similarity="none"),
        strategy_of(FedAvg, toy_roster(10, 30, 60), INITIAL),
    )
    for present in ([0, 1, 2], [0, 1]):
        some = {name: [values[p] for p in present] for name, values in ANY.items()}
        for each in (strategy, fedavg):
            each.take(replies(present, 3, **some))
        np.testing.assert_allclose(strategy.mixing, fedavg.mixing)
        for name in INITIAL:
            found, expected = (each.instructions(2, [0, 1, 2])[name] for each in (strategy, fedavg))
            np.testing.assert_allclose(found, expected)
    np.testing.assert_allclose(strategy.mixing, [[0.25, 0.75, 0]] * 3)


@pytest.mark.parametrize(
    ("threshold", "members"),
    [
        (None, [[0, 1, 2], [0, 1, 2], [0, 1, 2]]),
        (-0.5, [[0, 1, 2], [0, 1, 2], [0, 1, 2]]),
        (0.0, [[0, 1], [0, 1, 2], [1, 2]]),  # a cosine of 0 is not larger
        (0.7, [[0], [1, 2], [1, 2]]),
        (1.0, [[0], [1], [2]]),  # of oneself a client is always
    ],
)
def test_a_client_averages_with_its_community_alone(threshold: float | None, members: list[list[int]]) -> None:
    strategy = similarity(1, 1, 50, community_threshold=threshold)
    strategy.take(replies([0, 1, 2], 3, **ANY, functional_embedding=[[1, 0], [3, 4], [0, 2]]))
    expected = np.exp(2 * np.array([[1, 0.6, 0], [0.6, 1, 0.8], [0, 0.8, 1]]))
    for row, community in enumerate(members):
        expected[row, [c for c in range(3) if c not in community]] = 0
    np.testing.assert_allclose(strategy.mixing, expected / expected.sum(1, keepdims=True), rtol=1e-6)


def test_an_absent_client_without_a_participant_of_its_community_keeps_its_parameters() -> None:
    strategy = similarity(1, 1, 1, community_threshold=0.5)
    strategy.take(replies([0, 1, 2], 3, **ANY, functional_embedding=[[1, 0], [0, 1], [0, 1]]))
    np.testing.assert_allclose(strategy.mixing, [[1, 0, 0], [0, 0.5, 0.5], [0, 0.5, 0.5]])
    strategy.take(replies([2], 3, w=[[[7, 9]]], b=[[0]], functional_embedding=[[0, 3]]))
    np.testing.assert_allclose(strategy.mixing, [[0, 0, 0], [0, 0, 1], [0, 0, 1]])
    sent = strategy.instructions(3, [0, 1, 2])
    np.testing.assert_allclose(sent["w"], [[[1, 2]], [[7, 9]], [[7, 9]]])
    np.testing.assert_allclose(sent["b"], [[1], [0], [0]])


@pytest.mark.parametrize("threshold", [None, 0.9])
def test_a_client_never_heard_of_gets_fedavgs_average(threshold: float | None) -> None:
    strategy = similarity(10, 30, 60, community_threshold=threshold)
    strategy.take(replies([0, 1], 3, w=ANY["w"][:2], b=ANY["b"][:2], functional_embedding=[[1, 0], [0, 1]]))
    assert strategy.mixing is not None
    np.testing.assert_allclose(strategy.mixing[2], [0.25, 0.75, 0])
    np.testing.assert_allclose(strategy.mixing.sum(1), 1, rtol=1e-6)


def test_an_absent_client_counts_by_its_last_gradient() -> None:
    strategy = similarity(1, 1, 1, similarity="gradient")
    changes = np.array([[1, 0, 0], [3, 4, 0], [0, 0, 2]], np.float32)
    sent = strategy.instructions(1, [0, 1, 2])
    strategy.take(replies([0, 1, 2], 3, w=sent["w"] + changes[:, None, :2], b=sent["b"] + changes[:, 2:]))
    sent = strategy.instructions(2, [0, 2])
    again = np.array([[0, 2, 0], [0, 3, 4]], np.float32)
    strategy.take(replies([0, 2], 3, w=sent["w"] + again[:, None, :2], b=sent["b"] + again[:, 2:]))
    # Cosines with the participants 0 and 2, the second row by client 1's (3, 4, 0) of round 1.
    expected = np.zeros((3, 3))
    expected[:, [0, 2]] = softmax_of([[1, 0.6], [0.8, 0.48], [0.6, 1]])
    np.testing.assert_allclose(strategy.mixing, expected, rtol=1e-4)


def test_the_size_of_a_graph_like_the_clients_is_announced() -> None:
    # The toy clients have 5 nodes and 20 directed edges an example.
    assert similarity(10, 30, 20).similarity.announcements == {"mean_nodes": 100.0, "mean_degree": 4.0}


@pytest.mark.parametrize("kind", ["functional", "parameter", "gradient", "label", "none"])
def test_fedpub_weights_masked_models_by_any_similarity(kind: str) -> None:
    initial = {"conv1.weight": np.full((2, 2), 8.0, np.float32), "conv1.bias": np.zeros(2, np.float32)}
    plain, masked = (
        strategy_of(family, toy_roster(10, 30), initial, {"similarity": kind, "tau": 2})
        for family in (SimilarityAlone, FedPUB)
    )
    sent = replies(
        [0, 1],
        2,
        conv1__weight=[[[2, 0], [4, 6]], [[0, 3], [8, 2]]],
        conv1__bias=[[1, 1], [2, 0]],
        wanted_features=[[0, 0]] * 2,
        functional_embedding=[[1, 0], [3, 4]],
        label_distribution=[[1, 0], [0.5, 0.5]],
    )
    for strategy in (plain, masked):
        strategy.take(sent)
    assert masked.mixing is not None
    np.testing.assert_array_equal(masked.mixing, plain.mixing)
    # A pruned weight does not go back to the client that pruned it; it is averaged over the others.
    received = masked.instructions(2, [0, 1])["conv1.weight"]
    both = masked.mixing @ [[4.0, 6.0], [8.0, 2.0]]
    np.testing.assert_allclose(received, [[[2, 0], both[0]], [[0, 3], both[1]]], rtol=1e-5)


@pytest.mark.parametrize("kind", ["functional", "parameter", "gradient", "label", "none"])
def test_a_fedpub_run_with_any_similarity(kind: str, inline_run: Callable[..., Outcome]) -> None:
    overrides = (*SMALL_DIGITS, "method=fedpub", f"method.similarity={kind}", "federation.rounds=2")
    outcome = inline_run(*overrides, "federation.fraction=0.7", "method.community_threshold=0.5")
    assert outcome.summary["status"] == "completed" and outcome.values("train_loss").shape == (2, 7)
    sums = outcome.mixing[2].sum(1)
    assert (np.isclose(sums, 1, atol=1e-5) | (sums == 0)).all() and sums.sum() >= 7


@pytest.mark.parametrize(
    "settings", [{"tau": -1}, {"similarity": "smell"}, {"community_threshold": 2}, {"community_threshold": -1.5}]
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(pydantic.ValidationError):
        SimilarityAlone.Settings(**settings)
