"""Disjoint subgraphs by METIS."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pymetis
from pydantic import Field

from subfl_flower.data.graph import Graph
from subfl_flower.data.partitions.settings import LossyPartition, require_nodes
from subfl_flower.errors import SubflError


def metis_parts(graph: Graph, parts: int, seed: int, what: str) -> list[np.ndarray]:
    """Divide the nodes into parts of about equal size with few edges between them.

    Karypis and Kumar, A Fast and High Quality Multilevel Scheme for Partitioning Irregular Graphs, SIAM
    J. Sci. Comput. 1998. Same graph, same seed, same parts.

    Args:
        graph: the global graph.
        parts: number of parts.
        seed: METIS' own seed.
        what: the setting that `parts` comes from, for an error.

    Returns:
        `parts` ascending int64 arrays of node ids, none empty, that cover every node once.

    Raises:
        SubflError: more parts than nodes, or METIS leaves a part empty.
    """
    require_nodes(graph, parts, what)
    membership = _membership(graph.edge_index, graph.num_nodes, parts, seed)
    empty = parts - np.unique(membership).size
    if empty:
        raise SubflError(
            f"METIS left {empty} of {what}={parts} parts of {graph.num_nodes} nodes "
            "empty; ask for fewer, or use partition=random"
        )
    return grouped(np.arange(graph.num_nodes), membership, parts)


def metis_split(graph: Graph, nodes: np.ndarray, parts: int, seed: int) -> list[np.ndarray]:
    """Divide some nodes by METIS on the subgraph that they induce, with a result for any number of them.

    A part that METIS leaves empty takes a node from the part that is the largest then. At most `parts` nodes become one
    part each, in ascending order.

    Args:
        graph: the global graph.
        nodes: int64 `[n]`, ascending ids of the nodes to divide.
        parts: number of parts.
        seed: METIS' own seed.

    Returns:
        `parts` ascending int64 arrays of global node ids that cover `nodes` once; the last `parts - n` are
        empty if `n < parts`, none is otherwise.
    """
    if nodes.size <= parts:
        membership = np.arange(nodes.size)
    else:
        membership = _membership(_induced_edges(graph, nodes), nodes.size, parts, seed)
        for part in np.setdiff1d(np.arange(parts), membership):
            largest = np.bincount(membership).argmax()
            membership[np.flatnonzero(membership == largest)[-1]] = part
    return grouped(nodes, membership, parts)


def grouped(nodes: np.ndarray, membership: np.ndarray, groups: int) -> list[np.ndarray]:
    """The nodes of every group, in the order in which they came.

    Args:
        nodes: int64 `[n]`, ids.
        membership: int64 `[n]`, the group of each node, 0 .. `groups - 1`.
        groups: number of groups.
    """
    ends = np.cumsum(np.bincount(membership, minlength=groups))
    return np.split(nodes[np.argsort(membership, kind="stable")], ends[:-1])


def _membership(edge_index: np.ndarray, num_nodes: int, parts: int, seed: int) -> np.ndarray:
    """METIS' part of every node, int64 `[nodes]`; `edge_index` as `Graph` has it."""
    degrees = np.bincount(edge_index[0], minlength=num_nodes)
    starts = np.concatenate([[0], np.cumsum(degrees)])
    adjacency = pymetis.CSRAdjacency(starts.astype(np.int32), edge_index[1].astype(np.int32))
    _, membership = pymetis.part_graph(parts, adjacency, options=pymetis.Options(seed=seed))
    return np.asarray(membership, dtype=np.int64)


def _induced_edges(graph: Graph, nodes: np.ndarray) -> np.ndarray:
    """The edges between `nodes`, numbered by position: int64 `[2, edges]`, sorted as the graph's are."""
    position = np.full(graph.num_nodes, -1)
    position[nodes] = np.arange(nodes.size)
    edges = position[graph.edge_index]
    return edges[:, (edges >= 0).all(axis=0)]


class MetisPartition(LossyPartition):
    """The global graph cut by METIS into one part a client: FED-PUB's disjoint setting (Section 5.1)."""

    name: Literal["metis"] = "metis"
    clients: int = Field(default=10, ge=1)

    def assign(self, graph: Graph) -> list[np.ndarray]:
        """One METIS part a client; disjoint, covers every node.

        Raises:
            SubflError: more clients than nodes, or METIS leaves a client empty.
        """
        return metis_parts(graph, self.clients, self.seed, "partition.clients")
