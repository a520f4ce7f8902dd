"""Cleaning of a source's graph.

A clean graph is undirected, without self-loops and duplicate edges, optionally the largest connected component
only and with row-normalised features, as FED-PUB prepares its data (Baek et al., ICML 2023,
arXiv 2206.10206, Section 5.1 and the released code).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from subfl_flower.data.edge_weights import EdgeWeightRule, weighted_edges
from subfl_flower.data.feature_transform import FeatureTransform
from subfl_flower.data.graph import NO_ROLE, FeatureMatrix, Graph, Notes
from subfl_flower.data.read_arrays import ANY, NUMBERS, WHOLE, require_array, require_result
from subfl_flower.errors import SubflError

SPARSE_BELOW = 0.1
"""Features with a smaller share of non-zero entries are kept as CSR."""

MOST_CLASSES = 100_000
"""Largest number of classes: a model has an output for each, and its size must not follow from one wrong label."""

MOST_NEIGHBOURS = 64
"""Degree from which on nodes share a feature, where features are made of degrees."""


@dataclass(frozen=True, eq=False)
class RawGraph:
    """A graph as its source gives it.

    Attributes:
        features: any numeric `[nodes, features]`, dense or sparse; NaN where missing. None where the source has none.
        edge_index: integers `[2, edges]`, directed or not, self-loops and duplicates allowed.
        labels: integers `[nodes]`, -1 where unlabelled, or None.
        num_classes: number of classes, or None for one more than the largest label.
        class_names: name of each class; None where the source has numbers only.
        node_names: text `[nodes]`; None where the source numbers its rows.
        edge_weight: float `[edges]`; None without weights.
        given_roles: int8 `[nodes]`, the split that the source states; None where it is drawn.
        encoding: columns and categories of `features`, which are not treated yet; None for ready features.
        num_nodes: number of nodes of a source without features.
        notes: remarks on the source.
    """

    features: np.ndarray | sp.sparray | sp.spmatrix | None
    edge_index: np.ndarray
    labels: np.ndarray | None
    num_classes: int | None = None
    class_names: tuple[str, ...] | None = None
    node_names: np.ndarray | None = None
    edge_weight: np.ndarray | None = None
    given_roles: np.ndarray | None = None
    encoding: FeatureTransform | None = None
    num_nodes: int | None = None
    notes: Notes = field(default_factory=Notes)


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
    """The nodes of the largest connected component, ascending int64 `[nodes]`; among equals, the first."""
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


def compact(features: np.ndarray | sp.sparray | sp.spmatrix, source: str) -> FeatureMatrix:
    """Cast a matrix to float32: CSR when fewer than a tenth of its entries are non-zero, else dense.

    Args:
        features: `[nodes, features]`.
        source: name of the data in an error.

    Raises:
        SubflError: a value is not finite.
    """
    with np.errstate(over="ignore"):
        if sp.issparse(features):
            matrix = sp.csr_array(features, dtype=np.float32)
            matrix.sum_duplicates()
            matrix.eliminate_zeros()
            nonzero = matrix.nnz
            bad_rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))[~np.isfinite(matrix.data)]
        else:
            matrix = np.ascontiguousarray(features, dtype=np.float32)
            nonzero = int(np.count_nonzero(matrix))
            bad_rows = np.nonzero(~np.isfinite(matrix))[0]
    if bad_rows.size:
        raise SubflError(
            f"{source}: {bad_rows.size} feature values are NaN or infinite, the first at node {bad_rows[0]}; "
            f"features must be finite numbers within {np.finfo(np.float32).max:.2g}, as float32 has them"
        )
    if nonzero < SPARSE_BELOW * matrix.shape[0] * matrix.shape[1]:
        return sp.csr_array(matrix)
    return matrix.toarray() if sp.issparse(matrix) else matrix


def clean(
    raw: RawGraph,
    keep_largest_component: bool,
    normalise_rows: bool,
    source: str,
    weights: EdgeWeightRule = "unique",
    structure: Literal["degree", "identity"] | None = None,
) -> Graph:
    """The clean graph of a raw one.

    Args:
        raw: the source's graph.
        keep_largest_component: drop every other component; else isolated nodes stay.
        normalise_rows: make feature rows sum to one.
        source: name of the data in an error.
        weights: rule for a pair of nodes with several weights.
        structure: rule that makes features of a source without any, from the whole graph's edges.

    Returns:
        Features are float32; where they are not treated yet, float64 as they were read.

    Raises:
        SubflError: no raw graph, no nodes, no features, an array of another type or shape, features that are not
            finite, an edge or a label out of range.
    """
    num_nodes = _number_of_nodes(raw, source)
    _check_arrays(raw, num_nodes, source)
    _check_edges(raw.edge_index, num_nodes, source)
    _check_labels(raw, source)
    edge_weight = None
    if raw.edge_weight is None:
        edge_index = undirected_edges(raw.edge_index, num_nodes)
    else:
        edge_index, edge_weight = weighted_edges(
            raw.edge_index, raw.edge_weight, num_nodes, weights, source, raw.node_names
        )
    features, transform = _features(raw, edge_index, structure, source)
    labels = None if raw.labels is None else raw.labels.astype(np.int64)
    num_classes = 0
    if labels is not None:
        num_classes = int(labels.max()) + 1 if raw.num_classes is None else raw.num_classes
    names, roles = raw.node_names, raw.given_roles
    notes = raw.notes + _edge_notes(raw.edge_index, edge_index, num_nodes)
    if keep_largest_component:
        nodes = largest_component(edge_index, num_nodes)
        local = np.full(num_nodes, -1, dtype=np.int64)
        local[nodes] = np.arange(nodes.size)
        kept = local[edge_index[0]] >= 0
        edge_index = local[edge_index[:, kept]]
        edge_weight = None if edge_weight is None else edge_weight[kept]
        features = features[nodes]
        labels, names, roles = (None if array is None else array[nodes] for array in (labels, names, roles))
        if nodes.size < num_nodes:
            notes += Notes((f"{num_nodes - nodes.size} nodes outside of the largest component",))
    if normalise_rows:
        features = row_normalised(features)
    if roles is not None and labels is not None:
        unlabelled = (roles != NO_ROLE) & (labels < 0)
        roles = np.where(unlabelled, NO_ROLE, roles).astype(np.int8)
        if unlabelled.any():
            notes += Notes((f"the role of {np.count_nonzero(unlabelled)} nodes without a label",))
    if num_classes == 0:
        labels = None
    return Graph(
        features=features,
        edge_index=edge_index,
        labels=labels,
        num_classes=num_classes,
        class_names=raw.class_names if num_classes else None,
        node_names=names,
        edge_weight=edge_weight,
        given_roles=roles if num_classes else None,
        columns=None if transform is None else transform.feature_names,
        transform=transform,
        notes=notes,
    )


def _number_of_nodes(raw: RawGraph, source: str) -> int:
    require_result(raw, RawGraph, source)
    if raw.features is not None:
        require_array(raw.features, "features", ("nodes", "features"), NUMBERS, source, sparse=True)
        num_nodes, num_features = raw.features.shape
    else:
        known = next((len(array) for array in (raw.node_names, raw.labels) if array is not None), raw.num_nodes)
        num_nodes, num_features = known or 0, 0
    if num_nodes == 0 or (raw.features is not None and num_features == 0):
        raise SubflError(f"{source}: {num_nodes} nodes with {num_features} features; at least one of each is needed")
    return int(num_nodes)


def _features(
    raw: RawGraph, edge_index: np.ndarray, structure: Literal["degree", "identity"] | None, source: str
) -> tuple[FeatureMatrix, FeatureTransform | None]:
    """Features, float32 unless they are not treated yet, and their transform."""
    if raw.features is None:
        if structure is None:
            raise SubflError(
                f"{source}: the nodes have no features; dataset.features.from_structure=degree makes some of their "
                "degrees, and =identity gives each node one"
            )
        num_nodes = _number_of_nodes(raw, source)
        return structural_features(edge_index, num_nodes, structure), FeatureTransform(structure=structure)
    if structure is not None:
        raise SubflError(
            f"{source}: dataset.features.from_structure={structure} is for nodes without features, and these have "
            f"{raw.features.shape[1]}"
        )
    if raw.encoding is None:
        return compact(raw.features, source), None
    return raw.features, raw.encoding


def structural_features(edge_index: np.ndarray, num_nodes: int, rule: Literal["degree", "identity"]) -> sp.csr_array:
    """Features that follow from the edges: float32 CSR `[nodes, 65]`, or `[nodes, nodes]`.

    `degree`: feature d is 1 for nodes of d neighbours, the last one for nodes of 64 and more. `identity`: one a node.
    """
    nodes = np.arange(num_nodes)
    if rule == "identity":
        columns, width = nodes, num_nodes
    else:
        columns = np.minimum(np.bincount(edge_index[0], minlength=num_nodes), MOST_NEIGHBOURS)
        width = MOST_NEIGHBOURS + 1
    ones = np.ones(num_nodes, dtype=np.float32)
    return sp.csr_array((ones, (nodes, columns)), shape=(num_nodes, width))


def _edge_notes(listed: np.ndarray, edge_index: np.ndarray, num_nodes: int) -> Notes:
    """Notes on removed edges, and on edges with one direction only."""
    loops = int(np.count_nonzero(listed[0] == listed[1]))
    kept = listed[:, listed[0] != listed[1]].astype(np.int64)
    codes = np.unique(kept[0] * num_nodes + kept[1])
    repeated = kept.shape[1] - codes.size
    one_way = edge_index.shape[1] - codes.size
    dropped = []
    if loops:
        dropped.append(f"{loops} self-loops")
    if repeated:
        dropped.append(f"{repeated} repeated edges")
    return Notes(tuple(dropped), (), {"self_loops": loops, "repeated_edges": repeated, "edges_listed_one_way": one_way})


def _check_arrays(raw: RawGraph, num_nodes: int, source: str) -> None:
    require_array(raw.edge_index, "edges", (2, "edges"), WHOLE, source)
    for array, name, kinds, length in (
        (raw.labels, "labels", NUMBERS, num_nodes),
        (raw.node_names, "names of nodes", ANY, num_nodes),
        (raw.given_roles, "roles", WHOLE, num_nodes),
        (raw.edge_weight, "edge weights", NUMBERS, raw.edge_index.shape[1]),
    ):
        if array is not None:
            require_array(array, name, (length,), kinds, source)


def _check_edges(edges: np.ndarray, num_nodes: int, source: str) -> None:
    unknown = ((edges < 0) | (edges >= num_nodes)).any(axis=0)
    if unknown.any():
        raise SubflError(
            f"{source}: {np.count_nonzero(unknown)} edges name a node outside 0..{num_nodes - 1}, "
            f"the first is edge {int(np.flatnonzero(unknown)[0])}"
        )


def _check_labels(raw: RawGraph, source: str) -> None:
    if raw.labels is None:
        return
    if raw.labels.dtype.kind not in "iu" and (raw.labels != np.floor(raw.labels)).any():
        raise SubflError(f"{source}: labels must be whole numbers, the classes from 0, and -1 for none")
    least, most = int(raw.labels.min()), int(raw.labels.max())
    if least < -1 or (raw.num_classes is not None and most >= raw.num_classes):
        raise SubflError(
            f"{source}: labels run from {least} to {most}; allowed are the classes from 0, and -1 for none"
        )
    classes = max(most + 1, raw.num_classes or 0)
    if classes > MOST_CLASSES:
        raise SubflError(
            f"{source}: labels run up to {most} of {classes} classes, and {MOST_CLASSES} are allowed; number the "
            "classes from 0 without gaps"
        )
