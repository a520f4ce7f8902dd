"""Sums over neighbours by hand, on a graph of six nodes."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from subfl_flower.data.graph import ClientGraph, Graph
from subfl_flower.data.subgraphs import SubgraphCutter
from subfl_flower.subgraphs.mending.boundary import Boundary
from subfl_flower.subgraphs.mending.neighbour_sums import (
    NeighbourSums,
    degrees,
    graph_with_mended_inputs,
    mended_graph,
    partial_sums,
)
from subfl_flower.subgraphs.mending.packed_rows import dense

# 0 - 1 - 2 - 3 - 4, and 5 at 1 and 2: d = 2, 4, 4, 3, 2, 3.
EDGES = [(0, 1), (1, 2), (2, 3), (3, 4), (1, 5), (2, 5)]
D = np.array([2, 4, 4, 3, 2, 3])
FEATURES = np.array([[1, 0], [0, 2], [4, 0], [0, 9], [3, 3], [0, 6]], dtype=np.float32)
KEY, CONTEXT = bytes(range(32)), b"run"


def cut(*assignments: list[int], sparse: bool = False) -> list[ClientGraph]:
    both = np.array(EDGES + [(v, u) for u, v in EDGES]).T
    edge_index = both[:, np.lexsort((both[1], both[0]))]
    graph = Graph(sp.csr_array(FEATURES) if sparse else FEATURES, edge_index, None, 0)
    cutter = SubgraphCutter(graph, np.full(6, -1, np.int8), [np.array(nodes) for nodes in assignments])
    return [cutter.cut(client) for client in range(len(assignments))]


def z(node: int, counted: set[int]) -> np.ndarray:
    """z of a node over those of its neighbours, itself among them, that are counted."""
    neighbours = {node} | {v for u, v in EDGES if u == node} | {u for u, v in EDGES if v == node}
    terms = [FEATURES[u] / np.sqrt(D[u]) for u in neighbours & counted]
    return np.sum(terms, axis=0) if terms else np.zeros(2)


def listed(boundary: Boundary) -> dict[int, int]:
    """The place of each listed node."""
    return {node: place for place, node in enumerate(boundary.node_ids.tolist())}


def test_a_degree_counts_neighbours_elsewhere() -> None:
    for graph in cut([0, 1, 2], [3, 4, 5], [2, 3]):
        assert degrees(graph).tolist() == D[graph.node_ids].tolist()


def test_the_boundary_of_a_disjoint_partition_is_where_edges_cross() -> None:
    first, second = (Boundary.of(graph, KEY, CONTEXT) for graph in cut([0, 1, 2], [3, 4, 5]))
    assert sorted(first.node_ids.tolist()) == [1, 2, 3, 5] == sorted(second.node_ids.tolist())
    assert {n for n, held in zip(first.node_ids, first.held, strict=True) if held} == {1, 2}
    assert {n: own for n, own in zip(first.node_ids.tolist(), first.own.tolist(), strict=True)} == {
        1: 1,
        2: 2,
        3: -1,
        5: -1,
    }
    # Both name their nodes alike, in the same order.
    np.testing.assert_array_equal(first.tokens, second.tokens)
    np.testing.assert_array_equal(first.node_ids, second.node_ids)


def test_the_boundary_of_an_overlapping_partition_has_the_neighbours_of_what_is_shared() -> None:
    """Node 0 has no neighbour that another client holds."""
    (first, _) = (Boundary.of(graph, KEY, CONTEXT) for graph in cut([0, 1, 2, 5], [2, 3, 4]))
    assert sorted(first.node_ids.tolist()) == [1, 2, 3, 5]
    shared = Boundary.of(cut([0, 1, 2, 3, 4, 5], [2])[0], KEY, CONTEXT)
    assert sorted(shared.node_ids.tolist()) == [1, 2, 3, 5] and shared.held.all()


@pytest.mark.parametrize("sparse", [False, True])
def test_a_client_adds_up_those_neighbours_that_it_counts(sparse: bool) -> None:
    graph = cut([0, 1, 2], [3, 4, 5], sparse=sparse)[0]
    boundary = Boundary.of(graph, KEY, CONTEXT)
    place = listed(boundary)
    everyone = np.ones(3, dtype=bool)
    sums = dense(partial_sums(graph, boundary, np.ones(4, dtype=bool), everyone))
    for node in (1, 2, 3, 5):
        np.testing.assert_allclose(sums[place[node]], z(node, {0, 1, 2}), rtol=1e-6)
    assert sums[place[3]].tolist() == [2, 0]  # node 2 alone: 4 / sqrt(4)
    kept = np.isin(boundary.node_ids, [5, 1])
    counted = np.array([True, False, True])
    sums = dense(partial_sums(graph, boundary, kept, counted))
    in_order = [node for node in boundary.node_ids.tolist() if node in (1, 5)]
    np.testing.assert_allclose(sums, [z(node, {0, 2}) for node in in_order], rtol=1e-6)


def mended(told_of: list[int], sparse: bool = False) -> tuple[ClientGraph, np.ndarray, np.ndarray]:
    """The first client's graph where it was told of own nodes 1 and 2, and of some elsewhere in that order."""
    graph = cut([0, 1, 2], [3, 4, 5], sparse=sparse)[0]
    rows = np.array([z(node, set(range(6))) for node in (2, 1, *told_of)], dtype=np.float32)
    sums = NeighbourSums(np.array([2, 1]), np.array(told_of, dtype=int), rows, D[told_of])
    local = mended_graph(graph, NeighbourSums.of_arrays(sums.arrays(), 2))
    assert (local.num_own, local.num_nodes) == (3, 3 + len(told_of)) and sp.issparse(local.inputs) == sparse
    return graph, local.operator.toarray(), dense(local.inputs)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("told_of", [[], [3], [5, 3]])
