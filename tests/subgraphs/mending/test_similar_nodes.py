from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from tiny_clients import dense_features, tiny_client

import subfl_flower.subgraphs.mending.similar_nodes as module
from subfl_flower.data.folders.subgraph_check import require_sound
from subfl_flower.data.graph import NO_ROLE
from subfl_flower.subgraphs.mending.similar_nodes import (
    require_representations,
    require_similar_nodes,
    similar_nodes,
    with_similar_nodes,
    with_zero_rows,
)


def at(*degrees: float, length: float = 1.0) -> np.ndarray:
    """Vectors in the plane."""
    angles = np.radians(np.array(degrees))
    return (length * np.stack([np.cos(angles), np.sin(angles)], axis=1)).astype(np.float32)


def pairs(found: Sequence[np.ndarray]) -> list[list[list[int]]]:
    return [client.T.tolist() for client in found]


def test_a_node_finds_the_nearest_of_other_clients_within_sixty_degrees() -> None:
    """Rows 0, 1 are the first client's, 2, 3, 4 the second's, 5 the third's; lengths do not matter."""
    clients = [at(0, 180, length=7), at(10, 50, 70, length=0.01), at(-40)]
    found = pairs(similar_nodes(clients, 0.5, 2))
    assert found[0] == [[0, 2], [0, 5]]  # 10 and 40 degrees away, 50 is one too many; nothing is near to 180
    assert found[1] == [[0, 0], [0, 5], [1, 0]]  # of 70 degrees the next is 70 away
    assert found[2] == [[0, 0], [0, 2]]
    assert pairs(similar_nodes(clients, 0.5, 1)) == [[[0, 2]], [[0, 0], [1, 0]], [[0, 0]]]
    assert pairs(similar_nodes(clients, 0.5, 99))[0] == [[0, 2], [0, 5], [0, 3]]
    assert pairs(similar_nodes(clients, 0.99, 9)) == [[], [], []]


def test_a_cosine_must_be_larger_than_the_threshold() -> None:
    half = np.array([[1, 0, 0, 0]], np.float32), np.array([[1, 1, 1, 1]], np.float32)  # a cosine of exactly 0.5
    assert pairs(similar_nodes(half, 0.5, 5)) == [[], []]
    assert pairs(similar_nodes(half, 0.4999, 5)) == [[[0, 1]], [[0, 0]]]


def test_of_equals_the_first_is_nearer() -> None:
    """Multiples of one vector: the last bits of their computed cosines differ, and say nothing."""
    rng = np.random.default_rng(0)
    direction = rng.standard_normal(100).astype(np.float32)
    factors = rng.uniform(0.01, 100, 60).astype(np.float32)[:, None]
    clients = [direction[None], direction * factors[:30], -direction[None], direction * factors[30:]]
    found = pairs(similar_nodes(clients, 0.5, 40))
    assert found[0] == [[0, other] for other in [*range(1, 31), *range(32, 42)]]
    assert found[1] == [[own, other] for own in range(30) for other in [0, *range(32, 62)]]
    assert found[2] == []
    assert found[3] == [[own, other] for own in range(30) for other in range(31)]


def test_nothing_is_similar_to_a_zero_row_or_to_a_clients_own_nodes() -> None:
    zero = np.zeros((1, 2), np.float32)
    assert pairs(similar_nodes([np.concatenate([zero, at(0, 1)]), zero], 0.0, 5)) == [[], []]
    assert pairs(similar_nodes([at(0, 1, 2)], 0.5, 5)) == [[]]
    assert pairs(similar_nodes([at(), at(3), at(), at(4)], 0.5, 5)) == [[], [[0, 1]], [], [[0, 0]]]
    assert [client.shape for client in similar_nodes([at(), at()], 0.5, 5)] == [(2, 0), (2, 0)]


def dense(clients: Sequence[np.ndarray], threshold: float, most: int) -> list[list[list[int]]]:
    """Similar nodes by the whole matrix of cosines, sorted, in double precision."""
    rows = np.concatenate(clients).astype(float)
    owner = np.repeat(np.arange(len(clients)), [len(client) for client in clients])
    directions = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosines = directions @ directions.T
    found: list[list[list[int]]] = []
    for client in range(len(clients)):
        own = np.flatnonzero(owner == client)
        found.append([])
        for row in own:
            ranked = sorted((-cosines[row, other], other) for other in np.flatnonzero(owner != client))
            found[-1] += [[int(row - own[0]), int(o)] for cosine, o in ranked[:most] if -cosine > threshold]
    return found


