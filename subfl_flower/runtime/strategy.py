"""The base of every strategy: clients are addressed, nodes are an implementation detail.

A method says what each client is sent (`instructions`) and what becomes of the replies (`aggregate`), both as stacks
with a leading client axis. Grouping by node, packing, unpacking, counting bytes and sorting out failures happens here.
"""

from __future__ import annotations

import json
import math
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from pydantic import BaseModel, ConfigDict

from subfl_flower.runtime.exchange import OUTCOME, RUN, Exchange
from subfl_flower.runtime.messages import Stack, pack, unpack
from subfl_flower.runtime.participation import Participation
from subfl_flower.runtime.roster import Roster, describe_error

METRICS, ANNOUNCED = "metrics", "announced."

__all__ = ["ANNOUNCED", "METRICS", "OUTCOME", "RUN", "CohortStrategy", "Updates"]


@dataclass(frozen=True)
class Updates:
    """One round's replies, stacked over the A clients that succeeded.

    Attributes:
        server_round: 1-based.
        positions: positions of these clients in the roster, ascending [A].
        arrays: what they sent, each [A, ...].
        metrics: what they measured, each [A].
        failures: reasons by client id, for those that did not succeed.
        bytes_up, bytes_down: payload bytes of every client of the roster [K], 0 where nothing travelled.
        client_seconds: the longest time that a node spent on its clients.
    """

    server_round: int
    positions: np.ndarray
    arrays: Stack
    metrics: dict[str, np.ndarray]
    failures: dict[int, str]
    bytes_up: np.ndarray
    bytes_down: np.ndarray
    client_seconds: float


class CohortStrategy(Strategy):
    """A Flower strategy over stacks.

    Args:
        settings: the method's own knobs.
        roster: the clients.
        initial: initial parameters of the model, each [...], without a client axis.
    """

    class Settings(BaseModel):
        """No knobs."""

        model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def __init__(self, settings: Settings, roster: Roster, initial: Stack) -> None:
        self.settings = settings
        self.roster = roster
        self.initial = initial
        self.participation = Participation()
        """Who takes part in a round, where the method leaves that open."""
        self.updates: Updates | None = None
        """The last round's replies."""
        self._bytes_down = np.zeros(len(roster), dtype=np.int64)
        self._asked: dict[int, list[int]] = {}

    # What a method says ---------------------------------------------------------------------------------------------

    @abstractmethod
    def instructions(self, server_round: int, positions: Sequence[int]) -> Stack:
        """What the clients at `positions` are sent, each [len(positions), ...]."""

    @abstractmethod
    def aggregate(self, updates: Updates) -> None:
        """Take in a round's replies. There is at least one."""

    @property
    def mixing(self) -> np.ndarray | None:
        """The mixing matrix [K, K] of the last aggregation, where the method has one."""
        return None

    def set_up(self, exchange: Exchange) -> None:
        """Ask the clients what the method must know before the first round: nothing."""
        return

    @property
    def announcements(self) -> dict[str, float]:
        """Numbers that every message to a client carries, by name, in the configuration of its `fit`: none."""
        return {}

    def participants(self, server_round: int) -> Sequence[int]:
        """Positions of the clients that train in this round, ascending: as many as the configuration says."""
        return self.participation.draw(server_round, len(self.roster))

    # Flower's side --------------------------------------------------------------------------------------------------

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """One message a node, with what its clients are sent. `arrays` is not used: every client has its own."""
        self._bytes_down[:] = 0
        self._asked = self.roster.by_node(self.participants(server_round))
        messages = []
        for node, positions in self._asked.items():
            packed = pack(self.instructions(server_round, positions), len(positions))
            self._bytes_down[positions] = packed.bytes_per_client
            run = ConfigRecord(
                {
                    **config,
                    **{f"{ANNOUNCED}{name}": value for name, value in self.announcements.items()},
                    "round": server_round,
                    "clients": [self.roster.client_ids[position] for position in positions],
                }
            )
            content = RecordDict({RUN: run})
            packed.into(content)
            messages.append(Message(content, node, "train"))
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Stack the replies over clients, let the method aggregate them, and report mean metrics."""
        self.updates = self._collect(server_round, replies)
        if len(self.updates.positions):
            self.aggregate(self.updates)
        means = MetricRecord()
        for name, values in self.updates.metrics.items():
            means[name] = float(np.mean(values[~np.isnan(values)])) if not np.isnan(values).all() else math.nan
        return None, means

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Nothing: evaluation rides on the reply to training, so that a round is one phase."""
        return []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Nothing to aggregate."""
        return None

    def summary(self) -> None:
        """Nothing to log: the run directory holds the configuration."""

    def _collect(self, server_round: int, replies: Iterable[Message]) -> Updates:
        position_of = {client: position for position, client in enumerate(self.roster.client_ids)}
        failures: dict[int, str] = {}
        parts: list[tuple[list[int], Stack, dict[str, Any]]] = []
        bytes_up = np.zeros(len(self.roster), dtype=np.int64)
        seconds = 0.0
        unheard = {self.roster.client_ids[position] for group in self._asked.values() for position in group}
        for reply in replies:
            asked = [self.roster.client_ids[p] for p in self._asked[reply.metadata.src_node_id]]
            unheard.difference_update(asked)
            if reply.has_error():
                failures.update(dict.fromkeys(asked, describe_error(reply)))
                continue
            try:
                outcome = reply.content.config_records[OUTCOME]
                metrics = dict(reply.content.metric_records[METRICS])
                clients = [int(client) for client in outcome["clients"]]  # type: ignore[union-attr]
                reasons = dict(json.loads(str(outcome["failures"])))
                failed = {int(client): str(reason) for client, reason in reasons.items()}
                if set(clients) | set(failed) != set(asked) or len(clients) + len(failed) != len(asked):
                    raise ValueError(f"it answers for the clients {sorted({*clients, *failed})}")
                stack = unpack(reply.content) if clients else {}
                sizes = {len(values) for values in (*stack.values(), *metrics.values())}  # type: ignore[arg-type]
                if clients and sizes != {len(clients)}:
                    raise ValueError(f"it has stacks of {sorted(sizes)} rows for {len(clients)} clients")
                took = float(outcome["seconds"])  # type: ignore[arg-type]
                weights = [int(value) for value in outcome["bytes"]]  # type: ignore[union-attr]
            except (KeyError, TypeError, ValueError) as error:
                failures.update(dict.fromkeys(asked, f"its node's reply cannot be read: {error}"))
                continue
            failures.update(failed)
            if not clients:
                continue
            positions = [position_of[client] for client in clients]
            bytes_up[positions] = weights
            seconds = max(seconds, took)
            parts.append((positions, stack, metrics))
        failures.update(dict.fromkeys(unheard, "no reply"))

        order = np.argsort([position for positions, _, _ in parts for position in positions], kind="stable")
        in_order = bool(np.all(order == np.arange(len(order))))

        def stacked(arrays: list[np.ndarray]) -> np.ndarray:
            joined = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
            return joined if in_order else joined[order]

        return Updates(
            server_round=server_round,
            positions=stacked([np.array(positions) for positions, _, _ in parts]) if parts else np.array([], int),
            arrays={name: stacked([stack[name] for _, stack, _ in parts]) for name in (parts[0][1] if parts else ())},
            metrics={
                name: stacked([np.array(metrics[name], dtype=float) for _, _, metrics in parts])
                for name in (parts[0][2] if parts else ())
            },
            failures=failures,
            bytes_up=bytes_up,
            bytes_down=self._bytes_down.copy(),
            client_seconds=seconds,
        )
