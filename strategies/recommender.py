"""Methods that average users' gradients: the server holds what all share, and steps it with an optimiser of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clients.recommender import IDS, ITEMS, ROWS, RecommenderClient
from strategies.server_model import ServerModel, part_of, prefixed
from subfl_flower.data.ratings.prepared import PreparedRatings
from subfl_flower.models.bias_row import bias_row_errors
from subfl_flower.models.popularity import popularity_figures
from subfl_flower.runtime.contract import Contract, RunContext, arrays_of
from subfl_flower.runtime.messages import Choice, Stack
from subfl_flower.runtime.roster import Roster
from subfl_flower.runtime.strategy import CohortStrategy
from subfl_flower.runtime.updates import Updates
from subfl_flower.seeding import round_generator
from subfl_flower.tasks import Ranking


class GradientAveraging(CohortStrategy):
    """Averages gradients over users, and steps item rows, network weights and biases."""

    Settings = RecommenderClient.Settings
    counterpart = RecommenderClient

    def __init__(self, run: RunContext, roster: Roster, contract: Contract | None = None) -> None:
        super().__init__(run, roster, contract)
        start = {name: torch.from_numpy(np.array(value)) for name, value in self.initial.items()}
        self.server = ServerModel(start, self.settings.server_optimizer, self.settings.iterate_average)
        self._best = {name: value.clone() for name, value in start.items()}
        self._best_round, self._best_figure = 0, math.nan
        self.uploads = np.zeros(len(roster), dtype=np.int64)
        """How often each client's upload was taken in [K]."""

    @property
    def parameters(self) -> dict[str, Tensor]:
        """What users are sent next."""
        return self.server.parameters

    @property
    def _network(self) -> list[str]:
        """Names of the graph network's weights."""
        return [name for name in self.parameters if name.startswith("gnn.")]

    # What travels -----------------------------------------------------------------------------------------------------

    @property
    def num_items(self) -> int:
        """Rows of the item table."""
        return len(self.initial[ITEMS])

    def instructions(self, server_round: int, positions: Sequence[int]) -> Stack | Choice:
        """All parameters, the same for everyone."""
        return for_all(self.parameters, positions)

    def evaluation_instructions(self, positions: Sequence[int]) -> Stack | Choice:
        """All parameters, averaged over rounds where the method does that."""
        return for_all(self.server.evaluated, positions)

    @property
    def announcements(self) -> dict[str, float]:
        """The best round so far, at which users keep a copy of what is theirs."""
        return {"best_round": float(self._best_round)}

    def participants(self, server_round: int) -> Sequence[int]:
        """Positions of a round's users, drawn without replacement."""
        count = self.settings.users_per_round
        if count is None:
            return super().participants(server_round)
        return drawn(self.run.seed, server_round, len(self.roster), count)

    # A round ----------------------------------------------------------------------------------------------------------

    def aggregate(self, updates: Updates) -> None:
        """Step every parameter by the users' mean gradient."""
        self.uploads[updates.positions] += 1
        self.step(self.mean_gradients(updates))

    def mean_gradients(self, updates: Updates) -> Mapping[str, Tensor]:
        """The mean gradient by each parameter."""
        found = {name: torch.from_numpy(updates.arrays[name]).mean(0) for name in arrays_of(self.contract.uploads)}
        ids = torch.from_numpy(updates.ragged[IDS].values).long()
        total = torch.zeros_like(self.parameters[ITEMS])
        total.index_add_(0, ids, torch.from_numpy(updates.ragged[ROWS].values))
        if self.settings.row_average == "uploads":
            total /= torch.bincount(ids, minlength=self.num_items).clamp(min=1)[:, None]
        else:
            total /= len(updates.positions)
        return {**found, ITEMS: total}

    def step(self, gradients: Mapping[str, Tensor]) -> None:
        """One step of the server's optimiser."""
        self.server.step(gradients, self.learning_rates, self.weight_decays)

    @property
    def learning_rates(self) -> dict[str, float]:
        """Of each parameter in the next step."""
        settings, share = self.settings, self._share_of_rate()
        rates = {name: share * (settings.network_lr or settings.server_lr) for name in self.parameters}
        return {**rates, ITEMS: share * settings.server_lr}

    @property
    def weight_decays(self) -> dict[str, float]:
        """Of those parameters that have one."""
        network = dict.fromkeys(self._network, self.settings.network_weight_decay)
        return network | {ITEMS: self.settings.table_weight_decay}

    def _share_of_rate(self) -> float:
        """The learning rate's share, from 1 at the first step to `server_lr_final` at the last, along a cosine."""
        last = self.settings.server_lr_final
        if last == 1 or not self.run.num_rounds:
            return 1.0
        progress = min(1.0, self.server.steps / max(1, self.run.num_rounds - 1))
        return last + (1 - last) * (1 + math.cos(math.pi * progress)) / 2

    # Evaluation -------------------------------------------------------------------------------------------------------

    def evaluates(self, server_round: int) -> bool:
        """Every so many rounds, and after the last."""
        return server_round % self.settings.evaluate_every == 0 or server_round == self.run.num_rounds

    def take_evaluation(self, evaluation: Updates) -> None:
        """Keep the parameters of the round that is best on all users' validation ratings together."""
        assert self.run.task is not None
        figure = self.run.task.over_clients(evaluation.metrics, "validation")
        if figure is not None and not math.isnan(figure) and not self._is_beaten(figure):
            self._best_figure, self._best_round = figure, evaluation.server_round
            self.keep()

    def _is_beaten(self, figure: float) -> bool:
        """Whether an earlier round was as good."""
        if not self._best_round:
            return False
        assert self.run.task is not None
        return figure <= self._best_figure if self.run.task.higher_is_better else figure >= self._best_figure

    def keep(self) -> None:
        """Keep what is evaluated: there was nothing better so far."""
        self._best = {name: value.clone() for name, value in self.server.evaluated.items()}

    def model(self) -> Stack | Choice:
        """The parameters of the best round; the last ones where there is nothing to validate on."""
        found = self._best if self._best_round else self.server.evaluated
        return {name: value.numpy() for name, value in found.items()}

    def report(self, prepared: Any | None) -> dict[str, Any]:
        """What the bias row, or popularity, reaches on the same ratings: what does not beat it has learnt little.

        In a simulation.
        """
        if not isinstance(prepared, PreparedRatings):
            return {}
        if isinstance(self.run.task, Ranking):
            return {"popularity": popularity_figures(prepared.whole(), self.run.task)}
        return {"bias_row": bias_row_errors(prepared.whole())}

    # After a crash ----------------------------------------------------------------------------------------------------

    def state(self) -> Stack:
        """Parameters, their average and best, the optimiser's moments, and what was counted."""
        kept: Stack = {
            **super().state(),
            "uploads": self.uploads,
            "best": np.array([self._best_round, self._best_figure]),
        }
        kept |= {f"best.{name}": value.numpy() for name, value in self._best.items()}
        return kept | prefixed("server", self.server.state())

    def load_state(self, state: Stack) -> None:
        """What `state` gave."""
        super().load_state(state)
        self.uploads = np.array(state["uploads"])
        best_round, self._best_figure = state["best"].tolist()
        self._best_round = int(best_round)
        for name, value in self._best.items():
            value.copy_(torch.tensor(state[f"best.{name}"]))
        self.server.load_state(part_of("server", state))


def drawn(seed: int, server_round: int, num_clients: int, count: int) -> Sequence[int]:
    """Positions of a round's clients, ascending; all where there are no more than `count`."""
    if count >= num_clients:
        return range(num_clients)
    generator = round_generator(seed, server_round, "participation")
    chosen: list[int] = np.sort(generator.choice(num_clients, count, replace=False, shuffle=False)).tolist()
    return chosen


def for_all(parameters: Mapping[str, Tensor], positions: Sequence[int]) -> Stack:
    """The same for all clients at the positions, as one row in memory."""
    return {name: np.broadcast_to(value.numpy(), (len(positions), *value.shape)) for name, value in parameters.items()}
