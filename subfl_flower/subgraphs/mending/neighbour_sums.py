r"""A client's graph mended for two convolutions, from sums over neighbours wherever these are held.

FedGCN (Yao et al., "FedGCN: Convergence-Communication Tradeoffs in Federated Training of Graph Convolutional Networks",
NeurIPS 2023). Let w be the weights of edges, all 1 where edges have none, and 1 of a node to itself. Let d be one more
than the sum of the weights of a node's edges in the *whole* graph. A client knows d of the nodes that it holds. With

.. math:: z_v = \sum_{u \in N(v) \cup \{v\}} w_{vu} x_u / \sqrt{d_u},

row v of Â X is :math:`z_v / \sqrt{d_v}`, and :math:`\hat A_{vu} = w_{vu} / \sqrt{d_v d_u}`. With z of the nodes that
it holds a client has the inputs of a GCN's first convolution as if it held the whole graph. With z and d of its nodes'
neighbours elsewhere, too, it has what the second convolution needs. Further convolutions are approximate: the nodes
beyond these neighbours are missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from subfl_flower.data.graph import ClientGraph, FeatureMatrix
from subfl_flower.models.sparse import normalised_adjacency
from subfl_flower.subgraphs.mending.boundary import Boundary
from subfl_flower.subgraphs.mending.packed_rows import dense, packed_rows, unpacked_rows
from subfl_flower.subgraphs.models.local_graph import LocalGraph, present_features


def degrees(graph: ClientGraph) -> np.ndarray:
    """d of a client's nodes `[nodes]`: one more than the weights of their edges here and elsewhere.

    Without weights, one more than their neighbours, int64; with weights float64.
    """
    ends = np.concatenate([graph.edge_index[0], graph.cross_edges[0]])
    if graph.edge_weight is None:
        return np.bincount(ends, minlength=graph.num_nodes) + 1
    return np.bincount(ends, np.concatenate(_weights(graph)), minlength=graph.num_nodes) + 1


def _weights(graph: ClientGraph) -> tuple[np.ndarray, np.ndarray]:
    """The weights of a client's own edges and of its cross edges, float32; 1 where there are none."""
    inside, across = graph.edge_weight, graph.cross_weight
    return (
        np.ones(graph.edge_index.shape[1], dtype=np.float32) if inside is None else inside,
        np.ones(graph.cross_edges.shape[1], dtype=np.float32) if across is None else across,
    )


def partial_sums(graph: ClientGraph, boundary: Boundary, kept: np.ndarray, counted: np.ndarray) -> FeatureMatrix:
    """A client's part of the sums of its boundary's nodes: each over those neighbours that the client counts.

    Args:
        graph: the client's graph.
        boundary: of that graph.
        kept: bool `[T]`, the boundary's nodes whose sums are asked for.
        counted: bool `[nodes]`; every node of the whole graph must be counted by one client.

    Returns:
        float32 `[kept, F]`, dense or CSR as the features are.
    """
    elsewhere = np.unique(graph.cross_edges[1])
    rows = np.where(boundary.held, boundary.own, graph.num_nodes + np.searchsorted(elsewhere, boundary.node_ids))
    return _closed_neighbourhoods(graph, counted)[rows[kept]] @ graph.features


def _closed_neighbourhoods(graph: ClientGraph, counted: np.ndarray) -> sp.csr_array:
    """Matrix that sums features to z: float32 CSR [nodes + nodes elsewhere, nodes], w / sqrt(d) of counted nodes."""
    own, elsewhere = graph.cross_edges
    others, other = np.unique(elsewhere, return_inverse=True)
    loops = np.arange(graph.num_nodes)
    row = np.concatenate([graph.edge_index[0], loops, graph.num_nodes + other])
    column = np.concatenate([graph.edge_index[1], loops, own])
    inside, across = _weights(graph)
    weight = np.concatenate([inside, np.ones(graph.num_nodes, dtype=np.float32), across])
    used = counted[column]
    row, column, weight = row[used], column[used], weight[used]
    values = (weight * (1.0 / np.sqrt(degrees(graph)))[column]).astype(np.float32)
    return sp.coo_array((values, (row, column)), shape=(graph.num_nodes + len(others), graph.num_nodes)).tocsr()


