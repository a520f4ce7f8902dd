"""The oracle: central training on the whole graph, an upper bound for what a federation can know."""

from __future__ import annotations

from collections.abc import Sequence

from subfl_flower.runtime.messages import ArraySpec, Stack
from subfl_flower.runtime.strategy import CohortStrategy, Updates


class Oracle(CohortStrategy):
    """Sends nothing and learns nothing: every node trains the same central model and measures its own clients."""

    @property
    def expected(self) -> dict[str, ArraySpec]:
        """Nothing."""
        return {}

    def instructions(self, server_round: int, positions: Sequence[int]) -> Stack:
        """Nothing."""
        return {}

    def aggregate(self, updates: Updates) -> None:
        """Nothing to aggregate."""

    def participants(self, server_round: int) -> Sequence[int]:
        """All: a node that left out a round would train another model."""
        return range(len(self.roster))
