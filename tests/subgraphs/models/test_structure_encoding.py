from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
import torch
from torch_geometric.data import Data
from torch_geometric.transforms import AddRandomWalkPE

from subfl_flower.subgraphs.models import structure_encoding as module
from subfl_flower.subgraphs.models.structure_encoding import degree_buckets, landing_probabilities, structure_encoding


def edges_of(graph: nx.Graph) -> np.ndarray:
    """Both directions of every edge [2, edges]."""
    edges = [(a, b) for u, v in graph.edges for a, b in ((u, v), (v, u))]
    return np.array(edges, dtype=np.int64).reshape(-1, 2).T


def dense_probabilities(graph: nx.Graph, steps: int) -> np.ndarray:
    """Diagonals of (A D^-1)^k in double precision, from networkx' dense matrix."""
    adjacency = nx.to_numpy_array(graph, nodelist=range(len(graph)))
    walk = adjacency / np.maximum(adjacency.sum(0), 1)
    return np.stack([np.diag(np.linalg.matrix_power(walk, k)) for k in range(1, steps + 1)], axis=1)


def test_walks_on_a_path_and_a_triangle_by_hand() -> None:
    path = edges_of(nx.path_graph(3))
    # From an end all walks are back after two steps with probability 1/2, from the middle always; never after odd ones.
    np.testing.assert_allclose(
        landing_probabilities(path, 3, 4), [[0, 0.5, 0, 0.5], [0, 1, 0, 1], [0, 0.5, 0, 0.5]], rtol=1e-6
    )
    triangle = edges_of(nx.cycle_graph(3))
    # p_k = (1 - p_{k-1}) / 2.
    np.testing.assert_allclose(landing_probabilities(triangle, 3, 4), [[0, 0.5, 0.25, 0.375]] * 3, rtol=1e-6)


@pytest.mark.parametrize("steps", [1, 2, 5, 8])
@pytest.mark.parametrize("nodes", [5, 128, 300])
def test_walks_are_the_dense_formulas(steps: int, nodes: int) -> None:
    graph = nx.fast_gnp_random_graph(nodes, 4 / nodes, seed=nodes)
    graph.remove_edges_from(list(graph.edges(0)))  # a node without neighbours
    found = landing_probabilities(edges_of(graph), nodes, steps)
    assert found.shape == (nodes, steps) and found.dtype == np.float32
    np.testing.assert_allclose(found, dense_probabilities(graph, steps), atol=1e-6)
    assert not found[0].any()


def test_walks_are_pygs() -> None:
    graph = nx.barabasi_albert_graph(40, 3, seed=1)
    edges = edges_of(graph)
    data = AddRandomWalkPE(walk_length=6, attr_name="pe")(Data(edge_index=torch.from_numpy(edges), num_nodes=40))
    np.testing.assert_allclose(landing_probabilities(edges, 40, 6), data.pe.numpy(), atol=1e-6)


def test_large_graphs_are_estimated_with_the_error_that_is_stated(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = nx.barabasi_albert_graph(400, 4, seed=2)
    edges, exact = edges_of(graph), dense_probabilities(graph, 6)
    monkeypatch.setattr(module, "_MOST_PRODUCTS", 0)
    found = landing_probabilities(edges, 400, 6)
    np.testing.assert_array_equal(found, landing_probabilities(edges, 400, 6))
    assert np.abs(found - exact).max() > 1e-3  # it is an estimate
    even = found[:, 1::2] / exact[:, 1::2] - 1
    stated = (2 / 512) ** 0.5
    assert np.sqrt((even**2).mean(0)).max() < 1.1 * stated and abs(even.mean()) < 0.02
    for k in (3, 5):
        scale = np.sqrt(exact[:, k - 2] * exact[:, k])
        assert np.sqrt((((found[:, k - 1] - exact[:, k - 1]) / scale) ** 2).mean()) < 1.1 * stated


def test_degrees_fall_into_buckets_of_powers_of_two() -> None:
    star = edges_of(nx.star_graph(8))  # node 0 has 8 neighbours, the others one
    np.testing.assert_array_equal(degree_buckets(star, 10, 6).argmax(1), [4] + [1] * 8 + [0])
    degrees = [0, 1, 2, 3, 4, 7, 8, 15, 16]
    hubs = np.repeat(np.arange(len(degrees)), degrees)
    np.testing.assert_array_equal(degree_buckets(np.stack([hubs, hubs]), 9, 6).argmax(1), [0, 1, 2, 2, 3, 3, 4, 4, 5])
    np.testing.assert_array_equal(degree_buckets(np.stack([hubs, hubs]), 9, 3).argmax(1), [0, 1] + [2] * 7)


@pytest.mark.parametrize(("width", "walks"), [(2, 1), (5, 2), (32, 16)])
def test_an_encoding_is_walks_and_then_degrees(width: int, walks: int) -> None:
    edges = edges_of(nx.karate_club_graph())
    found = structure_encoding(edges, 34, width)
    assert found.shape == (34, width) and found.dtype == np.float32
    np.testing.assert_array_equal(found[:, :walks], landing_probabilities(edges, 34, walks))
    np.testing.assert_array_equal(found[:, walks:], degree_buckets(edges, 34, width - walks))


def test_a_graph_without_edges_has_an_encoding() -> None:
    found = structure_encoding(np.zeros((2, 0), dtype=np.int64), 3, 4)
    np.testing.assert_array_equal(found, [[0, 0, 1, 0]] * 3)
