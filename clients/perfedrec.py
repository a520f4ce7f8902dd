r"""PerFedRec's users (Luo, Xiao, Song, CIKM 2022): a mixture of the global, the cluster's and an own model.

A user trains from its cluster's model as in FedAvg. Where it agrees, it tells the server the direction of its embedding
(the user's side of its model, a vector of length 1, noised if that is asked for), which it is clustered by. It ranks
items by the mixture

.. math:: w_g \cdot \mathrm{global} + w_c \cdot \mathrm{cluster} + w_l \cdot \mathrm{own}, \qquad w_g + w_c + w_l = 1,

of the three models' scores, or of their parameters. The own model is the cluster's after the user's local steps, taken
when it is needed, so that it is defined for everyone; what is personal is the user's in all three. Every model ranks
the same candidates, and three equal models give what each of them gives: the mixture is taken around the cluster's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor

from clients.local_training import LocalTrainingClient, Trained
from clients.measuring import ranking_figures, scorer
from clients.recommender import ITEMS
from subfl_flower.data.ratings.table import Ratings
from subfl_flower.models.adam import adam_state_shapes
from subfl_flower.models.mixture import Mixture, MixtureScores, OwnScores, Scorer
from subfl_flower.models.user_graphs import UserGraphs
from subfl_flower.models.user_models import UserGradients, expanded
from subfl_flower.runtime.batch import Answers, Question
from subfl_flower.runtime.contract import RunContext
from subfl_flower.runtime.messages import Stack
from subfl_flower.tasks import Ranking
from subfl_flower.tasks.metric import SHARE, Metric
from subfl_flower.tasks.ranking_metrics import validation_ranks

EMBEDDING = "embedding"

Share = Annotated[float, Field(ge=0, le=1)]
EQUAL = (1 / 3, 1 / 3, 1 / 3)
_GRID = (EQUAL, (0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5), (1, 0, 0), (0, 1, 0), (0, 0, 1))
"""Weights of the global, the cluster's and the own model that a user chooses from; of equally good ones the first."""


