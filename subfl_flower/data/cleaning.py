"""From whatever a source holds to one clean `Graph`.

Undirected, without self-loops and duplicate edges, optionally the largest connected component
only and with row-normalised features, as FED-PUB prepares its data (Baek et al., ICML 2023,
arXiv 2206.10206, Section 5.1 and the released code).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from subfl_flower.data.graph import FeatureMatrix, Graph
from subfl_flower.errors import SubflError

SPARSE_BELOW = 0.1
"""Features with a smaller share of non-zero entries are kept as CSR."""


@dataclass(frozen=True, eq=False)
class RawGraph:
    """A graph as its source gives it.

    Attributes:
        features: any numeric `[nodes, features]`, dense or sparse.
        edge_index: integers `[2, edges]`, directed or not, self-loops and duplicates allowed.
        labels: integers `[nodes]`, -1 where unlabelled, or None.
        num_classes: number of classes, or None for one more than the largest label.
        edge_weight: numbers `[edges]`, one for each entry of `edge_index`, or None.
    """

    features: np.ndarray | sp.sparray | sp.spmatrix
    edge_index: np.ndarray
    labels: np.ndarray | None
    num_classes: int | None = None
    edge_weight: np.ndarray | None = None


def undirected_edges(edge_index: np.ndarray, num_nodes: int) -> np.ndarray:
    """Both directions of every edge once, without self-loops.

    Args:
        edge_index: integers `[2, edges]`.
        num_nodes: number of nodes; every id must be below it.

    Returns:
        int64 `[2, edges']`, sorted by (row, column).
    """
    row, col = edge_index.astype(np.int64, copy=False)
    keep = row != col
    row, col = row[keep], col[keep]
    codes = np.unique(np.concatenate([row * num_nodes + col, col * num_nodes + row]))
    return np.stack([codes // max(num_nodes, 1), codes % max(num_nodes, 1)])


def largest_component(edge_index: np.ndarray, num_nodes: int) -> np.ndarray:
    """The nodes of the largest connected component, ascending int64 `[nodes]`; of equals, the first."""
    adjacency = sp.csr_array(
        (np.ones(edge_index.shape[1], dtype=np.int8), (edge_index[0], edge_index[1])),
        shape=(num_nodes, num_nodes),
    )
    _, component = connected_components(adjacency, directed=False)
    return np.flatnonzero(component == np.bincount(component).argmax())


def row_normalised(features: FeatureMatrix) -> FeatureMatrix:
    """Rows that sum to one, as PyG's `NormalizeFeatures`: the least entry is subtracted, sums below 1 stay.

    Args:
        features: `[nodes, features]`.

    Returns:
        float32 `[nodes, features]`, sparse if the input is sparse and holds nothing negative.
    """
    least = float(features.min())
    if not isinstance(features, np.ndarray):
        if least >= 0.0 and features.nnz < features.shape[0] * features.shape[1]:
            scale = 1.0 / np.maximum(np.asarray(features.sum(axis=1)).ravel(), 1.0)
            return sp.csr_array(sp.diags_array(scale.astype(np.float32)) @ features, dtype=np.float32)
        features = features.toarray()
    dense = features - np.float32(least)
    return dense / np.maximum(dense.sum(axis=1, keepdims=True), np.float32(1.0))


def compact(features: np.ndarray | sp.sparray | sp.spmatrix) -> FeatureMatrix:
    """The same matrix in float32: CSR when fewer than a tenth of its entries are non-zero, else dense."""
    if sp.issparse(features):
        matrix = sp.csr_array(features, dtype=np.float32)
        matrix.sum_duplicates()
        matrix.eliminate_zeros()
        nonzero = matrix.nnz
    else:
        matrix = np.ascontiguousarray(features, dtype=np.float32)
        nonzero = int(np.count_nonzero(matrix))
    if nonzero < SPARSE_BELOW * matrix.shape[0] * matrix.shape[1]:
        return sp.csr_array(matrix)
    return matrix.toarray() if sp.issparse(matrix) else matrix


def clean(raw: RawGraph, keep_largest_component: bool, normalise_rows: bool, source: str) -> Graph:
    """The clean graph of a raw one.

    Args:
        raw: what the source holds.
        keep_largest_component: drop every other component; else isolated nodes stay.
        normalise_rows: make feature rows sum to one.
        source: what to call the data in an error.

    Raises:
        SubflError: no nodes, no features, features that are not finite, an edge or a label out of range.
    """
    features = compact(raw.features)
    num_nodes = int(features.shape[0])
    _check(raw, features, source)
    edge_index = undirected_edges(raw.edge_index, num_nodes)
    labels = None if raw.labels is None else raw.labels.astype(np.int64)
    num_classes = 0
    if labels is not None:
        num_classes = int(labels.max()) + 1 if raw.num_classes is None else raw.num_classes
    if keep_largest_component:
        nodes = largest_component(edge_index, num_nodes)
        local = np.full(num_nodes, -1, dtype=np.int64)
        local[nodes] = np.arange(nodes.size)
        edge_index = local[edge_index[:, local[edge_index[0]] >= 0]]
        features = features[nodes]
        labels = None if labels is None else labels[nodes]
    if normalise_rows:
        features = row_normalised(features)
    if num_classes == 0:
        labels = None
    return Graph(features=features, edge_index=edge_index, labels=labels, num_classes=num_classes)


def _check(raw: RawGraph, features: FeatureMatrix, source: str) -> None:
    num_nodes, num_features = features.shape
    if num_nodes == 0 or num_features == 0:
        raise SubflError(f"{source}: {num_nodes} nodes with {num_features} features; at least one of each is needed")
    if isinstance(features, np.ndarray):
        bad_rows = np.nonzero(~np.isfinite(features))[0]
    else:
        bad_rows = np.repeat(np.arange(num_nodes), np.diff(features.indptr))[~np.isfinite(features.data)]
    if bad_rows.size:
        raise SubflError(
            f"{source}: {bad_rows.size} feature values are NaN or infinite, the first at node {bad_rows[0]}; "
            "features must be finite numbers"
        )
    edges = raw.edge_index
    if edges.ndim != 2 or edges.shape[0] != 2:
        raise SubflError(f"{source}: edges have the shape {list(edges.shape)}; expected [2, edges]")
    unknown = ((edges < 0) | (edges >= num_nodes)).any(axis=0)
    if unknown.any():
        raise SubflError(
            f"{source}: {np.count_nonzero(unknown)} edges name a node outside 0..{num_nodes - 1}, "
            f"the first is edge {int(np.flatnonzero(unknown)[0])}"
        )
    if raw.labels is None:
        return
    if raw.labels.shape != (num_nodes,):
        raise SubflError(f"{source}: labels have the shape {list(raw.labels.shape)}; expected [{num_nodes}]")
    least, most = int(raw.labels.min()), int(raw.labels.max())
    if least < -1 or (raw.num_classes is not None and most >= raw.num_classes):
        raise SubflError(
            f"{source}: labels run from {least} to {most}; allowed are the classes from 0, and -1 for none"
        )
