from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from random_graphs import graph_of

from subfl_flower.data.graph import Graph
from subfl_flower.data.partitions import (
    DirichletPartition,
    ImbalancedPartition,
    LouvainPartition,
    MetisPartition,
    OverlappingPartition,
    OverlapRatePartition,
    PartitionSettings,
    RandomPartition,
)
from subfl_flower.data.partitions.imbalanced import geometric_sizes
from subfl_flower.data.partitions.metis import metis_parts, metis_split
from subfl_flower.errors import SubflError

few = settings(max_examples=20, deadline=None)
graphs = st.integers(120, 200).flatmap(
    lambda nodes: st.builds(
        lambda seed: graph_of(nx.connected_watts_strogatz_graph(nodes, 4, 0.2, seed=seed)), st.integers(0, 10)
    )
)


@few
@given(
    graphs,
    st.integers(1, 5),
    st.integers(0, 3),
    st.sampled_from([MetisPartition, RandomPartition, ImbalancedPartition, LouvainPartition, DirichletPartition]),
)
def test_disjoint_partitions_cover_every_node_once(
    graph, clients: int, seed: int, partitioner: type[PartitionSettings]
) -> None:
    partition = partitioner(clients=clients, seed=seed)
    assigned = partition.assign(graph)
    assert len(assigned) == clients and not partition.overlapping
    np.testing.assert_array_equal(np.sort(np.concatenate(assigned)), np.arange(graph.num_nodes))
    for nodes, again in zip(assigned, partition.assign(graph), strict=True):
        assert nodes.dtype == np.int64 and nodes.size > 0 and (np.diff(nodes) > 0).all()
        np.testing.assert_array_equal(nodes, again)


@few
@given(graphs, st.integers(1, 3), st.integers(0, 3))
def test_overlapping_clients_hold_half_of_their_part(graph, parts: int, seed: int) -> None:
    partition = OverlappingPartition(clients=5 * parts, seed=seed)
    assigned = partition.assign(graph)
    assert len(assigned) == 5 * parts and partition.overlapping
    for part, nodes in enumerate(metis_parts(graph, parts, seed, "parts")):
        for client in assigned[5 * part : 5 * part + 5]:
            assert client.size == nodes.size // 2 and np.isin(client, nodes).all() and (np.diff(client) > 0).all()
    assert any((assigned[0] != other).any() for other in assigned[1:5])


