from __future__ import annotations

from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from random_graphs import graph_of

from subfl_flower.data.datasets import DigitsDataset
from subfl_flower.data.graph_file import ClientGraphCard, read_client_graph, write_client_graph
from subfl_flower.data.partitions import (
    DirichletPartition,
    LouvainPartition,
    MetisPartition,
    OverlappingPartition,
    OverlapRatePartition,
    PartitionSettings,
    RandomPartition,
)
from subfl_flower.data.prepared.partition import client_file, prepare
from subfl_flower.data.subgraphs import SubgraphCutter
from subfl_flower.errors import SubflError
from subfl_flower.storage.tensor_file import read_tensor_file, write_tensor_file


def test_shareable_is_what_another_client_holds_too() -> None:
    assignments = [np.array(nodes) for nodes in ([0, 1, 2], [2, 3], [2, 3, 5], [6])]
    cutter = SubgraphCutter(graph_of(nx.path_graph(8)), np.zeros(8, dtype=np.int8), assignments)
    shareable = [cutter.cut(client_id).shareable for client_id in range(4)]
    assert [mask.tolist() for mask in shareable] == [[False, False, True], [True, True], [True, True, False], [False]]
    assert all(mask.dtype == np.bool_ for mask in shareable)


@pytest.mark.parametrize(
    ("partition", "shares"),
    [
        (OverlappingPartition(clients=10), True),
        (OverlapRatePartition(clients=10, rate=0.2), True),
        (OverlapRatePartition(clients=5, rate=1.0), True),
        (OverlapRatePartition(clients=10, rate=0.0), False),
        (MetisPartition(clients=6), False),
        (RandomPartition(clients=6), False),
        (LouvainPartition(clients=6), False),
        (DirichletPartition(clients=6), False),
    ],
    ids=lambda value: f"{value.name}-{getattr(value, 'rate', '')}" if isinstance(value, PartitionSettings) else "",
)
def test_prepared_clients_know_their_shareable_nodes(
    prepared_cache: Path, tmp_path: Path, partition: PartitionSettings, shares: bool
) -> None:
    prepared = prepare(DigitsDataset(), partition, tmp_path, prepared_cache)
    clients = [prepared.client(client_id) for client_id in range(prepared.num_clients)]
    for client in clients:
        others = set().union(*(other.node_ids.tolist() for other in clients if other is not client))
        assert client.shareable.dtype == np.bool_ and client.shareable.shape == (client.num_nodes,)
        assert set(client.node_ids[client.shareable].tolist()) == set(client.node_ids.tolist()) & others
    assert any(client.shareable.any() for client in clients) is shares
    assert prepared.overlapping is shares


def test_at_an_overlap_rate_every_client_of_a_part_may_speak_of_the_same_nodes(
    prepared_cache: Path, tmp_path: Path
) -> None:
    prepared = prepare(DigitsDataset(), OverlapRatePartition(clients=10, rate=0.2), tmp_path, prepared_cache)
    spoken_of = [frozenset(c.node_ids[c.shareable].tolist()) for c in map(prepared.client, range(10))]
    assert len(set(spoken_of[:5])) == len(set(spoken_of[5:])) == 1 and not spoken_of[0] & spoken_of[5]
    assert len(spoken_of[0]) + len(spoken_of[5]) == pytest.approx(0.2 * 1797, abs=1)


def test_the_mask_survives_the_disk_and_its_absence_is_named(tmp_path: Path) -> None:
    assignments = [np.array([0, 1, 3]), np.array([1, 2])]
    client = SubgraphCutter(graph_of(nx.path_graph(4)), np.zeros(4, dtype=np.int8), assignments).cut(0)
    path = tmp_path / client_file(0)
    write_client_graph(path, client)
    read = read_client_graph(path).shareable
    assert read.tolist() == [False, True, False] and read.dtype == np.bool_
    tensors, card = read_tensor_file(path, ClientGraphCard)
    del tensors["shareable"]
    write_tensor_file(path, tensors, card)
    with pytest.raises(SubflError, match="does not hold a client's graph: 'shareable' is missing"):
        read_client_graph(path)
