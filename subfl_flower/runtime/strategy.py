"""The base of every strategy: clients are addressed, nodes are an implementation detail.

A method says what each client is sent (`instructions`) and what becomes of the replies (`aggregate`), both as stacks
with a leading client axis. Grouping by node, packing, unpacking, counting bytes and sorting out failures happens here.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from logging import WARNING
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from flwr.supercore import log
from pydantic import BaseModel, ConfigDict

from subfl_flower.models.graph_network import GraphNetwork
from subfl_flower.privacy.mechanism import LdpSettings
from subfl_flower.runtime.exchange import RUN, Exchange, announced
from subfl_flower.runtime.messages import ArraySpec, Choice, Stack, pack
from subfl_flower.runtime.participation import Participation
from subfl_flower.runtime.ragged import Ragged, RaggedSpec, pack_ragged
from subfl_flower.runtime.replies import METRICS, OUTCOME, Reply, combine, one_line, read_reply
from subfl_flower.runtime.roster import Roster, describe_error
from subfl_flower.runtime.round_arrays import Clustering
from subfl_flower.tasks import TaskSettings

_SLACK = 1 << 20

__all__ = ["METRICS", "OUTCOME", "RUN", "CohortStrategy", "Updates"]


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
        client_seconds: the time that the slowest node spent on its clients.
        startup_seconds: what that node's process took to come up before.
        ragged: what they sent in rows of their own number, each of A clients.
        bytes_evaluation: how many of the bytes down were sent to be evaluated, and not to be trained.
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
    bytes_evaluation: int = 0

    def and_evaluated(self, other: Updates) -> Updates:
        """This round with the figures of an evaluation after it: of all clients that either speaks of.

        Metrics that both have are the evaluation's. Who was only evaluated has nothing but these, and arrays are left
        out.
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
        self.timeout: float | None = None
        """Seconds after which a message is not worth an answer."""
        self.privacy = LdpSettings()
        """What clients do to an upload before they send it."""
        self.task: TaskSettings | None = None
        """What clients' figures measure."""
        self.network: GraphNetwork[Any] | None = None
        """What clients train, where it is a network on graphs."""
        self.num_rounds: int | None = None
        """How many rounds the run has, where that is known."""
        self.updates: Updates | None = None
        """The last round's replies."""
        self.evaluation: Updates | None = None
        """The figures of the last evaluation."""
        self._bytes_down = np.zeros(len(roster), dtype=np.int64)
        self._asked: dict[int, list[int]] = {}
        self._away: list[int] = []

    @classmethod
    def needs_matcher(cls, settings: Any) -> bool:
        """Whether the method asks a matcher with these settings: a node that hosts no client."""
        return False

    # What a method says ---------------------------------------------------------------------------------------------

    @abstractmethod
    def instructions(self, server_round: int, positions: Sequence[int]) -> Stack | Choice:
        """What the clients at `positions` are sent, each [len(positions), ...], or a choice of rows that many share."""

    @abstractmethod
    def aggregate(self, updates: Updates) -> None:
        """Take in a round's replies. There is at least one."""

    @property
    def expected(self) -> Mapping[str, ArraySpec] | None:
        """What a client's update must hold, by name; every other array is refused. None: not known beforehand."""
        return None

    @property
    def mixing(self) -> np.ndarray | None:
        """The mixing matrix [K, K] of the last aggregation, where the method has one."""
        return None

    @property
    def expected_rows(self) -> Mapping[str, RaggedSpec]:
        """What a client's update must hold in rows of its own number, by name: nothing."""
        return {}

    def row_instructions(self, server_round: int, positions: Sequence[int]) -> Mapping[str, Ragged]:
        """What the clients at `positions` are sent in rows of their own number: nothing."""
        return {}

    def evaluates(self, server_round: int) -> bool:
        """Whether all clients are asked for figures of what they would be sent next: never.

        For methods in which a round trains a few of many clients; else figures come with the updates.
        """
        return False

    @property
    def clustering(self) -> Clustering | None:
        """The last clustering of the clients, where the method has any."""
        return None

    def evaluation_instructions(self, positions: Sequence[int]) -> Stack | Choice:
        """What the clients at `positions` are sent to evaluate, in the form of `instructions`."""
        return {}

    def before_round(self, server_round: int, exchange: Exchange) -> None:
        """Ask the clients something between two rounds: nothing."""
        return

    def model(self) -> Stack | Choice:
        """What of the model of the best round clients need to use their own: nothing.

        Without a client axis where all need the same, else a choice with the rows of every client of the roster.
        """
        return {}

    def report(self, prepared: Any | None) -> dict[str, Any]:
        """What the run's summary should say of the method: nothing more.

        Args:
            prepared: all clients' data, where the run is a simulation.
        """
        return {}

    def set_up(self, exchange: Exchange) -> None:
        """Ask the clients what the method must know before the first round: nothing."""
        return

    @property
    def announcements(self) -> dict[str, float]:
        """Numbers that every message to a client carries, by name, in the configuration of its `fit`: none."""
        return {}

    def state(self) -> Stack:
        """What a method must remember to go on after a crash, as arrays by name: nothing."""
        return {}

    def load_state(self, state: Stack) -> None:
        """Go on from what `state` gave; instead of `set_up`."""
        return

    def participants(self, server_round: int) -> Sequence[int]:
        """Positions of the clients that train in this round, ascending: as many as the configuration says."""
        return self.participation.draw(server_round, len(self.roster))

    # Flower's side --------------------------------------------------------------------------------------------------

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """One message a node, with what its clients are sent. `arrays` is not used: every client has its own."""
        self.updates = None  # not beside the next ones: all clients' uploads may be most of the memory
        return self._messages("train", server_round, self.participants(server_round), config)

    def _messages(self, kind: str, server_round: int, chosen: Sequence[int], config: ConfigRecord) -> Iterable[Message]:
        """One message a node for the clients at the chosen positions."""
        self._bytes_down[:] = 0
        self._asked = self.roster.by_node(chosen)
        self._away = [p for p in chosen if self.roster.node_ids[p] is None]
        messages = []
        for node, positions in self._asked.items():
            if kind == "train":
                sent = self.instructions(server_round, positions)
                rows = self.row_instructions(server_round, positions)
            else:
                sent, rows = self.evaluation_instructions(positions), {}
            packed = pack(sent, len(positions))
            self._bytes_down[positions] = sum(
                (part.bytes_per_client for part in rows.values()), packed.bytes_per_client
            )
            run = ConfigRecord(
                {
                    **config,
                    **announced(self.announcements),
                    "round": server_round,
                    "clients": [self.roster.client_ids[position] for position in positions],
                }
            )
            content = RecordDict({RUN: run})
            packed.into(content)
            pack_ragged(rows, content)
            messages.append(Message(content, node, kind, ttl=self.timeout))
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Stack the replies over clients, let the method aggregate them, and report mean metrics."""
        self.updates = self._collect(server_round, replies, self.expected, self.expected_rows)
        if len(self.updates.positions):
            self.aggregate(self.updates)
        means = MetricRecord()
        for name, values in self.updates.metrics.items():
            means[name] = float(np.mean(values[~np.isnan(values)])) if not np.isnan(values).all() else math.nan
        return None, means

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Where the method `evaluates`, one message a node with what all clients would be sent next."""
        if not self.evaluates(server_round):
            return []
        return self._messages("evaluate", server_round, range(len(self.roster)), config)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Take note of the figures in `evaluation`."""
        self.evaluation = self._collect(server_round, replies, {}, {})
        return None

    def summary(self) -> None:
        """Nothing to log: the run directory holds the configuration."""

    def _collect(
        self,
        server_round: int,
        replies: Iterable[Message],
        expected: Mapping[str, ArraySpec] | None,
        expected_rows: Mapping[str, RaggedSpec],
    ) -> Updates:
        waiting = {node: [self.roster.client_ids[p] for p in positions] for node, positions in self._asked.items()}
        failures: dict[int, str] = {}
        read: list[Reply] = []
        for reply in replies:
            node = reply.metadata.src_node_id
            asked = waiting.pop(node, [])
            if not asked:
                log(WARNING, "a reply of node %d is ignored: nothing was asked, or it has replied before", node)
            elif reply.has_error():
                failures.update(dict.fromkeys(asked, one_line(describe_error(reply))))
            else:
                try:
                    most = self._most_bytes(asked)
                    read.append(read_reply(reply.content, asked, expected, server_round, most, expected_rows))
                except ValueError as error:
                    failures.update(dict.fromkeys(asked, one_line(f"its node's reply cannot be read: {error}")))
        failures.update(dict.fromkeys((client for clients in waiting.values() for client in clients), "no reply"))
        away = (self.roster.client_ids[position] for position in self._away)
        failures.update(dict.fromkeys(away, "no node hosts it at the moment"))
        everyone = combine(read, expected)
        positions = np.searchsorted(self.roster.client_ids, everyone.clients)
        bytes_up = np.zeros(len(self.roster), dtype=np.int64)
        bytes_up[positions] = everyone.bytes_per_client
        return Updates(
            server_round=server_round,
            positions=positions,
            arrays=everyone.stack,
            ragged=everyone.ragged,
            metrics=everyone.metrics,
            failures={**failures, **everyone.failures},
            bytes_up=bytes_up,
            bytes_down=self._bytes_down.copy(),
            client_seconds=everyone.seconds,
            startup_seconds=everyone.startup,
        )

    def _most_bytes(self, clients: Sequence[int]) -> int:
        """Bytes that clients' updates may have where the method does not say what they hold."""
        positions = np.searchsorted(self.roster.client_ids, clients)
        return int((4 * self._bytes_down[positions] + _SLACK).sum())
