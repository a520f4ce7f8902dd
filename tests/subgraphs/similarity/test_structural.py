from __future__ import annotations

import hashlib
import struct
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from math import exp

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subfl_flower.errors import SubflError
from subfl_flower.subgraphs.similarity.structural import (
    Kernel,
    Structure,
    check_structure,
    describe_structure,
    structural_distances,
    structural_weights,
)

KEY = bytes(range(32))


def described(network: nx.Graph, shareable: Sequence[int] | None = None, key: bytes = KEY) -> Structure:
    """The structure of a network whose nodes are global ids, in the order in which the network lists them."""
    ids = list(network)
    local = {node: position for position, node in enumerate(ids)}
    edges = [(local[a], local[b]) for u, v in network.edges for a, b in ((u, v), (v, u))]
    told = np.isin(ids, list(ids if shareable is None else shareable))
    return describe_structure(
        np.array(edges, dtype=np.int64).reshape(-1, 2).T, len(ids), told, np.array(ids, dtype=np.int64), key
    )


def token(node: int, key: bytes = KEY) -> bytes:
    return hashlib.blake2b(struct.pack("<q", node), key=key, digest_size=16).digest()


def by_node(structure: Structure, nodes: Sequence[int]) -> dict[int, tuple[int, int, int]]:
    node_of = {token(node): node for node in nodes}
    numbers = zip(structure.distances, structure.reach, structure.degrees, strict=True)
    return {
        node_of[row.tobytes()]: (int(d), int(r), int(g))
        for row, (d, r, g) in zip(structure.tokens, numbers, strict=True)
    }


def graph(edges: Sequence[tuple[int, int]], alone: Sequence[int] = ()) -> nx.Graph:
    network = nx.Graph(edges)
    network.add_nodes_from(alone)
    return network


# A path 10 - 11 - 12, and a star round 12 with the rays 11, 20, 21; 13 is alone in both.
PATH = graph([(10, 11), (11, 12)], alone=[13])
STAR = graph([(12, 11), (12, 20), (12, 21)], alone=[13])


def test_a_pair_of_graphs_by_hand() -> None:
    # Sum of hops, reach, degree:
    assert by_node(described(PATH), [10, 11, 12, 13]) == {10: (3, 3, 1), 11: (2, 3, 2), 12: (3, 3, 1), 13: (0, 1, 0)}
    assert by_node(described(STAR, [11, 12, 13]), [11, 12, 13]) == {11: (5, 4, 1), 12: (3, 4, 3), 13: (0, 1, 0)}
    structures = [described(PATH), described(STAR, [11, 12, 13])]
    # Weights: node 11 2 + 1 = 3, node 12 1 + 3 = 4, node 13 0.
    # Above the line 3 (2 + 5) + 4 (3 + 3) = 45, below 3 (3 + 4) + 4 (3 + 4) = 49.
    np.testing.assert_allclose(structural_distances(structures), [[0, 45 / 49], [45 / 49, 0]], rtol=1e-15)
    # All alike: above (2 + 5) + (3 + 3) + (0 + 0) = 13, below 7 + 7 + 2 = 16.
    np.testing.assert_allclose(structural_distances(structures, weighted=False), [[0, 13 / 16], [13 / 16, 0]])


def test_nodes_that_are_not_shareable_do_not_count_as_shared() -> None:
    # Node 12 alone is left of the pair above: (3 + 3) / (3 + 4).
    found = structural_distances([described(PATH), described(STAR, [12])])
    assert found[0, 1] == pytest.approx(6 / 7)


@pytest.mark.parametrize("weighted", [True, False])
def test_without_a_shared_node_the_distance_is_infinite(weighted: bool) -> None:
    elsewhere = graph([(1, 2)])
    structures = [described(PATH), described(elsewhere), described(STAR), None, described(STAR, [])]
    found = structural_distances(structures, weighted)
    shared = np.zeros((5, 5), dtype=bool)
    shared[[0, 2], [2, 0]] = True
    np.testing.assert_array_equal(np.isfinite(found), shared | np.eye(5, dtype=bool))
    assert (np.diag(found) == 0).all()
    np.testing.assert_array_equal(structural_distances([None, None], weighted), [[0, np.inf], [np.inf, 0]])


def test_shared_nodes_without_neighbours_count_alike() -> None:
    lonely, other = graph([(1, 2)], alone=[5, 6]), graph([(3, 4)], alone=[5, 6])
    np.testing.assert_array_equal(structural_distances([described(lonely), described(other)]), np.zeros((2, 2)))
    # One side suffices for a weight: 5 has a neighbour in the third graph, 6 does not. (0 + 1) / (1 + 2).
    third = graph([(5, 7)], alone=[6])
    assert structural_distances([described(lonely), described(third)])[0, 1] == pytest.approx(1 / 3)


