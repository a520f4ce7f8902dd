"""Cutting the global graph into the subgraphs of clients, and the edges lost by it."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from subfl_flower.data.graph import ClientGraph, Graph


class SubgraphCutter:
    """Cutter of clients' subgraphs out of one graph; it records the edges that some client holds.

    The work for a client is linear in the degrees of its nodes.

    Args:
        graph: the global graph.
        roles: int8 `[nodes]`.
        assignments: for every client the ids of its nodes, int64 `[n]`, ascending.
        lost: bool `[edges]`, edges that a client does not hold even where it holds both ends; None: no such.
    """

    def __init__(
        self, graph: Graph, roles: np.ndarray, assignments: list[np.ndarray], lost: np.ndarray | None = None
    ) -> None:
        self._graph = graph
        self._roles = roles
        self._assignments = assignments
        self._lost = np.zeros(graph.num_edges, dtype=bool) if lost is None else lost
        self._shareable = np.bincount(np.concatenate(assignments), minlength=graph.num_nodes) > 1
        degrees = np.bincount(graph.edge_index[0], minlength=graph.num_nodes)
        starts = np.concatenate([[0], np.cumsum(degrees)])
        self._positions = sp.csr_array(
            (np.arange(graph.num_edges), graph.edge_index[1], starts), shape=(graph.num_nodes,) * 2
        )
        self._held = np.zeros(graph.num_edges, dtype=bool)
        self._local_ids = np.full(graph.num_nodes, -1)  # local ids of one client at a time, -1 for other nodes

    def cut(self, client_id: int) -> ClientGraph:
        """The subgraph that a client's nodes induce, without lost edges, and edges to nodes that it does not hold.

        Shareable are the nodes that another client holds too. An edge is a cross edge of this client even where another
        client holds both of its ends.
        """
        graph, node_ids = self._graph, self._assignments[client_id]
        # Rows come in the order of `node_ids` and each row's neighbours ascend, so a selection of them is sorted,
        # by local ids as well as by global ones.
        neighbours = self._positions[node_ids]
        ends = np.repeat(np.arange(node_ids.size), np.diff(neighbours.indptr))
        self._local_ids[node_ids] = np.arange(node_ids.size)
        other_ends = self._local_ids[neighbours.indices]
        self._local_ids[node_ids] = -1
        across = other_ends < 0
        inside = ~across & ~self._lost[neighbours.data]
        weight = None if graph.edge_weight is None else graph.edge_weight[neighbours.data]
        self._held[neighbours.data[inside]] = True
        return ClientGraph(
            client_id=client_id,
            node_ids=node_ids,
            features=graph.features[node_ids],
            edge_index=np.stack([ends[inside], other_ends[inside]]),
            labels=None if graph.labels is None else graph.labels[node_ids],
            num_classes=graph.num_classes,
            roles=self._roles[node_ids],
            shareable=self._shareable[node_ids],
            cross_edges=np.stack([ends[across], neighbours.indices[across]]).astype(np.int64),
            edge_weight=None if weight is None else weight[inside],
            cross_weight=None if weight is None else weight[across],
        )

    def cross_edges(self) -> np.ndarray:
        """The edges that no client cut so far holds: int64 `[2, edges]`, global ids."""
        return self._graph.edge_index[:, ~self._held]
