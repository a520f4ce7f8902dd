from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from subfl_flower.subgraphs.similarity.random_graph import erdos_renyi


@pytest.mark.parametrize(("probability", "expected"), [(1.0, 12), (0.0, 0)])
def test_with_certain_edges_a_random_graph_is_known(probability: float, expected: int) -> None:
    edges = erdos_renyi(4, probability, np.random.default_rng(0))
    assert edges.shape == (2, expected)
    assert edges.dtype == np.int64
    possible = {(a, b) for a in range(4) for b in range(4) if a != b}
    assert set(zip(*edges.tolist(), strict=True)) == (possible if expected else set())


@pytest.mark.parametrize(("nodes", "probability"), [(600, 0.02), (150, 0.6)])
def test_a_random_graph_is_simple_and_all_pairs_are_alike(nodes: int, probability: float) -> None:
    edges = erdos_renyi(nodes, probability, np.random.default_rng(5))
    pairs = set(zip(*edges.tolist(), strict=True))
    assert len(pairs) == edges.shape[1]
    assert all(a != b and (b, a) in pairs for a, b in pairs)
    # Among the first half of the nodes, among the second, and between them the density is the same.
    half = nodes // 2
    late = edges >= half
    for found, possible in (
        (int((~late).all(0).sum()) // 2, half * (half - 1) // 2),
        (int(late.all(0).sum()) // 2, half * (half - 1) // 2),
        (int((late[0] & ~late[1]).sum()), half * half),
    ):
        assert abs(found - possible * probability) < 5 * (possible * probability * (1 - probability)) ** 0.5
    np.testing.assert_array_equal(edges, erdos_renyi(nodes, probability, np.random.default_rng(5)))
    assert pairs != set(zip(*erdos_renyi(nodes, probability, np.random.default_rng(6)).tolist(), strict=True))


def test_memory_goes_with_edges() -> None:
    nodes = 10_000
    tracemalloc.start()
    edges = erdos_renyi(nodes, 2 / nodes, np.random.default_rng(0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert edges.shape[1] > nodes
    assert peak < nodes**2 / 2  # bytes, one for each pair of nodes
