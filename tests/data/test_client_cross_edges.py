from __future__ import annotations

from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from client_folders import small_client
from random_graphs import graph_of

from subfl_flower.data.datasets import DigitsDataset
from subfl_flower.data.folders.subgraph_check import require_sound
from subfl_flower.data.folders.subgraph_folder import ClientFolder, write_client_folder
from subfl_flower.data.graph import ClientGraph
from subfl_flower.data.graph_file import ClientGraphCard, read_client_graph, write_client_graph
from subfl_flower.data.partitions import MetisPartition, OverlappingPartition, PartitionSettings, WholePartition
from subfl_flower.data.prepared.partition import PreparedPartition, client_file, prepare
from subfl_flower.data.prepared.partition_files import write_partition
from subfl_flower.data.subgraphs import SubgraphCutter
from subfl_flower.errors import SubflError
from subfl_flower.storage.tensor_file import read_tensor_file, write_tensor_file
from subfl_flower.tasks.choices import LinkPrediction

# 0-1, 0-2, 1-2, 2-3, 3-4, 3-5, 4-5: two triangles joined by 2-3.
TRIANGLES = nx.Graph([(0, 1), (0, 2), (1, 2), (2, 3), (3, 4), (3, 5), (4, 5)])


def clients_of(network: nx.Graph, assignments: list[list[int]]) -> list[ClientGraph]:
    nodes = [np.array(ids) for ids in assignments]
    cutter = SubgraphCutter(graph_of(network), np.zeros(network.number_of_nodes(), dtype=np.int8), nodes)
    return [cutter.cut(client_id) for client_id in range(len(nodes))]


def pairs(edges: np.ndarray) -> list[tuple[int, int]]:
    return [(int(a), int(b)) for a, b in edges.T]


def in_global_ids(client: ClientGraph) -> list[tuple[int, int]]:
    return pairs(np.stack([client.node_ids[client.cross_edges[0]], client.cross_edges[1]]))


@pytest.mark.parametrize(
    ("assignments", "expected"),
    [
        ([[0, 1, 2], [3, 4, 5]], [[(2, 3)], [(0, 2)]]),
        ([[0, 3], [1, 2, 4, 5]], [[(0, 1), (0, 2), (1, 2), (1, 4), (1, 5)], [(0, 0), (1, 0), (1, 3), (2, 3), (3, 3)]]),
        # 2 and 3 are held twice, the edge between them by client 1 alone; 5 by nobody.
        ([[0, 1, 2], [2, 3], [3, 4]], [[(2, 3)], [(0, 0), (0, 1), (1, 4), (1, 5)], [(0, 2), (0, 5), (1, 5)]]),
        # Client 1 holds both ends of 0-2 and of 1-2; client 0 knows them all the same.
        ([[0, 1], [0, 1, 2]], [[(0, 2), (1, 2)], [(2, 3)]]),
        ([[0, 1, 2, 3, 4, 5]], [[]]),
    ],
)
def test_cross_edges_by_hand(assignments: list[list[int]], expected: list[list[tuple[int, int]]]) -> None:
    clients = clients_of(TRIANGLES, assignments)
    assert [pairs(client.cross_edges) for client in clients] == expected
    for client in clients:
        assert client.cross_edges.dtype == np.int64 and client.cross_edges.shape[0] == 2
        require_sound(client, "the client")


