"""Participation of clients in a round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from subfl_flower.seeding import round_generator


@dataclass(frozen=True)
class Participation:
    """Partial participation (McMahan et al., AISTATS 2017): every round draws its clients without replacement.

    Attributes:
        fraction: share of the clients, rounded to whole clients, at least one.
        seed: of the draws; a round's draw depends on nothing else.
    """

    fraction: float = 1.0
    seed: int = 0

    def count(self, num_clients: int) -> int:
        """Number of clients in a round."""
        return max(1, round(self.fraction * num_clients))

    def draw(self, server_round: int, num_clients: int) -> Sequence[int]:
        """Positions of a round's clients, ascending."""
        count = self.count(num_clients)
        if count == num_clients:
            return range(num_clients)
        generator = round_generator(self.seed, server_round, "participation")
        drawn: list[int] = sorted(generator.choice(num_clients, count, replace=False).tolist())
        return drawn
