"""Participation of clients in a round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from subfl_flower.seeding import round_generator


@dataclass(frozen=True)
class Participation:
    """Partial participation (McMahan et al., AISTATS 2017): every round draws its clients without replacement.

    Attributes:
        fraction: share of the clients, rounded to whole clients, at least one.
        seed: of the draws; a round's draw depends on nothing else, but for the clients that are absent.
    """

    fraction: float = 1.0
    seed: int = 0

    def count(self, num_clients: int) -> int:
        """Number of clients in a round."""
        return max(1, round(self.fraction * num_clients))

    def draw(self, server_round: int, num_clients: int, present: Sequence[int] | None = None) -> Sequence[int]:
        """Positions of a round's clients, ascending.

        Args:
            server_round: 1-based.
            num_clients: number of all clients.
            present: positions of those that can be asked, ascending; None: all. Others are drawn only where a round has
                all clients, so that its record names them.
        """
        count = self.count(num_clients)
        if count == num_clients:
            return range(num_clients)
        among = drawable(num_clients, present)
        generator = round_generator(self.seed, server_round, "participation")
        drawn = generator.choice(len(among), min(count, len(among)), replace=False)
        found: list[int] = np.sort(among[drawn]).tolist()
        return found


def drawable(num_clients: int, present: Sequence[int] | None) -> np.ndarray:
    """Positions of clients that a round can draw, ascending: those present, or all where nobody is."""
    return np.array(present, dtype=np.int64) if present else np.arange(num_clients)
