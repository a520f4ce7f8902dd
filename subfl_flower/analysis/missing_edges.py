"""The edges that a partition cuts, by pair of clients."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp


def missing_edges(members: Sequence[np.ndarray], edge_index: np.ndarray, num_nodes: int) -> np.ndarray:
    r"""Number of edges missing between every two clients, int64 [K, K], symmetric, zeros on the diagonal.

    An edge {u, v} is missing between i and j if one of the two holds u, the other holds v, and neither holds both:
    :math:`u \in V_i \setminus V_j` and :math:`v \in V_j \setminus V_i`. Where clients share no node these are the
    edges from :math:`V_i` to :math:`V_j`. Where they do, an edge can be missing between several pairs. It can also be
    missing between two clients although a third one holds it: it counts edges that the two would learn from each other.

    Args:
        members: for each of the K clients the ids of its nodes.
        edge_index: [2, edges] of the global graph, both directions of every edge.
        num_nodes: nodes of the global graph.
    """
    sizes = [len(nodes) for nodes in members]
    owner = np.repeat(np.arange(len(members)), sizes)
    nodes = np.concatenate(members) if len(members) else np.empty(0, dtype=np.int64)
    held = sp.coo_array((np.ones(nodes.size, np.int64), (nodes, owner)), shape=(num_nodes, len(members))).tocsr()
    start, end = held[edge_index[0]], held[edge_index[1]]
    both = start.multiply(end)
    # every undirected edge occurs in both directions, once with its start at i and once with its start at j
    missing: np.ndarray = ((start - both).T @ (end - both)).toarray()
    return missing
