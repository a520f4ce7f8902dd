"""Base class of the settings of partitioners."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from subfl_flower.data.graph import NO_ROLE, Graph
from subfl_flower.data.splits import random_roles
from subfl_flower.doors import DoorSettings
from subfl_flower.errors import SubflError
from subfl_flower.seeding import shared_generator


class PartitionSettings(DoorSettings):
    """Settings of a partitioner, which divides the global graph among clients.

    Your class implements `assign`. It overrides `overlapping` where clients may share nodes, and may override `roles`
    to define the split. Random numbers should come from `seeding.shared_generator(self.seed, "a purpose")`, so that
    every machine draws the same.

    Attributes:
        kind: kind of data that it divides, fixed by the class.
        divides: true if there may be several clients, which it numbers.
        name: the partitioner's name in `conf/partition`.
        clients: number of clients; None where a file states it.
        seed: drives the partition and the split; training has a separate seed.
    """

    kind: ClassVar[Literal["graph", "ratings"]] = "graph"
    divides: ClassVar[bool] = True

    clients: int | None = Field(default=10, ge=1)
    seed: int = Field(default=1234, ge=0, lt=2**31)

    @property
    def overlapping(self) -> bool:
        """True if clients may share nodes."""
        return False

    @abstractmethod
    def assign(self, graph: Graph) -> list[np.ndarray]:
        """The nodes of every client.

        Args:
            graph: the global graph.

        Returns:
            one ascending int64 array of node ids a client.

        Raises:
            SubflError: the graph cannot be divided so.
        """

    def roles(self, graph: Graph, train_fraction: float) -> np.ndarray:
        """The role of every node, int8 `[nodes]`: 0 train, 1 validation, 2 test, -1 none (unlabelled).

        It is the split that the graph's source states, or else a random one.

        Args:
            graph: the global graph.
            train_fraction: share of the labelled nodes that train, where the split is drawn.
        """
        if graph.given_roles is not None:
            return graph.given_roles
        if graph.labels is None:
            return np.full(graph.num_nodes, NO_ROLE, dtype=np.int8)
        return random_roles(graph.labels, train_fraction, self.seed)

    def lost_edges_of(self, graph: Graph) -> np.ndarray | None:
        """Flags of edges that no client is to hold, even where it holds both ends: bool `[edges]`; None: no such."""
        return None

    def training_advice(self, graph: Graph) -> str:
        """Ways to give each client a training node, for an error."""
        if graph.given_roles is not None:
            return "use fewer clients, another partition, or dataset.split=random instead of the masks"
        return "raise dataset.train_fraction, use fewer clients, or another partition"

    def raw_fingerprint(self) -> str:
        """A digest of the files on disk that determine the partition; empty where there are none."""
        return ""


class LossyPartition(PartitionSettings):
    """A partition that can lose further edges (SubPFed, Li, Bao and Tong, CMC 2026, Section 5.6).

    Attributes:
        lost_edges: share of all edges of the graph that no client holds, even where it holds both ends. They are drawn
            after the graph has been divided, and are part of the whole graph that bounds are trained on.
    """

    lost_edges: float = Field(default=0.0, ge=0, lt=1)

    def lost_edges_of(self, graph: Graph) -> np.ndarray | None:
        """Both directions of the drawn edges."""
        if self.lost_edges == 0:
            return None
        start, end = graph.edge_index
        low, high = np.minimum(start, end), np.maximum(start, end)
        undirected, edge = np.unique(low * graph.num_nodes + high, return_inverse=True)
        drawn = shared_generator(self.seed, "lost edges").permutation(undirected.size)
        lost: np.ndarray = (drawn < round(self.lost_edges * undirected.size))[edge]
        return lost


def require_nodes(graph: Graph, parts: int, what: str) -> None:
    """Refuse to divide a graph into more parts than it has nodes.

    Raises:
        SubflError: `parts` exceeds the number of nodes.
    """
    if parts > graph.num_nodes:
        raise SubflError(f"{what}={parts} is more than the {graph.num_nodes} nodes of the graph")
