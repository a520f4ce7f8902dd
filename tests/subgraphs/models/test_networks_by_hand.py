"""Formulas of the networks on two nodes that are joined, with features 1 and 3, and a third one alone, with 5."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_clients import tiny_client

from subfl_flower.data.graph import ClientGraph
from subfl_flower.models.settings import (
    APPNPSettings,
    GATSettings,
    GCNIISettings,
    GINSettings,
    GraphModelSettings,
    MLPSettings,
    SGCSettings,
)
from subfl_flower.subgraphs.models.choices import graph_network

ONE = {"hidden": 1, "layers": 1, "dropout": 0.0}
SAME = {"classifier.weight": 1.0, "classifier.bias": 0.0}


def pair_and_a_single() -> ClientGraph:
    features = np.array([[1], [3], [5]], dtype=np.float32)
    return replace(tiny_client(0, 3), features=features, edge_index=np.array([[0, 1], [1, 0]]))


def outputs(settings: GraphModelSettings, **values: float) -> list[float]:
    """Outputs of the three nodes by a network of width 1, whose parameters have these values."""
    network = graph_network(settings, 1, 1)
    named = {name.replace("__", "."): value for name, value in values.items()}
    assert named.keys() == network.shapes.keys()
    parameters = {name: torch.full((1, *shape), named[name]) for name, shape in network.shapes.items()}
    found: list[float] = network(parameters, network.chunk([pair_and_a_single()]))[0, :, 0].tolist()
    return found


@pytest.mark.parametrize(
    ("att_src", "att_dst"),
    [(math.log(2) / 2, 0.5), (5 * math.log(2) / 2, -100.0)],
    ids=["positive scores", "negative scores, a fifth of them"],
)
def test_attention(att_src: float, att_dst: float) -> None:
    """Scores of 3 are log 2 above those of 1, so shares are 1/3 and 2/3, and sums 7/3. Less 1/3 that is 2, then 7."""
    values = {"conv1.weight": 1.0, "conv1.att_src": att_src, "conv1.att_dst": att_dst, "conv1.bias": -1 / 3}
    found = outputs(
        GATSettings(name="gat", heads=1, **ONE), **values, **{"classifier.weight": 3.0, "classifier.bias": 1.0}
    )
    assert found == pytest.approx([7, 7, 3 * (5 - 1 / 3) + 1], rel=1e-6)


def test_an_elu_follows_attention() -> None:
    """The sums are 7/3 as above; less 10/3 that is -1, and exp(-1) - 1."""
    values = {"conv1.weight": 1.0, "conv1.att_src": math.log(2) / 2, "conv1.att_dst": 0.0, "conv1.bias": -10 / 3}
    found = outputs(GATSettings(name="gat", heads=1, **ONE), **values, **SAME)
    assert found[:2] == pytest.approx([math.exp(-1) - 1] * 2, rel=1e-5)


@pytest.mark.parametrize("att_dst", [0.5, -100.0])
def test_a_nodes_own_half_of_attention_has_no_gradient_where_its_scores_have_one_sign(att_dst: float) -> None:
    """Shares do not depend on it there. Adam would make whole steps of rounding, different in every chunk."""
    network = graph_network(GATSettings(name="gat", hidden=3, layers=1, heads=1, dropout=0.0), 6, 2)
    graph, draws = tiny_client(0, 12), torch.Generator().manual_seed(0)
    features = np.abs(graph.features).astype(np.float32) + 1
    parameters = {
        name: torch.rand(1, *shape, generator=draws).requires_grad_() for name, shape in network.shapes.items()
    }
    parameters["conv1.att_dst"] = torch.full((1, 3), att_dst, requires_grad=True)
    network(parameters, network.chunk([replace(graph, features=features)])).square().sum().backward()
    assert not parameters["conv1.att_dst"].grad.any() and parameters["conv1.att_src"].grad.all()


@pytest.mark.parametrize("trained", [True, False])
def test_sums_over_neighbours(trained: bool) -> None:
    """1.5 + 3 = 4.5, 4.5 + 1 = 5.5, 7.5; twice that less one is 8, 10, 14; three times that less 26 is -2, 4, 16."""
    values = {"conv1.weight": 2.0, "conv1.bias": -1.0, "conv1.outer.weight": 3.0, "conv1.outer.bias": -26.0}
    eps = {"conv1.eps": 0.5} if trained else {}
    found = outputs(GINSettings(name="gin", eps=0.5, train_eps=trained, **ONE), **values, **eps, **SAME)
    assert found == [0, 4, 16]


@pytest.mark.parametrize(("hops", "propagated"), [(0, [1, 3, 5]), (1, [2, 2, 5]), (2, [2, 2, 5])])
def test_propagated_features(hops: int, propagated: list[float]) -> None:
    found = outputs(SGCSettings(name="sgc", hops=hops), **{"classifier.weight": 4.0, "classifier.bias": 1.0})
    assert found == pytest.approx([4 * value + 1 for value in propagated], rel=1e-6)


def test_a_perceptron_reads_no_neighbour() -> None:
    """2 x - 3 is -1, 3, 7."""
    found = outputs(MLPSettings(name="mlp", **ONE), **{"conv1.weight": 2.0, "conv1.bias": -3.0}, **SAME)
    assert found == [0, 3, 7]


def test_predictions_are_propagated() -> None:
    """Predictions are 2, 6, 10; a quarter of each and three quarters of the pair's mean, 4, are 3.5 and 4.5."""
    values = {"conv1.weight": 2.0, "conv1.bias": -1.0, "classifier.weight": 1.0, "classifier.bias": 1.0}
    for hops in (1, 2):
        found = outputs(APPNPSettings(name="appnp", hops=hops, alpha=0.25, **ONE), **values)
        assert found == pytest.approx([3.5, 4.5, 10], rel=1e-6)


def test_initial_residual_and_identity_mapping() -> None:
    """P is 3/4 of the mean 2 and 1/4 of 1, 3: 1.75, 2.25, and 5. With β of a half and W = 3 it is doubled."""
    theta = math.exp(0.5) - 1
    values = {"input.weight": 1.0, "input.bias": 0.0, "conv1.weight": 3.0}
    found = outputs(GCNIISettings(name="gcnii", alpha=0.25, theta=theta, **ONE), **values, **SAME)
    assert found == pytest.approx([3.5, 4.5, 10], rel=1e-6)
