"""Models of users: shared parameters, personal ones, and the gradients of each user's own loss by both."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from subfl_flower.data.ratings.attributes import Attributes
from subfl_flower.data.ratings.table import Ratings
from subfl_flower.recommendation.models.mixture import Scorer
from subfl_flower.recommendation.models.user_graphs import UserGraphs

Parameters = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class UserGradients:
    """Each user's own loss and its gradient.

    Attributes:
        loss: [U], mean over the user's training ratings, without penalties; 0 for a user without any.
        items: [T, width], by the row of each item of the local graphs.
        shared: by name, all shared parameters but ``items``, each [U, ...].
        personal: by name, each [U, ...].
        neighbours: [N, dim], by the neighbours' embeddings; None where they are fixed.
    """

    loss: Tensor
    items: Tensor
    shared: dict[str, Tensor]
    personal: dict[str, Tensor]
    neighbours: Tensor | None


@dataclass(frozen=True, eq=False)
class RatedUsers:
    """The data of U users that local graphs are made of.

    Attributes:
        ratings: the users'; those that train are in the graphs.
        center: subtracted from a rating, where the model is of ratings.
        spread: divisor of a rating after that.
        user_attributes: of these users, by position.
        item_attributes: of all items.
    """

    ratings: Ratings
    center: float = 0.0
    spread: float = 1.0
    user_attributes: Attributes | None = None
    item_attributes: Attributes | None = None


@dataclass(frozen=True, eq=False)
class ReceivedModel:
    """One model that U users received, with what is their own.

    Attributes:
        shared: parameters by name, without a user axis; ``items`` [num_items, width] is the whole table, which the
            graphs' rows index.
        personal: by name, each [U, ...].
        graphs: the users' local graphs.
    """

    shared: Parameters
    personal: Parameters
    graphs: UserGraphs

    @property
    def items(self) -> Tensor:
        """The table of items."""
        return self.shared["items"]


class Measure(Protocol):
    """Figures of users' predictions on their held-out ratings."""

    @property
    def item_attributes(self) -> Attributes | None:
        """The attributes of all items; None where they have none."""

    def rating_errors(self, ratings: Ratings, predicted: Tensor) -> dict[str, np.ndarray]:
        """Errors of some users' predicted ratings, by name, each [U].

        Args:
            ratings: of U users.
            predicted: normalised units, of those ratings that do not train, in their order.
        """

    def ranking_figures(self, ratings: Ratings, scores: np.ndarray) -> dict[str, np.ndarray]:
        """Hit rates and NDCG of some users' rankings, by name, each [U].

        Args:
            ratings: of U users.
            scores: of all items [U, num_items].
        """


class UserModel(ABC):
    """A model of U users at once, each on its local graph.

    Attributes:
        shapes: shared parameters by name, without a user axis; ``items`` [num_items, width of a row] is the first.
        personal_shapes: parameters that never leave the user, by name.
        trains_locally: True where `step` may be given shared parameters that differ between users.
    """

    trains_locally: ClassVar[bool]
    shapes: dict[str, tuple[int, ...]]
    personal_shapes: dict[str, tuple[int, ...]]

    @abstractmethod
    def initial_of(self, seed: int) -> dict[str, np.ndarray]:
        """Initial shared parameters of all users, float32, without a user axis."""

    @abstractmethod
    def initial_user(self, seed: int, client_id: int) -> dict[str, np.ndarray]:
        """Initial personal parameters of one user, float32, without a user axis."""

    @abstractmethod
    def local_graphs(
        self,
        users: RatedUsers,
        device: torch.device | str = "cpu",
        generators: Sequence[np.random.Generator] | None = None,
        draws: int = 1,
    ) -> UserGraphs:
        """The local graphs of users, whose rows are those of the whole item table, without neighbours.

        Args:
            users: their data.
            device: device of the arrays.
            generators: each user's own, for its sampled negative items, where the model samples any; None: for
                evaluation.
            draws: number of steps for which items are sampled.
        """

    @abstractmethod
    def measured(self, received: ReceivedModel, ratings: Ratings, measure: Measure) -> dict[str, np.ndarray]:
        """Each user's figures on its held-out ratings, by name, each [U].

        Args:
            received: the users' model.
            ratings: of these users, all their roles.
            measure: makes figures of predictions.
        """

    def scorer(self, received: ReceivedModel, item_attributes: Attributes | None) -> Scorer | None:
        """Vectors whose products are the users' scores of all items; None where the model does not rank.

        Args:
            received: the users' model.
            item_attributes: of all items, where the model has attributes of items.
        """
        return None

    @abstractmethod
    def losses(
        self, stacks: Parameters, items: Tensor, personal: Parameters, graphs: UserGraphs, neighbours: Tensor, draw: int
    ) -> tuple[Tensor, Tensor]:
        """Each user's loss [U], and that with the settings' penalties [U]; see `step` for the arguments."""

    def step(
        self,
        stacks: Parameters,
        items: Tensor,
        personal: Parameters,
        graphs: UserGraphs,
        *,
        train_neighbours: bool = False,
        draw: int = 0,
    ) -> UserGradients:
        """Each user's loss, and the gradients of the loss with the settings' penalties.

        Args:
            stacks: shared parameters but ``items``, each [U, ...]; equal for all users unless `trains_locally`.
            items: [T, width], the users' own copies of the rows of their graphs' items.
            personal: each [U, ...].
            graphs: the users' local graphs.
            train_neighbours: differentiate by the neighbours' embeddings, too.
            draw: number of the graphs' draw of sampled items; numbers beyond the last continue with the first.
        """
        shared = {name: _leaf(value) for name, value in stacks.items()}
        rows = _leaf(items)
        own = {name: _leaf(value) for name, value in personal.items()}
        neighbours = _leaf(graphs.neighbours) if train_neighbours else graphs.neighbours
        loss, objective = self.losses(shared, rows, own, graphs, neighbours, draw)
        leaves = [rows, *shared.values(), *own.values(), *([neighbours] if train_neighbours else [])]
        found = iter(torch.autograd.grad(objective.sum(), leaves, materialize_grads=True))
        return UserGradients(
            loss=loss.detach(),
            items=next(found),
            shared={name: next(found) for name in shared},
            personal={name: next(found) for name in own},
            neighbours=next(found, None),
        )

    def gradients(self, received: ReceivedModel, *, train_neighbours: bool = False, draw: int = 0) -> UserGradients:
        """Run `step` at shared parameters that are the same for all users.

        Args:
            received: the users' model.
            train_neighbours: differentiate by the neighbours' embeddings, too.
            draw: number of the graphs' draw of sampled items.
        """
        graphs, items = received.graphs, received.items.index_select(0, received.graphs.rows)
        stacks = expanded(received.shared, len(graphs))
        return self.step(stacks, items, received.personal, graphs, train_neighbours=train_neighbours, draw=draw)


def expanded(shared: Parameters, users: int) -> dict[str, Tensor]:
    """Shared parameters but ``items``, each [U, ...], a view of the same values for every user."""
    return {name: value.expand(users, *value.shape) for name, value in shared.items() if name != "items"}


def _leaf(value: Tensor) -> Tensor:
    return value.detach().requires_grad_()
