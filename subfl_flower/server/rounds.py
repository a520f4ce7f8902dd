"""The loop of a run's rounds: sample, instruct, send, check, aggregate, record."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from logging import WARNING
from typing import Any

from flwr.app import ConfigRecord
from flwr.serverapp import Grid

from subfl_flower.config import Config
from subfl_flower.errors import RunFailure
from subfl_flower.flower.delivery import Stragglers, nobody_there, send_and_wait
from subfl_flower.flower.log import log
from subfl_flower.server.exchange import Exchange
from subfl_flower.server.membership import Membership
from subfl_flower.server.round_messages import NO_REPLY, Sent, address, announced, collect
from subfl_flower.server.round_records import LatestMetrics, round_record
from subfl_flower.server.secure_sums.summed_round import SummedRound
from subfl_flower.server.strategy import CohortStrategy
from subfl_flower.server.updates import Updates
from subfl_flower.wire.contract import Contract

_LEAST_WAIT = 30.0
"""Seconds that a node has for a round, however fast others are."""

_PAUSE = 1.0

Seconds = dict[str, float]
"""Seconds of a round by part: ``round``, ``client``, ``startup``, ``server``, ``transport``."""


class Rounds:
    """The rounds of one run.

    Args:
        grid: the connection to the nodes.
        config: of the run.
        strategy: of the method.
        membership: the present clients.
        exchange: asks clients between rounds.
        about: the record that describes the run, sent along.
        finished: records of the rounds before; empty at a run's start.

    Attributes:
        last_checkpoint: the round that a node may have to go back to.
    """

    def __init__(
        self,
        grid: Grid,
        config: Config,
        strategy: CohortStrategy,
        membership: Membership,
        exchange: Exchange,
        about: ConfigRecord,
        finished: Sequence[Mapping[str, Any]],
    ) -> None:
        self._grid, self._config, self._strategy = grid, config, strategy
        self._membership, self._exchange, self._about = membership, exchange, about
        self._first = len(finished) + 1
        self._latest = LatestMetrics(config.task, strategy.contract.metrics, strategy.roster)
        for record in finished:
            self._latest.recall(record)
        self.last_checkpoint = len(finished)
        self._silent: Counter[int] = Counter()
        self._alone = False

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Train round after round; the record of each."""
        strategy = self._strategy
        for server_round in range(self._first, self._config.federation.rounds + 1):
            strategy.go_on_with(self._membership.refresh())
            about = self._about_round(server_round)
            strategy.before_round(server_round, self._exchange)

            updates, seconds, summed = self._trained(server_round, about)

            if strategy.evaluates(server_round):
                everyone, contract = range(len(strategy.roster)), strategy.contract.evaluation
                evaluation, more = self._exchanged(
                    "evaluate",
                    server_round,
                    everyone,
                    strategy.evaluation_orders,
                    about,
                    contract,
                    strategy.take_evaluation,
                )
                self._require_all(evaluation)
                updates = updates.and_evaluated(evaluation)
                seconds = {part: seconds[part] + more[part] for part in seconds}

            record = round_record(updates, strategy.roster, seconds, self._latest)
            yield record if summed is None else {**record, "secure_sums": summed.record}

    def _trained(self, server_round: int, about: Mapping[str, Any]) -> tuple[Updates, Seconds, SummedRound | None]:
        """Train a round's clients; where no node replies, wait for nodes to come back, and have them train again."""
        strategy, runtime = self._strategy, self._config.runtime
        deadline = time.monotonic() + runtime.node_timeout
        while True:
            chosen = strategy.participants(server_round)
            orders = _train_orders(strategy, server_round)
            summed = self._summed(server_round, chosen)
            if summed is None:
                updates, seconds = self._exchanged(
                    "train", server_round, chosen, orders, about, strategy.contract, strategy.take
                )
            else:
                updates, seconds = self._exchanged_sums(summed, server_round, orders, about)
            if len(updates.positions) or not (self._tolerant and self._alone) or time.monotonic() > deadline:
                self._require_enough(updates)
                return updates, seconds, summed
            client, reason = min(updates.failures.items())
            log(
                WARNING,
                "no node replied in round %d (client %d: %s); nodes have %.0f s to come back (runtime.node_timeout)",
                server_round,
                client,
                reason,
                runtime.node_timeout,
            )
            time.sleep(min(_PAUSE, runtime.node_timeout))
            strategy.go_on_with(self._membership.refresh())
            self._exchange.roster = strategy.roster

    @property
    def _tolerant(self) -> bool:
        """True where a run on other machines goes on without clients that fail."""
        runtime = self._config.runtime
        return runtime.deployed and runtime.on_client_failure == "continue"

    @property
    def _stragglers(self) -> Stragglers | None:
        factor = self._config.federation.straggler_factor
        return None if factor is None or not self._tolerant else Stragglers(factor, _LEAST_WAIT)

    def _part_with_silent(self, sent: Sent, failures: Mapping[int, str]) -> None:
        """Ask nodes no longer that gave no sign in several rounds."""
        most, roster = self._config.federation.silent_rounds, self._strategy.roster
        for node, positions in sent.asked.items():
            silent = all(failures.get(roster.client_ids[position]) == NO_REPLY for position in positions)
            self._silent[node] = self._silent[node] + 1 if silent else 0
            if self._tolerant and most is not None and self._silent[node] >= most:
                del self._silent[node]
                self._membership.part_with(
                    node, f"node {node} gave no reply in {most} rounds (federation.silent_rounds)"
                )

    def is_due(self, server_round: int) -> bool:
        """True for a round after which a checkpoint is written."""
        every, last = self._config.checkpoint_every, self._config.federation.rounds
        return bool(every) and (server_round % (every or 1) == 0 or server_round == last)

    def _about_round(self, server_round: int) -> dict[str, Any]:
        """Entries of the run's record for a round; they are also passed to the exchange."""
        strategy, config = self._strategy, self._config
        # A client that is absent in a checkpoint's round, or fails in it, must have kept the state of an earlier one.
        some_are_absent = len(strategy.participants(server_round)) < len(strategy.roster)
        some_may_lack = some_are_absent or config.runtime.on_client_failure == "continue"
        keep = self.is_due(server_round) or (bool(config.checkpoint_every) and some_may_lack)
        about = {**self._about, "checkpoint": self.last_checkpoint, "keep": keep}
        self._exchange.roster, self._exchange.next_round = strategy.roster, server_round
        self._exchange.about = {**about, **announced(strategy.announcements)}
        return about

    def _summed(self, server_round: int, chosen: Sequence[int]) -> SummedRound | None:
        """The secure sums of a round, begun; None where the round has none."""
        strategy, tolerant = self._strategy, self._config.runtime.on_client_failure == "continue"
        if not self._config.secure_sums.sums(server_round):
            return None
        found = SummedRound(self._exchange, strategy.run, strategy.contract.summed, server_round, tolerant=tolerant)
        found.begin(strategy.sum_groups(chosen))
        return found

    def _exchanged_sums(
        self, summed: SummedRound, server_round: int, orders: Callable[[Sequence[int]], Any], about: Mapping[str, Any]
    ) -> tuple[Updates, Seconds]:
        """Train the clients of a round's sums, and take in the sums that can be opened."""
        strategy = self._strategy

        def take(updates: Updates) -> None:
            if len((opened := summed.open(updates)).positions):
                strategy.take(opened)

        contract, about = strategy.contract.in_a_sum, {**about, **summed.about}
        updates, seconds = self._exchanged("train", server_round, summed.positions, orders, about, contract, take)
        lost = {client: reason for client, reason in summed.failures.items() if client not in updates.failures}
        return replace(updates, failures={**updates.failures, **lost}), seconds

    def _exchanged(
        self,
        kind: str,
        server_round: int,
        chosen: Sequence[int],
        orders: Callable[[Sequence[int]], Any],
        about: Mapping[str, Any],
        contract: Contract,
        take: Callable[[Updates], None],
    ) -> tuple[Updates, Seconds]:
        """Instruct clients, send, wait, check the replies, and take them in; the updates without their arrays."""
        strategy, federation = self._strategy, self._config.federation
        start = time.perf_counter()
        about = {**about, **announced(strategy.announcements)}
        sent = address(
            *(kind, server_round, chosen, orders, strategy.roster, about, federation.round_timeout),
            dtype=self._config.wire.dtype,
            compression=self._config.bundling,
        )
        pushed = time.perf_counter()
        poll = self._config.runtime.poll_seconds
        replies = send_and_wait(self._grid, sent.messages, federation.round_timeout, poll, self._stragglers)
        received = time.perf_counter()
        updates, self._alone = collect(sent, replies, strategy.roster, contract), nobody_there(replies)
        del replies
        self._part_with_silent(sent, updates.failures)
        take(updates)
        of_all = len(updates.positions)
        guarded = {name: values for name, values in strategy.guard_figures.items() if len(values) == of_all}
        # All clients' uploads may be most of the memory.
        updates = replace(updates, arrays={}, ragged={}, metrics={**updates.metrics, **guarded})
        at_work = updates.client_seconds + updates.startup_seconds
        end = time.perf_counter()
        return updates, {
            "round": end - start,
            "client": updates.client_seconds,
            "startup": updates.startup_seconds,
            "server": (pushed - start) + (end - received),
            "transport": max(0.0, received - pushed - at_work),
        }

    def _require_enough(self, updates: Updates) -> None:
        replied, needed = len(updates.positions), self._config.federation.min_clients or 1
        if updates.failures and (self._config.runtime.on_client_failure == "stop" or not replied):
            client, reason = min(updates.failures.items())
            raise RunFailure(f"client {client} failed in round {updates.server_round}: {reason}")
        if replied < needed:
            missing = "; ".join(f"client {client}: {reason}" for client, reason in sorted(updates.failures.items()))
            raise RunFailure(
                f"{replied} clients replied in round {updates.server_round}, where federation.min_clients is {needed}"
                + (f" ({missing})" if missing else "")
            )

    def _require_all(self, evaluation: Updates) -> None:
        if evaluation.failures and self._config.runtime.on_client_failure == "stop":
            client, reason = min(evaluation.failures.items())
            raise RunFailure(f"client {client} failed in the evaluation of round {evaluation.server_round}: {reason}")


def _train_orders(strategy: CohortStrategy, server_round: int) -> Callable[[Sequence[int]], Any]:
    return lambda positions: strategy.train_orders(server_round, positions)
