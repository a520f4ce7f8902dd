"""Overlapping subgraphs with a rate: five clients share a set of nodes and divide the rest of one METIS part."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from subfl_flower.data.graph import Graph
from subfl_flower.data.partitions.metis import metis_parts, metis_split
from subfl_flower.data.partitions.overlapping import CLIENTS_PER_PART, ClientsByFive
from subfl_flower.data.partitions.settings import LossyPartition
from subfl_flower.errors import SubflError
from subfl_flower.seeding import shared_generator


class OverlapRatePartition(LossyPartition):
    """SubPFed's setting (Li, Bao and Tong, Computers, Materials & Continua 2026, 88(1):34).

    METIS cuts the graph into clients/5 parts. In each, a shared set of nodes is drawn; METIS, on the subgraph
    that the part's other nodes induce, divides these among the part's five clients, and every one of the five
    holds the shared set too. Clients 5p .. 5p+4 belong to part p. At rate 0 the clients are disjoint, at
    rate 1 all five hold the whole part. Together the clients cover every node.

    Attributes:
        rate: share of a part's nodes that its five clients have in common, rounded to whole nodes.
    """

    name: Literal["overlap_rate"] = "overlap_rate"
    clients: ClientsByFive = 10
    rate: float = Field(default=0.1, ge=0, le=1)

    @property
    def overlapping(self) -> bool:
        """True at any rate above 0: clients of the same part then share nodes."""
        return self.rate > 0

    def assign(self, graph: Graph) -> list[np.ndarray]:
        """The nodes of every client: its part's shared set and a share of the part's other nodes.

        Of fewer than five other nodes the last clients get none: they hold the shared set alone.

        Raises:
            SubflError: METIS leaves a part empty, or a part has less than five nodes and none to share.
        """
        assigned = []
        parts = metis_parts(graph, self.clients // CLIENTS_PER_PART, self.seed, "partition.clients/5")
        for part, nodes in enumerate(parts):
            generator = shared_generator(self.seed, f"overlap rate partition {part}")
            shared = generator.choice(nodes, round(self.rate * nodes.size), replace=False)
            if shared.size == 0 and nodes.size < CLIENTS_PER_PART:
                raise SubflError(
                    f"METIS part {part} is too small for five clients: of its {nodes.size} nodes "
                    f"partition.rate={self.rate:g} shares none; use fewer clients or a higher rate"
                )
            own = metis_split(graph, np.setdiff1d(nodes, shared), CLIENTS_PER_PART, self.seed)
            assigned += [np.sort(np.concatenate([shared, some])) for some in own]
        return assigned
