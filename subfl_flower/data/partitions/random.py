"""Subgraphs of nodes drawn at random: the hardest case, with most edges lost."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from subfl_flower.data.graph import Graph
from subfl_flower.data.partitions.settings import PartitionSettings, require_nodes
from subfl_flower.seeding import shared_generator


class RandomPartition(PartitionSettings):
    """Partition that gives every node to one client at random; sizes differ by at most one."""

    name: Literal["random"] = "random"
    clients: int = Field(default=10, ge=1)

    def assign(self, graph: Graph) -> list[np.ndarray]:
        """Disjoint, covers every node.

        Raises:
            SubflError: more clients than nodes.
        """
        require_nodes(graph, self.clients, "partition.clients")
        order = shared_generator(self.seed, "random partition").permutation(graph.num_nodes)
        return [np.sort(nodes) for nodes in np.array_split(order, self.clients)]
