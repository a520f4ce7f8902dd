from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_graphs import graph_of

from subfl_flower.data.splits import random_roles
from subfl_flower.data.subgraphs import SubgraphCutter


def test_split_is_20_40_40_over_labelled_nodes() -> None:
    labels = np.zeros(1100, dtype=np.int64)
    labels[::11] = -1  # 100 unlabelled
    roles = random_roles(labels, 0.2, seed=7)
    assert roles.dtype == np.int8
    assert [int((roles == role).sum()) for role in (0, 1, 2, -1)] == [200, 400, 400, 100]
    np.testing.assert_array_equal(roles == -1, labels == -1)
    np.testing.assert_array_equal(roles, random_roles(labels, 0.2, seed=7))
    assert (roles != random_roles(labels, 0.2, seed=8)).any()


@given(st.integers(1, 60), st.floats(0.01, 0.99))
def test_split_loses_no_node(num_nodes: int, train_fraction: float) -> None:
    roles = random_roles(np.zeros(num_nodes, dtype=np.int64), train_fraction, 0)
    counts = [int((roles == role).sum()) for role in range(3)]
    assert sum(counts) == num_nodes
    assert counts[0] == pytest.approx(num_nodes * train_fraction, abs=0.5001)
    assert abs(counts[1] - counts[2]) <= 2


def test_subgraphs_and_cross_edges_by_brute_force() -> None:
    network = nx.gnp_random_graph(40, 0.15, seed=3)
    graph = graph_of(network)
    roles = random_roles(graph.labels, 0.3, 0)
    generator = np.random.default_rng(5)
    assignments = [np.sort(generator.choice(40, size, replace=False)) for size in (15, 1, 22, 9)]  # overlap, gaps
    cutter = SubgraphCutter(graph, roles, assignments)
    together: set[tuple[int, int]] = set()
    for client_id, nodes in enumerate(assignments):
        client = cutter.cut(client_id)
        expected = sorted((a, b) for a in nodes.tolist() for b in nodes.tolist() if network.has_edge(a, b) and a != b)
        together |= set(expected)
        assert [tuple(edge) for edge in client.node_ids[client.edge_index].T.tolist()] == expected
        assert [tuple(edge) for edge in client.edge_index.T.tolist()] == sorted(
            tuple(edge) for edge in client.edge_index.T.tolist()
        )
        np.testing.assert_array_equal(client.features, graph.features[nodes])
        np.testing.assert_array_equal(client.labels, graph.labels[nodes])
        np.testing.assert_array_equal(client.roles, roles[nodes])
        held_by_others = np.concatenate([other for i, other in enumerate(assignments) if i != client_id])
        assert client.shareable.tolist() == [node in held_by_others for node in nodes]
        assert client.num_train == sum(1 for node in nodes if roles[node] == 0)
        assert (client.client_id, client.num_classes, client.edge_index.dtype) == (
            client_id,
            3,
            np.dtype("int64"),
        )
    everything = {tuple(edge) for edge in graph.edge_index.T.tolist()}
    assert {tuple(edge) for edge in cutter.cross_edges().T.tolist()} == everything - together
    assert cutter.cross_edges().shape[1] == len(everything) - len(together) > 0
