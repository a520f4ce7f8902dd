r"""PerFedRec (Luo, Xiao, Song, CIKM 2022): users in clusters, with a model for everyone and one for each cluster.

Every r rounds users who agree upload an embedding, and the server clusters these by k-means. A user starts from its
cluster's model, trains it on its own data, and uploads by how much it changed. Of the users' models

.. math:: \theta_g = \mathrm{mean}_u \theta_u, \qquad \theta_c = \mathrm{mean}_{u \in c} \theta_u

the server makes a global one and one for each cluster (an item's row: of the models of those users who touched it).
What a user recommends by is a mixture of three: the global model, its cluster's, and its own, trained from that.

Who has no cluster (it never took part, or does not agree) starts from the global model, which stands in for its
cluster's. With one cluster and no mixture this is FedAvg.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clients.perfedrec import EMBEDDING, PerFedRecClient
from clients.recommender import IDS, ITEMS
from strategies.fedgnn import HEADERS, FedGNN
from strategies.server_model import ServerModel, part_of, prefixed
from subfl_flower.runtime.contract import Contract, RunContext
from subfl_flower.runtime.exchange import Exchange
from subfl_flower.runtime.messages import Choice, Stack
from subfl_flower.runtime.roster import Roster
from subfl_flower.runtime.round_arrays import Clustering
from subfl_flower.runtime.updates import Updates
from subfl_flower.seeding import round_generator
from subfl_flower.similarity.user_clusters import cluster_users, projection, proportional, relabelled, representatives

NO_CLUSTER = -1


class PerFedRec(FedGNN):
    """Clusters users, and holds a global model and one for each cluster."""

    Settings = PerFedRecClient.Settings
    counterpart = PerFedRecClient

    def __init__(self, run: RunContext, roster: Roster, contract: Contract | None = None) -> None:
        super().__init__(run, roster, contract)
        self.clusters: list[ServerModel] = []
        """The models of the clusters; none before the first clustering."""
        self.labels = np.full(len(roster), NO_CLUSTER)
        """The cluster of each user [K]."""
        self._distances = np.full(len(roster), np.inf)
        self._centroids: np.ndarray | None = None
        self._clustering: Clustering | None = None
        self._best_clusters: list[dict[str, Tensor]] = []
        self._best_starts = self._starts(range(len(roster)))

    # Clusters ---------------------------------------------------------------------------------------------------------

    @property
    def clustering(self) -> Clustering | None:
        """The last clustering."""
        return self._clustering

    def before_round(self, server_round: int, exchange: Exchange) -> None:
        """Cluster users where it is time, and have graphs expanded."""
        since_start = server_round - self.settings.cluster_start
        if since_start >= 0 and since_start % self.settings.cluster_every == 0:
            self._cluster(server_round, exchange)
        super().before_round(server_round, exchange)

    def _cluster(self, server_round: int, exchange: Exchange) -> None:
        """Ask for embeddings, and cluster those who answered; the others keep the cluster that they had."""
        width = self.initial[ITEMS].shape[1]
        most = [width * np.dtype(np.float32).itemsize + HEADERS] * len(self.roster)
        answers = exchange.ask(EMBEDDING, _decoded(width), most, tolerant=True)
        known = [position for position, answer in enumerate(answers) if answer is not None and len(answer)]
        if not known:
            return
        embeddings = np.stack([answer for answer in answers if answer is not None and len(answer)])
        seed = int(round_generator(self.run.seed, server_round, "clusters").integers(2**31))
        found = cluster_users(embeddings, self.settings.clusters, seed, self._centroids, unit=True)
        if self._centroids is not None:
            found = relabelled(found, self.labels[known])
        self.labels[known], self._centroids = found.labels, found.centroids
        self._distances[known] = found.distances
        if not self.clusters:
            self.clusters = [self.server.copy() for _ in range(self.settings.clusters)]
        points = np.full((len(self.roster), 2), np.nan, dtype=np.float32)
        points[known] = projection(embeddings, unit=True)
        self._clustering = Clustering(np.array(self.roster.client_ids), self.labels.copy(), points)

    def participants(self, server_round: int) -> Sequence[int]:
        """Positions of a round's users, by `selection`."""
        settings, everyone = self.settings, len(self.roster)
        if settings.selection == "random" or not self.clusters:
            return super().participants(server_round)
        count = settings.users_per_round or self.participation.count(everyone)
        generator = round_generator(self.run.seed, server_round, "participation")
        available = np.arange(everyone)
        if settings.selection == "size":
            return proportional(self.labels, count, generator, available=available).tolist()
        chosen = representatives(
            self._distances,
            self.labels,
            count,
            generator,
            share=settings.representative_share,
            available=available,
            taken=self.uploads,
        )
        return chosen.tolist()

    # What travels -----------------------------------------------------------------------------------------------------

    def instructions(self, server_round: int, positions: Sequence[int]) -> Stack | Choice:
        """Each user's start: its cluster's model, or the global one."""
        if not self.clusters:
            return super().instructions(server_round, positions)
        models = [self.server.parameters, *(cluster.parameters for cluster in self.clusters)]
        return _choice(models, self._starts(positions)[:, None])

    def evaluation_instructions(self, positions: Sequence[int]) -> Choice:
        """The global model and each user's start."""
        models = [self.server.evaluated, *(cluster.evaluated for cluster in self.clusters)]
        return _choice(models, _with_global(self._starts(positions)))

    def _starts(self, positions: Sequence[int]) -> np.ndarray:
        """Numbers of the models that users start from [positions]: 0 the global one, c + 1 that of cluster c."""
        return self.labels[list(positions)] + 1 if self.clusters else np.zeros(len(positions), dtype=np.int64)

    # A round ----------------------------------------------------------------------------------------------------------

    def aggregate(self, updates: Updates) -> None:
        """The mean of all users' models, and of each cluster's; their starts are known, and the differences came."""
        starts = self._starts(updates.positions.tolist())
        parts = [updates.take(starts == model) for model in range(1 + len(self.clusters))]
        if self.clusters:
            self._set_to_mean_start(updates, starts)
        rates, decays = self.learning_rates, self.weight_decays  # of this step, for all models
        super().aggregate(updates)
        for cluster, part in zip(self.clusters, parts[1:], strict=True):
            if len(part.positions):
                cluster.step(self.mean_gradients(part), rates, decays)
            cluster.draw_towards(self.server, self.settings.cluster_pull)

    def _set_to_mean_start(self, updates: Updates, starts: np.ndarray) -> None:
        """Set the global model to the mean of what this round's users started from, an item's row of who touched it."""
        models = [self.server.parameters, *(cluster.parameters for cluster in self.clusters)]
        shares = torch.from_numpy(np.bincount(starts, minlength=len(models)) / len(starts)).float()
        mean = {
            name: torch.tensordot(shares, torch.stack([model[name] for model in models]), dims=1) for name in models[0]
        }
        if self.settings.row_average == "uploads":
            rows = updates.ragged[IDS]
            touched = np.zeros((len(models), self.num_items))
            np.add.at(touched, (starts[rows.owners], rows.values), 1)
            touched[0, ~touched.any(0)] = 1  # a row that nobody touched stays
            weights = torch.from_numpy(touched / touched.sum(0)).float()
            mean[ITEMS] = torch.einsum("mi,mid->id", weights, torch.stack([model[ITEMS] for model in models]))
        for name, value in self.server.parameters.items():
            value.copy_(mean[name])

    # What is kept -----------------------------------------------------------------------------------------------------

    def keep(self) -> None:
        """And the clusters' models, and who starts from which."""
        super().keep()
        self._best_starts = self._starts(range(len(self.roster)))
        self._best_clusters = [
            {name: value.clone() for name, value in cluster.evaluated.items()} for cluster in self.clusters
        ]

    def model(self) -> Choice:
        """The global model of the best round, and what each user started from in it."""
        if not self._best_round:
            return self.evaluation_instructions(range(len(self.roster)))
        return _choice([self._best, *self._best_clusters], _with_global(self._best_starts))

    def state(self) -> Stack:
        """And clusters: their models, centroids, and who is in them."""
        kept = {**super().state(), "labels": self.labels, "distances": self._distances}
        kept["best_starts"] = self._best_starts
        for number, cluster in enumerate(self.clusters):
            kept |= prefixed(f"cluster{number}", cluster.state())
        for number, model in enumerate(self._best_clusters):
            kept |= prefixed(f"best_cluster{number}", {name: value.numpy() for name, value in model.items()})
        return kept if self._centroids is None else {**kept, "centroids": self._centroids}

    def load_state(self, state: Stack) -> None:
        """What `state` gave."""
        super().load_state(state)
        self.labels, self._distances = np.array(state["labels"]), np.array(state["distances"])
        self._best_starts = np.array(state["best_starts"])
        if "centroids" not in state:
            return
        self._centroids = np.array(state["centroids"])
        self.clusters = [self.server.copy() for _ in range(self.settings.clusters)]
        for number, cluster in enumerate(self.clusters):
            cluster.load_state(part_of(f"cluster{number}", state))
        best = [part_of(f"best_cluster{number}", state) for number in range(self.settings.clusters)]
        self._best_clusters = [{name: torch.tensor(value) for name, value in model.items()} for model in best if model]

    def report(self, prepared: Any | None) -> dict[str, Any]:
        """And how many users each cluster has."""
        sizes = np.bincount(self.labels[self.labels >= 0], minlength=self.settings.clusters)
        unclustered = int((self.labels == NO_CLUSTER).sum())
        return {**super().report(prepared), "clusters": {"sizes": sizes.tolist(), "without": unclustered}}


def _with_global(starts: np.ndarray) -> np.ndarray:
    """What users are measured by [users, 2]: the global model, and what they start from [users]."""
    return np.stack([np.zeros_like(starts), starts], axis=1)


def _choice(models: Sequence[Mapping[str, Tensor]], rows: np.ndarray) -> Choice:
    """What of some models each user is sent: `rows` [users, r] are numbers of models."""
    used, renumbered = np.unique(rows, return_inverse=True)
    values = {name: np.stack([models[number][name].numpy() for number in used]) for name in models[0]}
    return Choice(values, renumbered.reshape(rows.shape))


def _decoded(width: int) -> Any:
    """What makes sense of an answer: a user's embedding, float32 [width], or nothing from who has or gives none."""

    def decode(answer: Stack) -> np.ndarray:
        if not answer:
            return np.zeros(0, dtype=np.float32)
        embedding = answer[EMBEDDING]
        if embedding.dtype != np.float32 or embedding.shape != (width,) or not np.isfinite(embedding).all():
            raise ValueError(f"an embedding is {width} finite numbers")
        return embedding

    return decode