@dataclass(frozen=True, eq=False)
class NeighbourSums:
    """Sums that a client was sent: z of some own nodes, z and d of some nodes elsewhere.

    Attributes:
        own: int64 `[a]`, local ids.
        elsewhere: int64 `[b]`, global ids.
        sums: float32 `[a + b, F]`, z, dense or CSR.
        degrees: `[b]`, d of the nodes elsewhere; int64, or float64 where one is not whole.
    """

    own: np.ndarray
    elsewhere: np.ndarray
    sums: FeatureMatrix
    degrees: np.ndarray

    def arrays(self) -> dict[str, np.ndarray]:
        """The sums as arrays by name."""
        named = {"own": self.own, "elsewhere": self.elsewhere, "degrees": self.degrees}
        return {**named, **packed_rows(self.sums)}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, np.ndarray], width: int) -> NeighbourSums:
        """Restore sums from `arrays`, of F = `width`."""
        rest = dict(arrays)
        own, elsewhere, told = (rest.pop(name) for name in ("own", "elsewhere", "degrees"))
        return cls(own, elsewhere, unpacked_rows(rest, width), told)


def mended_graph(graph: ClientGraph, told: NeighbourSums) -> LocalGraph:
    """Graph for a GCN's computation by a client that was sent sums of its nodes and of nodes elsewhere.

    The client's nodes come first, then those elsewhere whose sums it was sent, by ascending ids. The operator has the
    entries of the whole graph's Â: between own nodes, between these and nodes elsewhere, and of every node to itself.
    Those between two nodes elsewhere are unknown, and no own node's second convolution needs them. A neighbour without
    a sum has no place, but counts in the degree. Own nodes without a sum have all their neighbours here.

    Args:
        graph: the client's graph, as far as the task lets it be seen.
        told: sums of own nodes, or of other ends of its cross edges.
    """
    order = np.argsort(told.elsewhere)
    others = told.elsewhere[order]
    d = np.concatenate([degrees(graph), told.degrees[order]])
    known = np.isin(graph.cross_edges[1], others)
    own, elsewhere = graph.cross_edges[:, known]
    other = graph.num_nodes + np.searchsorted(others, elsewhere)
    loops = np.arange(len(d))
    row = np.concatenate([graph.edge_index[0], own, other, loops])
    column = np.concatenate([graph.edge_index[1], other, own, loops])
    inside, across = _weights(graph)
    weight = np.concatenate([inside, across[known], across[known], np.ones(len(d), dtype=np.float32)])
    scale = 1.0 / np.sqrt(d)
    values = (scale[row] * scale[column] * weight).astype(np.float32)
    operator = sp.coo_array((values, (row, column)), shape=(len(d), len(d))).tocsr()
    return _local_graph(graph, operator, _scaled(_sums(graph, told, order), scale))


def graph_with_mended_inputs(graph: ClientGraph, told: NeighbourSums) -> LocalGraph:
    """Graph for a GCN's computation by a client that was sent sums of own nodes alone.

    The inputs are the whole graph's. Every later convolution is that of the client's graph as it is, with the degrees
    that nodes have in it. With the whole graph's degrees, rows of the operator would lack the weight of neighbours
    elsewhere; on Cora among 10 clients that cost 1 to 3 points of accuracy.

    Args:
        graph: the client's graph, as far as the task lets it be seen.
        told: sums of own nodes.
    """
    inputs = _scaled(_sums(graph, told, np.arange(0)), 1.0 / np.sqrt(degrees(graph)))
    return _local_graph(graph, normalised_adjacency(graph.edge_index, graph.num_nodes, graph.edge_weight), inputs)


def _local_graph(graph: ClientGraph, operator: sp.csr_array, inputs: FeatureMatrix) -> LocalGraph:
    return LocalGraph(
        client_id=graph.client_id,
        num_own=graph.num_nodes,
        operator=operator,
        inputs=inputs,
        feature_support=present_features(inputs),
    )


def _sums(graph: ClientGraph, told: NeighbourSums, order: np.ndarray) -> FeatureMatrix:
    """z of all nodes of a mended graph, dense or CSR as the client's features are."""
    everyone = np.ones(graph.num_nodes, dtype=bool)
    alone = _closed_neighbourhoods(graph, everyone)[: graph.num_nodes] @ graph.features
    rows = np.arange(graph.num_nodes + len(order))
    rows[told.own] = graph.num_nodes + np.arange(len(told.own))
    rows[graph.num_nodes :] = graph.num_nodes + len(told.own) + order
    if sp.issparse(graph.features):
        return sp.csr_array(sp.vstack([alone, sp.csr_array(told.sums)], format="csr"))[rows]
    together: np.ndarray = np.concatenate([alone, dense(told.sums)])[rows]
    return together


def _scaled(rows: FeatureMatrix, scale: np.ndarray) -> FeatureMatrix:
    """Every row times its factor, float32."""
    if sp.issparse(rows):
        return sp.csr_array(sp.diags_array(scale).astype(np.float32) @ rows)
    scaled: np.ndarray = rows * scale[:, None].astype(np.float32)
    return scaled
