"""Checks of the arrays of a client's graph: a file made by hand must not cause errors later."""

from __future__ import annotations

import numpy as np

from subfl_flower.data.graph import NO_ROLE, TEST, ClientGraph
from subfl_flower.errors import SubflError


def require_sound(graph: ClientGraph, source: str) -> None:
    """Check everything that `ClientGraph` promises of its arrays.

    Args:
        graph: graph to check.
        source: name of the graph in an error.

    Raises:
        SubflError: an array has another type or shape, ids, labels or roles are out of range, edges are not in order
            or one between the client's nodes not in both directions, a cross edge leads to a node that the client
            holds, weights are missing, not positive and finite or not the same in both directions, a feature is not
            finite; the sentence names the array.
    """
    try:
        _check_sizes(graph)
        _check_types(graph)
        _check_nodes(graph)
        _check_edges(graph)
        _check_cross_edges(graph)
        _check_weights(graph)
        _check_features(graph)
    except _UnsoundError as error:
        raise SubflError(f"{source}: {error}") from None


class _UnsoundError(Exception):
    """Error in a graph."""


def _require(condition: bool | np.bool_, otherwise: str) -> None:
    if not condition:
        raise _UnsoundError(otherwise)


def _check_sizes(graph: ClientGraph) -> None:
    for name, least in (("client_id", 0), ("num_classes", 0)):
        value = getattr(graph, name)
        whole = isinstance(value, int | np.integer) and not isinstance(value, bool) and value >= least
        _require(whole, f"{name} is {value!r}; it must be a whole number from {least}")


def _check_types(graph: ClientGraph) -> None:
    """Check types and shapes; every later check relies on them."""
    _require(graph.node_ids.ndim == 1 and graph.node_ids.size > 0, "node_ids must be a list of at least one node")
    nodes = graph.num_nodes
    _require(graph.features.ndim == 2, f"features have the shape {graph.features.shape}, not [nodes, features]")
    edges, cross_edges = (pairs.shape[1] if pairs.ndim == 2 else 0 for pairs in (graph.edge_index, graph.cross_edges))
    expected: dict[str, tuple[type, tuple[int, ...]]] = {
        "node_ids": (np.int64, (nodes,)),
        "features": (np.float32, (nodes, max(graph.num_features, 1))),
        "edge_index": (np.int64, (2, edges)),
        "roles": (np.int8, (nodes,)),
        "shareable": (np.bool_, (nodes,)),
        "cross_edges": (np.int64, (2, cross_edges)),
    }
    if graph.labels is not None:
        expected["labels"] = (np.int64, (nodes,))
    for name, number in (("edge_weight", edges), ("cross_weight", cross_edges)):
        if getattr(graph, name) is not None:
            expected[name] = (np.float32, (number,))
    for name, (kind, shape) in expected.items():
        array = getattr(graph, name)
        _require(
            array.dtype == kind and array.shape == shape,
            f"{name} is {array.dtype} {list(array.shape)}, where {np.dtype(kind)} {list(shape)} belongs",
        )


def _check_nodes(graph: ClientGraph) -> None:
    ids, roles = graph.node_ids, graph.roles
    _require(ids[0] >= 0 and (np.diff(ids) > 0).all(), "node_ids must be ascending, all different and not negative")
    _require(
        roles.min() >= NO_ROLE and roles.max() <= TEST,
        f"roles run from {roles.min()} to {roles.max()}; allowed are 0 train, 1 validation, 2 test, -1 none",
    )
    _require(
        (graph.labels is None) == (graph.num_classes == 0),
        f"num_classes is {graph.num_classes} {'without' if graph.labels is None else 'with'} labels",
    )
    labels = np.full(graph.num_nodes, -1) if graph.labels is None else graph.labels
    _require(
        labels.min() >= -1 and labels.max() < max(graph.num_classes, 0),
        f"labels run from {labels.min()} to {labels.max()}; allowed are 0..{graph.num_classes - 1}, and -1 for none",
    )
    _require(((labels >= 0) | (roles == NO_ROLE)).all(), "a node without a label has a role")


def _check_edges(graph: ClientGraph) -> None:
    (row, column), nodes = graph.edge_index, graph.num_nodes
    if not row.size:
        return
    least, most = graph.edge_index.min(), graph.edge_index.max()
    _require(least >= 0 and most < nodes, f"edge_index names the nodes {least}..{most} of 0..{nodes - 1}")
    _require((row != column).all(), "edge_index joins a node with itself")
    codes = row * nodes + column
    _require((np.diff(codes) > 0).all(), "edge_index must be sorted by (row, column), every edge once")
    backwards = np.sort(column * nodes + row)
    _require(np.array_equal(backwards, codes), "edge_index must hold every edge in both directions")


def _check_cross_edges(graph: ClientGraph) -> None:
    (own, other), nodes = graph.cross_edges, graph.num_nodes
    if not own.size:
        return
    least, most = own.min(), own.max()
    _require(least >= 0 and most < nodes, f"cross_edges name the client's nodes {least}..{most} of 0..{nodes - 1}")
    _require(other.min() >= 0, f"cross_edges lead to the node {other.min()}; a global id must not be negative")
    held = np.isin(other, graph.node_ids)
    _require(not held.any(), f"cross_edges lead to the node {other[held.argmax()]}, which the client holds itself")
    ascending = (own[1:] > own[:-1]) | ((own[1:] == own[:-1]) & (other[1:] > other[:-1]))
    _require(ascending.all(), "cross_edges must be sorted by (local id, global id), every edge once")


def _check_weights(graph: ClientGraph) -> None:
    _require(graph.edge_weight is not None or graph.cross_weight is None, "cross_weight is there without edge_weight")
    if graph.edge_weight is None:
        return
    _require(
        graph.cross_weight is not None or not graph.cross_edges.size,
        "edge_weight is there without cross_weight, the weights of cross_edges",
    )
    for name in ("edge_weight", "cross_weight"):
        weight = getattr(graph, name)
        if weight is None:
            continue
        usable = np.isfinite(weight) & (weight > 0)
        _require(
            usable.all(),
            f"{name} holds {np.count_nonzero(~usable)} numbers that are not positive and finite, "
            f"the first is {weight[usable.argmin()] if usable.size else 0}",
        )
    row, column = graph.edge_index
    backwards = graph.edge_weight[np.lexsort((row, column))]
    _require(np.array_equal(backwards, graph.edge_weight), "edge_weight must be equal in both directions of an edge")


def _check_features(graph: ClientGraph) -> None:
    features = graph.features
    if isinstance(features, np.ndarray):
        values = features
    else:
        values = features.data
        try:
            features.check_format(full_check=True)
        except (ValueError, TypeError) as error:
            raise _UnsoundError(f"features are not a sparse matrix in rows ({error})") from None
    _require(np.isfinite(values).all(), "features must be finite numbers")
