"""No partition: one client holds the whole graph."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from subfl_flower.data.graph import Graph
from subfl_flower.data.partitions.settings import PartitionSettings


class WholePartition(PartitionSettings):
    """One client with every node and edge: a site's own graph, or training in one place."""

    divides: ClassVar[bool] = False

    name: Literal["whole"] = "whole"
    clients: Literal[1] = 1

    def assign(self, graph: Graph) -> list[np.ndarray]:
        """All nodes."""
        return [np.arange(graph.num_nodes)]
