"""The average local clustering coefficient, for graphs too large to count triangles node by node in Python."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

# Edges whose ends' neighbours are compared at once; bounds memory.
_BLOCK = 65536


def average_clustering(edge_index: np.ndarray, num_nodes: int) -> float:
    r"""Mean over nodes of the local clustering coefficient (Watts and Strogatz, 1998).

    .. math:: c_v = \frac{2 T_v}{d_v (d_v - 1)},

    with :math:`T_v` triangles through a node of degree :math:`d_v`; 0 where the degree is below 2. Every edge is
    directed from its end of lower degree to the other, which leaves a node at most :math:`\sqrt{2 E}` outgoing
    edges, and a triangle is found once, at the edge from its first to its second node.

    Args:
        edge_index: [2, edges], both directions of every edge, without self-loops.
        num_nodes: N, at least 1.
    """
    degrees = np.bincount(edge_index[0], minlength=num_nodes)
    rank = np.empty(num_nodes, dtype=np.int64)
    rank[np.argsort(degrees, kind="stable")] = np.arange(num_nodes)
    row, column = edge_index[:, rank[edge_index[0]] < rank[edge_index[1]]]
    forward = sp.coo_array((np.ones(row.size), (row, column)), shape=(num_nodes, num_nodes)).tocsr()
    triangles = np.zeros(num_nodes, dtype=np.int64)
    for start in range(0, row.size, _BLOCK):
        first, second = row[start : start + _BLOCK], column[start : start + _BLOCK]
        edge, third = forward[first].multiply(forward[second]).tocoo().coords
        for corner in (first[edge], second[edge], third):
            triangles += np.bincount(corner, minlength=num_nodes)
    pairs = degrees * (degrees - 1)
    return float(np.mean(2 * triangles / np.maximum(pairs, 1)))
