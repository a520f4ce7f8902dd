"""Small graphs that several tests use."""

from __future__ import annotations

import networkx as nx
import numpy as np

from subfl_flower.data.graph import Graph


def graph_of(network: nx.Graph, num_classes: int = 3, seed: int = 0) -> Graph:
    """A clean graph with random features and labels over a networkx graph with nodes 0..n-1."""
    generator = np.random.default_rng(seed)
    edges = sorted(
        {(int(a), int(b)) for a, b in network.edges if a != b} | {(int(b), int(a)) for a, b in network.edges if a != b}
    )
    nodes = network.number_of_nodes()
    return Graph(
        features=generator.random((nodes, 4), dtype=np.float32),
        edge_index=np.array(edges, dtype=np.int64).reshape(-1, 2).T,
        labels=generator.integers(0, num_classes, nodes),
        num_classes=num_classes,
    )
