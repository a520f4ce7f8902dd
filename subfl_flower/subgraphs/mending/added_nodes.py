"""A client's graph with nodes that it does not hold, generated ones or those of other clients, after its own."""

from __future__ import annotations

import numpy as np

from subfl_flower.data.graph import NO_ROLE, ClientGraph, FeatureMatrix


def with_added_nodes(graph: ClientGraph, edges: np.ndarray, features: FeatureMatrix) -> ClientGraph:
    """A client's graph with new nodes after its own.

    New nodes have the ids after the largest, no label and no role, and are not shareable. Edges to nodes that other
    clients hold are left out, because the new nodes stand for them.

    Args:
        graph: of n nodes.
        edges: int64 `[2, e]`, distinct: a node of the graph, and the number of the new one that it is joined with.
        features: `[n + m, features]`, those of the m new nodes last.
    """
    number = features.shape[0] - graph.num_nodes
    added = np.stack([edges[0], graph.num_nodes + edges[1]]).astype(np.int64)
    joined = np.concatenate([graph.edge_index, added, added[::-1]], axis=1)
    first = graph.node_ids[-1] + 1
    return ClientGraph(
        client_id=graph.client_id,
        node_ids=np.concatenate([graph.node_ids, first + np.arange(number)]),
        features=features,
        edge_index=joined[:, np.lexsort(joined[::-1])],
        labels=None if graph.labels is None else np.concatenate([graph.labels, np.full(number, -1)]),
        num_classes=graph.num_classes,
        roles=np.concatenate([graph.roles, np.full(number, NO_ROLE, dtype=graph.roles.dtype)]),
        shareable=np.concatenate([graph.shareable, np.zeros(number, dtype=bool)]),
    )