def brute_force(networks: list[nx.Graph], told: list[set[int]], weighted: bool) -> np.ndarray:
    """Eq. 5 as it stands, node by node."""
    hops = [dict(nx.all_pairs_shortest_path_length(network)) for network in networks]
    result = np.full((len(networks), len(networks)), np.inf)
    for i in range(len(networks)):
        for j in range(len(networks)):
            shared = told[i] & told[j]
            weights = {n: networks[i].degree[n] + networks[j].degree[n] if weighted else 1 for n in shared}
            if not any(weights.values()):
                weights = dict.fromkeys(shared, 1)
            if shared:
                above = sum(weights[n] * (sum(hops[i][n].values()) + sum(hops[j][n].values())) for n in shared)
                result[i, j] = above / sum(weights[n] * (len(hops[i][n]) + len(hops[j][n])) for n in shared)
    np.fill_diagonal(result, 0.0)
    return result


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    clients=st.integers(1, 5),
    nodes=st.integers(1, 25),
    edge_probability=st.sampled_from([0.0, 0.03, 0.08, 0.2, 0.6]),
    shared=st.sampled_from([0.1, 0.5, 1.0]),
    weighted=st.booleans(),
)
def test_equals_a_brute_force_over_networkx(
    seed: int, clients: int, nodes: int, edge_probability: float, shared: float, weighted: bool
) -> None:
    rng = np.random.default_rng(seed)
    ids = rng.integers(-(2**63), 2**63 - 1, nodes)
    networks, told = [], []
    for client in range(clients):
        held = rng.permutation(ids)[: rng.integers(1, nodes + 1)].tolist()
        drawn = nx.gnp_random_graph(len(held), edge_probability, seed=seed + client)
        networks.append(nx.relabel_nodes(drawn, dict(enumerate(held))))
        told.append({node for node in held if rng.random() < shared})
    structures = [described(network, list(some)) for network, some in zip(networks, told, strict=True)]
    found = structural_distances(structures, weighted)
    np.testing.assert_allclose(found, brute_force(networks, told, weighted), rtol=1e-12)
    np.testing.assert_array_equal(found, found.T)
    assert found.dtype == np.float64


def test_hops_along_a_long_chain() -> None:
    nodes = 1000
    found = by_node(described(nx.path_graph(nodes), [0, 1, 499]), range(nodes))
    ends = nodes * (nodes - 1) // 2  # 1 + 2 + ... + 999
    middle = 499 * 500 // 2 + 500 * 501 // 2
    assert found == {0: (ends, nodes, 1), 1: (1 + 998 * 999 // 2, nodes, 2), 499: (middle, nodes, 2)}


def test_searches_keep_no_matrix_of_nodes_by_nodes() -> None:
    nodes = 3000
    network = nx.gnm_random_graph(nodes, 2 * nodes, seed=0)
    tracemalloc.start()
    described(network)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < nodes**2  # bytes, one a pair


def test_tokens_are_keyed_hashes() -> None:
    ids = [0, 1, 2**40, 2**63 - 1, -5]
    network = graph([(0, 1)], alone=ids)
    structure = described(network)
    assert structure.tokens.dtype == np.uint8 and structure.tokens.shape == (5, 16)
    assert {row.tobytes() for row in structure.tokens} == {token(node) for node in ids}
    again = described(graph([], alone=ids))
    np.testing.assert_array_equal(again.tokens, structure.tokens)
    other = described(network, key=KEY[::-1])
    assert not {row.tobytes() for row in other.tokens} & {row.tobytes() for row in structure.tokens}
    sent = structure.tokens.tobytes()
    for node in ids:
        for written in (struct.pack("<q", node), struct.pack(">q", node), struct.pack("<q", node)[:4]):
            assert written not in sent
        assert hashlib.blake2b(struct.pack("<q", node), digest_size=16).digest() not in sent


def test_the_order_of_rows_tells_nothing_of_ids() -> None:
    network = nx.gnm_random_graph(40, 60, seed=3)
    structure = described(network, range(30))
    rows = [row.tobytes() for row in structure.tokens]
    assert rows == sorted(token(node) for node in range(30))
    assert rows != [token(node) for node in range(30)]
    shuffled = nx.Graph()
    shuffled.add_nodes_from(np.random.default_rng(0).permutation(40).tolist())
    shuffled.add_edges_from(network.edges)
    for name in ("tokens", "distances", "reach", "degrees"):
        found = getattr(described(shuffled, range(30)), name)
        np.testing.assert_array_equal(found, getattr(structure, name))
        assert found.dtype == (np.uint8 if name == "tokens" else np.int64)


@pytest.mark.parametrize("length", [0, 15, 65])
def test_a_key_of_the_wrong_length_is_refused(length: int) -> None:
    with pytest.raises(SubflError, match=f"has {length} bytes, and must have 16 to 64"):
        described(PATH, key=bytes(length))
    with pytest.raises(SubflError, match="must have 16 to 64"):
        described(PATH, [], key=bytes(length))


def good() -> Structure:
    return described(STAR, [11, 12, 13])


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("tokens", np.zeros((3, 15), np.uint8), r"must be uint8 \[nodes, 16\], not uint8 \[3, 15\]"),
        ("tokens", np.zeros(48, np.uint8), r"not uint8 \[48\]"),
        ("tokens", np.zeros((3, 16), np.int64), r"not int64 \[3, 16\]"),
        ("tokens", np.zeros((3, 16), np.uint8), "a node token comes twice"),
        ("distances", np.array([5, 3]), r"distances must be integers, one for each of 3 node tokens, not int64 \[2\]"),
        ("reach", np.array([[4, 4, 4]]), r"reach must be integers, one for each of 3"),
        ("degrees", np.array([1.0, np.nan, 0.0]), "degrees must be integers"),
        ("degrees", np.array([1, -2, 0]), "degrees must not be negative, and one is -2"),
        ("distances", np.array([-1, 3, 3]), "distances must not be negative, and one is -1"),
        ("reach", np.array([1, 0, 1]), "reach must be at least 1"),
        ("distances", np.array([0, 0, 2]), "distances must be at least reach - 1"),
        ("degrees", np.array([1, 1, 9]), "degrees must be at most reach - 1"),
        ("distances", np.array([5, 7, 5]), "distances must be at most those along a path"),  # 1 + 2 + 3
        ("distances", np.array([5, 2**62, 5]), "distances must be at most those along a path"),
    ],
)
def test_a_structure_that_no_subgraph_has_is_refused(name: str, value: np.ndarray, sentence: str) -> None:
    check_structure(good(), "client 7")
    bad = replace(good(), **{name: value})
    with pytest.raises(ValueError, match=f"client 7: .*{sentence}"):
        check_structure(bad, "client 7")
    with pytest.raises(ValueError, match=f"client 1: .*{sentence}"):
        structural_distances([good(), bad])


