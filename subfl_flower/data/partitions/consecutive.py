"""Disjoint subgraphs of consecutive rows, for sources that list one owner's nodes after another's."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from subfl_flower.data.graph import Graph
from subfl_flower.data.partitions.settings import PartitionSettings, require_nodes


class ConsecutivePartition(PartitionSettings):
    """The rows of the cleaned graph, cut into consecutive ranges of equal length, to within one row.

    A source that lists the nodes of one owner after those of another, all owners with equally many, is so divided by
    owner: `dataset=communities`, for instance.
    """

    name: Literal["consecutive"] = "consecutive"
    clients: int = Field(default=10, ge=1)

    def assign(self, graph: Graph) -> list[np.ndarray]:
        """Disjoint, covers every node; the first clients hold a row more where rows are left.

        Raises:
            SubflError: more clients than nodes.
        """
        require_nodes(graph, self.clients, "partition.clients")
        return np.array_split(np.arange(graph.num_nodes), self.clients)
