from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
import torch
from tiny_clients import CLASSES, FEATURES, dense_features, dense_operator, family_of, tiny_client

from subfl_flower.clients.subgraphs.subgraph import SubgraphClient
from subfl_flower.data.datasets import StochasticBlockModelDataset
from subfl_flower.data.graph import TRAIN, ClientGraph
from subfl_flower.data.partitions import MetisPartition
from subfl_flower.data.prepared.partition import PreparedPartition, prepare
from subfl_flower.errors import SubflError
from subfl_flower.models.settings import ModelSettings
from subfl_flower.node.shared_key import SharedKey
from subfl_flower.subgraphs.cohort import Cohort
from subfl_flower.tasks.choices import GraphTask, LinkPrediction, NodeClassification

CPU = torch.device("cpu")
NODES = NodeClassification(name="node_classification")
LINKS = LinkPrediction(name="link_prediction", validation_fraction=0.3, test_fraction=0.3, dimensions=7)


def cohort(
    *sizes: int,
    task: GraphTask = NODES,
    chunk: int | str = "all",
    device: torch.device = CPU,
    **options: Sequence[int],
) -> Cohort:
    graphs = tuple(tiny_client(10 + c, size, **options) for c, size in enumerate(sizes))  # type: ignore[arg-type]
    return Cohort(graphs, FEATURES, CLASSES, device, chunk, task)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def partition(tmp_path_factory: pytest.TempPathFactory) -> PreparedPartition:
    folder = tmp_path_factory.mktemp("partition")
    dataset = StochasticBlockModelDataset(nodes_per_community=30, p_class=0.3, features=8)
    return prepare(dataset, MetisPartition(clients=4), folder / "root", folder / "cache")


# The task ------------------------------------------------------------------------------------------------------------


def trainer(of: Cohort, family: type[SubgraphClient] = SubgraphClient) -> SubgraphClient:
    return family_of(family, of, model=ModelSettings(name="gcn", hidden=5))


def test_the_task_says_what_is_seen_how_much_is_learnt_from_and_how_wide_the_output_is() -> None:
    nodes, links = cohort(9, 12), cohort(9, 12, task=LINKS)
    assert all(seen is graph for seen, graph in zip(nodes.visible, nodes.graphs, strict=True))
    assert nodes.num_outputs == CLASSES and nodes.num_examples == (3, 4)  # every third node trains
    train = [LINKS.edges(graph, TRAIN).shape[1] for graph in links.graphs]
    assert links.num_outputs == 7 and links.num_examples == tuple(train)
    assert [graph.edge_index.shape[1] for graph in links.visible] == [2 * count for count in train]
    assert links.client_ids == nodes.client_ids == (10, 11)


def test_a_client_without_an_example_is_refused_by_its_id() -> None:
    edgeless = replace(tiny_client(4, 3), edge_index=np.empty((2, 0), dtype=np.int64))
    with pytest.raises(SubflError, match="client 4 has no training edge"):
        _ = Cohort((tiny_client(3, 9), edgeless), FEATURES, CLASSES, CPU, "all", LINKS).num_examples
    with pytest.raises(SubflError, match="client 10 has no training node"):
        _ = cohort(2, roles=[1, 2]).num_examples


def test_a_chunk_convolves_over_visible_edges_and_its_examples_are_of_the_whole_graph() -> None:
    links = cohort(9, 12, 10, task=LINKS)
    chosen = [2, 0]
    chunk, examples = trainer(links).graph_chunk(chosen), links.examples(chosen)
    assert chunk.client_ids == (12, 10)
    for row, position in enumerate(chosen):
        graph, visible = links.graphs[position], links.visible[position]
        assert 0 < visible.edge_index.shape[1] < graph.edge_index.shape[1]
        expected = dense_operator(visible.edge_index, graph.num_nodes) @ dense_features(graph)
        np.testing.assert_allclose(chunk.inputs[row, : graph.num_nodes].numpy(), expected, atol=1e-6)
    outputs = torch.randn(2, chunk.width, 7, generator=torch.Generator().manual_seed(0))
    held_out = LINKS.examples([links.graphs[position] for position in chosen], CPU)
    found, expected_figures = torch.stack(examples.evaluate(outputs)), torch.stack(held_out.evaluate(outputs))
    assert torch.isfinite(found).all() and torch.equal(found, expected_figures)


def test_chunks_are_prepared_once_and_an_altered_cohort_prepares_its_own() -> None:
    nodes = cohort(9, 12, 10)
    client = trainer(nodes)
    assert client.graph_chunk([0, 1]) is client.graph_chunk(range(2))
    assert nodes.examples([0, 1]) is nodes.examples((0, 1))
    assert client.graph_chunk([1, 0]).client_ids == (11, 10)
    other = replace(nodes, graphs=nodes.graphs[::-1])
    assert trainer(other).graph_chunk([0, 1]).client_ids == (12, 11) and other.visible == nodes.visible[::-1]
    assert other.examples([0, 1]) is not nodes.examples([0, 1])


