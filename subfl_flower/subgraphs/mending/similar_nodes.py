"""Similar nodes of other clients, by the cosine of the representations that clients show.

FED-PUB's paper compares with FedGNN on subgraphs: a client's graph is extended by the nodes of other clients whose
representation is similar, above 0.5, to that of one of its nodes (Baek et al., ICML 2023, App. B.2). No more is public.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import scipy.sparse as sp

from subfl_flower.data.graph import ClientGraph, FeatureMatrix
from subfl_flower.subgraphs.mending.added_nodes import with_added_nodes

ORDER = "order of nodes"
"""Purpose of the draw of the order in which a client shows its nodes; a row then does not identify its node."""

BLOCK_ENTRIES = 2**22  # cosines at a time
# Cosines are compared in whole steps of 1/2^18: equal ones tie, whatever the last bits of a product are.
STEPS = 2**18


def similar_nodes(representations: Sequence[np.ndarray], threshold: float, most: int) -> list[np.ndarray]:
    """Nearest nodes of other clients for each node of each client.

    Cosines are rounded to 2^-18. Of equal ones the first counts as nearer, in the order of clients and rows. A zero
    representation is similar to nothing. N nodes in all take N² products of rows, in bounded memory.

    Args:
        representations: of each client, float32 `[n, width]`, finite.
        threshold: at least 0; only nodes whose cosine is larger are found.
        most: largest number of nodes that are found for a node, at least 1.

    Returns:
        For each client int64 `[2, found]`: an own row, and a row of all clients' stacked representations. Sorted by own
        row, the nearest first.
    """
    directions = _directions(np.concatenate([np.zeros((0, representations[0].shape[1])), *representations]))
    bounds = np.cumsum([0, *(len(rows) for rows in representations)])
    block = max(1, BLOCK_ENTRIES // max(1, len(directions)))
    found = []
    for start, end in pairwise(bounds):
        blocks = [np.zeros((2, 0), dtype=np.int64)]
        for first in range(start, end, block):
            scores = directions[first : min(first + block, end)] @ directions.T
            scores *= STEPS
            np.rint(scores, out=scores)
            scores[:, start:end] = -np.inf
            blocks.append(_nearest(scores, threshold * STEPS, most) + np.array([[first - start], [0]]))
        found.append(np.concatenate(blocks, axis=1))
    return found


def _directions(representations: np.ndarray) -> np.ndarray:
    """Rows of length one, float64; zero rows stay zero.

    In float32 the last bits of a product depend on the number of threads, and change the step that cosines are rounded
    to.
    """
    rows = representations.astype(np.float64)
    lengths = np.sqrt(np.einsum("nw,nw->n", rows, rows))[:, None]
    return np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)


def _nearest(scores: np.ndarray, threshold: float, most: int) -> np.ndarray:
    """Columns of each row's `most` largest scores above the threshold: int64 [2, found], row and column."""
    most = min(most, scores.shape[1])
    last = np.partition(scores, -most, axis=1)[:, -most, None]
    row, column = np.nonzero((scores >= last) & (scores > threshold))
    order = np.lexsort((column, -scores[row, column], row))
    row, column = row[order], column[order]
    rank = np.arange(len(row)) - np.searchsorted(row, row)
    return np.stack([row, column])[:, rank < most]


def with_similar_nodes(graph: ClientGraph, number: int, edges: np.ndarray) -> ClientGraph:
    """A client's graph with other clients' nodes after its own, with zeros in place of their unknown features.

    Args:
        graph: of n nodes.
        number: of new nodes.
        edges: `[2, e]`, distinct: a node of the graph, and the new one it is joined with.
    """
    return with_added_nodes(graph, edges, with_zero_rows(graph.features, number))


def with_zero_rows(matrix: FeatureMatrix, number: int) -> FeatureMatrix:
    """A matrix with zero rows below it, sparse if it is."""
    if isinstance(matrix, np.ndarray):
        return np.concatenate([matrix, np.zeros((number, matrix.shape[1]), dtype=matrix.dtype)])
    bounds = np.concatenate([matrix.indptr, np.full(number, matrix.indptr[-1], dtype=matrix.indptr.dtype)])
    return sp.csr_array((matrix.data, matrix.indices, bounds), shape=(matrix.shape[0] + number, matrix.shape[1]))


def require_similar_nodes(representations: np.ndarray, edges: np.ndarray, num_own: int, width: int) -> None:
    """Check similar nodes for a client: representations of m nodes, and the edges that join them with its own.

    Args:
        representations: float32 `[m, width]`, finite.
        edges: int32 `[2, e]`, distinct: an own row, and one of the m.
        num_own: number of nodes of the client.
        width: of representations.

    Raises:
        ValueError: they have other types, shapes or values.
    """
    require_representations(representations, width)
    if edges.dtype != np.int32 or edges.ndim != 2 or len(edges) != 2:
        raise ValueError(f"edges to similar nodes must be int32 [2, edges], not {edges.dtype} {list(edges.shape)}")
    ends = np.array([[num_own], [len(representations)]])
    if (edges < 0).any() or (edges >= ends).any():
        raise ValueError(f"edges must join {num_own} own with {len(representations)} similar nodes")
    if len(np.unique(edges, axis=1).T) < edges.shape[1]:
        raise ValueError("edges to similar nodes must be distinct")


def require_representations(representations: np.ndarray, width: int, largest: float = np.inf) -> None:
    """Check the representations that a client shows of its nodes.

    Args:
        representations: float32 `[nodes, width]`, finite and of magnitude `largest` at most.
        width: of representations.
        largest: largest magnitude of an entry.

    Raises:
        ValueError: they have another type, shape or value.
    """
    if representations.dtype != np.float32 or representations.ndim != 2 or representations.shape[1] != width:
        shape = list(representations.shape)
        raise ValueError(f"representations must be float32 [nodes, {width}], not {representations.dtype} {shape}")
    if not (np.isfinite(representations) & (np.abs(representations) <= largest)).all():
        raise ValueError(f"representations must be finite and at most {largest:g} in magnitude")
