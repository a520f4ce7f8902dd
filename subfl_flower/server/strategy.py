"""Base of every strategy: it addresses clients, and sees replies stacked over clients.

A method defines the arrays for each client (`CohortStrategy.instructions`) and the use of the replies
(`CohortStrategy.aggregate`), both as stacks with a leading client axis. `subfl_flower.server.round_messages` handles
nodes, packing, byte counts and checks.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from subfl_flower.aggregation.settings import Rule
from subfl_flower.errors import SubflError
from subfl_flower.node.client import CohortClient
from subfl_flower.privacy.secure_aggregation.settings import SecureSumSettings
from subfl_flower.runs.round_arrays import Clustering
from subfl_flower.server.exchange import Exchange
from subfl_flower.server.participation import Participation
from subfl_flower.server.round_messages import Orders, Sent, address, announced, collect
from subfl_flower.server.updates import Remembered, Updates
from subfl_flower.wire.array_format import Stack
from subfl_flower.wire.choice import Choice
from subfl_flower.wire.contract import Contract, MethodSettings, RunContext, arrays_of
from subfl_flower.wire.ragged import Ragged
from subfl_flower.wire.roster import Roster

_REMEMBERED = "remembered."


class CohortStrategy(Strategy):
    """A Flower strategy over stacks.

    A method must define `instructions` and `aggregate`. It may override everything under "What a method says". It
    inherits Flower's interface, and the memory of absent clients' last uploads.

    Args:
        run: facts of the run.
        roster: the clients.
        contract: of the clients; None: that of `counterpart`.
    """

    Settings: ClassVar[type[MethodSettings]] = MethodSettings
    """The method's knobs; a strategy takes the class from its clients, and extends it only for the server's knobs."""

    counterpart: ClassVar[type[CohortClient]]
    """The clients that declare the contract, where the configuration names no others."""

    rules: ClassVar[tuple[Rule, ...]] = ("mean",)
    """The rules of `AggregationSettings` that the strategy can average by."""

    def __init__(self, run: RunContext, roster: Roster, contract: Contract | None = None) -> None:
        self.run = run
        self.settings: Any = run.settings
        self.roster = roster
        self.contract = self.counterpart.contract(run) if contract is None else contract
        self.initial: Stack = dict(run.initial)
        self.participation = Participation(run.fraction, run.seed)
        self.remembered = {
            name: Remembered(len(roster), spec.shape)
            for name, spec in arrays_of(self.contract.uploads).items()
            if spec.remembered
        }
        """The last uploads of clients, for those arrays that the contract declares as remembered."""
        self.guard_figures: dict[str, np.ndarray] = {}
        """Figures of the last aggregation for each of its replies [A], which the round's record lists by client."""
        self.updates: Updates | None = None
        """The last round's replies, where Flower's own loop drives the strategy."""
        self._sent: Sent | None = None

    @classmethod
    def needs_matcher(cls, settings: Any) -> bool:
        """True where the method asks a matcher with these settings: a node that hosts no client."""
        return False

    @classmethod
    def check_sums(cls, sums: SecureSumSettings, settings: Any, method: str) -> None:
        """Refuse secure sums where the server needs more of a round than a sum: by default it does.

        Args:
            sums: settings of the sums, which are asked for.
            settings: of the method.
            method: the method's name, for the error.

        Raises:
            SubflError: it does.
        """
        raise SubflError(
            f"secure_sums.enabled: the server of method={method} works with each client's own update, and a sum hides "
            "it; only false is allowed"
        )

    # What a method says ---------------------------------------------------------------------------------------------

    @abstractmethod
    def instructions(self, server_round: int, positions: Sequence[int]) -> Stack | Choice:
        """The arrays for the clients at `positions`, each [len(positions), ...], or a choice of shared rows."""

    @abstractmethod
    def aggregate(self, updates: Updates) -> None:
        """Aggregate a round's replies. There is at least one."""

    @property
    def mixing(self) -> np.ndarray | None:
        """The mixing matrix [K, K] of the last aggregation, where the method has one."""
        return None

    def row_instructions(self, server_round: int, positions: Sequence[int]) -> Mapping[str, Ragged]:
        """Arrays of which each of the clients at `positions` is sent a different number of rows: none by default."""
        return {}

    def evaluates(self, server_round: int) -> bool:
        """True where all clients are asked for figures of the model they would be sent next: never by default.

        For methods in which a round trains a few of many clients; else figures come with the updates.
        """
        return False

    @property
    def clustering(self) -> Clustering | None:
        """The last clustering of the clients, where the method has any."""
        return None

    def evaluation_instructions(self, positions: Sequence[int]) -> Stack | Choice:
        """The arrays that the clients at `positions` evaluate, in the form of `instructions`."""
        return {}

    def take_evaluation(self, evaluation: Updates) -> None:
        """Take in the figures of an evaluation: by default do nothing."""
        return

    def sum_groups(self, positions: Sequence[int]) -> Sequence[Sequence[int]]:
        """The clients at `positions` whose uploads a secure sum adds up together: by default all of them."""
        return [positions]

    def of_sums(self, updates: Updates) -> Updates:
        """The replies to aggregate, where there are sums of uploads: by default each client's is its group's mean."""
        inside = np.concatenate([each.positions for each in updates.sums])
        rows = np.searchsorted(updates.positions, inside)
        counts = [len(each.positions) for each in updates.sums]
        order = np.argsort(rows)
        means = [each.means() for each in updates.sums]
        arrays = {
            name: np.broadcast_to(means[0][name], (len(inside), *means[0][name].shape))
            if len(means) == 1
            else np.repeat(np.stack([of_group[name] for of_group in means]), counts, axis=0)[order]
            for name in means[0]
        }
        return replace(updates, arrays=arrays)

    def before_round(self, server_round: int, exchange: Exchange) -> None:
        """Ask the clients questions between two rounds: by default none."""
        return

    def model(self) -> Stack | Choice:
        """The part of the best round's model that clients need to use their own: by default nothing.

        Without a client axis where all need the same, else a choice with the rows of every client of the roster.
        """
        return {}

    def report(self, prepared: Any | None) -> dict[str, Any]:
        """Further entries of the run's summary.

        Args:
            prepared: all clients' data, where the run is a simulation.
        """
        return {}

    def model_bytes(self, prepared: Any) -> Mapping[str, np.ndarray]:
        """Bytes of a model in one direction, by what it is compared with: for each client of the roster [K].

        Args:
            prepared: all clients' data.
        """
        return {}

    def set_up(self, exchange: Exchange) -> None:
        """Ask the clients for what the method needs before the first round: by default nothing."""
        return

    @property
    def announcements(self) -> dict[str, float]:
        """Numbers that every message tells clients, by name: none by default."""
        return {}

    def state(self) -> Stack:
        """Arrays by name that a method needs to go on after a crash: by default the remembered uploads."""
        return {
            f"{_REMEMBERED}{name}.{key}": value
            for name, remembered in self.remembered.items()
            for key, value in remembered.state().items()
        }

    def load_state(self, state: Stack) -> None:
        """Restore the arrays of `state`; called in place of `set_up`."""
        for name, remembered in self.remembered.items():
            start = f"{_REMEMBERED}{name}."
            remembered.load_state({key.removeprefix(start): state[key] for key in state if key.startswith(start)})

    def go_on_with(self, roster: Roster) -> None:
        """Address clients from now on by a new roster, with the same clients on possibly different nodes."""
        self.roster = roster

    def participants(self, server_round: int) -> Sequence[int]:
        """Positions of the clients that train in this round, ascending: by default the configuration's fraction."""
        return self.participation.draw(server_round, len(self.roster), self.roster.reachable)

    # One round ------------------------------------------------------------------------------------------------------

    def train_orders(self, server_round: int, positions: Sequence[int]) -> Orders:
        """The orders of a round for the clients at `positions`."""
        return Orders(self.instructions(server_round, positions), self.row_instructions(server_round, positions))

    def evaluation_orders(self, positions: Sequence[int]) -> Orders:
        """The orders of an evaluation for the clients at `positions`."""
        return Orders(self.evaluation_instructions(positions), {})

    def take(self, updates: Updates) -> None:
        """Remember and aggregate a round's replies, where there are any."""
        self.guard_figures = {}
        if len(updates.positions):
            if updates.sums:
                updates = self.of_sums(updates)
            for name, remembered in self.remembered.items():
                remembered.take_in(updates.positions, updates.arrays[name])
            self.aggregate(updates)

    # Flower's own loop ----------------------------------------------------------------------------------------------

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Make one message a node, with separate orders for each client; `arrays` is not used.

        Args:
            server_round: 1-based.
            arrays: ignored.
            config: the record that describes the run.
            grid: the connection to the nodes; also used for phases before the round.

        Raises:
            RunFailure: a client does not answer in such a phase.
        """
        exchange = Exchange(grid, config, self.roster, tolerant=False)
        exchange.next_round, exchange.about = server_round, announced(self.announcements)
        if server_round == 1:
            self.set_up(exchange)
        self.before_round(server_round, exchange)
        about = {**config, **announced(self.announcements)}
        chosen = self.participants(server_round)
        orders = lambda positions: self.train_orders(server_round, positions)  # noqa: E731
        self._sent = address("train", server_round, chosen, orders, self.roster, about)
        return self._sent.messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Stack the replies over clients, aggregate them, and report mean metrics."""
        assert self._sent is not None, "configure_train comes first"
        self.updates = collect(self._sent, replies, self.roster, self.contract)
        self.take(self.updates)
        return None, _means(self.updates)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Make one message a node with all clients' next models, where the method `evaluates`."""
        if not self.evaluates(server_round):
            return []
        about = {**config, **announced(self.announcements)}
        everyone = range(len(self.roster))
        self._sent = address("evaluate", server_round, everyone, self.evaluation_orders, self.roster, about)
        return self._sent.messages

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Take in the figures, where the method evaluates."""
        if not self.evaluates(server_round):
            return None
        assert self._sent is not None, "configure_evaluate comes first"
        evaluation = collect(self._sent, replies, self.roster, self.contract.evaluation)
        self.take_evaluation(evaluation)
        return _means(evaluation)

    def summary(self) -> None:
        """Log nothing: the run directory holds the configuration."""


def _means(updates: Updates) -> MetricRecord:
    """Means of all figures over clients."""
    means = MetricRecord()
    for name, values in updates.metrics.items():
        means[name] = float(np.mean(values[~np.isnan(values)])) if not np.isnan(values).all() else math.nan
    return means