class Growing(SubgraphClient):
    """Clients whose local graphs change when they are told to."""

    version = 0

    def graph_version(self, position: int) -> int:
        return self.version if position == 1 else 0


def test_a_chunk_is_prepared_again_where_a_clients_local_graph_has_changed() -> None:
    client = trainer(cohort(9, 12, 10), Growing)
    before, without = client.graph_chunk([0, 1]), client.graph_chunk([2])
    client.version = 5
    after = client.graph_chunk([0, 1])
    assert after is not before and client.graph_chunk([0, 1]) is after
    assert client.graph_chunk([2]) is without


# Chunks --------------------------------------------------------------------------------------------------------------


def test_positions_are_cut_into_runs_of_at_most_the_size() -> None:
    assert list(cohort(3).split([0, 2, 3, 5, 8], 2)) == [[0, 2], [3, 5], [8]]
    assert list(cohort(3).split([4, 1], 5)) == [[4, 1]] and list(cohort(3).split([], 5)) == []


def test_a_chunk_is_as_large_as_told() -> None:
    assert cohort(9, 12, 10, chunk="all").chunk_size(10**9, 10**6) == 3
    assert cohort(9, 12, 10, chunk=2).chunk_size(10**9, 10**6) == 2


@pytest.mark.parametrize(
    ("parameters", "size"), [(1_760, 5), (799_760, 5), (799_761, 3), (1_999_760, 2), (2_000_000, 1), (10**9, 1)]
)
def test_on_a_cpu_ten_clients_are_2_4_8_or_16_chunks_of_at_most_four_million_numbers(
    parameters: int, size: int
) -> None:
    """Parameters, and two activations of width 10 at each of the largest client's 12 nodes: 240."""
    assert cohort(*[12, 5] * 5, chunk="auto").chunk_size(parameters, 10) == size
    assert cohort(12, chunk="auto").chunk_size(parameters, 10) == 1


def test_on_a_cpu_clients_are_alone_where_others_are_missing_and_auto_decides() -> None:
    everyone, some = [0, 1, 2, 3], [0, 2, 3]
    assert list(cohort(3, 4, 5, 6, chunk="auto").split(everyone, 2)) == [[0, 1], [2, 3]]
    assert list(cohort(3, 4, 5, 6, chunk="auto").split(some, 2)) == [[0], [2], [3]]
    assert list(cohort(3, 4, 5, 6, chunk=2).split(some, 2)) == [[0, 2], [3]]
    assert list(cohort(3, 4, 5, 6, chunk="auto", device=torch.device("cuda")).split(some, 2)) == [[0, 2], [3]]


def test_on_a_gpu_a_chunk_takes_its_share_of_the_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client of 760 + 240 numbers takes 12 copies of 4 bytes each; 40 percent of the memory may be taken."""
    gpu = cohort(12, 5, 6, 7, chunk="auto", device=torch.device("cuda"))
    for free, size in ((300_000, 2), (10**9, 4), (1_000, 1)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 10**12))
        assert gpu.chunk_size(760, 10) == size


# From a prepared partition -------------------------------------------------------------------------------------------


def test_a_cohort_is_read_from_a_partition_client_by_client(partition: PreparedPartition, tmp_path: Path) -> None:
    key = SharedKey(tmp_path / "clients.key", create=True)
    loaded = Cohort.load(partition, [3, 1], CPU, 1, LINKS, key)
    assert loaded.client_ids == (3, 1) and loaded.shared_key is key and loaded.task is LINKS
    assert (loaded.num_features, loaded.num_classes) == (partition.num_features, partition.num_classes)
    for graph, client_id in zip(loaded.graphs, (3, 1), strict=True):
        assert_same(graph, partition.client(client_id))


def assert_same(one: ClientGraph, other: ClientGraph) -> None:
    for name in ("node_ids", "features", "edge_index", "labels", "roles"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_the_whole_graph_is_at_hand_and_holds_what_every_client_holds(partition: PreparedPartition) -> None:
    loaded = Cohort.load(partition, range(4), CPU, 1, NODES)
    assert loaded.whole is not None
    whole, roles = loaded.whole()
    network = nx.Graph(whole.edge_index.T.tolist())
    assert sorted(node for graph in loaded.graphs for node in graph.node_ids) == list(range(whole.num_nodes))
    for graph in loaded.graphs:
        np.testing.assert_array_equal(whole.features[graph.node_ids], graph.features)
        np.testing.assert_array_equal(roles[graph.node_ids], graph.roles)
        induced = {frozenset(edge) for edge in network.subgraph(graph.node_ids.tolist()).edges}
        assert {frozenset(edge) for edge in graph.node_ids[graph.edge_index].T.tolist()} == induced
    assert len(network.edges) > sum(graph.edge_index.shape[1] // 2 for graph in loaded.graphs)


def test_a_cohort_made_by_hand_has_neither_key_nor_whole_graph() -> None:
    assert cohort(3).shared_key is None and cohort(3).whole is None
