"""Edge weights of clients: what is cut, what the disk gives back, what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from client_folders import small_client
from random_graphs import graph_of
from safetensors.numpy import load_file

from subfl_flower.data.folders.subgraph_check import require_sound
from subfl_flower.data.folders.subgraph_folder import ClientFolder, write_client_folder
from subfl_flower.data.graph import ClientGraph, Graph
from subfl_flower.data.prepared.partition import PreparedPartition, client_file
from subfl_flower.data.prepared.partition_files import write_partition
from subfl_flower.data.subgraphs import SubgraphCutter
from subfl_flower.errors import SubflError
from subfl_flower.tasks.choices import LinkPrediction

ASSIGNMENTS = [np.array([0, 3, 4, 9, 11]), np.array([1, 2, 3, 5, 6, 7, 9]), np.array([8, 10])]


def weighted(seed: int = 0) -> tuple[Graph, np.ndarray]:
    """A graph of 12 nodes whose edge between u and v weighs what row u and column v of the matrix say."""
    graph = graph_of(nx.gnm_random_graph(12, 30, seed=seed))
    upper = np.triu(np.random.default_rng(seed).random((12, 12)).astype(np.float32) + 0.1)
    matrix = upper + upper.T
    return replace(graph, edge_weight=matrix[graph.edge_index[0], graph.edge_index[1]]), matrix


def clients() -> tuple[list[ClientGraph], np.ndarray]:
    graph, matrix = weighted()
    cutter = SubgraphCutter(graph, np.zeros(12, dtype=np.int8), ASSIGNMENTS)
    return [cutter.cut(client_id) for client_id in range(3)], matrix


def check_weights(client: ClientGraph, matrix: np.ndarray) -> None:
    ids, across = client.node_ids, client.cross_edges
    assert client.edge_weight is not None and client.cross_weight is not None
    assert client.edge_weight.dtype == client.cross_weight.dtype == np.float32
    np.testing.assert_array_equal(client.edge_weight, matrix[tuple(ids[client.edge_index])])
    np.testing.assert_array_equal(client.cross_weight, matrix[ids[across[0]], across[1]])
    require_sound(client, "the client")


def test_a_client_gets_the_weights_of_its_edges_and_of_those_that_lead_elsewhere() -> None:
    cut, matrix = clients()
    assert sum(client.edge_index.shape[1] for client in cut) > 10
    assert all(client.cross_edges.shape[1] > 5 for client in cut)
    for client in cut:
        check_weights(client, matrix)


def test_without_weights_clients_have_none() -> None:
    graph = replace(weighted()[0], edge_weight=None)
    cut = SubgraphCutter(graph, np.zeros(12, dtype=np.int8), ASSIGNMENTS).cut(0)
    assert cut.edge_weight is None and cut.cross_weight is None


def test_weights_survive_the_disk(tmp_path: Path) -> None:
    graph, matrix = weighted()
    roles = np.zeros(12, dtype=np.int8)
    write_partition(tmp_path, graph, roles, ASSIGNMENTS, {"schema": PreparedPartition.schema, "overlapping": True})
    prepared = PreparedPartition.open(tmp_path)
    for client_id in range(3):
        check_weights(prepared.client(client_id), matrix)
    whole, _ = prepared.graph()
    assert whole.edge_weight is not None and whole.edge_weight.dtype == np.float32
    np.testing.assert_array_equal(whole.edge_weight, matrix[tuple(whole.edge_index)])


def test_files_without_weights_have_no_arrays_for_them(tmp_path: Path) -> None:
    graph = replace(weighted()[0], edge_weight=None)
    roles = np.zeros(12, dtype=np.int8)
    write_partition(tmp_path, graph, roles, ASSIGNMENTS, {"schema": PreparedPartition.schema, "overlapping": True})
    for name in ("global.safetensors", client_file(0)):
        assert not {"edge_weight", "cross_weight"} & set(load_file(tmp_path / name))
    prepared = PreparedPartition.open(tmp_path)
    assert prepared.graph()[0].edge_weight is None and prepared.client(0).edge_weight is None


EDGES = np.array([2, 2, 0.5, 0.5, 3, 3], dtype=np.float32)
"""Of `small_client`: 0 - 1 weighs 2, 1 - 2 a half, 2 - 3 three."""
ACROSS = np.array([1, 4, 2], dtype=np.float32)


def test_a_folder_gives_back_the_weights(tmp_path: Path) -> None:
    graph = small_client(edge_weight=EDGES, cross_weight=ACROSS)
    said = dict(dataset="toy", partition="", num_clients=None, overlapping=False, key=bytes(range(32)))
    write_client_folder(tmp_path / "client", graph, **said)  # type: ignore[arg-type]
    found = ClientFolder.open(tmp_path / "client").graph()
    assert found.edge_weight is not None and found.edge_weight.tolist() == EDGES.tolist()
    assert found.cross_weight is not None and found.cross_weight.tolist() == ACROSS.tolist()


def changed(weight: np.ndarray, place: int, value: float) -> np.ndarray:
    weight = weight.copy()
    weight[place] = value
    return weight


@pytest.mark.parametrize(
    ("edges", "across", "sentence"),
    [
        (EDGES.astype(np.float64), ACROSS, r"edge_weight is float64 \[6\], where float32 \[6\] belongs"),
        (EDGES[:5], ACROSS, r"edge_weight is float32 \[5\], where float32 \[6\] belongs"),
        (EDGES, ACROSS[None], r"cross_weight is float32 \[1, 3\], where float32 \[3\] belongs"),
        (EDGES, ACROSS[:2], r"cross_weight is float32 \[2\], where float32 \[3\] belongs"),
        (EDGES, None, "edge_weight is there without cross_weight"),
        (None, ACROSS, "cross_weight is there without edge_weight"),
        (changed(EDGES, 2, np.nan), ACROSS, "edge_weight holds 1 numbers that are not positive and finite, .* is nan"),
        (-EDGES, ACROSS, "edge_weight holds 6 numbers that are not positive and finite, the first is -2.0"),
        (EDGES, changed(ACROSS, 1, 0), "cross_weight holds 1 numbers that are not positive and finite, .* is 0.0"),
        (EDGES, changed(ACROSS, 2, np.inf), "cross_weight holds 1 numbers that are not positive and finite, .* inf"),
        (changed(EDGES, 4, 1), ACROSS, "edge_weight must be equal in both directions of an edge"),
        (EDGES[[2, 3, 0, 1, 4, 5]][[0, 2, 1, 3, 4, 5]], ACROSS, "edge_weight must be equal in both directions"),
    ],
)
def test_weights_that_are_none_are_refused(edges: np.ndarray | None, across: np.ndarray | None, sentence: str) -> None:
    with pytest.raises(SubflError, match=f"^the client: {sentence}"):
        require_sound(small_client(edge_weight=edges, cross_weight=across), "the client")


def test_sound_weights_are_taken() -> None:
    require_sound(small_client(edge_weight=EDGES, cross_weight=ACROSS), "the client")
    alone = np.empty((2, 0), dtype=np.int64)
    for none in (None, np.empty(0, dtype=np.float32)):
        require_sound(small_client(edge_weight=EDGES, cross_edges=alone, cross_weight=none), "the client")


def test_held_out_edges_take_their_weights_along() -> None:
    """A model may see of a client the training edges, each with its weight."""
    task = LinkPrediction(name="link_prediction", validation_fraction=0.2, test_fraction=0.3)
    cut, matrix = clients()
    seen = [task.visible(client) for client in cut]
    assert 0 < sum(client.edge_index.shape[1] for client in seen) < sum(client.edge_index.shape[1] for client in cut)
    assert 0 < sum(client.cross_edges.shape[1] for client in seen) < sum(client.cross_edges.shape[1] for client in cut)
    for client in seen:
        check_weights(client, matrix)
    without = replace(cut[0], edge_weight=None, cross_weight=None)
    assert task.visible(without).edge_weight is None and task.visible(without).cross_weight is None
