from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from subfl_flower.data.datasets import CommunitiesDataset
from subfl_flower.data.partitions import ConsecutivePartition
from subfl_flower.errors import SubflError

FIGURE_1 = CommunitiesDataset()
FIGURE_3 = CommunitiesDataset(subgraphs=[5, 15], p_in=0.7, p_out=0.01)


def test_each_client_holds_a_subgraph_of_one_community() -> None:
    graph = FIGURE_1.load(Path())
    assigned = ConsecutivePartition(clients=50).assign(graph)
    assert [nodes.size for nodes in assigned] == [30] * 50
    assert [set(graph.labels[nodes].tolist()) for nodes in assigned] == [{0}] * 5 + [{1}] * 5 + [{2}] * 40


@pytest.mark.parametrize(("dataset", "p_in", "p_out"), [(FIGURE_1, 0.5, 0.1), (FIGURE_3, 0.7, 0.01)])
def test_edges_are_as_frequent_as_the_paper_says(dataset: CommunitiesDataset, p_in: float, p_out: float) -> None:
    graph = dataset.load(Path())
    sizes = np.bincount(graph.labels)
    same = graph.labels[graph.edge_index[0]] == graph.labels[graph.edge_index[1]]
    pairs_in = int((sizes * (sizes - 1)).sum())
    pairs_out = graph.num_nodes**2 - int((sizes**2).sum())
    for edges, pairs, p in ((same.sum(), pairs_in, p_in), ((~same).sum(), pairs_out, p_out)):
        # an undirected edge is two of the pairs: deviation of the count is sqrt(2 pairs p (1 - p))
        assert abs(edges - pairs * p) < 5 * np.sqrt(2 * pairs * p * (1 - p))


def test_mixed_nodes_have_a_class_of_another_community() -> None:
    pure = FIGURE_3.load(Path()).labels
    mixed = FIGURE_3.model_copy(update={"mixed": 0.2}).load(Path()).labels
    assert [(mixed[pure == c] != c).sum() for c in (0, 1)] == [30, 90]  # of 150 and 450


def test_rows_are_cut_into_ranges() -> None:
    graph = FIGURE_3.load(Path())
    sizes = [nodes.size for nodes in ConsecutivePartition(clients=7).assign(graph)]
    assert sizes == [86] * 5 + [85] * 2
    with pytest.raises(SubflError, match=r"partition\.clients=601 is more than the 600 nodes"):
        ConsecutivePartition(clients=601).assign(graph)
