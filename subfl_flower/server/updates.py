"""One round's replies for a strategy: stacked over clients, checked, by name."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from subfl_flower.wire.array_format import Stack
from subfl_flower.wire.ragged import Ragged


@dataclass(frozen=True, eq=False)
class GroupSum:
    """The sum of some clients' uploads, where the server sees no single one.

    Attributes:
        positions: positions in the roster of the clients in the sum [A].
        totals: sums over these clients of their weighted uploads, float64 without a client axis, by name.
        weight: the sum of their weights.
    """

    positions: np.ndarray
    totals: Stack
    weight: float

    def means(self) -> Stack:
        """The weighted means, float32 by name."""
        return {name: (total / self.weight).astype(np.float32) for name, total in self.totals.items()}


@dataclass(frozen=True)
class Updates:
    """One round's replies, stacked over the A clients that succeeded.

    Attributes:
        server_round: 1-based.
        positions: positions of these clients in the roster, ascending [A].
        arrays: uploads, each [A, ...].
        metrics: figures, each [A].
        failures: reasons by client id, for those that did not succeed.
        bytes_up, bytes_down: payload bytes of every client of the roster [K], 0 where nothing travelled.
        client_seconds: the time that the slowest node spent on its clients.
        startup_seconds: the time that this node's process took to start before.
        ragged: uploads with a number of rows that differs by client, of A clients.
        sums: sums over groups of these clients, where the server sees no single upload; `arrays` are then empty.
        bytes_evaluation: the part of the bytes down that were sent to be evaluated, and not to be trained.
    """

    server_round: int
    positions: np.ndarray
    arrays: Stack
    metrics: dict[str, np.ndarray]
    failures: dict[int, str]
    bytes_up: np.ndarray
    bytes_down: np.ndarray
    client_seconds: float
    startup_seconds: float = 0.0
    ragged: dict[str, Ragged] = field(default_factory=dict)
    sums: tuple[GroupSum, ...] = ()
    bytes_evaluation: int = 0

    def take(self, chosen: np.ndarray) -> Updates:
        """The replies of some of the A clients; `chosen` bool [A]."""
        return replace(
            self,
            positions=self.positions[chosen],
            arrays={name: values[chosen] for name, values in self.arrays.items()},
            ragged={name: rows.take(np.flatnonzero(chosen)) for name, rows in self.ragged.items()},
            metrics={name: values[chosen] for name, values in self.metrics.items()},
        )

    def and_evaluated(self, other: Updates) -> Updates:
        """This round together with the figures of an evaluation after it, for all clients of either.

        Metrics that both have are the evaluation's. A client that was only evaluated has only these, and arrays are
        left out.
        """
        positions = np.union1d(self.positions, other.positions)
        metrics = {}
        for name in {**self.metrics, **other.metrics}:
            metrics[name] = np.full(len(positions), np.nan)
            for part in (self, other):
                if name in part.metrics:
                    metrics[name][np.searchsorted(positions, part.positions)] = part.metrics[name]
        return replace(
            self,
            positions=positions,
            arrays={},
            ragged={},
            metrics=metrics,
            failures={**other.failures, **self.failures},
            bytes_up=self.bytes_up + other.bytes_up,
            bytes_down=self.bytes_down + other.bytes_down,
            client_seconds=self.client_seconds + other.client_seconds,
            startup_seconds=self.startup_seconds + other.startup_seconds,
            bytes_evaluation=int(other.bytes_down.sum()),
        )


class Remembered:
    """The last known rows of K clients, which stand for an absent client.

    Args:
        num_clients: K.
        shape: of one client's row.

    Attributes:
        values: [K, ...], zeros for clients that have never sent any.
        known: bool [K].
    """

    def __init__(self, num_clients: int, shape: tuple[int, ...]) -> None:
        self.values = np.zeros((num_clients, *shape), dtype=np.float32)
        self.known = np.zeros(num_clients, dtype=bool)

    def take_in(self, positions: np.ndarray, rows: np.ndarray) -> None:
        """Replace the rows [A, ...] of the clients at some positions [A]."""
        self.values[positions] = rows
        self.known[positions] = True

    def state(self) -> Stack:
        """All values and flags, as arrays by name."""
        return {"values": self.values, "known": self.known}

    def load_state(self, state: Stack) -> None:
        """Restore the arrays of `state`."""
        self.values, self.known = np.array(state["values"]), np.array(state["known"])
