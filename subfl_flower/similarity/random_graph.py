"""The random graph on which local models are compared (FED-PUB, App. B.3)."""

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
