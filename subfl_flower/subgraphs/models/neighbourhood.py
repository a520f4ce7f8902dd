r"""Sampled neighbourhoods of some nodes, for training steps that do not need the whole graph.

GraphSAGE's sampler (Hamilton, Ying and Leskovec, NeurIPS 2017, Alg. 2): a node's message is the sum over at most k
neighbours, drawn without replacement. Where a network sums messages by fixed weights, the drawn weights are multiplied
by d/k for a node of d neighbours, so that the sum's expectation is that over all neighbours.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import scipy.sparse

from subfl_flower.subgraphs.models.local_graph import LocalGraph


def neighbourhood(
    graph: LocalGraph, seeds: np.ndarray, hops: int, neighbours: int | None, rng: np.random.Generator, *, rescale: bool
) -> tuple[LocalGraph, np.ndarray]:
    """The nodes that pass messages to `seeds`, and the drawn part of the operator.

    Args:
        graph: a client's whole local graph.
        seeds: int64 [seeds], different nodes of the client's own.
        hops: number of propagations; the rows of the furthest nodes stay empty.
        neighbours: largest number of a node's neighbours; None: all. A node's message to itself is always kept.
        rng: draws the neighbours.
        rescale: multiply the drawn weights by d/k.

    Returns:
        The local graph, whose own nodes begin with `seeds`, and the place in `graph` of each of its nodes, int64.
    """
    frontier, found = seeds, [seeds]
    known = np.zeros(graph.num_nodes, dtype=bool)
    known[seeds] = True
    targets, sources, weights = [], [], []
    for _ in range(hops):
        row, source, weight = _drawn(graph.operator[frontier], frontier, neighbours, rng, rescale)
        targets.append(frontier[row])
        sources.append(source)
        weights.append(weight)
        frontier = np.unique(source[~known[source]])
        known[frontier] = True
        found.append(frontier)
    others = np.concatenate(found[1:]) if hops else seeds[:0]
    own = others < graph.num_own
    nodes = np.concatenate([seeds, others[own], others[~own]])
    place = np.empty(graph.num_nodes, dtype=np.int64)
    place[nodes] = np.arange(len(nodes))
    entries = (np.concatenate([seeds[:0], *targets]), np.concatenate([seeds[:0], *sources]))
    values = np.concatenate([np.zeros(0, dtype=np.float32), *weights])
    operator = scipy.sparse.coo_array((values, tuple(place[ends] for ends in entries)), shape=(len(nodes),) * 2).tocsr()
    num_own = len(seeds) + int(own.sum())
    part = replace(
        graph,
        num_own=num_own,
        operator=operator,
        inputs=graph.inputs[nodes],
        symmetric=False,
        told=None if graph.told is None else graph.told[nodes[num_own:] - graph.num_own],
        structure=None if graph.structure is None else graph.structure[nodes],
    )
    return part, nodes


def _drawn(
    rows: scipy.sparse.csr_array,
    nodes: np.ndarray,
    neighbours: int | None,
    rng: np.random.Generator,
    rescale: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The drawn entries of an operator's rows at `nodes`: positions in `nodes`, columns, values."""
    row = np.repeat(np.arange(len(nodes)), np.diff(rows.indptr))
    columns, values = rows.indices.astype(np.int64), rows.data
    itself = columns == nodes[row]
    degrees = np.bincount(row[~itself], minlength=len(nodes))
    if neighbours is None or not (degrees > neighbours).any():
        return row, columns, values
    order = np.lexsort((rng.random(len(row)), itself, row))  # by rows, a node itself last, the others by chance
    rank = np.empty(len(row), dtype=np.int64)
    rank[order] = np.arange(len(row)) - rows.indptr[row]
    kept = itself | (rank < neighbours)
    if rescale:
        factors = np.maximum(degrees / neighbours, 1.0).astype(np.float32)
        values = np.where(itself, values, values * factors[row])
    return row[kept], columns[kept], values[kept]
