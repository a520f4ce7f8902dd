from __future__ import annotations

from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_graphs import graph_of

from subfl_flower.data.datasets import DigitsDataset
from subfl_flower.data.graph import Graph
from subfl_flower.data.partitions import LouvainPartition, RandomPartition
from subfl_flower.data.partitions.louvain import divided, louvain_communities, merged

NINE_EIGHT_SEVEN_SIX = [list(range(9)), list(range(9, 17)), list(range(17, 24)), list(range(24, 30))]


def chained_cliques() -> Graph:
    """Cliques of 9, 8, 7 and 6 nodes, one edge from each to the next."""
    cliques = nx.disjoint_union_all([nx.complete_graph(size) for size in (9, 8, 7, 6)])
    cliques.add_edges_from([(8, 9), (16, 17), (23, 24)])
    return graph_of(cliques)


def test_communities_are_the_cliques_and_are_merged_largest_first() -> None:
    graph = chained_cliques()
    assert sorted(nodes.tolist() for nodes in louvain_communities(graph, 1.0, 0)) == NINE_EIGHT_SEVEN_SIX
    # 9 to client 0, 8 to client 1, 7 to client 1 (8 < 9), 6 to client 0 (9 < 15).
    nine, eight, seven, six = NINE_EIGHT_SEVEN_SIX
    assert [nodes.tolist() for nodes in LouvainPartition(clients=2).assign(graph)] == [nine + six, eight + seven]


def test_merging_gives_each_community_to_the_client_with_the_fewest_nodes() -> None:
    sizes, start, communities = [7, 6, 5, 4, 3], 0, []
    for size in sizes:
        communities.append(np.arange(start, start + size))
        start += size
    # Clients 0, 1, 2 get 7, 6, 5; then 4 goes to client 2 (9), 3 to client 1 (9).
    assert [nodes.tolist() for nodes in merged(communities, 3)] == [
        list(range(7)),
        [*range(7, 13), *range(22, 25)],
        list(range(13, 22)),
    ]


def test_a_community_within_reach_of_a_fair_share_stays_whole() -> None:
    graph = chained_cliques()
    communities = [np.array(nodes) for nodes in NINE_EIGHT_SEVEN_SIX[::-1]]
    # Four clients: a fair share is 7.5, the limit 11.25.
    assert [nodes.tolist() for nodes in divided(graph, communities, 4, 0)] == NINE_EIGHT_SEVEN_SIX
    # Five clients: one more community is needed, and METIS halves the largest.
    pieces = [nodes.tolist() for nodes in divided(graph, communities, 5, 0)]
    assert pieces[:3] == NINE_EIGHT_SEVEN_SIX[1:]
    assert sorted(pieces[3] + pieces[4]) == NINE_EIGHT_SEVEN_SIX[0] and [len(pieces[3]), len(pieces[4])] == [5, 4]


def test_a_community_that_is_much_too_large_is_halved_along_its_own_structure() -> None:
    graph = graph_of(nx.ring_of_cliques(9, 10))
    pairs = list(np.arange(10).reshape(5, 2))
    # Eight cliques taken for one community. A fair share is 18, the limit 27: it is halved, then both halves.
    pieces = divided(graph, [*pairs, np.arange(10, 90)], 5, 0)
    assert [nodes.size for nodes in pieces] == [20, 20, 20, 20, 2, 2, 2, 2, 2]
    assert sorted(np.concatenate(pieces).tolist()) == list(range(90))
    assert all((np.unique(nodes // 10, return_counts=True)[1] == 10).all() for nodes in pieces[:4])  # no clique is cut


def test_more_clients_than_communities_share_them() -> None:
    assigned = LouvainPartition(clients=4).assign(graph_of(nx.barbell_graph(12, 0)))
    assert [nodes.size for nodes in assigned] == [6, 6, 6, 6]
    assert sorted(int(nodes.max()) < 12 for nodes in assigned) == [False, False, True, True]
    assert sorted(int(nodes.min()) >= 12 for nodes in assigned) == [False, False, True, True]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 80), st.data(), st.floats(0, 0.2), st.sampled_from([0.3, 1.0, 3.0]), st.integers(0, 3))
def test_no_client_is_empty_or_holds_twice_its_fair_share(
    nodes: int, data: st.DataObject, density: float, resolution: float, seed: int
) -> None:
    clients = data.draw(st.integers(1, nodes))
    graph = graph_of(nx.gnp_random_graph(nodes, density, seed=seed))
    assigned = LouvainPartition(clients=clients, resolution=resolution, seed=seed).assign(graph)
    sizes = [client.size for client in assigned]
    assert len(sizes) == clients and min(sizes) >= 1 and max(sizes) < 2 * nodes / clients
    np.testing.assert_array_equal(np.sort(np.concatenate(assigned)), np.arange(nodes))


def test_digits_is_cut_through_few_edges_into_balanced_clients() -> None:
    graph = DigitsDataset().load(Path("nowhere"))

    def kept(partition: LouvainPartition | RandomPartition) -> float:
        owner = np.empty(graph.num_nodes, dtype=np.int64)
        for client_id, nodes in enumerate(partition.assign(graph)):
            owner[nodes] = client_id
        return float((owner[graph.edge_index[0]] == owner[graph.edge_index[1]]).mean())

    sizes = [nodes.size for nodes in LouvainPartition(clients=10).assign(graph)]
    assert sum(sizes) == 1797 and min(sizes) > 140 and max(sizes) < 220
    assert kept(LouvainPartition(clients=10)) > 0.8
    assert kept(RandomPartition(clients=10)) == pytest.approx(0.1, abs=0.02)


def test_resolution_and_seed_are_heeded() -> None:
    graph = graph_of(nx.connected_watts_strogatz_graph(300, 6, 0.2, seed=1))
    counts = [len(louvain_communities(graph, resolution, 0)) for resolution in (0.2, 1.0, 5.0)]
    assert counts[0] < counts[1] < counts[2]
    first, again, other = (np.concatenate(LouvainPartition(clients=5, seed=seed).assign(graph)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
