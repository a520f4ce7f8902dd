r"""PerFedRec (Luo, Xiao, Song, CIKM 2022): clustered users, with a global model and a model for each cluster.

Every r rounds users who agree upload an embedding, and the server clusters these by k-means. A user starts from its
cluster's model, trains it on its own data, and uploads the change. From the users' models the server makes

.. math:: \theta_g = \mathrm{mean}_u \theta_u, \qquad \theta_c = \mathrm{mean}_{u \in c} \theta_u,

a global model and one for each cluster. The mean of an item's row is over the users who touched it. A user recommends
by a mixture of three models: the global one, its cluster's, and its own, trained from its cluster's.

A user without a cluster (it never took part, or does not agree) starts from the global model, which also replaces its
cluster's in the mixture. With one cluster and no mixture this is FedAvg.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from subfl_flower.clients.recommendation.perfedrec import PerFedRecClient
from subfl_flower.clients.recommendation.user_parts import IDS, ITEMS
from subfl_flower.privacy.secure_aggregation.settings import SecureSumSettings
from subfl_flower.runs.round_arrays import Clustering
from subfl_flower.server.exchange import Exchange
from subfl_flower.server.strategy import CohortStrategy
from subfl_flower.server.updates import Updates
from subfl_flower.strategies.recommendation.expansion import Expansion
from subfl_flower.strategies.recommendation.gradient_means import GradientMeans
from subfl_flower.strategies.recommendation.recommender import RecommenderStrategy
from subfl_flower.strategies.recommendation.server_model import ServerModel, part_of, prefixed
from subfl_flower.strategies.recommendation.server_parts import Server
from subfl_flower.strategies.recommendation.upload_watch import Audit, PrivacyAccount
from subfl_flower.strategies.recommendation.user_clusters import UserClusters
from subfl_flower.strategies.recommendation.user_sampling import ClusterUsers
from subfl_flower.wire.array_format import Stack
from subfl_flower.wire.choice import Choice
from subfl_flower.wire.contract import Contract, RunContext
from subfl_flower.wire.roster import Roster


class PerFedRec(RecommenderStrategy):
    """Cluster users, and hold a global model and one for each cluster.

    Attributes:
        clusters: the models of the clusters; none before the first clustering.
    """

    Settings = PerFedRecClient.Settings
    counterpart = PerFedRecClient

    Averaging = GradientMeans
    Parts = (Expansion, PrivacyAccount, Audit)

    @classmethod
    def check_sums(cls, sums: SecureSumSettings, settings: Any, method: str) -> None:
        """Refuse secure sums: a user's upload counts for the cluster that the server knows it to be in.

        Raises:
            SubflError: always.
        """
        CohortStrategy.check_sums(sums, settings, method)

    def __init__(self, run: RunContext, roster: Roster, contract: Contract | None = None) -> None:
        super().__init__(run, roster, contract)
        self.sampling = self._by_cluster = ClusterUsers(run, len(roster))
        self.users = UserClusters(Server(run, lambda: self.roster, self.participants))
        self.parts = [self.users, *self.parts]
        self.clusters: list[ServerModel] = []
        self._best_clusters: list[dict[str, Tensor]] = []
        self._best_starts = self._starts(range(len(roster)))

    # Clusters ---------------------------------------------------------------------------------------------------------

    @property
    def labels(self) -> np.ndarray:
        """The cluster of each user [K]; negative: none."""
        return self.users.labels

    @property
    def clustering(self) -> Clustering | None:
        """The last clustering."""
        return self.users.clustering

    def before_round(self, server_round: int, exchange: Exchange) -> None:
        """Cluster users and expand graphs in rounds that do so; all clusters begin at the global model."""
        super().before_round(server_round, exchange)
        if self.users.formed and not self.clusters:
            self.clusters = [self.server.copy() for _ in range(self.settings.clusters)]

    def participants(self, server_round: int) -> Sequence[int]:
        """Positions of a round's users, by `selection`."""
        return self._by_cluster.draw_from(
            server_round, self.labels, self.users.distances, self.uploads, self.roster.reachable
        )

    # What travels -----------------------------------------------------------------------------------------------------

    def instructions(self, server_round: int, positions: Sequence[int]) -> Stack | Choice:
        """Each user's initial model: its cluster's, or the global one."""
        if not self.clusters:
            return super().instructions(server_round, positions)
        return _choice(self._models, self._starts(positions)[:, None])

    def evaluation_instructions(self, positions: Sequence[int]) -> Choice:
        """The global model and each user's initial model."""
        models = [self.server.evaluated, *(cluster.evaluated for cluster in self.clusters)]
        return _choice(models, _with_global(self._starts(positions)))

    @property
    def _models(self) -> list[dict[str, Tensor]]:
        """The parameters of the global model and of each cluster's."""
        return [self.server.parameters, *(cluster.parameters for cluster in self.clusters)]

    def _starts(self, positions: Sequence[int]) -> np.ndarray:
        """Numbers of the models that users start from [positions]: 0 the global one, c + 1 that of cluster c."""
        return self.labels[list(positions)] + 1 if self.clusters else np.zeros(len(positions), dtype=np.int64)

    # A round ----------------------------------------------------------------------------------------------------------

    def step(self, updates: Updates) -> None:
        """Set each model to the mean of its users' models, and draw clusters' models towards the global one."""
        starts = self._starts(updates.positions.tolist())
        if self.clusters:
            self._set_to_mean_start(updates, starts)
        rates, decays = self.learning_rates, self.weight_decays  # of this step, for all models
        super().step(updates)
        for number, cluster in enumerate(self.clusters):
            part = updates.take(starts == number + 1)
            if len(part.positions):
                cluster.step(self.averaging.mean(part, cluster.parameters), rates, decays)
            cluster.draw_towards(self.server, self.settings.cluster_pull)

    def _set_to_mean_start(self, updates: Updates, starts: np.ndarray) -> None:
        """Set the global model to the mean of this round's initial models (an item's row: over its users)."""
        models = self._models
        shares = torch.from_numpy(np.bincount(starts, minlength=len(models)) / len(starts)).float()
        mean = {
            name: torch.tensordot(shares, torch.stack([model[name] for model in models]), dims=1) for name in models[0]
        }
        if self.settings.row_average == "uploads":
            rows = updates.ragged[IDS]
            touched = np.zeros((len(models), len(self.parameters[ITEMS])))
            np.add.at(touched, (starts[rows.owners], rows.values), 1)
            touched[0, ~touched.any(0)] = 1  # a row that nobody touched stays
            weights = torch.from_numpy(touched / touched.sum(0)).float()
            mean[ITEMS] = torch.einsum("mi,mid->id", weights, torch.stack([model[ITEMS] for model in models]))
        for name, value in self.server.parameters.items():
            value.copy_(mean[name])

    # What is kept -----------------------------------------------------------------------------------------------------

    def keep(self) -> None:
        """Keep the evaluated global and cluster models, and the number of each user's initial model."""
        super().keep()
        self._best_starts = self._starts(range(len(self.roster)))
        self._best_clusters = [
            {name: value.clone() for name, value in cluster.evaluated.items()} for cluster in self.clusters
        ]

    def model(self) -> Choice:
        """The global model of the best round, and each user's initial model in it."""
        if not self._best_round:
            return self.evaluation_instructions(range(len(self.roster)))
        return _choice([self._best, *self._best_clusters], _with_global(self._best_starts))

    def state(self) -> Stack:
        """The base's state, and the clusters' models: current ones, and those of the best round."""
        kept = {**super().state(), "best_starts": self._best_starts}
        for number, cluster in enumerate(self.clusters):
            kept |= prefixed(f"cluster{number}", cluster.state())
        for number, model in enumerate(self._best_clusters):
            kept |= prefixed(f"best_cluster{number}", {name: value.numpy() for name, value in model.items()})
        return kept

    def load_state(self, state: Stack) -> None:
        """Restore the arrays of `state`."""
        super().load_state(state)
        self._best_starts = np.array(state["best_starts"])
        if not self.users.formed:
            return
        self.clusters = [self.server.copy() for _ in range(self.settings.clusters)]
        for number, cluster in enumerate(self.clusters):
            cluster.load_state(part_of(f"cluster{number}", state))
        best = [part_of(f"best_cluster{number}", state) for number in range(self.settings.clusters)]
        self._best_clusters = [{name: torch.tensor(value) for name, value in model.items()} for model in best if model]

    @classmethod
    def needs_matcher(cls, settings: PerFedRecClient.Settings) -> bool:
        """True where graphs are expanded."""
        return settings.max_neighbours > 0


def _with_global(starts: np.ndarray) -> np.ndarray:
    """Numbers of the models that users are measured by [users, 2]: the global one, and their initial one [users]."""
    return np.stack([np.zeros_like(starts), starts], axis=1)


def _choice(models: Sequence[Mapping[str, Tensor]], rows: np.ndarray) -> Choice:
    """Choice of the models that each user is sent: `rows` [users, r] are numbers of `models`."""
    used, renumbered = np.unique(rows, return_inverse=True)
    values = {name: np.stack([models[number][name].numpy() for number in used]) for name in models[0]}
    return Choice(values, renumbered.reshape(rows.shape))
