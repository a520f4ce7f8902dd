"""A round's line of ``metrics.jsonl``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from subfl_flower.server.updates import Updates
from subfl_flower.tasks.metric import Metric, is_test_figure
from subfl_flower.tasks.settings import TaskSettings
from subfl_flower.wire.roster import Roster

GUARD_FIGURES = ("update_norm", "clipped", "excluded")
"""Figures of an aggregation by client: an update's norm, 1 where it was scaled back, and 1 where it was left out."""

_FURTHER = ("validation.", "test.")


class LatestMetrics:
    """The last known figures of every client, so that the mean over clients includes absent ones.

    Args:
        task: the task of the validation and test metric.
        declared: the figures that clients send, by name.
        roster: the clients.

    Attributes:
        listed: names of the figures that a record lists by client.
        names: names of the figures that have a mean over last known values.
    """

    def __init__(self, task: TaskSettings, declared: Mapping[str, Metric], roster: Roster) -> None:
        self.metric = task.metric
        self.listed = tuple(name for name, metric in declared.items() if metric.by_client)
        self.names = tuple(name for name, metric in declared.items() if metric.averaged)
        self._task = task
        self._position_of = {client: position for position, client in enumerate(roster.client_ids)}
        self.heard = np.zeros(len(roster), dtype=bool)
        self._values: dict[str, np.ndarray] = {}

    def take(self, positions: np.ndarray, metrics: Mapping[str, np.ndarray]) -> dict[str, float | None]:
        """Take in a round; each of its figures' mean over the clients seen so far, None where no client has it.

        A pooled error is over all examples of the round's clients together.
        """
        self.heard[positions] = True
        means: dict[str, float | None] = {}
        for name in self.names:
            if name in metrics:
                values = self._values.setdefault(name, np.full(len(self.heard), np.nan))
                values[positions] = metrics[name]
                pooled = name in self._task.pooled
                means[name] = self._task.over_clients(metrics if pooled else self._values, name)
        return means

    def recall(self, record: Mapping[str, Any]) -> None:
        """Take in an earlier round from its record."""
        clients = record["clients"]
        found = {name: np.array(clients[name], dtype=float) for name in self.listed if name in clients}
        self.take(np.array([self._position_of[client] for client in clients["ids"]], dtype=int), found)


def further_figures(metrics: Mapping[str, np.ndarray]) -> dict[str, float | None]:
    """Figures besides the task's metric, such as ``test.ndcg@10``: means over the clients that have them.

    None for a name that was sent without any client's value.
    """
    further = {name: values for name, values in metrics.items() if name.startswith(_FURTHER)}
    return {name: None if np.isnan(values).all() else float(np.nanmean(values)) for name, values in further.items()}


def round_record(
    updates: Updates, roster: Roster, seconds: Mapping[str, float], latest: LatestMetrics
) -> dict[str, Any]:
    """A round's line of ``metrics.jsonl``.

    Under ``figures`` are the means of further figures (`further_figures`): over last known values, as the metric's are,
    or over this round's clients, as each figure's declaration says.
    """
    clients: dict[str, Any] = {
        "ids": [roster.client_ids[position] for position in updates.positions],
        "num_examples": np.nan_to_num(roster.num_examples[updates.positions]).astype(int).tolist(),
        "bytes_up": updates.bytes_up[updates.positions].tolist(),
        "bytes_down": updates.bytes_down[updates.positions].tolist(),
    }
    for name in (*latest.listed, *GUARD_FIGURES):
        if name in updates.metrics:
            clients[name] = [None if math.isnan(value) else value for value in updates.metrics[name].tolist()]
    means = latest.take(updates.positions, updates.metrics)
    figures = further_figures(updates.metrics)
    figures |= {name: means.pop(name) for name in list(means) if name.startswith(_FURTHER)}
    return {
        "round": updates.server_round,
        "metric": latest.metric,
        **means,
        **({"figures": figures} if figures else {}),
        "clients_heard": int(latest.heard.sum()),
        "clients": clients,
        "bytes_up": int(updates.bytes_up.sum()),
        "bytes_down": int(updates.bytes_down.sum()),
        "bytes_evaluation": updates.bytes_evaluation,
        "seconds": dict(seconds),
        "failures": {str(client): reason for client, reason in updates.failures.items()},
    }


def without_test_figures(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Entries of a summary without the figures of test examples, at any depth."""
    return {
        name: without_test_figures(value) if isinstance(value, Mapping) else value
        for name, value in figures.items()
        if not is_test_figure(name)
    }


def mean_seconds(rounds: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Mean seconds of a round by part (`Seconds`)."""
    parts = {name for record in rounds for name in record["seconds"]}
    return {name: float(np.mean([record["seconds"].get(name, 0.0) for record in rounds])) for name in sorted(parts)}


def bytes_of_models(
    records: Iterable[Mapping[str, Any]], client_ids: Sequence[int], sizes: Mapping[str, np.ndarray]
) -> dict[str, int]:
    """Bytes up and down of models of given sizes, over the rounds in which each client took part.

    Args:
        records: of the rounds.
        client_ids: all clients.
        sizes: bytes of a model, of each client, by name [K].
    """
    position_of = {client_id: position for position, client_id in enumerate(client_ids)}
    rounds = np.zeros(len(position_of), dtype=np.int64)
    for record in records:
        for client_id in record.get("clients", {}).get("ids", ()):
            rounds[position_of[client_id]] += 1
    return {name: int(2 * (size * rounds).sum()) for name, size in sizes.items()}
