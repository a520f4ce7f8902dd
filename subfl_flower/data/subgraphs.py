"""Cutting the global graph into the subgraphs of clients, and what is lost by it."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from subfl_flower.data.graph import ClientGraph, Graph


class SubgraphCutter:
    """Cuts induced subgraphs out of one graph, and remembers which edges some client holds.

    The work for a client is linear in the degrees of its nodes.

    Args:
        graph: the global graph.
        roles: int8 `[nodes]`.
        assignments: for every client the ids of its nodes, int64 `[n]`, ascending.
    """

    def __init__(self, graph: Graph, roles: np.ndarray, assignments: list[np.ndarray]) -> None:
        self._graph = graph
        self._roles = roles
        self._assignments = assignments
        self._shareable = np.bincount(np.concatenate(assignments), minlength=graph.num_nodes) > 1
        degrees = np.bincount(graph.edge_index[0], minlength=graph.num_nodes)
        starts = np.concatenate([[0], np.cumsum(degrees)])
        # Each entry is the edge's position plus one, because a stored zero may be dropped.
        self._positions = sp.csr_array(
            (np.arange(1, graph.num_edges + 1), graph.edge_index[1], starts), shape=(graph.num_nodes,) * 2
        )
        self._held = np.zeros(graph.num_edges, dtype=bool)

    def cut(self, client_id: int) -> ClientGraph:
        """The subgraph that a client's nodes induce; shareable are the nodes that another client holds too."""
        graph, node_ids = self._graph, self._assignments[client_id]
        induced = self._positions[node_ids][:, node_ids].tocoo()
        order = np.argsort(induced.data)  # global (row, column) order is also the local one: ids ascend
        self._held[induced.data - 1] = True
        row, col = induced.coords
        return ClientGraph(
            client_id=client_id,
            node_ids=node_ids,
            features=graph.features[node_ids],
            edge_index=np.stack([row[order], col[order]]).astype(np.int64),
            labels=None if graph.labels is None else graph.labels[node_ids],
            num_classes=graph.num_classes,
            roles=self._roles[node_ids],
            shareable=self._shareable[node_ids],
        )

    def cross_edges(self) -> np.ndarray:
        """int64 `[2, edges]`, global ids: the edges that no client cut so far holds both ends of."""
        return self._graph.edge_index[:, ~self._held]
