import math

import pytest
from small_graphs import both_directions, client_graph, whole_graph

from subfl_flower.analysis.partition_statistics import GraphStatistics, label_divergence, partition_statistics

EDGES = [(0, 1), (1, 2), (0, 2), (2, 3), (3, 4), (4, 5)]


def test_a_graph_of_six_nodes_in_three_parts() -> None:
    graph = whole_graph(EDGES, [0, 0, 1, 1, 1, -1], 6, 3)
    clients = [
        client_graph(0, [0, 1, 2], [(0, 1), (1, 2), (0, 2)], [0, 0, 1], 3),
        client_graph(1, [3, 4], [(0, 1)], [1, 1], 3),
        client_graph(2, [5], [], [-1], 3),
    ]
    found = partition_statistics(graph, clients, both_directions([(2, 3), (4, 5)]), label_divergence(clients))
    assert found.whole == GraphStatistics(6, 6, 2, pytest.approx((1 + 1 + 1 / 3) / 6))
    assert found.clients == (
        GraphStatistics(3, 3, 2, 1.0),
        GraphStatistics(2, 1, 1, 0.0),
        GraphStatistics(1, 0, 0, 0.0),
    )
    assert found.mean == GraphStatistics(2, pytest.approx(4 / 3), 1, pytest.approx(1 / 3))
    assert (found.missing_edges, found.missing_share) == (2, pytest.approx(1 / 3))
    # of three pairs one is known: (2/3, 1/3) and (0, 1), m = (1/3, 2/3)
    first = (2 / 3 * math.log2(2) + 1 / 3 * math.log2(1 / 2)) / 2
    assert found.heterogeneity == pytest.approx(first + math.log2(3 / 2) / 2)
    # of four known entries of the full matrix two are zeros of the diagonal; bits are log(2) nats
    distance = math.sqrt((first + math.log2(3 / 2) / 2) * math.log(2))
    assert found.label_distance == pytest.approx(distance / 2)


def test_heterogeneity_is_the_median_over_pairs() -> None:
    # divergences 1, 1 and 0
    clients = [client_graph(c, [c], [], [label], 2) for c, label in enumerate([0, 1, 1])]
    graph = whole_graph([], [0, 1, 1], 3, 2)
    found = partition_statistics(graph, clients, both_directions([]), label_divergence(clients))
    assert found.heterogeneity == 1.0
    assert found.label_distance == 0.0  # of nine entries five are zero, the others sqrt(log 2)


def test_without_labels_and_edges_what_is_unknown_stays_unknown() -> None:
    clients = [client_graph(c, [c], [], None, 0) for c in range(2)]
    assert label_divergence(clients) is None
    found = partition_statistics(whole_graph([], None, 2, 0), clients, both_directions([]), None)
    assert found.heterogeneity is None and found.label_distance is None
    assert found.whole.classes is None and found.mean.classes is None
    assert found.missing_edges == 0 and math.isnan(found.missing_share)
