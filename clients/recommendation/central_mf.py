"""Central training of a recommender, a matrix factorisation by default: its gradient steps on mini-batches of users."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from subfl_flower.clients.recommendation.central_ratings import CENTRAL, CentralRatingsClient
from subfl_flower.clients.recommendation.recommender_models import require_rating_model
from subfl_flower.clients.recommendation.user_parts import ITEMS
from subfl_flower.data.graph import TRAIN
from subfl_flower.data.ratings.table import Ratings
from subfl_flower.models.adam import adam_state_shapes, adam_step
from subfl_flower.node.iteration import Iteration, in_chunks
from subfl_flower.node.state import CohortState, StateStore
from subfl_flower.recommendation.cohort import UserCohort
from subfl_flower.recommendation.models.recommender import StackedRecommender
from subfl_flower.recommendation.models.user_graphs import UserGraphs
from subfl_flower.recommendation.models.user_models import ReceivedModel, UserGradients
from subfl_flower.recommendation.tasks.rating_prediction import errors_by_user
from subfl_flower.seeding import client_generator
from subfl_flower.wire.contract import MethodSettings, RunContext


class CentralMFClient(CentralRatingsClient):
    """Train the recommender on all users, in mini-batches of users; every rating has the same weight."""

    class Settings(MethodSettings):
        """Knobs of central training.

        Attributes:
            batch_users: users in a mini-batch.
            network_weight_decay: weight decay of the graph network's weights, inside the gradient of the mean loss.
            iterate_average: weight of the past in an exponential average of the parameters over steps. The average is
                what is measured; 0: the parameters themselves.
        """

        batch_users: int = Field(default=128, ge=1)
        network_weight_decay: float = Field(default=0.0, ge=0)
        iterate_average: float = Field(default=0.0, ge=0, lt=1)

    settings: Settings

    @classmethod
    def check_model(cls, model: Any, method: str) -> None:
        """Refuse a model that does not predict ratings."""
        require_rating_model(model, method)

    def __init__(self, run: RunContext, cohort: UserCohort, store: StateStore, iterate: Iteration = in_chunks) -> None:
        super().__init__(run, cohort, store, iterate)
        self.model = StackedRecommender(self.run.model, self.cohort.ratings.num_items)
        everyone = self.whole.num_users
        personal = {name: (everyone, *shape) for name, shape in self.model.personal_shapes.items()}
        trained = {**self.model.shapes, **personal}
        self._measured_as = {name: f"average.{name}" if self.settings.iterate_average else name for name in trained}
        averages = {self._measured_as[name]: shape for name, shape in trained.items()}
        self._central_shapes = {**trained, **averages, **adam_state_shapes(trained), "started": ()}

    def all_states(self) -> list[CohortState]:
        """The states of the users, and that of the central model."""
        return [*super().all_states(), self._central_state()]

    def _central_state(self) -> CohortState:
        return self.store.open((CENTRAL,), self._central_shapes)

    def train_centrally(self, server_round: int, local_epochs: int) -> dict[str, np.ndarray]:
        """Make `local_epochs` passes over all users; each user's loss in the last one, before its batch's step."""
        losses = np.zeros(self.whole.num_users)
        generator = client_generator(self.seed, CENTRAL, server_round, "batches")
        state = self._central_state()
        with state.rows([0], self.cohort.device) as rows:
            self._begin(rows)
            for _ in range(local_epochs):
                order = generator.permutation(self.whole.num_users)
                for start in range(0, len(order), self.settings.batch_users):
                    users = order[start : start + self.settings.batch_users]
                    losses[users] = self._step(rows, users)
        self.store.commit(state)
        return {"train_loss": losses}

    def _begin(self, rows: Mapping[str, Tensor]) -> None:
        """Set the initial model, which is that of a federation."""
        if rows["started"][0]:
            return
        for name, value in self.model.initial_of(self.seed).items():
            rows[name][0] = torch.from_numpy(value)
        for user in self.whole.user_ids.tolist():
            for name, value in self.model.initial_user(self.seed, user).items():
                rows[name][0, user] = torch.from_numpy(np.asarray(value))
        rows["started"].fill_(1)

    def _step(self, rows: Mapping[str, Tensor], users: np.ndarray) -> np.ndarray:
        """Step by the mean gradient over a batch's ratings; the loss of each of its users."""
        chosen = torch.from_numpy(users).to(self.cohort.device)
        shared, personal = self._parameters(rows, chosen)
        graphs = self._graphs(self.whole.of_users(users))
        found = self.model.gradients(ReceivedModel(shared, personal, graphs))
        with torch.no_grad():
            gradients = {name: torch.zeros_like(rows[name]) for name in (*shared, *personal)}
            _add_means(found, graphs, chosen, {name: value[0] for name, value in gradients.items()})
            for name in shared:
                if name.startswith("gnn."):
                    gradients[name] += self.settings.network_weight_decay * rows[name]
            # The loss of all users together is divided by the number of their ratings.
            constant = 2 * self.run.model.constant_penalty / max(1, int(self.whole.counts(TRAIN).sum()))
            gradients[ITEMS][0, :, :-1] += constant * rows[ITEMS][0, :, :-1]
            adam_step({name: rows[name] for name in gradients}, gradients, rows, self.optimizer)
            if past := self.settings.iterate_average:
                # Corrected for the bias towards the first values.
                weight = (1 - past) / (1 - past ** float(rows["steps"][0]))
                for name in gradients:
                    rows[self._measured_as[name]].lerp_(rows[name], weight)
        return found.loss.cpu().numpy()

    def figures(self, ratings: Ratings) -> dict[str, np.ndarray]:
        """Errors on the held-out ratings."""
        held_out = ratings.roles != TRAIN
        return errors_by_user(ratings, held_out, self.predict(ratings, held_out))

    @torch.no_grad()
    def predict(self, ratings: Ratings, chosen: np.ndarray) -> np.ndarray:
        """The central model's predictions for users, from their training ratings.

        Args:
            ratings: of U users.
            chosen: bool [ratings], True where a rating is predicted.

        Returns:
            Rating units [chosen].
        """
        cohort = self.cohort
        state = self._central_state()
        rows = {name: state[kept].to(cohort.device) for name, kept in self._measured_as.items()}
        shared, personal = self._parameters(rows, torch.from_numpy(ratings.user_ids).to(cohort.device))
        predicted = self.model.predict(
            ReceivedModel(shared, personal, self._graphs(ratings)),
            torch.from_numpy(ratings.items[chosen]).to(cohort.device),
            torch.from_numpy(ratings.users()[chosen]).to(cohort.device),
        )
        return cohort.in_rating_units(predicted)

    def _parameters(self, rows: Mapping[str, Tensor], users: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The shared parameters, and the personal ones of some users, without the axis of the one central client."""
        return (
            {name: rows[name][0] for name in self.model.shapes},
            {name: rows[name][0].index_select(0, users) for name in self.model.personal_shapes},
        )

    def _graphs(self, ratings: Ratings) -> UserGraphs:
        return UserGraphs.build(ratings, self.cohort.center, self.cohort.spread, device=self.cohort.device)


def _add_means(found: UserGradients, graphs: UserGraphs, users: Tensor, gradients: Mapping[str, Tensor]) -> None:
    """Add the gradients of the mean loss over all ratings, from those of each user's mean loss."""
    share = graphs.counts / graphs.counts.sum().clamp(min=1)
    gradients[ITEMS].index_add_(0, graphs.rows, found.items * share.index_select(0, graphs.segment)[:, None])
    for name, value in found.shared.items():
        gradients[name] += torch.tensordot(share, value, dims=1)
    for name, value in found.personal.items():
        gradients[name][users] = value * share.view(-1, *(1,) * (value.ndim - 1))
