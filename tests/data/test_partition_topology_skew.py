from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from random_graphs import graph_of

from subfl_flower.data.datasets import DigitsDataset
from subfl_flower.data.graph import Graph
from subfl_flower.data.partitions.topology_skew import TopologySkewPartition, part_degree, part_homophily
from subfl_flower.errors import SubflError


def labelled(network: nx.Graph, labels: list[int]) -> Graph:
    return replace(graph_of(network), labels=np.array(labels), num_classes=2)


# A path 0-1-2-3 and a triangle 4-5-6, joined by 3-4.
PATH_AND_TRIANGLE = labelled(nx.Graph([(0, 1), (1, 2), (2, 3), (4, 5), (5, 6), (4, 6), (3, 4)]), [0, 0, 1, -1, 1, 1, 0])
PARTS = [np.arange(4), np.arange(4, 7)]


def test_properties_of_two_parts_by_hand() -> None:
    """The path has the labelled edges 0-1 of one class and 1-2 of two, the triangle 4-5 of one and two of two."""
    assert part_homophily(PATH_AND_TRIANGLE, PARTS).tolist() == [1 / 2, 1 / 3]
    assert part_degree(PATH_AND_TRIANGLE, PARTS).tolist() == [(1 + 2 + 2 + 2) / 4, (3 + 2 + 2) / 3]
    alone = [np.array([0]), np.array([1, 2, 3, 4, 5, 6])]
    assert part_homophily(PATH_AND_TRIANGLE, alone)[0] == 1  # no inner edge


def four_cliques() -> Graph:
    """Four cliques of 8 nodes in a ring; in the first and the third all nodes have one class, else half of them."""
    network = nx.disjoint_union_all([nx.complete_graph(8)] * 4)
    network.add_edges_from((8 * i + 7, (8 * i + 8) % 32) for i in range(4))
    return labelled(network, [0] * 8 + [0, 1] * 4 + [1] * 8 + [1, 0] * 4)


def test_cliques_are_dealt_by_homophily() -> None:
    found = TopologySkewPartition(clients=2, parts_per_client=2).assign(four_cliques())
    assert [nodes.tolist() for nodes in found] == [
        [*range(8, 16), *range(24, 32)],  # 3/7 of their edges join one class
        [*range(8), *range(16, 24)],
    ]


@pytest.fixture(scope="module")
def digits() -> Graph:
    return DigitsDataset().load(Path("nowhere"))


@pytest.mark.parametrize("by", ["homophily", "degree"])
def test_clients_differ_more_with_skew_and_hold_every_node_once(digits: Graph, by: str) -> None:
    measured = part_homophily if by == "homophily" else part_degree
    spread = []
    for skew in (0.0, 0.5, 1.0):
        partition = TopologySkewPartition.model_validate({"clients": 6, "by": by, "skew": skew})
        found = partition.assign(digits)
        np.testing.assert_array_equal(np.sort(np.concatenate(found)), np.arange(1797))
        assert all((np.diff(nodes) > 0).all() for nodes in found) and not partition.overlapping
        sizes = [nodes.size for nodes in found]
        assert max(sizes) < 1.2 * min(sizes)
        spread.append(np.std(measured(digits, found)))
        np.testing.assert_array_equal(np.concatenate(found), np.concatenate(partition.assign(digits)))
    assert spread[0] < spread[2] and spread[1] < spread[2]


def test_what_cannot_be_ordered_or_cut_is_refused(digits: Graph) -> None:
    unlabelled = replace(digits, labels=None)
    with pytest.raises(SubflError, match="no node of this data set has a label; use "):
        TopologySkewPartition().assign(unlabelled)
    TopologySkewPartition(by="degree").assign(unlabelled)
    with pytest.raises(SubflError, match="parts_per_client=2000 is more than"):
        TopologySkewPartition(clients=20, parts_per_client=100).assign(digits)
