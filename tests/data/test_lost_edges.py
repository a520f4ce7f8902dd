"""Edges that no client holds although it holds both ends."""

from __future__ import annotations

from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from random_graphs import graph_of

from subfl_flower.data.datasets import StochasticBlockModelDataset
from subfl_flower.data.partitions import LouvainPartition, MetisPartition, OverlappingPartition, OverlapRatePartition
from subfl_flower.data.partitions.louvain import louvain_communities
from subfl_flower.data.prepared.partition import prepare
from subfl_flower.errors import SubflError

GRAPH = graph_of(nx.connected_watts_strogatz_graph(200, 6, 0.2, seed=1))


def pairs(edge_index: np.ndarray) -> set[tuple[int, int]]:
    return set(map(tuple, edge_index.T.tolist()))


@pytest.mark.parametrize("rate", [0.1, 0.55])
def test_the_share_is_exact_and_both_directions_are_lost(rate: float) -> None:
    lost = MetisPartition(lost_edges=rate).lost_edges_of(GRAPH)
    assert lost.sum() == 2 * round(rate * 600)
    gone = pairs(GRAPH.edge_index[:, lost])
    assert gone == {(b, a) for a, b in gone}
    other = MetisPartition(lost_edges=rate, seed=1).lost_edges_of(GRAPH)
    assert (lost != other).any()


@pytest.mark.parametrize("partition", [MetisPartition, OverlappingPartition, OverlapRatePartition])
def test_clients_hold_the_same_nodes_and_all_but_the_lost_edges(partition: type, tmp_path: Path) -> None:
    dataset = StochasticBlockModelDataset(nodes_per_community=60, train_fraction=0.5)
    whole = prepare(dataset, partition(clients=5), tmp_path, tmp_path)
    lossy_settings = partition(clients=5, lost_edges=0.4)
    lossy = prepare(dataset, lossy_settings, tmp_path, tmp_path)
    graph, _ = lossy.graph()
    assert pairs(graph.edge_index) == pairs(whole.graph()[0].edge_index)  # the bounds' graph
    lost = pairs(graph.edge_index[:, lossy_settings.lost_edges_of(graph)])
    held = set()
    for client_id in range(5):
        before, now = whole.client(client_id), lossy.client(client_id)
        np.testing.assert_array_equal(before.node_ids, now.node_ids)
        np.testing.assert_array_equal(before.cross_edges, now.cross_edges)
        kept = pairs(now.node_ids[now.edge_index])
        assert kept == pairs(before.node_ids[before.edge_index]) - lost
        held |= kept
    assert pairs(lossy.cross_edges()) == pairs(graph.edge_index) - held


def test_louvains_communities_stay_whole_where_they_are_merged_at_random() -> None:
    communities = louvain_communities(GRAPH, 1.0, 3)
    partition = LouvainPartition(clients=4, merge="random", seed=3)
    assigned = partition.assign(GRAPH)
    owner = np.full(GRAPH.num_nodes, -1)
    for client_id, nodes in enumerate(assigned):
        owner[nodes] = client_id
    assert sorted(np.concatenate(assigned).tolist()) == list(range(200))
    held = [set(owner[nodes].tolist()) for nodes in communities]
    assert all(len(clients) == 1 for clients in held)
    counts = np.bincount([clients.pop() for clients in held])
    assert counts.max() - counts.min() <= 1
    with pytest.raises(SubflError, match=f"is more than the {len(communities)} communities"):
        LouvainPartition(clients=len(communities) + 1, merge="random", seed=3).assign(GRAPH)
