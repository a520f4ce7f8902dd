from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.data import Data
from torch_geometric.transforms import NormalizeFeatures

from subfl_flower.data.cleaning import (
    RawGraph,
    clean,
    compact,
    largest_component,
    row_normalised,
    undirected_edges,
)
from subfl_flower.errors import SubflError

# 0 -> 1 twice, 1 -> 0, 1 -> 2, a self-loop on 2; 3 isolated; 4 - 5; a self-loop on the otherwise isolated 6.
MESSY = np.array([[0, 0, 1, 1, 2, 5, 6], [1, 1, 0, 2, 2, 4, 6]])
LABELS = np.array([2, 0, 1, -1, 0, 0, 1])


def messy(features: np.ndarray | None = None, labels: np.ndarray | None = LABELS) -> RawGraph:
    return RawGraph(np.eye(7) if features is None else features, MESSY, labels)


def test_self_loops_and_duplicates_go_isolated_nodes_stay() -> None:
    graph = clean(messy(), keep_largest_component=False, normalise_rows=False, source="messy")
    np.testing.assert_array_equal(graph.edge_index, [[0, 1, 1, 2, 4, 5], [1, 0, 2, 1, 5, 4]])
    assert (graph.num_nodes, graph.num_features, graph.num_edges, graph.num_classes) == (7, 7, 6, 3)
    assert graph.edge_index.dtype == np.int64 and graph.features.dtype == np.float32
    np.testing.assert_array_equal(graph.labels, LABELS)


def test_largest_component_relabels_nodes_in_order() -> None:
    raw = RawGraph(np.arange(14.0).reshape(7, 2), np.array([[6, 4, 0], [4, 2, 1]]), LABELS)
    graph = clean(raw, keep_largest_component=True, normalise_rows=False, source="path")
    np.testing.assert_array_equal(graph.features, [[4, 5], [8, 9], [12, 13]])  # nodes 2, 4, 6
    np.testing.assert_array_equal(graph.edge_index, [[0, 1, 1, 2], [1, 0, 2, 1]])
    np.testing.assert_array_equal(graph.labels, [1, 0, 1])
    assert graph.num_classes == 3  # a class that the component lacks keeps its number


def test_of_equal_components_the_first_is_kept() -> None:
    np.testing.assert_array_equal(largest_component(np.array([[0, 1, 2, 3], [3, 2, 1, 0]]), 4), [0, 3])


@given(st.integers(1, 8).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.tuples(*[st.integers(0, n - 1)] * 2)))))
def test_undirected_edges_are_the_set_of_both_directions(case: tuple[int, list[tuple[int, int]]]) -> None:
    num_nodes, pairs = case
    expected = sorted({(a, b) for a, b in pairs if a != b} | {(b, a) for a, b in pairs if a != b})
    edges = undirected_edges(np.array(pairs, dtype=np.int64).reshape(-1, 2).T, num_nodes)
    assert [tuple(edge) for edge in edges.T.tolist()] == expected


@pytest.mark.parametrize("least", [0.0, -0.5, 0.25])
def test_row_normalisation_is_that_of_pyg(least: float) -> None:
    generator = np.random.default_rng(1)
    features = (generator.random((20, 30)) * (generator.random((20, 30)) < 0.05)).astype(np.float32)
    features[0] = 0.0  # an empty row stays empty
    features[1, :2] = 0.1  # a sum below one stays
    features = np.where(features == 0, max(least, 0.0), features).astype(np.float32)
    features[2, 3] = least
    expected = NormalizeFeatures()(Data(x=torch.from_numpy(features.copy()))).x.numpy()
    np.testing.assert_allclose(row_normalised(features), expected, atol=1e-6)
    normalised = row_normalised(sp.csr_array(features))
    np.testing.assert_allclose(normalised.toarray() if sp.issparse(normalised) else normalised, expected, atol=1e-6)


def test_features_are_sparse_below_a_tenth() -> None:
    features = np.zeros((10, 10))
    features.flat[:9] = 2.0
    assert sp.issparse(compact(features, "mine")) and compact(features, "mine").dtype == np.float32
    features.flat[:10] = 2.0
    assert isinstance(compact(features, "mine"), np.ndarray)
    assert isinstance(compact(sp.csr_array(features), "mine"), np.ndarray)
    explicit_zeros = sp.csr_array((np.zeros(100), (np.repeat(np.arange(10), 10), np.tile(np.arange(10), 10))))
    assert compact(explicit_zeros, "mine").nnz == 0


def test_nan_features_are_counted_and_located() -> None:
    features = np.ones((7, 3))
    features[4, 1] = np.nan
    features[5] = np.inf
    with pytest.raises(SubflError, match=r"^mine: 4 feature values are NaN or infinite, the first at node 4;"):
        clean(messy(features), False, False, "mine")
    sparse = sp.csr_array(np.where(np.arange(700).reshape(7, 100) == 320, np.nan, 0))
    with pytest.raises(SubflError, match=r"1 feature values .* the first at node 3;"):
        clean(RawGraph(sparse, MESSY, LABELS), False, False, "mine")


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        (RawGraph(np.ones((0, 3)), MESSY, None), "0 nodes with 3 features"),
        (RawGraph(np.ones((7, 0)), MESSY, None), "7 nodes with 0 features"),
        (RawGraph(np.ones((6, 3)), MESSY, None), r"1 edges name a node outside 0\.\.5, the first is edge 6"),
        (RawGraph(np.ones((7, 3)), MESSY.T, None), r"edges have the shape \[7, 2\]"),
        (RawGraph(np.ones((7, 3)), MESSY, LABELS[:5]), r"labels have the shape \[5\]; expected \[7\]"),
        (RawGraph(np.ones((7, 3)), MESSY, LABELS - 1), "labels run from -2 to 1"),
        (RawGraph(np.ones((7, 3)), MESSY, LABELS, num_classes=2), "labels run from -1 to 2"),
    ],
)
def test_what_cannot_be_a_graph_is_refused(raw: RawGraph, sentence: str) -> None:
    with pytest.raises(SubflError, match=sentence):
        clean(raw, False, False, "mine")


def test_labels_that_are_all_missing_are_no_labels() -> None:
    graph = clean(messy(labels=np.full(7, -1)), False, False, "mine")
    assert graph.labels is None and graph.num_classes == 0
