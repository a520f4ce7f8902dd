"""Disjoint subgraphs with skewed labels: each class is spread unevenly over the clients."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from subfl_flower.data.graph import Graph
from subfl_flower.data.partitions.metis import grouped
from subfl_flower.data.partitions.settings import PartitionSettings
from subfl_flower.errors import SubflError
from subfl_flower.seeding import shared_generator

DRAWS = 1000
"""Most draws of proportions before giving up on `min_nodes`."""


class DirichletPartition(PartitionSettings):
    """Partition whose shares of each class over the clients are drawn from a symmetric Dirichlet distribution.

    Yurochkin et al., ICML 2019, arXiv 1905.12022: the label skew by a concentration `alpha` of Hsu et
    al. 2019, arXiv 1909.06335, drawn for each class over the clients so that every node goes to one client.
    Nodes without a label are spread evenly. Edges have no effect.

    Attributes:
        alpha: concentration; near 0 a class goes to one client, larger values give more even shares.
        min_nodes: the shares are drawn again until every client has at least this many nodes, 1000 times at most.
    """

    name: Literal["dirichlet"] = "dirichlet"
    clients: int = Field(default=10, ge=1)
    alpha: float = Field(default=1.0, gt=0)
    min_nodes: int = Field(default=10, ge=1)

    def assign(self, graph: Graph) -> list[np.ndarray]:
        """Disjoint, covers every node.

        Raises:
            SubflError: no node has a label, or no draw gives every client `min_nodes` nodes.
        """
        if graph.labels is None or (graph.labels < 0).all():
            raise SubflError("partition=dirichlet spreads classes, and no node of this data set has a label")
        generator = shared_generator(self.seed, "dirichlet partition")
        counts = self._counts(graph.labels, generator)
        membership = np.empty(graph.num_nodes, dtype=np.int64)
        for label, per_client in enumerate(counts, start=-1):
            members = np.flatnonzero(graph.labels == label)
            membership[generator.permutation(members)] = np.repeat(np.arange(self.clients), per_client)
        return grouped(np.arange(graph.num_nodes), membership, self.clients)

    def _counts(self, labels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Numbers of nodes without a label, then of each class, for each client: int64 `[1 + classes, clients]`."""
        if self.clients * self.min_nodes > labels.size:
            raise SubflError(
                f"partition.clients={self.clients} with partition.min_nodes={self.min_nodes} each are more than the "
                f"{labels.size} nodes of the graph"
            )
        sizes = np.bincount(labels + 1)[:, None]
        even = np.full(self.clients, 1 / self.clients)
        for _ in range(DRAWS):
            shares = np.vstack([even, generator.dirichlet(self.alpha * np.ones(self.clients), sizes.size - 1)])
            ends = np.rint(np.cumsum(shares, axis=1) * sizes).astype(np.int64)
            # In any order, lest rounding always favours the same clients with the last nodes of a class.
            counts = generator.permuted(np.diff(ends, axis=1, prepend=0), axis=1)
            if counts.sum(axis=0).min() >= self.min_nodes:
                return counts
        raise SubflError(
            f"none of {DRAWS} draws with partition.alpha={self.alpha:g} gave each of {self.clients} clients "
            f"partition.min_nodes={self.min_nodes} nodes; raise alpha, or lower min_nodes or the number of clients"
        )