def test_metis_finds_two_cliques_and_follows_its_seed() -> None:
    cliques = metis_parts(graph_of(nx.barbell_graph(12, 0)), 2, 1, "parts")
    assert sorted(nodes.tolist() for nodes in cliques) == [list(range(12)), list(range(12, 24))]
    graph = graph_of(nx.connected_watts_strogatz_graph(300, 4, 0.3, seed=1))
    first, again, other = (np.concatenate(metis_parts(graph, 6, seed, "parts")) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_metis_split_divides_the_induced_subgraph() -> None:
    graph = graph_of(nx.ring_of_cliques(4, 6))
    nodes = np.concatenate([np.arange(6), np.arange(12, 18), np.arange(18, 24)])  # the first, third and fourth clique
    divided = metis_split(graph, nodes, 3, 1)
    assert sorted(part.tolist() for part in divided) == [list(range(6)), list(range(12, 18)), list(range(18, 24))]


def test_metis_split_leaves_no_part_empty_while_there_are_nodes() -> None:
    graph = graph_of(nx.path_graph(30))
    with pytest.raises(SubflError, match="METIS left"):
        metis_parts(graph, 29, 1234, "parts")
    divided = metis_split(graph, np.arange(30), 29, 1234)
    assert sorted(part.size for part in divided) == [1] * 28 + [2]
    np.testing.assert_array_equal(np.sort(np.concatenate(divided)), np.arange(30))
    assert [part.tolist() for part in metis_split(graph, np.array([3, 8]), 4, 0)] == [[3], [8], [], []]
    assert [part.tolist() for part in metis_split(graph, np.arange(0), 2, 0)] == [[], []]


def test_random_sizes_differ_by_at_most_one() -> None:
    assigned = RandomPartition(clients=7).assign(graph_of(nx.path_graph(52)))
    assert sorted(nodes.size for nodes in assigned) == [7, 7, 7, 7, 8, 8, 8]
    assert sum(nodes.size - 1 == nodes[-1] - nodes[0] for nodes in assigned) == 0  # no client got a contiguous block


def test_imbalanced_merges_the_listed_parts() -> None:
    graph = graph_of(nx.connected_watts_strogatz_graph(200, 4, 0.2, seed=2))
    groups = [[5, 0, 2], [1], [3, 4]]
    assigned = ImbalancedPartition(clients=3, groups=groups, seed=9).assign(graph)
    parts = metis_parts(graph, 6, 9, "parts")
    for nodes, group in zip(assigned, groups, strict=True):
        assert nodes.tolist() == sorted(node for part in group for node in parts[part])


def test_imbalanced_default_is_about_eight_to_one() -> None:
    sizes = geometric_sizes(40, 10)
    assert sizes.sum() == 40 and sizes.min() == 1 and sizes[0] == sizes.max()
    assert (np.diff(sizes) <= 0).all() and 6 <= sizes[0] / sizes[-1] <= 10
    assert geometric_sizes(10, 10).tolist() == [1] * 10 and geometric_sizes(7, 1).tolist() == [7]
    assert list(map(len, ImbalancedPartition(clients=10).part_groups())) == sizes.tolist()


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: OverlappingPartition(clients=12), "multiple of 5 .*not 12"),
        (lambda: OverlapRatePartition(clients=12), "multiple of 5 .*not 12"),
        (lambda: OverlapRatePartition(rate=1.1), "less than or equal to 1"),
        (lambda: OverlapRatePartition(rate=-0.1), "greater than or equal to 0"),
        (lambda: LouvainPartition(resolution=0), "greater than 0"),
        (lambda: DirichletPartition(alpha=0), "greater than 0"),
        (lambda: DirichletPartition(min_nodes=0), "greater than or equal to 1"),
        (lambda: MetisPartition(clients=0), "clients"),
        (lambda: MetisPartition(clents=3), "clents"),
        (lambda: ImbalancedPartition(clients=3, groups=[[0], [1]]), "lists 2 groups for partition.clients=3"),
        (lambda: ImbalancedPartition(clients=2, groups=[[0, 1], [1]]), "each of the 3 parts"),
        (lambda: ImbalancedPartition(clients=2, parts=4, groups=[[0, 1], [2]]), "each of the 4 parts"),
        (lambda: ImbalancedPartition(clients=2, groups=[[0, 1], []]), "no group may be empty"),
        (
            lambda: ImbalancedPartition(clients=5, parts=4),
            "partition.parts=4 is less than partition.clients=5",
        ),
    ],
)
def test_impossible_settings_are_refused(make, sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        make()


@pytest.mark.parametrize(
    ("partition", "nodes", "sentence"),
    [
        (MetisPartition(clients=11), 10, "partition.clients=11 is more than the 10 nodes"),
        (RandomPartition(clients=11), 10, "partition.clients=11 is more than the 10 nodes"),
        (LouvainPartition(clients=11), 10, "partition.clients=11 is more than the 10 nodes"),
        (DirichletPartition(clients=3, min_nodes=4), 11, "clients=3 with partition.min_nodes=4 .* than the 11 nodes"),
        (ImbalancedPartition(clients=3), 10, "partition.parts=12 is more than the 10 nodes"),
        (MetisPartition(clients=29), 30, r"METIS left \d+ of partition.clients=29 parts of 30 nodes empty"),
        (OverlappingPartition(clients=10), 3, "METIS part . has a single node"),
    ],
)
def test_graphs_that_are_too_small_are_refused(partition: PartitionSettings, nodes: int, sentence: str) -> None:
    with pytest.raises(SubflError, match=sentence):
        partition.assign(graph_of(nx.path_graph(nodes)))


def test_metis_divides_a_graph_without_edges() -> None:
    assigned = MetisPartition(clients=4).assign(graph_of(nx.empty_graph(40)))
    assert sum(nodes.size for nodes in assigned) == 40 and min(nodes.size for nodes in assigned) > 0


def test_a_graph_without_labels_has_no_roles() -> None:
    graph = graph_of(nx.path_graph(5))
    unlabelled = type(graph)(graph.features, graph.edge_index, None, 0)
    assert MetisPartition().roles(unlabelled, 0.2).tolist() == [-1] * 5


def test_split_and_random_partition_are_drawn_independently():
    # With one seed for both, a partition that repeats the split's draw would give some clients every training node.
    labels = np.zeros(2000, dtype=np.int64)
    graph = Graph(np.ones((2000, 1), np.float32), np.zeros((2, 0), np.int64), labels, 1)
    partition = RandomPartition(clients=10, seed=1234)
    roles = partition.roles(graph, 0.2)
    train = [np.count_nonzero(roles[nodes] == 0) for nodes in partition.assign(graph)]
    assert min(train) > 20 and max(train) < 60  # 40 expected, standard deviation 5.4
