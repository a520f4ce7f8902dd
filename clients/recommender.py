r"""A cohort of users who train a recommender on their own ratings.

Every user is a client. What all share (item rows, GNN weights, biases) is the server's: a user takes the gradient of
its own loss by it and uploads that. What is personal (its embedding and bias) it steps itself, with an Adam whose state
stays with it, and never sends. Users are worked many at once; each upload is one user's own (`UserModel`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from clients.measuring import measured, scorer
from clients.recommender_models import model_of
from subfl_flower.data.graph import TRAIN
from subfl_flower.data.ratings.table import Ratings
from subfl_flower.models.adam import adam_state_shapes, adam_step
from subfl_flower.models.lightgcn import LightGCN
from subfl_flower.models.mixture import Mixture
from subfl_flower.models.user_graphs import UserGraphs
from subfl_flower.models.user_models import UserGradients
from subfl_flower.runtime.batch import Batch, Result
from subfl_flower.runtime.cohort_client import CohortClient
from subfl_flower.runtime.contract import Declared, MethodSettings, RunContext
from subfl_flower.runtime.iteration import Iteration, in_chunks
from subfl_flower.runtime.messages import ArraySpec
from subfl_flower.runtime.ragged import Ragged, RaggedSpec
from subfl_flower.runtime.state import CohortState, Shapes, StateStore
from subfl_flower.runtime.user_cohort import UserCohort

ITEMS, IDS, ROWS = "items", "item_ids", "item_rows"


class RecommenderClient(CohortClient):
    """Uploads gradients of a recommender; the base of the families that differ in how."""

    kind: ClassVar[Literal["graph", "ratings"]] = "ratings"

    class Settings(MethodSettings):
        """Knobs of a user's step, and of the server's.

        Attributes:
            loss: ``mean`` over a user's ratings, or their ``sum``, by which users count as much as they rated.
            user_lr: learning rate of the personal parameters; null takes the optimiser's.
            user_weight_decay: weight decay of the personal parameters, inside the gradient of the sum over ratings: it
                shrinks those of users with few ratings most.
            user_steps: steps in a round: of the personal parameters, the last one's gradient being uploaded, or of all
                parameters where users train them all.
            users_per_round: users that are drawn for a round; null: as many as federation.fraction says.
            server_optimizer: what steps the averaged gradient.
            server_lr: its learning rate, which falls to `server_lr_final` times that over the run, along a cosine.
            network_lr: learning rate of the graph network's weights and of the global bias, of which every upload
                speaks; null: `server_lr`.
            network_weight_decay: weight decay of the graph network's weights, inside the gradient.
            table_weight_decay: weight decay of the item table, inside the gradient: unlike the model's penalties, which
                grow with an item's ratings, it shrinks the rows of items with few ratings most.
            row_average: an item row's gradient is the sum over users divided by the number of `uploads` that hold the
                row, or by the number of all `participants` of the round.
            iterate_average: weight of the past in an exponential average of the parameters over rounds, which is what
                is evaluated and kept; 0: the parameters themselves.
            evaluate_every: rounds between two evaluations of all users; the last round is always evaluated.
        """

        loss: Literal["mean", "sum"] = "sum"
        user_lr: float | None = Field(default=None, gt=0)
        user_weight_decay: float = Field(default=0.0, ge=0)
        user_steps: int = Field(default=1, ge=1)
        users_per_round: int | None = Field(default=128, ge=1)
        server_optimizer: Literal["adam", "sgd"] = "adam"
        server_lr: float = Field(default=0.01, gt=0)
        server_lr_final: float = Field(default=1.0, gt=0, le=1)
        network_lr: float | None = Field(default=None, gt=0)
        network_weight_decay: float = Field(default=0.0, ge=0)
        table_weight_decay: float = Field(default=0.0, ge=0)
        row_average: Literal["uploads", "participants"] = "uploads"
        iterate_average: float = Field(default=0.0, ge=0, lt=1)
        evaluate_every: int = Field(default=10, ge=1)

    settings: Settings
    cohort: UserCohort

    # The contract -----------------------------------------------------------------------------------------------------

    @classmethod
    def downloads(cls, run: RunContext) -> Declared:
        """The shared parameters."""
        return {name: ArraySpec.like(value) for name, value in run.initial.items()}

    @classmethod
    def uploads(cls, run: RunContext) -> Declared:
        """Gradients of everything but the item table, and of the table's rows that a user has to do with."""
        arrays: Declared = {name: ArraySpec.like(value) for name, value in run.initial.items() if name != ITEMS}
        num_items, width = run.initial[ITEMS].shape
        return {
            **arrays,
            IDS: RaggedSpec((), "int32", num_items, below=num_items),
            ROWS: RaggedSpec((width,), "float32", num_items, like=IDS),
        }

    def __init__(self, run: RunContext, cohort: UserCohort, store: StateStore, iterate: Iteration = in_chunks) -> None:
        super().__init__(run, cohort, store, iterate)
        self.model = model_of(cohort, run.model)
        if self.settings.user_lr is not None:
            self.optimizer = run.optimizer.model_copy(update={"lr": self.settings.user_lr})
        personal = self.model.personal_shapes
        kept = {**personal, **self.more_model()}
        self._worked_on: dict[str, tuple[int, ...]] = {
            **personal,
            **adam_state_shapes(personal),
            "started": (),
            **self.more_model(),
            **self.more_state(),
            **{f"best.{name}": shape for name, shape in kept.items()},
            "best_round": (),
        }
        self._kept = tuple(kept)

    def more_model(self) -> dict[str, tuple[int, ...]]:
        """What else of a user its predictions are made with, by name."""
        return {}

    def more_state(self) -> dict[str, tuple[int, ...]]:
        """Further state of a user, by name."""
        return {}

    @property
    def state_shapes(self) -> Shapes:
        """The personal parameters, their moments, and what both were at the best round."""
        return self._worked_on

    @property
    def network_names(self) -> tuple[str, ...]:
        """Names of the shared parameters but the item table."""
        return tuple(name for name in self.model.shapes if name != ITEMS)

    # A round ----------------------------------------------------------------------------------------------------------

    def chunks(self, batch: Batch) -> list[Batch]:
        """Users who are sent the same models together, by their positions in the cohort."""
        place_of = {self.position_of[client_id]: place for place, client_id in enumerate(batch.clients)}
        groups: dict[tuple[int, ...], list[int]] = {}
        for position in sorted(place_of):
            groups.setdefault(tuple(batch.sent.rows[place_of[position]].tolist()), []).append(position)
        return [
            batch.take([place_of[position] for position in positions])
            for group in groups.values()
            for positions in self.cohort.chunks(group)
        ]

    def received(self, batch: Batch) -> list[dict[str, Tensor]]:
        """The models that all users of a chunk were sent: shared parameters by name, without a client axis."""
        device = self.cohort.device
        return [
            {
                name: torch.from_numpy(values[row]).to(device)
                for name, values in batch.sent.values.items()
                if name in self.model.shapes
            }
            for row in batch.sent.rows[0].tolist()
        ]

    def train_chunk(self, batch: Batch, state: CohortState) -> Result:
        """One upload of each user."""
        (shared,) = self.received(batch)
        positions = [self.position_of[client_id] for client_id in batch.clients]
        ratings = self.cohort.ratings.of_users(positions)
        samplers = self._samplers(ratings, batch.server_round) if self.model.samples_items else None
        graphs, items = self._graphs(ratings, positions, shared.get(ITEMS), batch.rows.get(ROWS), samplers)
        with state.rows(positions, self.cohort.device, tuple(self._worked_on)) as own:
            self._begin(own, positions, batch.announced)
            graphs = self.expanded(graphs, own)
            gradients = self.own_steps(shared, items, graphs, own)
            uploads, ragged = self.made_uploads(gradients, graphs, ratings, batch)
        metrics = {"num_examples": ratings.counts(TRAIN).astype(float)}
        if self.run.privacy.mechanism == "none":  # a loss tells of a user's ratings, and nothing hides it
            metrics["train_loss"] = gradients.loss.cpu().numpy().astype(float)
        return Result(batch.clients, uploads, ragged, metrics)

    def _samplers(self, ratings: Ratings, server_round: int) -> list[np.random.Generator]:
        """What users draw the items from that they hold their own against."""
        users = ratings.user_ids.tolist()
        return [self.cohort.noise_generator(self.seed, user, server_round, "sampled items") for user in users]

    draws = 1
    """How often items are sampled in a round."""

    def own_steps(
        self, shared: Mapping[str, Tensor], items: Tensor, graphs: UserGraphs, own: dict[str, Tensor]
    ) -> UserGradients:
        """Let users step what is their own, in place; the gradients of the objective to upload.

        Args:
            shared: as received, without a user axis.
            items: the item rows that the graphs point into.
            graphs: the users' local graphs.
            own: the users' state.
        """
        personal = {name: own[name] for name in self.model.personal_shapes}
        for _ in range(self.settings.user_steps):
            found = self.model.gradients(shared, items, personal, graphs, train_neighbours=self.trains_neighbours)
            gradients = self._weighted(found, graphs)
            with torch.no_grad():
                for name, value in personal.items():
                    gradients.personal[name].add_(value, alpha=self.settings.user_weight_decay)
                adam_step(personal, gradients.personal, own, self.optimizer)
                graphs = self.step_neighbours(graphs, gradients, own)
        return gradients

    trains_neighbours: bool = False
    """Whether users step the embeddings of their neighbours, too."""

    def step_neighbours(self, graphs: UserGraphs, gradients: UserGradients, own: Mapping[str, Tensor]) -> UserGraphs:
        """The local graphs after a step of what users know of neighbours: as they were."""
        return graphs

    def _weighted(self, found: UserGradients, graphs: UserGraphs) -> UserGradients:
        """The gradients of the mean over ratings, or of the sum."""
        counts = graphs.counts
        if self.settings.loss == "mean":
            return found
        return replace(
            found,
            items=found.items * counts.index_select(0, graphs.segment)[:, None],
            shared={name: _times(value, counts) for name, value in found.shared.items()},
            personal={name: _times(value, counts) for name, value in found.personal.items()},
        )

    def made_uploads(
        self, gradients: UserGradients, graphs: UserGraphs, ratings: Ratings, batch: Batch
    ) -> tuple[dict[str, np.ndarray], dict[str, Ragged]]:
        """What users send: gradients of what they have one of, each [U, ...], and of item rows."""
        lengths = np.array(graphs.lengths, dtype=np.int64)
        return (
            {name: value.cpu().numpy() for name, value in gradients.shared.items()},
            {
                IDS: Ragged(graphs.items.cpu().numpy().astype(np.int32), lengths),
                ROWS: Ragged(gradients.items.cpu().numpy(), lengths),
            },
        )

    def expanded(self, graphs: UserGraphs, own: Mapping[str, Tensor]) -> UserGraphs:
        """The users' local graphs with what they know of neighbours: nothing."""
        return graphs

    # Evaluation -------------------------------------------------------------------------------------------------------

    def measure_chunk(self, batch: Batch, state: CohortState) -> Result:
        """Each user's figures on validation and test ratings."""
        positions = [self.position_of[client_id] for client_id in batch.clients]
        ratings = self.cohort.ratings.of_users(positions)
        own = self._copied(state, positions)
        self._begin(own, positions, batch.announced)
        figures = self.figures(self.received(batch), ratings, positions, own)
        return Result(batch.clients, metrics={"num_examples": ratings.counts(TRAIN).astype(float), **figures})

    @torch.no_grad()
    def figures(
        self,
        models: Sequence[Mapping[str, Tensor]],
        ratings: Ratings,
        positions: Sequence[int],
        own: dict[str, Tensor],
    ) -> dict[str, np.ndarray]:
        """What users' predictions come to, by name, each [U].

        Args:
            models: shared parameters, without a user axis: one that all of these users were sent, in some methods more.
            ratings: of these U users.
            positions: of these users in the cohort.
            own: copies of their states.
        """
        return measured(self.model, self.cohort, ratings, *self._given(models[0], ratings, positions, own))

    def mixture(
        self,
        models: Sequence[Mapping[str, Tensor]],
        ratings: Ratings,
        positions: Sequence[int],
        own: dict[str, Tensor],
    ) -> Mixture:
        """What users score items by, where the model ranks; see `figures`, which are measured with it."""
        assert isinstance(self.model, LightGCN)
        found = scorer(self.model, self.cohort, *self._given(models[0], ratings, positions, own))
        return Mixture.of(ratings.user_ids, [found])

    def _given(
        self, shared: Mapping[str, Tensor], ratings: Ratings, positions: Sequence[int], own: dict[str, Tensor]
    ) -> tuple[Mapping[str, Tensor], Tensor, dict[str, Tensor], UserGraphs]:
        """What users predict with: shared parameters, item table, what is personal, and local graphs."""
        graphs, items = self._graphs(ratings, positions, shared[ITEMS], None)
        personal = {name: own[name] for name in self.model.personal_shapes}
        return shared, items, personal, self.expanded(graphs, own)

    # State ------------------------------------------------------------------------------------------------------------

    def models(self, batch: Batch) -> dict[int, dict[str, np.ndarray]]:
        """What is personal of each user as it was at the best round, by client id."""
        found = self._best_state(batch)
        best = {name: found[name].cpu().numpy() for name in self._kept}
        return {
            client_id: {name: values[position] for name, values in best.items()}
            for position, client_id in enumerate(self.cohort.client_ids)
        }

    def best_mixture(self, batch: Batch) -> Mixture | None:
        """What users scored items by when they were measured at the best round; nothing where the model rates."""
        if not isinstance(self.model, LightGCN):
            return None
        best = self._best_state(batch)
        parts = []
        for part in self.chunks(batch):
            chosen = [self.position_of[client_id] for client_id in part.clients]
            ratings = self.cohort.ratings.of_users(chosen)
            parts.append(self.mixture(self.received(part), ratings, chosen, self._copied(best, chosen)))
        found = Mixture.joined(parts)
        return found.at(np.argsort(found.client_ids))

    def _best_state(self, batch: Batch) -> dict[str, Tensor]:
        """A copy of all users' state, in which everything that is kept is as it was at the best round."""
        state = self.open_state()
        own = {name: state[name].clone() for name in self._worked_on}
        self._begin(own, range(len(self.cohort.client_ids)), batch.announced)
        return own | {name: own[f"best.{name}"] for name in self._kept}

    def _copied(self, state: Mapping[str, Tensor] | CohortState, positions: Sequence[int]) -> dict[str, Tensor]:
        """The state of some users, where the model is."""
        return {name: state[name][list(positions)].to(self.cohort.device) for name in self._worked_on}

    def _begin(self, own: Mapping[str, Tensor], positions: Sequence[int], announced: Mapping[str, float]) -> None:
        """Give new users their first embeddings, and keep everyone's as it was at the best round so far.

        The server announces with each message which round that was. Who has not trained since is still as it was then.
        """
        for row in torch.nonzero(own["started"] == 0)[:, 0].tolist():
            client_id = self.cohort.client_ids[positions[row]]
            for name, value in self.model.initial_user(self.seed, client_id).items():
                own[name][row] = torch.from_numpy(np.asarray(value)).to(own[name])
        own["started"].fill_(1)
        best_round = float(announced.get("best_round", 0))
        outdated = (own["best_round"] != best_round) | (own["best_round"] == 0)
        for name in self._kept:
            own[f"best.{name}"][outdated] = own[name][outdated]
        own["best_round"].fill_(best_round)

    def _graphs(
        self,
        ratings: Ratings,
        positions: Sequence[int],
        table: Tensor | None,
        rows: Ragged | None,
        samplers: Sequence[np.random.Generator] | None = None,
    ) -> tuple[UserGraphs, Tensor]:
        """Users' local graphs, and the item rows that they point into: of the table, or those that each was sent.

        Args:
            ratings: of these users.
            positions: of these users in the cohort.
            table: the item table.
            rows: what each user was sent of it, where it is not the table.
            samplers: what each user draws further items from, where the model samples; None: there is no training.
        """
        cohort = self.cohort
        graphs = self.model.local_graphs(
            ratings,
            center=cohort.center,
            spread=cohort.spread,
            device=cohort.device,
            generators=samplers,
            draws=self.draws,
            user_attributes=None if cohort.user_attributes is None else cohort.user_attributes.of(positions),
            item_attributes=cohort.item_attributes,
        )
        if table is not None:
            return graphs, table
        assert rows is not None
        return graphs, torch.from_numpy(rows.values).to(cohort.device)


def _times(values: Tensor, counts: Tensor) -> Tensor:
    return values * counts.view(-1, *(1,) * (values.ndim - 1))
