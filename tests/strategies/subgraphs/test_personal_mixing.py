from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from toy_rounds import SimilarityAlone, replies, strategy_of, toy_roster

from subfl_flower.errors import SubflError
from subfl_flower.strategies.subgraphs.fedavg import FedAvg
from subfl_flower.strategies.subgraphs.fedpub import FedPUB
from subfl_flower.strategies.subgraphs.gcfl import GCFL, GCFLPlus
from subfl_flower.strategies.subgraphs.local import Local
from subfl_flower.strategies.subgraphs.mixing import MixingStrategy

INITIAL = {
    "conv1.weight": np.array([[8.0, 8.0]], np.float32),
    "conv1.bias": np.array([0.0, 0.0], np.float32),
    "classifier.weight": np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], np.float32),
    "classifier.bias": np.array([7.0, 8.0, 9.0], np.float32),
}
REST = ["conv1.weight", "conv1.bias"]


def personal(family: type[MixingStrategy], *num_examples: int, **settings: Any) -> MixingStrategy:
    chosen = {"personal_layers": ("classifier",), **settings}
    return strategy_of(family, toy_roster(*num_examples), INITIAL, chosen)


def test_only_what_is_not_personal_is_sent_and_mixed() -> None:
    strategy = personal(FedAvg, 10, 30)
    first = strategy.instructions(1, [0, 1])
    assert list(first) == REST
    np.testing.assert_array_equal(first["conv1.weight"], [[[8, 8]]] * 2)
    strategy.take(replies([0, 1], 2, conv1__weight=[[[4, 0]], [[8, 4]]], conv1__bias=[[-1, 0], [3, 0]]))
    sent = strategy.instructions(2, [0, 1])
    assert list(sent) == REST
    np.testing.assert_allclose(sent["conv1.weight"], [[[7, 3]]] * 2)  # (10·4 + 30·8) / 40, 30·4 / 40
    np.testing.assert_allclose(sent["conv1.bias"], [[2, 0]] * 2)


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        (Local, {}),
        (GCFL, {"first_split": 1}),
        (GCFLPlus, {"first_split": 1, "window": 2}),
        (SimilarityAlone, {"similarity": "parameter"}),
        (SimilarityAlone, {"similarity": "gradient"}),
        (FedPUB, {"similarity": "parameter"}),
        (FedPUB, {"similarity": "functional"}),
    ],
    ids=str,
)
def test_every_mixing_matrix_is_applied_to_the_rest_alone(family: type[MixingStrategy], settings: Any) -> None:
    strategy = personal(family, 10, 30, 20, **settings)
    rng = np.random.default_rng(0)
    for server_round in (1, 2, 3):
        weight, bias = rng.random((3, 1, 2)) + 1, rng.random((3, 2)) + 1
        extra = {"functional_embedding": rng.random((3, 2))}
        strategy.take(replies([0, 1, 2], 3, conv1__weight=weight, conv1__bias=bias, **extra))
        assert strategy.mixing is not None
        np.testing.assert_allclose(strategy.mixing.sum(1), 1, rtol=1e-6)
        sent = strategy.instructions(server_round + 1, [0, 1, 2])
        assert list(sent) == REST
        np.testing.assert_allclose(sent["conv1.weight"][:, 0], strategy.mixing @ weight[:, 0], rtol=1e-5)
        np.testing.assert_allclose(sent["conv1.bias"], strategy.mixing @ bias, rtol=1e-5)


def test_unknown_layers_and_all_layers_are_refused() -> None:
    with pytest.raises(SubflError, match="there is no layer 'head'; the model has conv1, classifier"):
        personal(FedAvg, 1, 1, personal_layers=("head",))
    with pytest.raises(SubflError, match="all layers are personal; use method=local"):
        personal(FedAvg, 1, 1, personal_layers=("conv1", "classifier"))