@pytest.mark.parametrize("overlapping", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_cross_edges_of_large_random_graphs_against_networkx(seed: int, overlapping: bool) -> None:
    network = nx.gnm_random_graph(2485, 5069, seed=seed)  # as many nodes and edges as Cora's largest component
    generator = np.random.default_rng(seed)
    if overlapping:
        assignments = [sorted(generator.choice(2485, size, replace=False).tolist()) for size in (1, 700, 900, 1200)]
    else:
        owners = generator.integers(0, 10, 2485)
        assignments = [np.flatnonzero(owners == client).tolist() for client in range(10)]
    clients = clients_of(network, assignments)
    for client, nodes in zip(clients, assignments, strict=True):
        boundary = sorted(nx.edge_boundary(network, nodes))  # each edge from the node within to the one outside
        assert in_global_ids(client) == boundary and boundary
        within = network.subgraph(nodes).number_of_edges()
        assert client.edge_index.shape == (2, 2 * within) and client.edge_index.dtype == np.int64
        require_sound(client, "the client")


def test_graphs_made_by_hand_have_none() -> None:
    made = ClientGraph(
        client_id=0,
        node_ids=np.arange(2),
        features=np.ones((2, 1), dtype=np.float32),
        edge_index=np.array([[0, 1], [1, 0]]),
        labels=None,
        num_classes=0,
        roles=np.full(2, -1, dtype=np.int8),
        shareable=np.zeros(2, dtype=bool),
    )
    assert made.cross_edges.shape == (2, 0) and made.cross_edges.dtype == np.int64
    require_sound(made, "the client")


def test_the_greatest_global_ids_are_sound() -> None:
    top = np.iinfo(np.int64).max
    require_sound(small_client(cross_edges=np.array([[0, 0, 1], [3, top, top]])), "the client")
    with pytest.raises(SubflError, match=r"^the client: cross_edges must be sorted"):
        require_sound(small_client(cross_edges=np.array([[0, 0, 1], [top, 3, top]])), "the client")


def test_cross_edges_survive_the_disk_and_their_absence_is_named(tmp_path: Path) -> None:
    client = clients_of(TRIANGLES, [[0, 3], [1, 2, 4, 5]])[1]
    folder = tmp_path / "client-01"
    write_client_folder(
        folder, client, dataset="toy", partition="", num_clients=None, overlapping=False, key=bytes(range(32))
    )
    opened = ClientFolder.open(folder)
    assert opened.description.num_cross_edges == 5
    assert pairs(opened.graph().cross_edges) == [(0, 0), (1, 0), (1, 3), (2, 3), (3, 3)]
    assert opened.graph().cross_edges.dtype == np.int64
    path = tmp_path / client_file(1)
    write_client_graph(path, client)
    tensors, card = read_tensor_file(path, ClientGraphCard)
    del tensors["cross_edges"]
    write_tensor_file(path, tensors, card)
    with pytest.raises(SubflError, match="does not hold a client's graph: 'cross_edges' is missing"):
        read_client_graph(path)


@pytest.mark.parametrize("partition", [MetisPartition(clients=6), OverlappingPartition(clients=10)])
def test_prepared_clients_know_the_edges_that_the_partition_cuts(
    prepared_cache: Path, tmp_path: Path, partition: PartitionSettings
) -> None:
    prepared = prepare(DigitsDataset(), partition, tmp_path, prepared_cache)
    clients = [prepared.client(client_id) for client_id in range(prepared.num_clients)]
    known = [edge for client in clients for edge in in_global_ids(client)]
    cut = pairs(prepared.cross_edges())
    assert cut
    if prepared.overlapping:
        # Every cut edge with an owner at its first end is known to it; more are, because others hold both ends.
        owned = set(np.concatenate([client.node_ids for client in clients]).tolist())
        assert {edge for edge in cut if edge[0] in owned} < set(known)
    else:
        assert sorted(known) == cut  # sorted already, and every edge is one client's alone
    whole = nx.Graph(pairs(prepared.graph()[0].edge_index))
    for client in clients:
        assert in_global_ids(client) == sorted(nx.edge_boundary(whole, client.node_ids.tolist()))


def test_nodes_that_nobody_holds_are_neighbours_too(tmp_path: Path) -> None:
    graph, roles = graph_of(TRIANGLES), np.zeros(6, dtype=np.int8)
    write_partition(
        tmp_path,
        graph,
        roles,
        [np.array([0, 1, 2]), np.array([4])],
        {"schema": PreparedPartition.schema, "overlapping": False},
    )
    prepared = PreparedPartition.open(tmp_path)
    assert [pairs(prepared.client(client).cross_edges) for client in (0, 1)] == [[(2, 3)], [(0, 3), (0, 5)]]
    # Of the cut edges the clients know those that begin at a node of theirs; 3-5 is known to nobody.
    assert pairs(prepared.cross_edges()) == [(2, 3), (3, 2), (3, 4), (3, 5), (4, 3), (4, 5), (5, 3), (5, 4)]


def test_a_client_that_holds_all_has_none(prepared_cache: Path, tmp_path: Path) -> None:
    prepared = prepare(DigitsDataset(), WholePartition(), tmp_path, prepared_cache)
    assert prepared.client(0).cross_edges.shape == prepared.cross_edges().shape == (2, 0)


def test_a_task_that_hides_edges_hides_those_that_another_client_is_tested_on() -> None:
    """A cross edge of one client may lie within another one that shares a node with it."""
    first, second = clients_of(nx.gnm_random_graph(60, 400, seed=1), [list(range(30)), list(range(20, 60))])
    task = LinkPrediction(name="link_prediction")
    everywhere = pairs(second.node_ids[second.edge_index])
    trained_on = pairs(second.node_ids[task.visible(second).edge_index])
    seen, known = in_global_ids(task.visible(first)), in_global_ids(first)
    assert len(set(known) & set(everywhere)) > len(set(seen) & set(everywhere)) > 0
    assert set(seen) & set(everywhere) == set(known) & set(trained_on)
