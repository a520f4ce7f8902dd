"""Overlapping subgraphs: five clients share the nodes of one METIS part."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import AfterValidator, Field

from subfl_flower.data.graph import Graph
from subfl_flower.data.partitions.metis import metis_parts
from subfl_flower.data.partitions.settings import LossyPartition
from subfl_flower.errors import SubflError
from subfl_flower.seeding import client_generator

CLIENTS_PER_PART = 5


def _five_a_part(clients: int) -> int:
    if clients % CLIENTS_PER_PART:
        raise ValueError(f"must be a multiple of {CLIENTS_PER_PART} (five clients share a METIS part), not {clients}")
    return clients


ClientsByFive = Annotated[int, Field(ge=1), AfterValidator(_five_a_part)]
"""A number of clients of which five belong to one METIS part."""


class OverlappingPartition(LossyPartition):
    """FED-PUB's overlapping setting (Baek et al., ICML 2023, Section 5.1 and the released generator).

    METIS cuts the graph into clients/5 parts. Each of a part's five clients independently draws half of the part's
    nodes without replacement. Clients 5p .. 5p+4 belong to part p.
    """

    name: Literal["overlapping"] = "overlapping"
    clients: ClientsByFive = 10

    @property
    def overlapping(self) -> bool:
        """True: clients of the same part share nodes."""
        return True

    def assign(self, graph: Graph) -> list[np.ndarray]:
        """The nodes of every client: half of a part's nodes, rounded down.

        Raises:
            SubflError: a part is empty or has a single node.
        """
        parts = metis_parts(graph, self.clients // CLIENTS_PER_PART, self.seed, "partition.clients/5")
        for part, nodes in enumerate(parts):
            if nodes.size < 2:
                raise SubflError(
                    f"METIS part {part} has a single node, which five clients cannot halve; use fewer clients"
                )
        halves = []
        for client_id in range(self.clients):
            nodes = parts[client_id // CLIENTS_PER_PART]
            generator = client_generator(self.seed, client_id, 0, "overlapping partition")
            halves.append(np.sort(generator.choice(nodes, nodes.size // 2, replace=False)))
        return halves
