"""What users train: shared parameters, what is personal, and the gradients of each user's own loss by both."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from subfl_flower.data.ratings.attributes import Attributes
from subfl_flower.data.ratings.table import Ratings
from subfl_flower.models.user_graphs import UserGraphs

Parameters = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class UserGradients:
    """Each user's own loss and its gradient.

    Attributes:
        loss: [U], mean over the user's training ratings, without penalties; 0 for a user without any.
        items: [T, width], by the row of each item of the local graphs.
        shared: by name, all that is shared but ``items``, each [U, ...].
        personal: by name, each [U, ...].
        neighbours: [N, dim], by the neighbours' embeddings; None where they are fixed.
    """

    loss: Tensor
    items: Tensor
    shared: dict[str, Tensor]
    personal: dict[str, Tensor]
    neighbours: Tensor | None


class UserModel(ABC):
    """A model of U users at once, each on its local graph.

    Attributes:
        shapes: shared parameters by name, without a user axis; ``items`` [num_items, width of a row] is the first.
        personal_shapes: what is a user's own and never leaves it, by name.
        trains_locally: whether `step` may be given shared parameters that differ between users.
        samples_items: whether it trains on items that are drawn beside a user's own.
    """

    trains_locally: ClassVar[bool]
    samples_items: ClassVar[bool]
    shapes: dict[str, tuple[int, ...]]
    personal_shapes: dict[str, tuple[int, ...]]

    @abstractmethod
    def initial_of(self, seed: int) -> dict[str, np.ndarray]:
        """The shared parameters that a whole federation starts from, float32, without a user axis."""

    @abstractmethod
    def initial_user(self, seed: int, client_id: int) -> dict[str, np.ndarray]:
        """One user's personal parameters at the start, float32, without a user axis."""

    @abstractmethod
    def local_graphs(
        self,
        ratings: Ratings,
        *,
        center: float,
        spread: float,
        device: torch.device | str = "cpu",
        generators: Sequence[np.random.Generator] | None = None,
        draws: int = 1,
        user_attributes: Attributes | None = None,
        item_attributes: Attributes | None = None,
    ) -> UserGraphs:
        """The local graphs of users, whose rows are those of the whole item table, without neighbours.

        Args:
            ratings: the users'; those that train are in the graphs.
            center: what is taken off a rating, where the model is of ratings.
            spread: what a rating is then divided by.
            device: where the arrays go.
            generators: each user's own, for the items that are sampled beside its own, where the model samples any;
                None: for evaluation.
            draws: for how many steps items are sampled.
            user_attributes: of these users, by position.
            item_attributes: of all items.
        """

    @abstractmethod
    def losses(
        self, stacks: Parameters, items: Tensor, personal: Parameters, graphs: UserGraphs, neighbours: Tensor, draw: int
    ) -> tuple[Tensor, Tensor]:
        """Each user's loss [U], and that with the settings' penalties [U]; see `step` for what is given."""

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
            stacks: shared parameters but ``items``, each [U, ...]; alike for all users unless `trains_locally`.
            items: [T, width], the users' own copies of the rows of their graphs' items.
            personal: each [U, ...].
            graphs: the users' local graphs.
            train_neighbours: differentiate by the neighbours' embeddings, too.
            draw: which of the graphs' draws of sampled items to take, counted on from the first after the last.
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

    def gradients(
        self,
        shared: Parameters,
        item_rows: Tensor,
        personal: Parameters,
        graphs: UserGraphs,
        *,
        train_neighbours: bool = False,
        draw: int = 0,
    ) -> UserGradients:
        """`step` at parameters that all users received alike.

        Args:
            shared: without a user axis; ``items`` is not looked at.
            item_rows: [R, width], the rows that `graphs.rows` point into.
            personal: each [U, ...].
            graphs: the users' local graphs.
            train_neighbours: differentiate by the neighbours' embeddings, too.
            draw: which of the graphs' draws of sampled items to take.
        """
        items = item_rows.index_select(0, graphs.rows)
        stacks = expanded(shared, len(graphs))
        return self.step(stacks, items, personal, graphs, train_neighbours=train_neighbours, draw=draw)


def expanded(shared: Parameters, users: int) -> dict[str, Tensor]:
    """Shared parameters but ``items``, each [U, ...], a view of the same values for every user."""
    return {name: value.expand(users, *value.shape) for name, value in shared.items() if name != "items"}


def _leaf(value: Tensor) -> Tensor:
    return value.detach().requires_grad_()
