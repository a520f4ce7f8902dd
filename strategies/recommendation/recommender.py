"""Base of methods on ratings: the server holds the shared parameters, and steps them by a mean of users' gradients."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from subfl_flower.aggregation.changes import bound_factors, lower_median
from subfl_flower.aggregation.user_uploads import largest_rows, scaled_uploads
from subfl_flower.clients.recommendation.recommender import RecommenderClient
from subfl_flower.clients.recommendation.user_parts import ITEMS, ROWS
from subfl_flower.errors import SubflError
from subfl_flower.privacy.secure_aggregation.settings import SecureSumSettings
from subfl_flower.server.exchange import Exchange
from subfl_flower.server.strategy import CohortStrategy
from subfl_flower.server.updates import Updates
from subfl_flower.strategies.recommendation.gradient_means import GradientMeans
from subfl_flower.strategies.recommendation.server_model import ServerModel, part_of, prefixed
from subfl_flower.strategies.recommendation.server_parts import Aggregation, Server, ServerPart
from subfl_flower.strategies.recommendation.user_sampling import RandomUsers
from subfl_flower.tasks.choices import UserTask
from subfl_flower.wire.array_format import Stack
from subfl_flower.wire.choice import Choice
from subfl_flower.wire.contract import Contract, MethodSettings, RunContext
from subfl_flower.wire.ragged import Ragged
from subfl_flower.wire.roster import Roster


class RecommenderStrategy(CohortStrategy):
    """The server of a recommender, composed of parts.

    A round has the same steps for all methods: sample users, send them the parameters, average their gradients
    (`Averaging`), and step every parameter. A method names its parts. It may override every step of the round, and
    `make_parts`, where parts need more than the facts that all parts have.

    Attributes:
        Averaging: makes the mean gradient of a round's uploads.
        Parts: further parts, for exchanges outside of rounds and for watching uploads.
    """

    Settings: ClassVar[type[MethodSettings]] = RecommenderClient.Settings
    counterpart = RecommenderClient

    Averaging: ClassVar[type[Aggregation]] = GradientMeans
    Parts: ClassVar[tuple[type[ServerPart], ...]] = ()

    def __init__(self, run: RunContext, roster: Roster, contract: Contract | None = None) -> None:
        super().__init__(run, roster, contract)
        start = {name: torch.from_numpy(np.array(value)) for name, value in self.initial.items()}
        self.server = ServerModel(start, self.settings.server_optimizer, self.settings.iterate_average)
        self.sampling = RandomUsers(run, len(roster))
        facts = Server(run, lambda: self.roster, self.participants)
        self.averaging = self.Averaging(facts)
        self.parts: list[ServerPart] = [self.averaging, *(part(facts) for part in self.Parts)]
        self._best = {name: value.clone() for name, value in start.items()}
        self._best_round, self._best_figure = 0, math.nan
        self._usual_length = 0.0
        self.uploads = np.zeros(len(roster), dtype=np.int64)
        """Number of aggregated uploads of each client [K]."""

    @property
    def parameters(self) -> dict[str, Tensor]:
        """The parameters that users are sent next."""
        return self.server.parameters

    @classmethod
    def check_sums(cls, sums: SecureSumSettings, settings: Any, method: str) -> None:
        """Allow secure sums: a step needs the mean of gradients alone.

        Raises:
            SubflError: uploads are to be audited one by one, or sums begin later than the run.
        """
        if getattr(settings, "audit_users", 0):
            raise SubflError(
                "method.audit_users: an audit reads single uploads, which secure_sums.enabled hides; only 0 is allowed"
            )
        sums.require_all_rounds(method)

    # What travels -----------------------------------------------------------------------------------------------------

    def set_up(self, exchange: Exchange) -> None:
        """Let parts refuse a task or model that they cannot work with."""
        for part in self.parts:
            part.set_up()

    def before_round(self, server_round: int, exchange: Exchange) -> None:
        """Let all parts, in their order, ask the clients for what they need."""
        for part in self.parts:
            part.before_round(server_round, exchange)
        self._settle()

    def instructions(self, server_round: int, positions: Sequence[int]) -> Stack | Choice:
        """All parameters, the same for everyone, after changes by parts."""
        sent = for_all(self.parameters, positions)
        for part in self.parts:
            sent = part.instructions(sent, server_round, positions)
        return sent

    def row_instructions(self, server_round: int, positions: Sequence[int]) -> Mapping[str, Ragged]:
        """The item rows that parts send."""
        parts = (part.row_instructions(self.parameters, positions) for part in self.parts)
        return {name: rows for of_part in parts for name, rows in of_part.items()}

    def evaluation_instructions(self, positions: Sequence[int]) -> Stack | Choice:
        """All parameters, averaged over rounds where the method does so."""
        return for_all(self.server.evaluated, positions)

    @property
    def announcements(self) -> dict[str, float]:
        """The best round so far, at which users keep a copy of their personal parameters, and what parts announce."""
        found = {"best_round": float(self._best_round)}
        return found | {name: value for part in self.parts for name, value in part.announcements.items()}

    def participants(self, server_round: int) -> Sequence[int]:
        """Positions of a round's users, drawn without replacement."""
        return self.sampling.draw(server_round, self.roster.reachable)

    # A round ----------------------------------------------------------------------------------------------------------

    def of_sums(self, updates: Updates) -> Updates:
        """The replies as they are: the mean is made of the sum."""
        return updates

    def aggregate(self, updates: Updates) -> None:
        """Step every parameter by the users' mean gradient, where their uploads can be read."""
        if not self.averaging.readable(updates):
            return
        updates = self.guarded(updates)
        for part in self.parts:
            part.watch(updates)
        self.uploads[updates.positions] += 1
        self.step(updates)

    def guarded(self, updates: Updates) -> Updates:
        """The uploads that are averaged: long ones are scaled back to the usual length, with all their rows.

        `guard_figures` then has of all users ``update_norm`` (before) and ``clipped``. Of a sum under masks the server
        sees no upload.
        """
        bound = self.run.aggregation.row_bound
        if bound is None or ROWS not in updates.ragged:
            return updates
        arrays = {name: updates.arrays[name] for name in self.parameters if name in updates.arrays}
        rows = updates.ragged[ROWS]
        lengths = largest_rows(arrays, rows.values, rows.owners, len(rows.lengths))
        self._usual_length = max(self._usual_length, lower_median(lengths))
        factors = bound_factors(lengths, bound, self._usual_length)
        self.guard_figures = {"update_norm": lengths, "clipped": (factors < 1).astype(float)}
        if (factors == 1).all():
            return updates
        arrays, values = scaled_uploads(arrays, rows.values, rows.owners, factors)
        ragged = {**updates.ragged, ROWS: replace(rows, values=values)}
        return replace(updates, arrays={**updates.arrays, **arrays}, ragged=ragged)

    def step(self, updates: Updates) -> None:
        """Take one step of the server's optimiser by the users' mean gradient."""
        gradients = self.averaging.mean(updates, self.parameters)
        self.server.step(gradients, self.learning_rates, self.weight_decays)
        self._settle()

    def _settle(self) -> None:
        """Let parts set parameters that they decide on."""
        for part in self.parts:
            part.settle(self.server)

    @property
    def learning_rates(self) -> dict[str, float]:
        """Learning rate of each parameter in the next step."""
        settings, share = self.settings, self._share_of_rate()
        rates = {name: share * (settings.network_lr or settings.server_lr) for name in self.parameters}
        return {**rates, ITEMS: share * settings.server_lr}

    @property
    def weight_decays(self) -> dict[str, float]:
        """Weight decay of those parameters that have one."""
        return {ITEMS: self.settings.table_weight_decay}

    def _share_of_rate(self) -> float:
        """Factor of the learning rate, which falls to `server_lr_final` along a cosine, and with the uploads' noise."""
        last: float = self.settings.server_lr_final
        share, noise = 1.0, self.run.privacy.relative_noise
        if last != 1 and self.run.num_rounds:
            progress = min(1.0, self.server.steps / max(1, self.run.num_rounds - 1))
            share = last + (1 - last) * (1 + math.cos(math.pi * progress)) / 2
        full = self.settings.full_rate_noise
        return share if full is None or noise <= full else share * full / noise

    # Evaluation -------------------------------------------------------------------------------------------------------

    def evaluates(self, server_round: int) -> bool:
        """True every `evaluate_every` rounds, and after the last round."""
        every: int = self.settings.evaluate_every
        return server_round % every == 0 or server_round == self.run.num_rounds

    def take_evaluation(self, evaluation: Updates) -> None:
        """Keep the parameters of the round that is best on the validation ratings of all users together."""
        figure = self.task.over_clients(evaluation.metrics, "validation")
        if figure is not None and not math.isnan(figure) and not self._is_beaten(figure):
            self._best_figure, self._best_round = figure, evaluation.server_round
            self.keep()

    @property
    def task(self) -> UserTask:
        """The run's task."""
        task: Any = self.run.task
        assert task is not None, "a strategy that evaluates has a task"
        found: UserTask = task
        return found

    def _is_beaten(self, figure: float) -> bool:
        """True where an earlier round was at least as good."""
        if not self._best_round:
            return False
        return figure <= self._best_figure if self.task.higher_is_better else figure >= self._best_figure

    def keep(self) -> None:
        """Keep the evaluated parameters as the best ones so far."""
        self._best = {name: value.clone() for name, value in self.server.evaluated.items()}

    def model(self) -> Stack | Choice:
        """The parameters of the best round; the last ones where there are no validation ratings."""
        found = self._best if self._best_round else self.server.evaluated
        return {name: value.numpy() for name, value in found.items()}

    def report(self, prepared: Any | None) -> dict[str, Any]:
        """The task's baseline on the same ratings, in a simulation, and what parts report.

        A model that does not beat the baseline has learnt little.
        """
        uploads = int(self.uploads.max(initial=0))
        found = {} if prepared is None else self.task.baseline(prepared.whole())
        return {**found, **{k: v for part in self.parts for k, v in part.report(prepared, uploads).items()}}

    # After a crash ----------------------------------------------------------------------------------------------------

    def state(self) -> Stack:
        """Parameters, their average and best, the optimiser's moments, counts and usual length of uploads, parts."""
        kept: Stack = {
            **super().state(),
            "uploads": self.uploads,
            "best": np.array([self._best_round, self._best_figure]),
            "usual_length": np.array(self._usual_length),
        }
        kept |= {f"best.{name}": value.numpy() for name, value in self._best.items()}
        for part in self.parts:
            kept |= prefixed(type(part).__name__, part.state())
        return kept | prefixed("server", self.server.state())

    def load_state(self, state: Stack) -> None:
        """Restore the arrays of `state`."""
        super().load_state(state)
        self.uploads = np.array(state["uploads"])
        self._usual_length = float(state["usual_length"])
        best_round, self._best_figure = state["best"].tolist()
        self._best_round = int(best_round)
        for name, value in self._best.items():
            value.copy_(torch.tensor(state[f"best.{name}"]))
        for part in self.parts:
            part.load_state(part_of(type(part).__name__, state))
        self.server.load_state(part_of("server", state))


def for_all(parameters: Mapping[str, Tensor], positions: Sequence[int]) -> Stack:
    """Identical arrays for all clients at the positions, as one row in memory."""
    return {name: np.broadcast_to(value.numpy(), (len(positions), *value.shape)) for name, value in parameters.items()}
