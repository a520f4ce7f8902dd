from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from random_graphs import graph_of
from scipy.spatial.distance import jensenshannon
from scipy.stats import kstest

from subfl_flower.data.datasets import DigitsDataset
from subfl_flower.data.graph import Graph
from subfl_flower.data.partitions import DirichletPartition
from subfl_flower.errors import SubflError


def labelled(labels: list[int] | np.ndarray) -> Graph:
    """Nodes without edges."""
    return replace(graph_of(nx.empty_graph(len(labels))), labels=np.array(labels))


def label_counts(partition: DirichletPartition, graph: Graph) -> np.ndarray:
    """Number of nodes of each class at each client: `[clients, 1 + classes]`, the first column without a label."""
    return np.stack(
        [np.bincount(graph.labels[nodes] + 1, minlength=graph.labels.max() + 2) for nodes in partition.assign(graph)]
    )


@pytest.fixture(scope="module")
def digits() -> Graph:
    return DigitsDataset().load(Path("nowhere"))


def test_every_node_goes_to_one_client_and_the_seed_decides(digits: Graph) -> None:
    partition = DirichletPartition(clients=8, alpha=0.3, seed=5)
    assigned = partition.assign(digits)
    np.testing.assert_array_equal(np.sort(np.concatenate(assigned)), np.arange(1797))
    assert not partition.overlapping and min(nodes.size for nodes in assigned) >= 10
    assert all((np.diff(nodes) > 0).all() and nodes.dtype == np.int64 for nodes in assigned)
    np.testing.assert_array_equal(np.concatenate(assigned), np.concatenate(partition.assign(digits)))
    other = DirichletPartition(clients=8, alpha=0.3, seed=6).assign(digits)
    assert [nodes.size for nodes in assigned] != [nodes.size for nodes in other]


def test_small_alpha_skews_labels_more(digits: Graph) -> None:
    def divergence(alpha: float, seed: int) -> float:
        counts = label_counts(DirichletPartition(clients=6, alpha=alpha, min_nodes=5, seed=seed), digits)[:, 1:]
        return float(np.mean([jensenshannon(one, other, base=2) ** 2 for one, other in combinations(counts, 2)]))

    means = [np.mean([divergence(alpha, seed) for seed in range(5)]) for alpha in (0.1, 1, 10, 100)]
    assert means[0] > 0.4 and means[3] < 0.02
    assert means[0] > 2 * means[1] > 4 * means[2] > 8 * means[3]


def test_the_extremes_are_whole_classes_and_even_shares(digits: Graph) -> None:
    whole = label_counts(DirichletPartition(clients=2, alpha=1e-6, min_nodes=1), digits)[:, 1:]
    assert (np.count_nonzero(whole, axis=0) == 1).all() and (whole.sum(axis=0) == np.bincount(digits.labels)).all()
    even = label_counts(DirichletPartition(clients=7, alpha=1e9), digits)[:, 1:]
    assert (np.ptp(even, axis=0) <= 1).all()


def test_a_clients_share_of_a_class_has_the_marginal_distribution_of_the_dirichlet() -> None:
    graph = labelled(np.zeros(1000, dtype=np.int64))
    for client_id in range(3):
        shares = [
            DirichletPartition(clients=3, alpha=2, min_nodes=1, seed=seed).assign(graph)[client_id].size / 1000
            for seed in range(400)
        ]
        assert kstest(shares, "beta", args=(2, 4)).pvalue > 0.01  # of Dirichlet(2, 2, 2) one share is Beta(2, 4)


def test_the_last_nodes_of_small_classes_favour_no_client() -> None:
    graph = labelled(np.arange(2000))  # 2000 classes of one node, which the shares 1/4 round to someone
    sizes = [nodes.size for nodes in DirichletPartition(clients=4, alpha=1000).assign(graph)]
    assert sum(sizes) == 2000 and max(abs(size - 500) for size in sizes) < 100  # standard deviation 19


def test_which_nodes_of_a_class_a_client_gets_is_drawn() -> None:
    assigned = DirichletPartition(clients=2, alpha=50).assign(labelled(np.zeros(100, dtype=np.int64)))
    assert all(nodes[-1] - nodes[0] > nodes.size for nodes in assigned)


def test_nodes_without_a_label_are_spread_evenly() -> None:
    graph = labelled([-1] * 23 + [0] * 40 + [2] * 40)  # class 1 has no node
    counts = label_counts(DirichletPartition(clients=4, alpha=0.5), graph)
    assert sorted(counts[:, 0]) == [5, 6, 6, 6]
    assert counts.sum(axis=0).tolist() == [23, 40, 0, 40]


def test_draws_are_repeated_until_every_client_has_its_nodes() -> None:
    graph = labelled(np.arange(200) % 4)
    smallest = {
        min_nodes: [
            min(map(len, DirichletPartition(clients=5, alpha=0.3, min_nodes=min_nodes, seed=seed).assign(graph)))
            for seed in range(20)
        ]
        for min_nodes in (1, 20)
    }
    assert min(smallest[20]) >= 20 and 1 <= min(smallest[1]) < 20


@pytest.mark.parametrize(
    ("labels", "settings", "sentence"),
    [
        (
            [0] * 50,
            {"clients": 2, "alpha": 1e-6},
            "none of 1000 draws with partition.alpha=1e-06 gave each of 2 clients",
        ),
        ([0] * 50, {"clients": 6}, "partition.clients=6 with partition.min_nodes=10 each are more than the 50 nodes"),
        ([-1] * 50, {"clients": 2}, "no node of this data set has a label"),
    ],
)
def test_what_cannot_be_spread_is_refused(labels: list[int], settings: dict[str, float], sentence: str) -> None:
    with pytest.raises(SubflError, match=sentence):
        DirichletPartition(**settings).assign(labelled(labels))


def test_a_data_set_without_labels_is_refused() -> None:
    with pytest.raises(SubflError, match="partition=dirichlet spreads classes"):
        DirichletPartition(clients=2).assign(replace(labelled([0] * 50), labels=None, num_classes=0))