@pytest.mark.parametrize("entries", [1, 200, 1000, 10**6])
@pytest.mark.parametrize("most", [1, 3, 100])
def test_blocks_of_any_size_give_what_the_dense_formula_gives(
    entries: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(3)
    clients = [rng.standard_normal((size, 4)).astype(np.float32) for size in (17, 1, 40, 0, 23)]
    monkeypatch.setattr(module, "BLOCK_ENTRIES", entries)
    expected = dense(clients, 0.5, most)
    assert sum(map(len, expected)) > 60
    assert pairs(similar_nodes(clients, 0.5, most)) == expected


# Extended graphs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sparse", [False, True])
def test_new_nodes_come_after_a_clients_own_and_are_joined_both_ways(sparse: bool) -> None:
    graph = replace(tiny_client(0, 6, sparse=sparse), node_ids=np.array([2, 3, 5, 8, 11, 40]))
    graph = replace(graph, cross_edges=np.array([[0], [41]]))  # a neighbour elsewhere has the id after the largest
    extended = with_similar_nodes(graph, 2, np.array([[4, 0, 4], [0, 1, 1]]))
    require_sound(extended, "the extended graph")
    assert extended.node_ids.tolist() == [2, 3, 5, 8, 11, 40, 41, 42]
    edges = {tuple(edge) for edge in extended.edge_index.T.tolist()}
    assert edges - {tuple(edge) for edge in graph.edge_index.T.tolist()} == {
        *((4, 6), (6, 4), (0, 7), (7, 0), (4, 7), (7, 4))
    }
    assert extended.edge_index.shape[1] == graph.edge_index.shape[1] + 6
    assert sp.issparse(extended.features) == sparse and extended.features.dtype == np.float32
    np.testing.assert_array_equal(dense_features(extended)[:6], dense_features(graph))
    assert not dense_features(extended)[6:].any()
    assert extended.roles[6:].tolist() == [NO_ROLE] * 2 and extended.roles[:6].tolist() == graph.roles.tolist()
    assert extended.labels is not None and extended.labels[6:].tolist() == [-1, -1]
    assert not extended.shareable[6:].any()
    assert with_similar_nodes(replace(graph, labels=None), 2, np.zeros((2, 0))).labels is None


def test_zero_rows_below_a_matrix() -> None:
    plain = np.arange(6, dtype=np.float32).reshape(2, 3)
    expected = np.concatenate([plain, np.zeros((2, 3))])
    np.testing.assert_array_equal(with_zero_rows(plain, 2), expected)
    found = with_zero_rows(sp.csr_array(plain), 2)
    assert isinstance(found, sp.csr_array)
    np.testing.assert_array_equal(found.toarray(), expected)


# What comes from elsewhere --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shown", "sentence"),
    [
        (np.zeros((3, 4)), r"must be float32 \[nodes, 5\], not float64 \[3, 4\]"),
        (np.zeros((3, 4), np.float32), r"must be float32 \[nodes, 5\], not float32 \[3, 4\]"),
        (np.zeros(5, np.float32), r"must be float32 \[nodes, 5\], not float32 \[5\]"),
        (np.full((1, 5), math.nan, np.float32), "must be finite and at most 10 in magnitude"),
        (np.full((1, 5), -math.inf, np.float32), "must be finite and at most 10 in magnitude"),
        (np.full((1, 5), -11, np.float32), "must be finite and at most 10 in magnitude"),
    ],
)
def test_representations_of_another_kind_are_refused(shown: np.ndarray, sentence: str) -> None:
    require_representations(np.full((3, 5), -10, np.float32), 5, 10)
    with pytest.raises(ValueError, match=sentence):
        require_representations(shown, 5, 10)


@pytest.mark.parametrize(
    ("edges", "sentence"),
    [
        ([[0, 1], [0, 2]], "edges must join 3 own with 2 similar nodes"),
        ([[0, 3], [0, 1]], "edges must join 3 own with 2 similar nodes"),
        ([[0, -1], [0, 1]], "edges must join 3 own with 2 similar nodes"),
        ([[0, 1, 0], [1, 1, 1]], "edges to similar nodes must be distinct"),
        ([0, 1], r"must be int32 \[2, edges\], not int32 \[2\]"),
        ([[0], [1], [1]], r"must be int32 \[2, edges\], not int32 \[3, 1\]"),
        (np.zeros((2, 1), np.int64), r"must be int32 \[2, edges\], not int64 \[2, 1\]"),
        (np.zeros((2, 1), np.float32), r"must be int32 \[2, edges\], not float32 \[2, 1\]"),
    ],
)
def test_edges_that_join_nothing_are_refused(edges: Any, sentence: str) -> None:
    told = np.zeros((2, 5), np.float32)
    require_similar_nodes(told, np.array([[0, 2, 0], [0, 1, 1]], np.int32), 3, 5)
    require_similar_nodes(told[:0], np.zeros((2, 0), np.int32), 3, 5)
    with pytest.raises(ValueError, match=sentence):
        require_similar_nodes(told, edges if isinstance(edges, np.ndarray) else np.array(edges, np.int32), 3, 5)
