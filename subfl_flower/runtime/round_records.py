"""A round's line of ``metrics.jsonl``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from subfl_flower.runtime.roster import Roster
from subfl_flower.runtime.strategy import Updates

_PER_CLIENT = ("validation", "test", "validation_as_received", "test_as_received", "train_loss", "sparsity")


class LatestMetrics:
    """The last known figures of every client, so that the mean over clients also speaks of those that were absent.

    Args:
        metric: what validation and test measure.
        roster: the clients.
    """

    def __init__(self, metric: str, roster: Roster) -> None:
        self.metric = metric
        self._position_of = {client: position for position, client in enumerate(roster.client_ids)}
        self.heard = np.zeros(len(roster), dtype=bool)
        self._values: dict[str, np.ndarray] = {}

    def take(self, positions: np.ndarray, metrics: Mapping[str, np.ndarray]) -> dict[str, float | None]:
        """Take in a round; each figure's mean over the clients heard so far, None where nobody has it."""
        self.heard[positions] = True
        for name in _PER_CLIENT:
            if name in metrics:
                values = self._values.setdefault(name, np.full(len(self.heard), np.nan))
                values[positions] = metrics[name]
        return {
            name: None if np.isnan(values).all() else float(np.nanmean(values)) for name, values in self._values.items()
        }

    def recall(self, record: Mapping[str, Any]) -> None:
        """Take in a round again from its record."""
        clients = record["clients"]
        found = {name: np.array(clients[name], dtype=float) for name in _PER_CLIENT if name in clients}
        self.take(np.array([self._position_of[client] for client in clients["ids"]], dtype=int), found)


def round_record(
    updates: Updates, roster: Roster, seconds: Mapping[str, float], latest: LatestMetrics
) -> dict[str, Any]:
    """A round's line of ``metrics.jsonl``."""
    clients: dict[str, Any] = {
        "ids": [roster.client_ids[position] for position in updates.positions],
        "num_examples": updates.metrics["num_examples"].astype(int).tolist(),
        "bytes_up": updates.bytes_up[updates.positions].tolist(),
        "bytes_down": updates.bytes_down[updates.positions].tolist(),
    }
    for name in _PER_CLIENT:
        if name in updates.metrics:
            clients[name] = [None if math.isnan(value) else value for value in updates.metrics[name].tolist()]
    return {
        "round": updates.server_round,
        "metric": latest.metric,
        **latest.take(updates.positions, updates.metrics),
        "clients_heard": int(latest.heard.sum()),
        "clients": clients,
        "bytes_up": int(updates.bytes_up.sum()),
        "bytes_down": int(updates.bytes_down.sum()),
        "seconds": dict(seconds),
        "failures": {str(client): reason for client, reason in updates.failures.items()},
    }


def mean_seconds(rounds: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Mean seconds of a round by where they went."""
    parts = {name for record in rounds for name in record["seconds"]}
    return {name: float(np.mean([record["seconds"].get(name, 0.0) for record in rounds])) for name in sorted(parts)}
