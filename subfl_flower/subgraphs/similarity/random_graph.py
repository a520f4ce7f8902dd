"""The random graphs on which local models are compared (FED-PUB, App. B.3; SubPFed)."""

from __future__ import annotations

import numpy as np


def stochastic_block_model(
    blocks: int, nodes_per_block: int, p_in: float, p_out: float, rng: np.random.Generator
) -> np.ndarray:
    """An undirected graph with `p_in` edges within a block and `p_out` between blocks.

    Returns:
        Edge index [2, edges], both directions, without self-loops.
    """
    num_nodes = blocks * nodes_per_block
    block = np.arange(num_nodes) // nodes_per_block
    row, column = np.triu_indices(num_nodes, k=1)
    probability = np.where(block[row] == block[column], p_in, p_out)
    chosen = rng.random(len(row)) < probability
    edges = np.stack([row[chosen], column[chosen]]).astype(np.int64)
    return np.concatenate([edges, edges[::-1]], axis=1)


def erdos_renyi(num_nodes: int, probability: float, rng: np.random.Generator) -> np.ndarray:
    """An undirected graph G(n, p) in which every pair of nodes is an edge with the same `probability`.

    networkx's `fast_gnp_random_graph` (Batagelj and Brandes, 2005) skips from edge to edge, so that time and memory
    grow with nodes and edges, not with pairs of nodes.

    Returns:
        Edge index [2, edges], both directions, without self-loops.
    """
    import networkx as nx

    graph = nx.fast_gnp_random_graph(num_nodes, probability, seed=rng)
    edges = np.array(graph.edges, dtype=np.int64).reshape(-1, 2).T
    return np.concatenate([edges, edges[::-1]], axis=1)
