"""Convolutions over weighted edges: by hand, against PyG, and against a loop."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_clients import CLASSES, FEATURES, dense_features, dense_gcn, random_parameters, tiny_client
from torch_geometric.nn.conv.gcn_conv import gcn_norm

from subfl_flower.data.graph import ClientGraph
from subfl_flower.models.settings import DecoupledSettings, ModelSettings
from subfl_flower.models.sparse import mean_adjacency, normalised_adjacency
from subfl_flower.subgraphs.models.choices import graph_network
from subfl_flower.subgraphs.models.chunk import features_within_reach
from subfl_flower.subgraphs.models.gcn import StackedGCN
from subfl_flower.subgraphs.models.sage import StackedSAGE
from subfl_flower.subgraphs.models.structure_encoding import structure_encoding

PATH = np.array([[0, 1, 1, 2], [1, 0, 2, 1]])
WEIGHTS = np.array([3, 3, 0.5, 0.5], dtype=np.float32)
"""0 - 1 weighs 3 and 1 - 2 a half; node 3 is alone."""


def weighted(client_id: int, nodes: int, sparse: bool = False) -> tuple[ClientGraph, np.ndarray]:
    """A client with weights, and the dense matrix of them."""
    graph = tiny_client(client_id, nodes, sparse=sparse)
    upper = np.triu(np.random.default_rng(client_id).random((nodes, nodes)).astype(np.float32) * 5 + 0.01)
    weight = (upper + upper.T)[tuple(graph.edge_index)]
    matrix = np.zeros((nodes, nodes))
    matrix[tuple(graph.edge_index)] = weight
    return replace(graph, edge_weight=weight, cross_weight=np.zeros(0, np.float32)), matrix


def test_the_normalised_adjacency_of_a_weighted_path_by_hand() -> None:
    """With self-loops of weight 1 the degrees are 4, 4.5, 1.5 and 1."""
    a, b = 3 / np.sqrt(4 * 4.5), 0.5 / np.sqrt(4.5 * 1.5)
    expected = [[1 / 4, a, 0, 0], [a, 1 / 4.5, b, 0], [0, b, 1 / 1.5, 0], [0, 0, 0, 1]]
    found = normalised_adjacency(PATH, 4, WEIGHTS)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.toarray(), expected, rtol=1e-6)


def test_the_mean_adjacency_of_a_weighted_path_by_hand() -> None:
    found = mean_adjacency(PATH, 4, WEIGHTS)
    assert found.dtype == np.float32
    expected = [[0, 1, 0, 0], [3 / 3.5, 0, 0.5 / 3.5, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(found.toarray(), expected, rtol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_the_normalised_adjacency_is_pygs(seed: int) -> None:
    graph, _ = weighted(seed, 20)
    edges, values = gcn_norm(
        torch.from_numpy(graph.edge_index),
        torch.from_numpy(graph.edge_weight),
        num_nodes=20,
    )
    expected = np.zeros((20, 20))
    expected[tuple(edges.numpy())] = values.numpy()
    found = normalised_adjacency(graph.edge_index, 20, graph.edge_weight).toarray()
    np.testing.assert_allclose(found, expected, rtol=2e-6)  # PyG adds up in single precision
    np.testing.assert_array_equal(found, found.T)


@pytest.mark.parametrize("operator", [normalised_adjacency, mean_adjacency])
@pytest.mark.parametrize("seed", range(3))
def test_weights_of_one_give_the_unweighted_operator_to_the_last_bit(operator: object, seed: int) -> None:
    graph = tiny_client(seed, 30)
    ones = np.ones(graph.edge_index.shape[1], dtype=np.float32)
    one, other = (operator(graph.edge_index, 30, weight) for weight in (None, ones))  # type: ignore[operator]
    assert one.dtype == other.dtype
    for part in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(one, part), getattr(other, part))


def test_extreme_weights_leave_finite_operators() -> None:
    """The largest and the smallest that there are; a float32 sum or product of them would not be."""
    extreme = np.array([3.4e38, 3.4e38, 1e-45, 1e-45], dtype=np.float32)
    for operator in (normalised_adjacency, mean_adjacency):
        assert np.isfinite(operator(PATH, 4, extreme).data).all()
    np.testing.assert_allclose(normalised_adjacency(PATH, 4, extreme).toarray()[0, 1], 1, rtol=1e-6)


@pytest.mark.parametrize("sparse", [False, True])
def test_a_gcns_outputs_are_those_of_the_dense_formula(sparse: bool) -> None:
    of = StackedGCN(ModelSettings(name="gcn", hidden=5, dropout=0.0), FEATURES, CLASSES)
    made = [weighted(c, nodes, sparse) for c, nodes in enumerate((7, 12))]
    parameters = random_parameters(of, 2)
    found = of(parameters, of.chunk([graph for graph, _ in made]))
    for row, (graph, matrix) in enumerate(made):
        closed = matrix + np.eye(len(matrix))
        scale = np.diag(closed.sum(1) ** -0.5)
        own = {name: values[row].double() for name, values in parameters.items()}
        features = torch.from_numpy(dense_features(graph)).double()
        expected = dense_gcn(own, torch.from_numpy(scale @ closed @ scale), features)[0]
        torch.testing.assert_close(found[row, : graph.num_nodes].double(), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("sparse", [False, True])
def test_graph_sage_hears_the_weighted_mean_of_its_neighbours(sparse: bool) -> None:
    of = graph_network(ModelSettings(name="sage", hidden=5, layers=1, dropout=0.0), FEATURES, CLASSES)
    assert isinstance(of, StackedSAGE)
    graph, matrix = weighted(3, 9, sparse)
    x = dense_features(graph)
    means = np.zeros_like(x, dtype=float)
    for v in range(9):
        neighbours = [u for u in range(9) if matrix[v, u]]
        for u in neighbours:
            means[v] += matrix[v, u] * x[u] / sum(matrix[v, w] for w in neighbours)
    inputs = of.local_graph(graph).inputs
    found = inputs if isinstance(inputs, np.ndarray) else inputs.toarray()
    np.testing.assert_allclose(found, np.hstack([means, x]), atol=1e-5)
    plain = of.local_graph(replace(graph, edge_weight=None)).inputs
    assert abs(plain - inputs).max() > 0.1


def test_both_extractors_propagate_by_weights_and_the_encoding_does_not_read_them() -> None:
    of = graph_network(DecoupledSettings(name="decoupled", hidden=5, dropout=0.0), FEATURES, CLASSES)
    graph, matrix = weighted(2, 11)
    closed = matrix + np.eye(11)
    scale = np.diag(closed.sum(1) ** -0.5)
    encoding = structure_encoding(graph.edge_index, 11, of.settings.encoding)  # type: ignore[attr-defined]
    local = of.local_graph(graph)
    np.testing.assert_allclose(local.structure, scale @ closed @ scale @ encoding, atol=1e-5)
    np.testing.assert_allclose(local.operator.toarray(), scale @ closed @ scale, atol=1e-6)


def test_what_is_within_reach_does_not_depend_on_weights() -> None:
    graph = tiny_client(1, 20, edge_probability=0.08, roles=[0, *[2] * 19])
    light = np.full(graph.edge_index.shape[1], 1e-45, dtype=np.float32)
    for hops in range(3):
        expected = features_within_reach(graph, hops)
        np.testing.assert_array_equal(features_within_reach(replace(graph, edge_weight=light), hops), expected)