# Client 3 shares nothing with anyone; the largest distance is 2.
DISTANCES = np.array(
    [
        [0, 1, np.inf, np.inf],
        [1, 0, 2, np.inf],
        [np.inf, 2, 0, np.inf],
        [np.inf, np.inf, np.inf, 0],
    ]
)


def test_kernels_by_hand() -> None:
    a, b = exp(-1.5 * 1 / 2), exp(-1.5)
    expected = [
        [1 / (1 + a), a / (1 + a), 0, 0],
        [a / (1 + a + b), 1 / (1 + a + b), b / (1 + a + b), 0],
        [0, b / (1 + b), 1 / (1 + b), 0],
        [0, 0, 0, 1],
    ]
    np.testing.assert_allclose(structural_weights(DISTANCES, "exp", 1.5), expected, rtol=1e-14)

    # gamma 2: 1 / (1 + 2 · 1/2) = 1/2 and 1 / (1 + 2 · 2/2) = 1/3; row 1 is (1/2, 1, 1/3) / (11/6).
    expected = [[2 / 3, 1 / 3, 0, 0], [3 / 11, 6 / 11, 2 / 11, 0], [0, 1 / 4, 3 / 4, 0], [0, 0, 0, 1]]
    np.testing.assert_allclose(structural_weights(DISTANCES, "inverse", 2.0), expected, rtol=1e-14)

    expected = [[0, 1, 0, 0], [1 / 3, 0, 2 / 3, 0], [0, 1, 0, 0], [0, 0, 0, 1]]
    np.testing.assert_allclose(structural_weights(DISTANCES, "literal", 2.0), expected, rtol=1e-14)


@pytest.mark.parametrize("kernel", ["exp", "inverse"])
def test_gamma_zero_is_the_mean_over_those_who_share(kernel: Kernel) -> None:
    found = structural_weights(DISTANCES, kernel, 0.0)
    expected = [[1 / 2, 1 / 2, 0, 0], [1 / 3, 1 / 3, 1 / 3, 0], [0, 1 / 2, 1 / 2, 0], [0, 0, 0, 1]]
    np.testing.assert_allclose(found, expected, rtol=1e-14)


@pytest.mark.parametrize("kernel", ["exp", "inverse", "literal"])
@pytest.mark.parametrize("elsewhere", [np.inf, 0.0])
def test_without_a_distance_to_go_by_all_keep_to_themselves(kernel: Kernel, elsewhere: float) -> None:
    distances = np.full((3, 3), elsewhere)
    np.fill_diagonal(distances, 0.0)
    np.testing.assert_array_equal(structural_weights(distances, kernel, 1.0), np.eye(3))


def test_literal_weights_of_a_row_of_zero_distances() -> None:
    distances = np.array([[0, 0, np.inf], [0, 0, 3], [np.inf, 3, 0]])
    expected = [[1, 0, 0], [0, 0, 1], [0, 1, 0]]
    np.testing.assert_array_equal(structural_weights(distances, "literal", 1.0), expected)


def test_an_unknown_kernel_is_refused() -> None:
    with pytest.raises(SubflError, match="one of exp, inverse, literal, not 'rbf'"):
        structural_weights(DISTANCES, "rbf", 1.0)  # type: ignore[arg-type]
