"""Sums over neighbours by the weights of edges, by hand on a graph of four nodes, and degrees in a message."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

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
from subfl_flower.subgraphs.mending.packed_degrees import packed_degrees, unpacked_degrees

# 0 - 1 weighs 3, 1 - 2 weighs 0.5, 2 - 3 weighs 7.5: d = 4, 4.5, 9, 8.5.
W = np.array([[1, 3, 0, 0], [3, 1, 0.5, 0], [0, 0.5, 1, 7.5], [0, 0, 7.5, 1]])
D = np.array([4, 4.5, 9, 8.5])
FEATURES = np.array([[1, 0], [0, 2], [6, 0], [3, 3]], dtype=np.float32)
Z = W @ (FEATURES / np.sqrt(D)[:, None])


def cut() -> list[ClientGraph]:
    """0 and 1 are client 0's, 2 and 3 client 1's."""
    edge_index = np.stack(np.nonzero(W - np.eye(4)))
    graph = Graph(FEATURES, edge_index, None, 0, edge_weight=W[tuple(edge_index)].astype(np.float32))
    cutter = SubgraphCutter(graph, np.full(4, -1, np.int8), [np.array([0, 1]), np.array([2, 3])])
    return [cutter.cut(client) for client in range(2)]


def test_a_degree_adds_up_weights_here_and_elsewhere() -> None:
    first, second = cut()
    assert degrees(first).tolist() == [4, 4.5] and degrees(second).tolist() == [9, 8.5]


def test_a_client_adds_up_those_neighbours_that_it_counts_by_their_weights() -> None:
    graph = cut()[0]
    boundary = Boundary.of(graph, bytes(range(32)), b"run")
    assert sorted(boundary.node_ids.tolist()) == [1, 2]
    sums = partial_sums(graph, boundary, np.ones(2, dtype=bool), np.ones(2, dtype=bool))
    expected = {1: [3 * 1 / 2, 2 / np.sqrt(4.5)], 2: [0, 0.5 * 2 / np.sqrt(4.5)]}
    np.testing.assert_allclose(sums, [expected[node] for node in boundary.node_ids.tolist()], rtol=1e-6)
    without = partial_sums(graph, boundary, np.ones(2, dtype=bool), np.array([True, False]))
    expected = {1: [3 * 1 / 2, 0], 2: [0, 0]}
    np.testing.assert_allclose(without, [expected[node] for node in boundary.node_ids.tolist()], rtol=1e-6)


def test_a_mended_graph_has_the_whole_graphs_entries() -> None:
    graph = cut()[0]
    told = NeighbourSums(np.array([1]), np.array([2]), Z[[1, 2]].astype(np.float32), np.array([9.0]))
    local = mended_graph(graph, NeighbourSums.of_arrays(told.arrays(), 2))
    whole = W / np.sqrt(np.outer(D, D))
    np.testing.assert_allclose(local.operator.toarray(), whole[:3, :3], rtol=1e-6)
    np.testing.assert_allclose(local.inputs, (whole @ FEATURES)[:3], rtol=1e-5)


def test_with_mended_inputs_alone_the_operator_is_that_of_own_edges() -> None:
    graph = cut()[0]
    nothing = np.zeros(0, dtype=np.int64)
    told = NeighbourSums(np.array([1]), nothing, Z[[1]].astype(np.float32), nothing)
    local = graph_with_mended_inputs(graph, told)
    np.testing.assert_allclose(local.operator.toarray(), [[1 / 4, 3 / 4], [3 / 4, 1 / 4]], rtol=1e-6)
    np.testing.assert_allclose(local.inputs, (W / np.sqrt(np.outer(D, D)) @ FEATURES)[:2], rtol=1e-5)


# In a message ---------------------------------------------------------------------------------------------------------


def test_whole_degrees_take_four_bytes_and_others_eight() -> None:
    for degree, kind in (([], np.uint32), ([2, 5], np.uint32), ([2.0, 2**32 - 1], np.uint32), ([2.0, 5.5], np.float64)):
        packed = packed_degrees(np.array(degree))
        assert packed.dtype == kind and packed.tolist() == degree
    assert packed_degrees(np.array([2.0**32])).dtype == np.float64


@given(arrays(np.float64, st.integers(0, 4), elements=st.sampled_from([1.0, 2.0, 1.5, 2.0**33, 1e300])))
def test_degrees_come_back_as_they_were(degree: np.ndarray) -> None:
    again = unpacked_degrees(packed_degrees(degree))
    assert again.tolist() == degree.tolist() and again.dtype in (np.int64, np.float64)


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        np.array([1, 2]),
        np.array([[2]], np.uint32),
        np.array([0], np.uint32),
        np.array([2.5, 0.5]),
        np.array([2.5, np.nan]),
        np.array([2.5, np.inf]),
        np.array([2.5, -3.5]),
        np.array([2.0, 3.0]),  # whole ones have a shorter form
        np.array([2.5], np.float32),
    ],
)
def test_what_are_no_degrees_is_refused(wrong: np.ndarray | None) -> None:
    with pytest.raises(ValueError, match=r"^degrees must be uint32 \[nodes\], each at least 1, or float64 where one"):
        unpacked_degrees(wrong)