def test_a_mended_graph_has_the_whole_graphs_entries(told_of: list[int], sparse: bool) -> None:
    """Its own nodes, then those that it was told of by ascending ids; between these there is no edge."""
    _, operator, inputs = mended(told_of, sparse)
    nodes = [0, 1, 2, *sorted(told_of)]
    for row, v in enumerate(nodes):
        np.testing.assert_allclose(inputs[row], z(v, set(range(6))) / np.sqrt(D[v]), rtol=1e-6)
        for column, u in enumerate(nodes):
            joined = v == u or (v, u) in EDGES or (u, v) in EDGES
            expected = 1 / np.sqrt(D[v] * D[u]) if joined else 0
            assert operator[row, column] == pytest.approx(expected, rel=1e-6)


def test_with_mended_inputs_alone_the_operator_is_that_of_own_edges() -> None:
    """0 - 1 - 2: d = 2, 3, 2 here."""
    graph = cut([0, 1, 2], [3, 4, 5])[0]
    rows = np.array([z(node, set(range(6))) for node in (2, 1)], dtype=np.float32)
    nothing = np.zeros(0, dtype=int)
    local = graph_with_mended_inputs(graph, NeighbourSums(np.array([2, 1]), nothing, rows, nothing))
    half, mixed = 1 / 2, 1 / np.sqrt(6)
    expected = [[half, mixed, 0], [mixed, 1 / 3, mixed], [0, mixed, half]]
    np.testing.assert_allclose(local.operator.toarray(), expected, rtol=1e-6)
    for v in range(3):
        np.testing.assert_allclose(local.inputs[v], z(v, set(range(6))) / np.sqrt(D[v]), rtol=1e-6)


def test_what_was_told_survives_being_arrays() -> None:
    rows = sp.csr_array(np.eye(3, 9, dtype=np.float32))
    told = NeighbourSums(np.array([4]), np.array([8, 9]), rows, np.array([3, 2]))
    again = NeighbourSums.of_arrays(told.arrays(), 9)
    assert again.own.tolist() == [4] and again.elsewhere.tolist() == [8, 9] and again.degrees.tolist() == [3, 2]
    np.testing.assert_array_equal(dense(again.sums), np.eye(3, 9))
