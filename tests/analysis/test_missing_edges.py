import numpy as np
import pytest
from small_graphs import both_directions

from subfl_flower.analysis.missing_edges import missing_edges


def counted(members: list[list[int]], edges: list[tuple[int, int]], num_nodes: int) -> list[list[int]]:
    found = missing_edges([np.array(nodes, dtype=np.int64) for nodes in members], both_directions(edges), num_nodes)
    return found.tolist()


def test_disjoint_clients_miss_the_edges_between_them() -> None:
    edges = [(0, 1), (1, 2), (2, 3), (1, 3), (3, 4)]
    assert counted([[0, 1], [2, 3], [4]], edges, 5) == [[0, 2, 0], [2, 0, 1], [0, 1, 0]]


def test_overlapping_clients_miss_the_edges_that_neither_holds() -> None:
    # 0, 1: edge 0-3 alone, for 2-3 is held by client 1; 0, 2: edge 2-3, which neither of the two holds;
    # 1, 2: none, for 3 belongs to both and 2-0 is no edge
    edges = [(0, 1), (1, 2), (2, 3), (0, 3)]
    assert counted([[0, 1, 2], [2, 3], [0, 3]], edges, 4) == [[0, 1, 1], [1, 0, 0], [1, 0, 0]]


def test_nodes_of_nobody_and_equal_clients_miss_nothing() -> None:
    assert counted([[0, 1], [0, 1], []], [(0, 1), (1, 2)], 3) == [[0, 0, 0]] * 3


@pytest.mark.parametrize("seed", range(4))
def test_as_counting_edge_by_edge(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pairs = [(u, v) for u in range(14) for v in range(u) if rng.random() < 0.4]
    members = [np.flatnonzero(rng.random(14) < 0.5).tolist() for _ in range(4)]
    expected = [
        [
            sum(
                any(u in a and v in b for u, v in ((s, t), (t, s))) and not {s, t} <= set(a) and not {s, t} <= set(b)
                for s, t in pairs
            )
            for b in members
        ]
        for a in members
    ]
    assert counted(members, pairs, 14) == expected
