from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from sklearn.datasets import load_digits

from subfl_flower.data.datasets import DigitsDataset, StochasticBlockModelDataset
from subfl_flower.data.datasets.digits import nearest_points
from subfl_flower.data.graph import Graph

NOWHERE = Path("/nonexistent")


def network_of(graph: Graph) -> nx.Graph:
    network = nx.Graph()
    network.add_nodes_from(range(graph.num_nodes))
    network.add_edges_from(graph.edge_index.T.tolist())
    return network


def test_digits_is_the_neighbour_graph_of_all_images() -> None:
    graph = DigitsDataset().load(NOWHERE)
    images, digits = load_digits(return_X_y=True)
    assert (graph.num_nodes, graph.num_features, graph.num_classes) == (1797, 64, 10)
    np.testing.assert_allclose(graph.features * 16, images)
    np.testing.assert_array_equal(graph.labels, digits)
    pixels = images.astype(np.int64)
    expected, ties = set(), 0
    for image in range(1797):
        distances = ((pixels - pixels[image]) ** 2).sum(1)  # whole numbers, by differences
        order = [other for other in np.lexsort((np.arange(1797), distances)).tolist() if other != image]
        ties += distances[order[7]] == distances[order[8]]
        expected |= {(image, other) for other in order[:8]} | {(other, image) for other in order[:8]}
    assert ties > 0  # who is the eighth is then for the numbers of the images to say
    assert set(map(tuple, graph.edge_index.T.tolist())) == expected
    assert graph.num_edges == len(expected) == 2 * 9929


def test_digits_has_the_same_edges_with_any_number_of_threads() -> None:
    program = (
        "import hashlib, pathlib; from subfl_flower.data.datasets import DigitsDataset; "
        "edges = DigitsDataset().load(pathlib.Path('nowhere')).edge_index; "
        "print(hashlib.sha256(edges.tobytes()).hexdigest())"
    )
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, **dict.fromkeys(names, threads)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in ("1", "4")
    }
    edges = DigitsDataset().load(NOWHERE).edge_index
    assert digests == {hashlib.sha256(edges.tobytes()).hexdigest() + "\n"}


def test_of_equal_distances_the_lower_number_is_nearer() -> None:
    line = np.array([[0], [2], [1], [3], [1]])  # 2 and 4 lie in one place
    found = nearest_points(line, 2)
    assert [sorted(row) for row in found.tolist()] == [[2, 4], [2, 3], [0, 4], [1, 2], [0, 2]]
    assert [sorted(row) for row in nearest_points(line, 4).tolist()] == [
        [other for other in range(5) if other != point] for point in range(5)
    ]


def test_sbm_with_certain_edges_is_disjoint_cliques() -> None:
    graph = StochasticBlockModelDataset(
        communities=3,
        nodes_per_community=5,
        classes_per_community=1,
        p_class=1,
        p_out=0,
        largest_component=False,
    ).load(NOWHERE)
    assert graph.num_edges == 3 * 5 * 4
    cliques = list(nx.connected_components(network_of(graph)))
    assert [len(clique) for clique in cliques] == [5, 5, 5]
    assert all(len(set(graph.labels[list(clique)].tolist())) == 1 for clique in cliques)


def test_sbm_ring_of_overlapping_communities() -> None:
    # 4 communities of 10, the last 4 of each also in the next: a community is a clique of 10 + 4 members.
    graph = StochasticBlockModelDataset(
        variant="overlapping", communities=4, nodes_per_community=10, overlap=0.4, classes_per_community=1,
        p_class=1, p_community=1, p_out=0,
    ).load(NOWHERE)  # fmt: skip
    assert sorted(len(clique) for clique in nx.find_cliques(network_of(graph))) == [14] * 4
    assert graph.num_edges == 4 * 14 * 13 - 4 * 4 * 3  # the shared fours are counted twice
    assert np.bincount(graph.labels).tolist() == [10] * 4  # 6 of its own, 2 + 2 of what it shares


@pytest.mark.parametrize("variant", ["nonoverlapping", "overlapping"])
def test_sbm_has_the_stated_sizes_and_edge_rates(variant: str) -> None:
    settings = StochasticBlockModelDataset(variant=variant, nodes_per_community=400, largest_component=False)
    graph = settings.load(NOWHERE)
    assert (graph.num_nodes, graph.num_features, graph.num_classes) == (2000, 64, 10)
    assert np.bincount(graph.labels).tolist() == [200] * 10
    if variant == "nonoverlapping":
        row, col = graph.labels[graph.edge_index]
        same = np.count_nonzero(row == col) / (10 * 200 * 199)
        near = np.count_nonzero((row != col) & (row // 2 == col // 2)) / (10 * 200 * 200)
        far = np.count_nonzero(row // 2 != col // 2) / (2000 * 1600)
        np.testing.assert_allclose([same, near, far], [0.08, 0.02, 0.002], rtol=0.05)
    distances = [np.asarray(graph.features)[graph.labels == c].mean(0) for c in range(10)]
    assert np.std(distances) == pytest.approx(0.3, rel=0.15)  # class means of deviation 0.3


def test_sbm_follows_its_seed_and_hides_blocks_in_random_order() -> None:
    first, again, other = (StochasticBlockModelDataset(graph_seed=seed).load(NOWHERE) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.edge_index, again.edge_index)
    np.testing.assert_array_equal(first.features, again.features)
    assert first.edge_index.shape != other.edge_index.shape or (first.edge_index != other.edge_index).any()
    assert np.count_nonzero(np.diff(first.labels)) > 700
