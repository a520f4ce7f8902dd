from __future__ import annotations

from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from random_graphs import graph_of

from subfl_flower.data.datasets import CoraDataset
from subfl_flower.data.partitions import GivenPartition
from subfl_flower.data.prepared.partition import prepare
from subfl_flower.errors import SubflError


@pytest.mark.parametrize("benchmark_root", ["Planetoid/Cora/raw"], indirect=True)
@pytest.mark.parametrize(("file", "overlapping"), [("cora_disjoint_10.npz", False), ("cora_overlapping_10.npz", True)])
def test_reference_partitions_of_cora_come_out_as_filed(
    benchmark_root: Path, reference_partitions: Path, tmp_path: Path, file: str, overlapping: bool
) -> None:
    partition = GivenPartition(file=reference_partitions / file)
    prepared = prepare(CoraDataset(), partition, benchmark_root, tmp_path / "cache")
    assert prepared.overlapping is overlapping and prepared.num_clients == 10
    graph, roles = prepared.graph()
    adjacency = np.zeros((graph.num_nodes, graph.num_nodes), dtype=bool)
    adjacency[tuple(graph.edge_index)] = True
    shared = np.zeros_like(adjacency)
    with np.load(reference_partitions / file) as filed:
        np.testing.assert_array_equal(roles, filed["split"])
        for client_id in range(10):
            client = prepared.client(client_id)
            nodes = filed[f"client_{client_id}"]
            np.testing.assert_array_equal(client.node_ids, np.sort(nodes))
            np.testing.assert_array_equal(client.roles, filed["split"][np.sort(nodes)])
            assert client.edge_index.shape[1] == adjacency[np.ix_(nodes, nodes)].sum()
            shared[np.ix_(nodes, nodes)] = True
    assert prepared.cross_edges().shape[1] == (adjacency & ~shared).sum()


def written(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)
    return path


def test_ids_come_in_any_order_and_roles_follow_labels(tmp_path: Path) -> None:
    graph = graph_of(nx.path_graph(4))
    graph.labels[2] = -1
    file = written(
        tmp_path / "p.npz", split=np.array([0, 1, 0, 2]), client_0=np.array([3, 0]), client_1=np.array([0, 2])
    )
    partition = GivenPartition(file=file, clients=2)
    assert [nodes.tolist() for nodes in partition.assign(graph)] == [[0, 3], [0, 2]]
    assert partition.roles(graph, 0.2).tolist() == [0, 1, -1, 2]
    assert partition.overlapping


SPLIT = np.zeros(4, dtype=np.int8)


@pytest.mark.parametrize(
    ("arrays", "clients", "sentence"),
    [
        ({"split": SPLIT, "client_0": np.array([0, 4])}, None, r"client_0 names the nodes 0\.\.4; .* 0\.\.3"),
        ({"split": SPLIT, "client_0": np.array([-1, 2])}, None, r"client_0 names the nodes -1\.\.2"),
        ({"split": SPLIT, "client_0": np.array([2, 2])}, None, "client_0 names a node more than once"),
        ({"split": SPLIT[:3], "client_0": np.array([0])}, None, "split covers 3 nodes; the graph has 4"),
        ({"split": SPLIT + 3, "client_0": np.array([0])}, None, r"split holds 3\.\.3"),
        ({"split": SPLIT, "client_0": np.array([0])}, 2, "holds 1 clients, but partition.clients=2"),
        (
            {"split": SPLIT, "client_1": np.array([0])},
            None,
            "holds client_1, split; expected split, client_0",
        ),
        ({"split": SPLIT}, None, "expected split, client_0"),
        ({"split": SPLIT, "client_0": np.array([0.5])}, None, "one-dimensional arrays of integers"),
    ],
)
def test_files_that_do_not_fit_are_refused(
    tmp_path: Path, arrays: dict[str, np.ndarray], clients: int | None, sentence: str
) -> None:
    partition = GivenPartition(file=written(tmp_path / "p.npz", **arrays), clients=clients)
    graph = graph_of(nx.path_graph(4))
    with pytest.raises(SubflError, match=sentence):
        partition.assign(graph), partition.roles(graph, 0.2)


def test_files_that_are_no_archive_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("not an archive")
    np.save(tmp_path / "array.npy", np.arange(3))
    np.savez(tmp_path / "objects.npz", split=np.array([{}], dtype=object), client_0=np.arange(3))
    for name in ("text.npz", "array.npy", "objects.npz", "absent.npz"):
        with pytest.raises(SubflError, match=name):
            GivenPartition(file=tmp_path / name).assign(graph_of(nx.path_graph(4)))
