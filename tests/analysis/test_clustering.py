import networkx as nx
import pytest
from small_graphs import both_directions

from subfl_flower.analysis import clustering
from subfl_flower.analysis.clustering import average_clustering


def test_a_triangle_with_a_tail() -> None:
    # both ends of the triangle's far edge 1, the node with the tail 1 of 3 pairs, the tail 0
    found = average_clustering(both_directions([(0, 1), (1, 2), (0, 2), (2, 3)]), 4)
    assert found == pytest.approx((1 + 1 + 1 / 3 + 0) / 4)


@pytest.mark.parametrize(("edges", "nodes", "expected"), [([], 3, 0.0), ([(0, 1)], 2, 0.0), ([(0, 1), (1, 2)], 3, 0.0)])
def test_without_triangles_it_is_zero(edges: list[tuple[int, int]], nodes: int, expected: float) -> None:
    assert average_clustering(both_directions(edges), nodes) == expected


@pytest.mark.parametrize("block", [7, 65536])
@pytest.mark.parametrize("seed", range(3))
def test_as_networkx_has_it_in_blocks_of_any_size(seed: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clustering, "_BLOCK", block)
    for graph in (
        nx.gnp_random_graph(60, 0.15, seed=seed),
        nx.powerlaw_cluster_graph(80, 4, 0.6, seed=seed),  # hubs, many triangles
        nx.star_graph(20),
        nx.complete_graph(9),
    ):
        found = average_clustering(both_directions(list(graph.edges)), graph.number_of_nodes())
        assert found == pytest.approx(nx.average_clustering(graph), abs=1e-12)


def test_a_wheel_with_a_large_hub() -> None:
    spokes = 3000  # a spoke has three neighbours and two triangles; the hub one triangle for every spoke
    rim = [(i, i % spokes + 1) for i in range(1, spokes + 1)]
    edges = both_directions([(0, i) for i in range(1, spokes + 1)] + rim)
    hub = 2 * spokes / (spokes * (spokes - 1))
    assert average_clustering(edges, spokes + 1) == pytest.approx((hub + spokes * 2 / 3) / (spokes + 1))
