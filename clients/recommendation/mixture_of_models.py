r"""Predictions by a mixture of the global, the cluster's and the user's own model (Luo, Xiao, Song, CIKM 2022).

A user ranks items by

.. math:: w_g \cdot \mathrm{global} + w_c \cdot \mathrm{cluster} + w_l \cdot \mathrm{own}, \qquad w_g + w_c + w_l = 1,

of the three models' scores, or of their parameters. The own model is the cluster's after the user's local steps. These
are taken when they are needed, so that every user has one. Personal parameters are the user's in all three models.
Every model ranks the same candidates. The mixture is taken around the cluster's model, so that three equal models give
what each of them gives.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from subfl_flower.clients.recommendation.user_parts import ITEMS, LocalModels, Neighbourhood, Prediction
from subfl_flower.clients.recommendation.user_work import LocalTraining
from subfl_flower.clients.recommendation.users import Chunk, Users
from subfl_flower.data.ratings.table import Ratings
from subfl_flower.models.adam import adam_state_shapes
from subfl_flower.node.state import Shapes
from subfl_flower.recommendation.models.lightgcn import LightGCN
from subfl_flower.recommendation.models.mixture import Mixture, MixtureScores, OwnScores, Scorer
from subfl_flower.recommendation.models.user_models import ReceivedModel, expanded
from subfl_flower.recommendation.tasks.ranking_metrics import validation_ranks
from subfl_flower.tasks.metric import SHARE, Metric
from subfl_flower.wire.contract import RunContext

MODELS = ("global", "cluster", "own")
EQUAL = (1 / 3, 1 / 3, 1 / 3)
_GRID = (EQUAL, (0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5), (1, 0, 0), (0, 1, 0), (0, 0, 1))
"""Candidate weights of the global, the cluster's and the own model; the first of equally good ones is chosen."""


class MixtureOfModels(Prediction):
    """Predict by three models (settings: `MixtureSettings`), of which the global and the cluster's are sent."""

    models_sent = 2

    def __init__(self, users: Users, neighbourhood: Neighbourhood) -> None:
        super().__init__(users, neighbourhood)
        self.model: LightGCN = users.model
        self.training = LocalTraining(users, neighbourhood, rate=self.settings.own_lr)

    @classmethod
    def metrics(cls, declared: dict[str, Metric], run: RunContext) -> dict[str, Metric]:
        """The declared figures, and those of each of the three models at the first cutoff."""
        task: Any = run.task
        figures = [name for name in task.figures if name.endswith(_first_cutoff(task))]
        names = [
            f"{role}.{model}.{among}{figure}"
            for role in ("validation", "test")
            for model in MODELS
            for among in ("", "full_")
            for figure in figures
        ]
        return {**declared, **dict.fromkeys(names, SHARE)}

    @property
    def kept(self) -> Shapes:
        """The model from which the own model's steps begin."""
        return adam_state_shapes(self.model.personal_shapes)

    @torch.no_grad()
    def figures(self, models: list[dict[str, Tensor]], chunk: Chunk) -> dict[str, np.ndarray]:
        """Figures of the mixture, and of each of its three models under separate names."""
        cohort, ratings = self.users.cohort, chunk.ratings
        scores = self._models(models, chunk).scores()
        mixed = scores.of_mixed_parameters
        if mixed is None:
            mixed = scores.mixed(self._weights(scores, ratings))
        found = cohort.ranking_figures(ratings, mixed)
        for name in MODELS:
            alone = cohort.ranking_figures(ratings, getattr(scores, f"of_{name}"))
            for figure, values in alone.items():
                role, _, measure = figure.partition(".")
                if measure.endswith(_first_cutoff(cohort.task)):
                    found[f"{role}.{name}.{measure}"] = values
        return found

    @torch.no_grad()
    def mixture(self, models: list[dict[str, Tensor]], chunk: Chunk) -> Mixture:
        """The three models, or the one whose parameters are their mixture."""
        found, users = self._models(models, chunk), chunk.ratings.user_ids
        if found.of_mixed_parameters is not None:
            return Mixture.of(users, [found.of_mixed_parameters])
        weights = self._weights(found.scores(), chunk.ratings)
        return Mixture.of(users, [found.of_global, found.of_cluster, found.of_own], weights)

    def _models(self, models: list[dict[str, Tensor]], chunk: Chunk) -> _Models:
        """The three models, and on request the mixture of their parameters."""
        everyone, start = models
        samplers = self.users.lasting_generators(chunk.ratings, "own model")
        graphs = self.users.graphs(chunk, samplers, self.training.draws)
        graphs = self.neighbourhood.expanded(graphs, chunk.own)
        personal = {name: value.clone() for name, value in self.users.personal(chunk).items()}
        attributes = self.users.cohort.item_attributes
        of_global, of_cluster = (
            self.model.scorer(ReceivedModel(model, personal, graphs), attributes) for model in (everyone, start)
        )
        with torch.enable_grad():
            trained = self.training.work(start, start[ITEMS], graphs, chunk)
        of_own = self._with_own_items(self._own_users(trained, chunk.own), of_cluster.items, trained)
        mixed = None
        if self.settings.combination == "parameters":
            mixed = self._of_mixed_parameters(everyone, start, trained, personal, chunk.own)
        return _Models(of_global, of_cluster, of_own, mixed)

    def _own_users(self, trained: LocalModels, personal: Mapping[str, Tensor]) -> Tensor:
        """h_u [U, dim] by users' own models."""
        items = self.model.own_items(trained.stacks, trained.items, trained.graphs)
        return self.model.own_users(trained.stacks, items, personal, trained.graphs)

    def _with_own_items(self, users: Tensor, table: Tensor, trained: LocalModels) -> Scorer:
        """Users' own models: items that they have trained are theirs, others are the table's [num_items, dim]."""
        graphs = trained.graphs
        items = self.model.own_items(trained.stacks, trained.items, graphs)
        scores = (users.index_select(0, graphs.segment) * items).sum(1)
        return Scorer(users, table, OwnScores(graphs.segment, graphs.items, scores))

    def _of_mixed_parameters(
        self,
        everyone: Mapping[str, Tensor],
        start: Mapping[str, Tensor],
        trained: LocalModels,
        personal: Mapping[str, Tensor],
        own: Mapping[str, Tensor],
    ) -> Scorer:
        """The model whose parameters are the mixture of those of the three."""
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
        users = self._own_users(mine, {name: value + of_own * (own[name] - value) for name, value in personal.items()})
        attributes = self.users.cohort.item_attributes
        table = self.model.scorer(ReceivedModel(mixed, personal, graphs), attributes).items
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


def _first_cutoff(task: Any) -> str:
    """Ending of the names of the figures at the task's first cutoff."""
    return f"@{task.cutoffs[0]}"


@dataclass(frozen=True, eq=False)
class _Models:
    """Three models of the same users, and optionally the mixture of their parameters."""

    of_global: Scorer
    of_cluster: Scorer
    of_own: Scorer
    of_mixed_parameters: Scorer | None

    def scores(self) -> MixtureScores:
        """The scores that each of them gives all items."""
        mixed = self.of_mixed_parameters
        return MixtureScores(
            self.of_global.scores(),
            self.of_cluster.scores(),
            self.of_own.scores(),
            None if mixed is None else mixed.scores(),
        )