class PerFedRecClient(LocalTrainingClient):
    """Trains from a cluster's model, tells its embedding, and mixes three models."""

    class Settings(LocalTrainingClient.Settings):
        """Clusters, and what is told and mixed.

        Attributes:
            clusters: k.
            cluster_start: the first round before which users are clustered; until then there is the global model alone.
            cluster_every: r, rounds between two clusterings.
            cluster_pull: by which share a cluster's model is drawn to the global one after each round; 0, the paper's:
                not at all. 1: all users have the global model, as in FedAvg.
            selection: who takes part in a round. `representative`: those nearest to the centroids first, each cluster
                by its size, the rest at random; `size`: drawn in proportion to clusters' sizes; `random`.
            representative_share: the share of a round's users that are representatives.
            agreeing: share of the users who agree to tell an embedding, drawn once; the others have no cluster.
            cluster_noise: deviation of the normal noise on each coordinate of the embedding, whose length is 1.
            combination: mix the models' ``scores`` or their ``parameters``.
            own_lr: in place of `local_lr` in the steps that make the own model, where one user's sampled items are not
                averaged out; 0: only what is personal is stepped.
            weights: of the global, the cluster's and the own model: ``equal``, three numbers that sum to 1, or those
                by which a user's validation item ranks highest among all (``validation``, of scores only). The
                validation figures are then too good, the test figures are not.
        """

        local_lr: float = Field(default=0.1, gt=0)
        clusters: int = Field(default=3, ge=1)
        cluster_start: int = Field(default=60, ge=1)
        cluster_every: int = Field(default=20, ge=1)
        cluster_pull: float = Field(default=0.1, ge=0, le=1)
        selection: Literal["representative", "size", "random"] = "representative"
        representative_share: float = Field(default=0.5, ge=0, le=1)
        agreeing: Share = 1.0
        cluster_noise: float = Field(default=0.0, ge=0)
        own_lr: float = Field(default=0.01, ge=0)
        combination: Literal["scores", "parameters"] = "scores"
        weights: Literal["equal", "validation"] | tuple[Share, Share, Share] = "equal"

        @field_validator("weights")
        @classmethod
        def _shares_of_one(cls, value: object, info: ValidationInfo) -> object:
            if isinstance(value, tuple) and abs(sum(value) - 1) > 1e-6:
                raise ValueError("three weights must sum to 1")
            if value == "validation" and info.data.get("combination") == "parameters":
                raise ValueError("must be equal or three numbers where parameters are mixed")
            return value

    settings: Settings

    @classmethod
    def metrics(cls, run: RunContext) -> dict[str, Metric]:
        """Also the figures of each of the three models, at the first cutoff."""
        assert isinstance(run.task, Ranking)
        figures = [name for name in run.task.figures if name.endswith(f"@{run.task.cutoffs[0]}")]
        names = [
            f"{role}.{model}.{among}{figure}"
            for role in ("validation", "test")
            for model in ("global", "cluster", "own")
            for among in ("", "full_")
            for figure in figures
        ]
        return {**super().metrics(run), **dict.fromkeys(names, SHARE)}

    def more_model(self) -> dict[str, tuple[int, ...]]:
        """And what the own model's steps begin with."""
        return {**super().more_model(), **adam_state_shapes(self.model.personal_shapes)}

    def more_state(self) -> dict[str, tuple[int, ...]]:
        """The embedding as it was after the last training; nothing but zeros before."""
        return {**super().more_state(), EMBEDDING: (self.run.model.dim,)}

    # Clusters ---------------------------------------------------------------------------------------------------------

    def own_steps(
        self, shared: Mapping[str, Tensor], items: Tensor, graphs: UserGraphs, own: dict[str, Tensor]
    ) -> UserGradients:
        """Train everything, and remember the embedding."""
        trained = self.trained(shared, items, graphs, own)
        with torch.no_grad():
            own[EMBEDDING].copy_(torch.nn.functional.normalize(self._users(trained, own), dim=1))
        return trained.differences

    phases = (EMBEDDING, *LocalTrainingClient.phases)

    def answer(self, question: Question) -> Answers:
        """Also answer ``query.embedding``: with nothing where a user has not trained, or does not agree."""
        if question.phase != EMBEDDING:
            return super().answer(question)
        state = self.open_state()
        found: dict[int, Stack] = {}
        for client_id in question.received:
            embedding = state[EMBEDDING][self.position_of[client_id]].cpu().numpy()
            lot = self.cohort.lasting_generator(self.seed, client_id, "agreement").random()
            agrees = lot < self.settings.agreeing and not self.cohort.keep_embeddings
            if not agrees or not embedding.any():
                found[client_id] = {}
                continue
            noise = self.cohort.noise_generator(self.seed, client_id, question.server_round, "embedding")
            hidden = embedding + self.settings.cluster_noise * noise.standard_normal(len(embedding))
            found[client_id] = {EMBEDDING: hidden.astype(np.float32)}
        return Answers(found)

    # Mixture ----------------------------------------------------------------------------------------------------------

    def figures(
        self,
        models: Sequence[Mapping[str, Tensor]],
        ratings: Ratings,
        positions: Sequence[int],
        own: dict[str, Tensor],
    ) -> dict[str, np.ndarray]:
        """Figures of the mixture, and of each of its three models under names of their own."""
        scores = self._scores(models, ratings, positions, own)
        weights = self._weights(scores, ratings)
        mixed = scores.of_mixed_parameters
        found = ranking_figures(scores.mixed(weights) if mixed is None else mixed, ratings, self.cohort)
        for name in ("global", "cluster", "own"):
            alone = ranking_figures(getattr(scores, f"of_{name}"), ratings, self.cohort)
            for figure, values in alone.items():
                role, _, measure = figure.partition(".")
                if measure.endswith(self._first_cutoff):
                    found[f"{role}.{name}.{measure}"] = values
        return found

    def mixture(
        self,
        models: Sequence[Mapping[str, Tensor]],
        ratings: Ratings,
        positions: Sequence[int],
        own: dict[str, Tensor],
    ) -> Mixture:
        """The three models, or the one whose parameters are their mixture."""
        found = self._models(models, ratings, positions, own)
        if found.of_mixed_parameters is not None:
            return Mixture.of(ratings.user_ids, [found.of_mixed_parameters])
        weights = self._weights(found.scores(), ratings)
        return Mixture.of(ratings.user_ids, [found.of_global, found.of_cluster, found.of_own], weights)

    @property
    def _first_cutoff(self) -> str:
        """How the names of the figures at the task's first cutoff end."""
        assert isinstance(self.cohort.task, Ranking)
        return f"@{self.cohort.task.cutoffs[0]}"

    def _scores(
        self,
        models: Sequence[Mapping[str, Tensor]],
        ratings: Ratings,
        positions: Sequence[int],
        own: dict[str, Tensor],
    ) -> MixtureScores:
        """What the three models, and the mixture of their parameters where that is asked for, give all items."""
        return self._models(models, ratings, positions, own).scores()

    def _models(
        self,
        models: Sequence[Mapping[str, Tensor]],
        ratings: Ratings,
        positions: Sequence[int],
        own: dict[str, Tensor],
    ) -> _Models:
        """The three models, and the mixture of their parameters where that is asked for."""
        everyone, start = models
        samplers = [self.cohort.lasting_generator(self.seed, user, "own model") for user in ratings.user_ids.tolist()]
        graphs = self.expanded(self._graphs(ratings, positions, start[ITEMS], None, samplers)[0], own)
        personal = {name: own[name].clone() for name in self.model.personal_shapes}
        of_global, of_cluster = (
            scorer(self.model, self.cohort, model, model[ITEMS], personal, graphs) for model in (everyone, start)
        )
        with torch.enable_grad():
            trained = self.trained(start, start[ITEMS], graphs, own, self.settings.own_lr)
        of_own = self._with_own_items(self._users(trained, own), of_cluster.items, trained)
        mixed = None
        if self.settings.combination == "parameters":
            mixed = self._of_mixed_parameters(everyone, start, trained, personal, own)
        return _Models(of_global, of_cluster, of_own, mixed)

    def _users(self, trained: Trained, personal: Mapping[str, Tensor]) -> Tensor:
        """h_u [U, dim] by users' own models."""
        items = self.model.own_items(trained.stacks, trained.items, trained.graphs)
        return self.model.own_users(trained.stacks, items, personal, trained.graphs)

    def _with_own_items(self, users: Tensor, table: Tensor, trained: Trained) -> Scorer:
        """Users' own models: items that they have trained are their own, others the table's [num_items, dim]."""
        graphs = trained.graphs
        items = self.model.own_items(trained.stacks, trained.items, graphs)
        scores = (users.index_select(0, graphs.segment) * items).sum(1)
        return Scorer(users, table, OwnScores(graphs.segment, graphs.items, scores))

    def _of_mixed_parameters(
        self,
        everyone: Mapping[str, Tensor],
        start: Mapping[str, Tensor],
        trained: Trained,
        personal: Mapping[str, Tensor],
        own: Mapping[str, Tensor],
    ) -> Scorer:
        """The models whose parameters are the mixture of those of the three."""
        of_global, _, of_own = self._given_weights
        mixed = {name: value + of_global * (everyone[name] - value) for name, value in start.items()}
        graphs = trained.graphs
        received, base = (model[ITEMS].index_select(0, graphs.items) for model in (start, mixed))
        mine = replace(
            trained,
            items=base + of_own * (trained.items - received),
            stacks={
                name: value + of_own * (trained.stacks[name] - start[name])
                for name, value in expanded(mixed, len(graphs)).items()
            },
        )
        users = self._users(mine, {name: value + of_own * (own[name] - value) for name, value in personal.items()})
        table = scorer(self.model, self.cohort, mixed, mixed[ITEMS], personal, graphs).items
        return self._with_own_items(users, table, mine)

    @property
    def _given_weights(self) -> tuple[float, float, float]:
        weights = self.settings.weights
        return EQUAL if isinstance(weights, str) else weights

    def _weights(self, scores: MixtureScores, ratings: Ratings) -> np.ndarray:
        """Each user's weights of the global, the cluster's and the own model [U, 3]."""
        users = ratings.num_users
        if self.settings.weights != "validation":
            return np.tile(self._given_weights, (users, 1))
        ranks = np.stack([validation_ranks(scores.mixed(np.tile(weights, (users, 1))), ratings) for weights in _GRID])
        return np.array(_GRID)[np.argmin(ranks, axis=0)]


@dataclass(frozen=True, eq=False)
class _Models:
    """Three models of the same users, and perhaps the mixture of their parameters."""

    of_global: Scorer
    of_cluster: Scorer
    of_own: Scorer
    of_mixed_parameters: Scorer | None

    def scores(self) -> MixtureScores:
        """What each of them gives all items."""
        mixed = self.of_mixed_parameters
        return MixtureScores(
            self.of_global.scores(),
            self.of_cluster.scores(),
            self.of_own.scores(),
            None if mixed is None else mixed.scores(),
        )
