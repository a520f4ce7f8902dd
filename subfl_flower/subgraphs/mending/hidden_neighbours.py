"""Graphs with nodes taken out, as examples of missing neighbours, and graphs with generated nodes put in.

A client does not see the neighbours that its nodes have elsewhere. FedSage+ (Zhang et al., "Subgraph Federated Learning
with Missing Neighbor Generation", NeurIPS 2021, Section 4) hides some of the client's own nodes instead. The neighbours
that visible nodes have lost are then known, and a generator can be trained to restore them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from subfl_flower.data.graph import TRAIN, ClientGraph, FeatureMatrix
from subfl_flower.errors import SubflError
from subfl_flower.subgraphs.mending.added_nodes import with_added_nodes


@dataclass(frozen=True, eq=False)
class Impaired:
    """A client's graph with some nodes hidden, and the neighbours that its k visible nodes have lost.

    Attributes:
        visible: int64 `[k]`, local ids in the whole graph of the nodes that remain, ascending.
        graph: the graph that they induce; node `v` of it is `visible[v]`.
        missing: int64 `[k]`, number of hidden neighbours of each of them.
        indptr: int64 `[k + 1]`; the hidden neighbours of node `v` are `indices[indptr[v] : indptr[v + 1]]`.
        indices: int64 `[missing.sum()]`, local ids in the whole graph, ascending within a node.
    """

    visible: np.ndarray
    graph: ClientGraph
    missing: np.ndarray
    indptr: np.ndarray
    indices: np.ndarray


def hide_neighbours(graph: ClientGraph, share: float, rng: np.random.Generator) -> Impaired:
    """Hide a share of a client's nodes, drawn uniformly, with all their edges.

    At least one node is hidden and one remains where there are two or more; a client with a single node keeps it. Where
    there are training nodes, one of them remains.

    Args:
        graph: the whole graph of the client.
        share: share of the nodes to hide, more than 0 and less than 1.
        rng: draws them.

    Raises:
        SubflError: the share is outside this range.
    """
    if not 0 < share < 1:
        raise SubflError(f"the share of hidden nodes is {share}, and must be more than 0 and less than 1")
    hidden = _drawn(graph, share, rng)
    row, column = graph.edge_index
    lost = ~hidden[row] & hidden[column]
    visible = np.flatnonzero(~hidden)
    missing = np.bincount(row[lost], minlength=graph.num_nodes)[visible]
    return Impaired(
        visible=visible,
        graph=_induced(graph, visible),
        missing=missing,
        indptr=np.concatenate([[0], np.cumsum(missing)]),
        indices=column[lost],
    )


def missing_elsewhere(graph: ClientGraph) -> Impaired:
    """The neighbours that a client's graph lacks: the other ends of its cross edges; `indices` are their global ids."""
    counts = np.bincount(graph.cross_edges[0], minlength=graph.num_nodes)
    return Impaired(
        visible=np.arange(graph.num_nodes),
        graph=graph,
        missing=counts,
        indptr=np.concatenate([[0], np.cumsum(counts)]),
        indices=graph.cross_edges[1],
    )


def _drawn(graph: ClientGraph, share: float, rng: np.random.Generator) -> np.ndarray:
    """Flags of the nodes to hide, bool `[nodes]`."""
    order = rng.permutation(graph.num_nodes)
    number = min(max(round(share * graph.num_nodes), 1), graph.num_nodes - 1)
    trains = graph.roles[order] == TRAIN
    if number and trains.any() and not trains[number:].any():
        last = np.flatnonzero(trains)[-1]
        order[[last, number]] = order[[number, last]]
    hidden = np.zeros(graph.num_nodes, dtype=bool)
    hidden[order[:number]] = True
    return hidden


def _induced(graph: ClientGraph, nodes: np.ndarray) -> ClientGraph:
    """The graph of some nodes, whose local ids ascend."""
    position = np.full(graph.num_nodes, -1, dtype=np.int64)
    position[nodes] = np.arange(nodes.size)
    edges = position[graph.edge_index]
    return ClientGraph(
        client_id=graph.client_id,
        node_ids=graph.node_ids[nodes],
        features=graph.features[nodes],
        edge_index=edges[:, (edges >= 0).all(0)],
        labels=None if graph.labels is None else graph.labels[nodes],
        num_classes=graph.num_classes,
        roles=graph.roles[nodes],
        shareable=graph.shareable[nodes],
    )


def with_neighbours(graph: ClientGraph, counts: np.ndarray, features: np.ndarray) -> ClientGraph:
    """A graph with new nodes after its own, each of them the neighbour of one own node.

    Args:
        graph: the client's graph of n nodes.
        counts: int64 `[n]`, number of new neighbours of each node.
        features: float32 `[counts.sum(), features]` of the new nodes, those of node 0 first.
    """
    owners = np.repeat(np.arange(graph.num_nodes), counts)
    return with_added_nodes(graph, np.stack([owners, np.arange(len(features))]), _stacked(graph.features, features))


def _stacked(own: FeatureMatrix, new: np.ndarray) -> FeatureMatrix:
    """Both, one above the other: CSR if the own ones are and the result is smaller so (two numbers an entry)."""
    if isinstance(own, np.ndarray):
        return np.concatenate([own, new])
    entries = own.nnz + np.count_nonzero(new)
    if 2 * entries < (own.shape[0] + len(new)) * own.shape[1]:
        return sp.csr_array(sp.vstack([own, sp.csr_array(new)], format="csr"))
    return np.concatenate([own.toarray(), new])
