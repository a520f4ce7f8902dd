"""The benchmark of structural distances measures clients of the stated sizes."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from benchmark_scripts import load_benchmark

from subfl_flower.data.datasets.planetoid import CoraDataset
from subfl_flower.data.partitions.overlapping import OverlappingPartition
from subfl_flower.data.prepared.partition import prepare


@pytest.fixture(scope="module")
def structural() -> ModuleType:
    return load_benchmark("structural")


def test_a_random_graph_has_the_stated_size(structural: ModuleType) -> None:
    graph = structural.random_graph(400, 6000)
    assert graph.num_nodes == 400
    assert abs(graph.num_edges - 6000) < 5 * 2 * 3000**0.5  # pairs are drawn, and each is two directed edges
    np.testing.assert_array_equal(np.lexsort(graph.edge_index[::-1]), np.arange(graph.num_edges))


def test_clients_that_hold_the_whole_graph(structural: ModuleType) -> None:
    graph = structural.random_graph(100, 600)
    clients = list(structural.whole(graph, 3, 0.1))
    assert [int(client.shareable.sum()) for client in clients] == [10, 10, 10]
    found = structural.measure(iter(clients))
    assert (found.clients, found.nodes, found.shareable) == (3, 100, 10)
    assert found.describe > 0
    assert found.compare > 0


def test_divided_clients_are_those_of_the_prepared_partition(
    structural: ModuleType, cora_root: Path, tmp_path: Path
) -> None:
    graph = CoraDataset().load(cora_root)
    prepared = prepare(CoraDataset(), OverlappingPartition(clients=5), cora_root, tmp_path / "cache")
    clients = list(structural.divided(graph, 5))
    assert (graph.num_nodes, graph.num_edges) == structural.SIZES["cora"]
    for client_id, client in enumerate(clients):
        expected = prepared.client(client_id)
        np.testing.assert_array_equal(client.node_ids, expected.node_ids)
        np.testing.assert_array_equal(client.edge_index, expected.edge_index)
        np.testing.assert_array_equal(client.shareable, expected.shareable)


def test_the_command_prints_the_cases_asked_for(structural: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    structural.main(["--cases", "a"])
    printed = capsys.readouterr().out
    row = next(line for line in printed.splitlines() if "a: Cora" in line)
    name, clients, nodes, sources, describe, compare, target = (cell.strip() for cell in row.strip("│").split("│"))
    assert (name, clients, target) == ("a: Cora cut", "15", "< 5")
    assert abs(int(nodes) - 2485 // 6) < 25  # half of a third, as evenly as METIS cuts
    assert 0.8 * int(nodes) < int(sources) <= int(nodes)  # another has 1 - 1/2 ** 4 of them
    assert float(describe) > 0
    assert float(compare) >= 0
    assert "Photo" not in printed
