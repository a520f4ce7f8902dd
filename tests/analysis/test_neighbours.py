from __future__ import annotations

import numpy as np
import torch
from small_graphs import client_graph

from subfl_flower.analysis.neighbours import neighbour_performance, neighbours
from subfl_flower.models.settings import ModelSettings
from subfl_flower.subgraphs.models.gcn import StackedGCN
from subfl_flower.tasks.choices import NodeClassification

TASK = NodeClassification(name="node_classification")
GCN = StackedGCN(ModelSettings(name="gcn", hidden=2, layers=1), num_features=2, num_outputs=2)


def says(classifier: list[list[float]]) -> dict[str, torch.Tensor]:
    """A model that passes its features on to a classifier."""
    weights = {"conv1.weight": np.eye(2), "conv1.bias": np.zeros(2), "classifier.weight": classifier}
    weights["classifier.bias"] = np.zeros(2)
    return {name: torch.tensor(np.array(value), dtype=torch.float32).unsqueeze(0) for name, value in weights.items()}


def test_the_neighbour_has_the_most_missing_edges() -> None:
    missing = np.array([[0, 2, 5, 0], [2, 0, 2, 0], [5, 2, 0, 0], [0, 0, 0, 0]])
    assert neighbours(missing).tolist() == [2, 0, 0, -1]


def test_models_are_measured_on_the_test_nodes_of_the_neighbour() -> None:
    features = np.eye(2)[[0, 1, 0, 1]]
    as_features = says([[1, 0], [0, 1]])
    always_zero = says([[1, 1], [0, 0]])
    roles = [0, 1, 2, 2]  # training and validation nodes must not count, nor what a node's edges hide
    graphs = [
        client_graph(0, [0, 1, 2, 3], [], [1, 0, 0, 1], 2, features, roles),
        client_graph(1, [4, 5, 6, 7], [], [0, 0, 1, 1], 2, features, roles),
        client_graph(2, [8, 9, 10, 11], [], [1, 1, 1, 0], 2, features, [0, 0, 0, 0]),
    ]
    found = neighbour_performance(GCN, [as_features, always_zero, as_features], graphs, np.array([1, 0, -1]), TASK)
    # client 0 is right everywhere at home and at one of two at client 1; always zero is wrong at home, half right at 0
    np.testing.assert_array_equal(found.own, [1.0, 0.0, np.nan])
    np.testing.assert_array_equal(found.on_neighbour, [0.5, 0.5, np.nan])
    assert (found.mean_own, found.mean_on_neighbour, found.metric) == (0.5, 0.5, "accuracy")


def test_the_neighbours_edges_are_used() -> None:
    features = np.array([[1, 0], [0, 1], [0, 1]])
    # node 0 alone is class 0; joined to 1 and 2 the mean of the neighbourhood says class 1
    apart = client_graph(0, [0, 1, 2], [], [1, 1, 1], 2, features, [2, 0, 0])
    joined = client_graph(1, [3, 4, 5], [(0, 1), (0, 2)], [1, 1, 1], 2, features, [2, 0, 0])
    model = says([[1, 0], [0, 1]])
    found = neighbour_performance(GCN, [model, model], [apart, joined], np.array([1, 0]), TASK)
    assert found.own.tolist() == [0.0, 1.0] and found.on_neighbour.tolist() == [1.0, 0.0]
