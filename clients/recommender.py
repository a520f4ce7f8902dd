r"""A cohort of users who train a recommender on their own ratings.

Every user is a client. What all share (item rows, GNN weights, biases) is the server's: a user takes the gradient of
its own loss by it and uploads that. What is personal (its embedding and bias) it steps itself, with an Adam whose state
stays with it, and never sends. Users are worked many at once; each upload is one user's own (`UserModel`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, ClassVar, Literal

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
from subfl_flower.runtime.cohort_client import CohortClient, Worked, merged_metrics, work_in_chunks
from subfl_flower.runtime.memory import hand_back_freed_memory
from subfl_flower.runtime.messages import Choice
from subfl_flower.runtime.ragged import Ragged
from subfl_flower.runtime.state import CohortState
from subfl_flower.runtime.user_cohort import UserCohort

ITEMS, IDS, ROWS = "items", "item_ids", "item_rows"

# What was received is a read-only view of the message's bytes, and nothing writes to it.
warnings.filterwarnings("ignore", message="The given NumPy array is not writable")


class RecommenderClient(CohortClient):
    """Uploads gradients of a recommender; the base of the families that differ in how."""

    kind: ClassVar[Literal["graph", "ratings"]] = "ratings"
    takes_choices: ClassVar[bool] = True

    class Settings(CohortClient.Settings):
        """Knobs of a user's own step.

        Attributes:
            loss: ``mean`` over a user's ratings, or their ``sum``, by which users count as much as they rated.
            user_lr: learning rate of the personal parameters; null takes the optimiser's.
            user_weight_decay: weight decay of the personal parameters, inside the gradient of the sum over ratings: it
                shrinks those of users with few ratings most.
            user_steps: steps in a round: of the personal parameters, the last one's gradient being uploaded, or of all
                parameters where users train them all.
        """

        loss: Literal["mean", "sum"] = "mean"
        user_lr: float | None = Field(default=None, gt=0)
        user_weight_decay: float = Field(default=0.0, ge=0)
        user_steps: int = Field(default=1, ge=1)

    settings: Settings
    cohort: UserCohort

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.model = model_of(self.cohort, self.model_settings)
        if self.settings.user_lr is not None:
            self.optimizer = self.optimizer.model_copy(update={"lr": self.settings.user_lr})
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

    # What travels -----------------------------------------------------------------------------------------------------

    @property
    def parameter_names(self) -> Sequence[str]:
        """The shared parameters; the item table is last, because it is missing where a user is sent its rows alone."""
        return (*self._network_names, ITEMS)

    @property
    def _network_names(self) -> tuple[str, ...]:
        return tuple(name for name in self.model.shapes if name != ITEMS)

    @property
    def uploaded_parameters(self) -> Sequence[str]:
        """Gradients of everything but the item table."""
        return self._network_names

    @property
    def ragged_uploads(self) -> tuple[str, ...]:
        """Which rows of the item table a user's gradient is of, and the gradient."""
        return (IDS, ROWS)

    # A round ----------------------------------------------------------------------------------------------------------

    def fit(
        self, parameters: list[np.ndarray], config: Mapping[str, Any]
    ) -> tuple[list[np.ndarray], int, dict[str, Any]]:
        """One upload of each user; see `CohortClient.fit`."""
        state = self._state()
        parts, merged = self._worked(partial(self._train_chunk, state=state, config=config), parameters, config)
        self.store.commit(state)
        if not parts:
            return [], 0, merged
        arrays = [np.concatenate([part.uploads[name] for part in parts]) for name in self.uploaded_parameters]
        for name in self.ragged_uploads:
            joined = Ragged.joined([part.ragged.pop(name) for part in parts])
            hand_back_freed_memory(joined.values.nbytes)  # what was joined
            arrays += [joined.values, joined.lengths]
        return arrays, int(sum(merged["num_examples"])), merged

    def _worked(
        self, work: Callable[..., Worked], parameters: list[np.ndarray], config: Mapping[str, Any]
    ) -> tuple[list[Worked], dict[str, Any]]:
        """Work the message's users in chunks whose users are all sent the same; what it came to, and its metrics."""
        row_of = {self._position_of[client_id]: row for row, client_id in enumerate(config["clients"])}
        sent = config.get("models", np.zeros((len(row_of), 1), dtype=np.int64))
        parts: list[Worked] = []
        failures: dict[int, str] = {}
        for received, positions in self._sent_alike(parameters, sent, row_of):
            succeeded, failed = work_in_chunks(
                self.cohort.chunks(positions), partial(work, models=received, row_of=row_of), self.cohort.client_ids
            )
            parts += succeeded
            failures |= failed
        return parts, merged_metrics(parts, failures, self.cohort.client_ids)

    def _sent_alike(
        self, parameters: list[np.ndarray], sent: np.ndarray, row_of: Mapping[int, int]
    ) -> Iterator[tuple[list[dict[str, Tensor]], list[int]]]:
        """The models of a message, and the positions of the users who were sent just these."""
        groups: dict[tuple[int, ...], list[int]] = {}
        for position in sorted(row_of):
            groups.setdefault(tuple(sent[row_of[position]].tolist()), []).append(position)
        for models, positions in groups.items():
            yield [self._received(parameters, model) for model in models], positions

    def _train_chunk(
        self,
        positions: Sequence[int],
        models: Sequence[Mapping[str, Tensor]],
        row_of: Mapping[int, int],
        state: CohortState,
        config: Mapping[str, Any],
    ) -> Worked:
        (shared,) = models
        ratings = self.cohort.ratings.of_users(positions)
        own_rows = config["rows"].get(ROWS)
        rows = None if own_rows is None else own_rows.take([row_of[position] for position in positions])
        server_round = int(config["round"])
        samplers = self._samplers(ratings, server_round) if self.model.samples_items else None
        graphs, items = self._graphs(ratings, positions, shared.get(ITEMS), rows, samplers)
        with state.rows(positions, self.cohort.device, tuple(self._worked_on)) as own:
            self._begin(own, positions)
            graphs = self.expanded(graphs, own)
            gradients = self.own_steps(shared, items, graphs, own)
            uploads, ragged = self.uploads(gradients, graphs, ratings, server_round)
        metrics = {"num_examples": ratings.counts(TRAIN).astype(float)}
        if self.privacy.mechanism == "none":  # a loss tells of a user's ratings, and nothing hides it
            metrics["train_loss"] = gradients.loss.cpu().numpy().astype(float)
        return Worked(list(positions), uploads, ragged, metrics)

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

    def uploads(
        self, gradients: UserGradients, graphs: UserGraphs, ratings: Ratings, server_round: int
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

    def evaluate(self, parameters: list[np.ndarray], config: Mapping[str, Any]) -> tuple[float, int, dict[str, Any]]:
        """Each user's figures on validation and test ratings; see `CohortClient.evaluate`."""
        _, merged = self._worked(partial(self._evaluate_chunk, state=self._state()), parameters, config)
        counts = int(np.nansum(merged.get("validation_examples", merged.get("num_examples", []))))
        return 0.0, counts, merged

    def _evaluate_chunk(
        self,
        positions: Sequence[int],
        models: Sequence[Mapping[str, Tensor]],
        row_of: Mapping[int, int],
        state: CohortState,
    ) -> Worked:
        ratings = self.cohort.ratings.of_users(positions)
        own = self._copied(state, positions)
        self._begin(own, positions)
        figures = self.figures(models, ratings, positions, own)
        return Worked(list(positions), {}, {}, {"num_examples": ratings.counts(TRAIN).astype(float), **figures})

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

    def best_models(self) -> dict[int, dict[str, np.ndarray]]:
        """What is personal of each user as it was at the best round, by client id."""
        found = self._best_state()
        best = {name: found[name].cpu().numpy() for name in self._kept}
        return {
            client_id: {name: values[position] for name, values in best.items()}
            for position, client_id in enumerate(self.cohort.client_ids)
        }

    def best_mixture(self, clients: Sequence[int], received: Choice) -> Mixture | None:
        """What users scored items by when they were measured at the best round; nothing where the model rates."""
        if not isinstance(self.model, LightGCN):
            return None
        row_of = {self._position_of[client_id]: row for row, client_id in enumerate(clients)}
        parameters = [received.values[name] for name in self.parameter_names]
        best = self._best_state()
        found = Mixture.joined(
            self.mixture(models, self.cohort.ratings.of_users(chosen), chosen, self._copied(best, chosen))
            for models, positions in self._sent_alike(parameters, received.rows, row_of)
            for chosen in self.cohort.chunks(positions)
        )
        return found.at(np.argsort(found.client_ids))

    def _best_state(self) -> dict[str, Tensor]:
        """A copy of all users' state, in which everything that is kept is as it was at the best round."""
        state = self._state()
        own = {name: state[name].clone() for name in self._worked_on}
        self._begin(own, range(len(self.cohort.client_ids)))
        return own | {name: own[f"best.{name}"] for name in self._kept}

    def _copied(self, state: Mapping[str, Tensor] | CohortState, positions: Sequence[int]) -> dict[str, Tensor]:
        """The state of some users, where the model is."""
        return {name: state[name][list(positions)].to(self.cohort.device) for name in self._worked_on}

    def _state(self) -> CohortState:
        return self.store.open(self.cohort.client_ids, self._worked_on)

    def _begin(self, own: Mapping[str, Tensor], positions: Sequence[int]) -> None:
        """Give new users their first embeddings, and keep everyone's as it was at the best round so far.

        The server announces with each message which round that was. Who has not trained since is still as it was then.
        """
        for row in torch.nonzero(own["started"] == 0)[:, 0].tolist():
            client_id = self.cohort.client_ids[positions[row]]
            for name, value in self.model.initial_user(self.seed, client_id).items():
                own[name][row] = torch.from_numpy(np.asarray(value)).to(own[name])
        own["started"].fill_(1)
        best_round = float(self.announced.get("best_round", 0))
        outdated = (own["best_round"] != best_round) | (own["best_round"] == 0)
        for name in self._kept:
            own[f"best.{name}"][outdated] = own[name][outdated]
        own["best_round"].fill_(best_round)

    @cached_property
    def _position_of(self) -> dict[int, int]:
        return {client_id: position for position, client_id in enumerate(self.cohort.client_ids)}

    def _received(self, parameters: list[np.ndarray], model: int = 0) -> dict[str, Tensor]:
        """The shared parameters by name, without a client axis: those of one of the models in the message."""
        found = {}
        for name, values in zip(self.parameter_names, parameters, strict=False):
            expected = self.model.shapes[name]
            if values.shape[1:] != expected:
                raise ValueError(f"the server sent {name} with the shape {values.shape[1:]}, not {expected}")
            found[name] = torch.from_numpy(values[model]).to(self.cohort.device)
        return found

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
