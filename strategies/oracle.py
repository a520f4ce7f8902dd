"""The oracle: central training on the whole graph, an upper bound for what a federation can know."""

from __future__ import annotations

from collections.abc import Sequence

from subfl_flower.node.client import CohortClient
from subfl_flower.server.strategy import CohortStrategy
from subfl_flower.server.updates import Updates
from subfl_flower.wire.payload import Stack


class Oracle(CohortStrategy):
    """Send nothing and learn nothing: every node trains the same central model and measures its own clients."""

    counterpart = CohortClient

    def instructions(self, server_round: int, positions: Sequence[int]) -> Stack:
        """Nothing."""
        return {}

    def aggregate(self, updates: Updates) -> None:
        """Nothing to aggregate."""

    def participants(self, server_round: int) -> Sequence[int]:
        """All clients: a node that left out a round would train another model."""
        return range(len(self.roster))
