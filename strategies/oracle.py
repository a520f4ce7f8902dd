"""The oracle: central training on the whole graph, an upper bound for federations."""

from __future__ import annotations

from collections.abc import Sequence

from subfl_flower.node.client import CohortClient
from subfl_flower.server.strategy import CohortStrategy
from subfl_flower.server.updates import Updates
from subfl_flower.wire.array_format import Stack


class Oracle(CohortStrategy):
    """Leave training to the nodes: each trains the same central model and measures its own clients."""

    counterpart = CohortClient

    def instructions(self, server_round: int, positions: Sequence[int]) -> Stack:
        """No arrays: nothing is sent."""
        return {}

    def aggregate(self, updates: Updates) -> None:
        """Skip aggregation: no client uploads anything."""

    def participants(self, server_round: int) -> Sequence[int]:
        """All clients: a node that left out a round would train a different model."""
        return range(len(self.roster))
