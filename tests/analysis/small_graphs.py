"""Graphs of a few nodes, for values worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from subfl_flower.data.graph import ClientGraph, Graph

Edges = Sequence[tuple[int, int]]


def both_directions(edges: Edges) -> np.ndarray:
    one = np.array(edges, dtype=np.int64).reshape(-1, 2).T
    both = np.concatenate([one, one[::-1]], axis=1)
    return both[:, np.lexsort(both[::-1])]


def whole_graph(edges: Edges, labels: Sequence[int] | None, num_nodes: int, num_classes: int) -> Graph:
    features = np.ones((num_nodes, 2), dtype=np.float32)
    return Graph(features, both_directions(edges), None if labels is None else np.array(labels), num_classes)


def client_graph(
    client_id: int,
    node_ids: Sequence[int],
    edges: Edges,
    labels: Sequence[int] | None,
    num_classes: int,
    features: np.ndarray | None = None,
    roles: Sequence[int] | None = None,
) -> ClientGraph:
    """`edges` are of local ids."""
    count = len(node_ids)
    return ClientGraph(
        client_id=client_id,
        node_ids=np.array(node_ids),
        features=np.ones((count, 2), dtype=np.float32) if features is None else features.astype(np.float32),
        edge_index=both_directions(edges),
        labels=None if labels is None else np.array(labels),
        num_classes=num_classes,
        roles=np.array([0] * count if roles is None else roles, dtype=np.int8),
        shareable=np.zeros(count, dtype=bool),
    )
