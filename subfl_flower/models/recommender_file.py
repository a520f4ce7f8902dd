"""A trained recommender and what is known of some of its users, as one file that stands alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field, field_validator

from subfl_flower.data.durable_files import write_durably
from subfl_flower.data.ratings.table import Ratings
from subfl_flower.errors import SubflError
from subfl_flower.models.exported import Card, read_with_card, require_tensors, with_card
from subfl_flower.models.recommender import StackedRecommender
from subfl_flower.models.settings import RecommenderSettings
from subfl_flower.models.user_graphs import UserGraphs

_CLIENTS, _SHARED, _PERSONAL = "clients", "shared.", "personal."
_NEIGHBOURS, _NUM_NEIGHBOURS = "neighbours", "num_neighbours"
# For each of them all items may be asked for, and every answer takes two rows of the model's width.
_USERS_AT_ONCE = 64


class RecommenderCard(Card):
    """What a recommender is and where it comes from.

    Attributes:
        model: the architecture.
        num_items: of the data set.
        scale: lowest and highest possible rating.
        center, spread: a rating's normalised value is (rating - center) / spread.
        dataset: name of the data set.
        method: name of the method.
        run: the run's id.
        round: the last round that was trained.
    """

    model: RecommenderSettings
    num_items: int = Field(ge=1)
    scale: tuple[float, float]
    center: float
    spread: Annotated[float, Field(gt=0)]
    dataset: str
    method: str
    run: str
    round: int = Field(ge=0)

    @field_validator("scale")
    @classmethod
    def _lowest_first(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] >= value[1]:
            raise ValueError("must be the lowest and the highest possible rating, the lowest first")
        return value

    @property
    def recommender(self) -> StackedRecommender:
        """The architecture, without parameters."""
        return StackedRecommender(self.model, self.num_items)


@dataclass(frozen=True, eq=False)
class Recommender:
    """A recommender's parameters: what all users share, and the own ones of U users.

    Attributes:
        card: what they are of.
        shared: float32 by name, `StackedRecommender.shapes`.
        client_ids: int64 `[U]`, the users as clients, all different.
        personal: float32 by name, each `[U, ...]`: `StackedRecommender.personal_shapes`, and where users were told of
            neighbours these' embeddings ``neighbours`` `[U, settings.neighbours, dim]`, of which a user's first
            ``num_neighbours`` `[U]` count.
    """

    card: RecommenderCard
    shared: dict[str, np.ndarray]
    client_ids: np.ndarray
    personal: dict[str, np.ndarray]

    def of_users(self, client_ids: Sequence[int] | np.ndarray) -> Recommender:
        """The recommender with some of its users, in the order in which they are asked for.

        Raises:
            SubflError: it knows nothing of one of them.
        """
        positions = {client_id: position for position, client_id in enumerate(self.client_ids.tolist())}
        wanted = [int(client_id) for client_id in client_ids]
        for client_id in wanted:
            if client_id not in positions:
                raise SubflError(f"the recommender knows nothing of client {client_id}, only of {self.about}")
        rows = [positions[client_id] for client_id in wanted]
        personal = {name: values[rows] for name, values in self.personal.items()}
        return replace(self, client_ids=np.array(wanted, dtype=np.int64), personal=personal)

    @property
    def about(self) -> str:
        """Its users in words."""
        first, last = int(self.client_ids.min()), int(self.client_ids.max())
        return f"client {first}" if first == last else f"{len(self.client_ids)} clients from {first} to {last}"

    def write(self, path: Path) -> None:
        """Write all to one safetensors file, the card in its metadata, in one step; a failure leaves an earlier file.

        Args:
            path: of the file; its folder is made where it does not exist.

        Raises:
            SubflError: the arrays are not those of the card's model, or the file cannot be written.
        """
        tensors = self._tensors()
        _require_sound(tensors, self.card, str(path))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_durably(path, with_card(tensors, self.card))
        except OSError as error:
            raise SubflError(f"the recommender cannot be written to {path}: {error.strerror or error}") from error

    @classmethod
    def read(cls, path: Path) -> Recommender:
        """What `write` wrote.

        Raises:
            SubflError: there is no such file, it is damaged or has no recommender's card, or its arrays are not those
                of the card's model.
        """
        if not path.is_file():
            raise SubflError(f"{path} does not exist; a recommender is a safetensors file")
        tensors, card = read_with_card(path, RecommenderCard)
        _require_sound(tensors, card, str(path))
        return cls(card, _named(tensors, _SHARED), tensors[_CLIENTS], _named(tensors, _PERSONAL))

    def predict(self, ratings: Ratings, items: Sequence[np.ndarray] | None = None) -> list[np.ndarray]:
        """Predicted ratings, in rating units, clipped to the scale.

        Args:
            ratings: of users that the recommender knows, in any order; their training ratings are their local graphs.
            items: int64, for each of these users the items (0 .. num_items - 1) to predict; None: all of them.

        Returns:
            For each of the users float32, an entry an item.

        Raises:
            SubflError: it knows nothing of one of the users, or has another number of items.
        """
        low, high = self.card.scale
        return [values.clip(low, high) for values in self.scores(ratings, items)]

    def scores(self, ratings: Ratings, items: Sequence[np.ndarray] | None = None) -> list[np.ndarray]:
        """`predict` before clipping: in rating units, and what tells items apart whose prediction is off the scale."""
        if ratings.num_items != self.card.num_items:
            raise SubflError(f"the recommender has {self.card.num_items} items, and the ratings {ratings.num_items}")
        asked = [np.arange(self.card.num_items)] * ratings.num_users if items is None else items
        found: list[np.ndarray] = []
        for start in range(0, ratings.num_users, _USERS_AT_ONCE):
            users = range(start, min(start + _USERS_AT_ONCE, ratings.num_users))
            found += self._block(ratings.of_users(users), [asked[user] for user in users])
        return found

    def _block(self, ratings: Ratings, asked: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
        """`scores` of users at once."""
        known = self.of_users(ratings.user_ids)
        lengths = [len(own) for own in asked]
        shared = {name: torch.from_numpy(values) for name, values in self.shared.items()}
        predictions = self.card.recommender.predict(
            shared,
            shared["items"],
            {name: torch.from_numpy(known.personal[name]) for name in self.card.recommender.personal_shapes},
            known._graphs(ratings),
            torch.from_numpy(np.concatenate(asked)),
            torch.repeat_interleave(torch.tensor(lengths)),
        )
        in_units = predictions.numpy() * np.float32(self.card.spread) + np.float32(self.card.center)
        return iter(np.split(in_units, np.cumsum(lengths)[:-1]))

    def _graphs(self, ratings: Ratings) -> UserGraphs:
        """The local graphs of exactly these users."""
        graphs = UserGraphs.build(ratings, self.card.center, self.card.spread)
        if _NEIGHBOURS not in self.personal:
            return graphs
        counts = self.personal[_NUM_NEIGHBOURS].astype(np.int64).tolist()
        return graphs.with_neighbours(
            [rows[:count] for rows, count in zip(self.personal[_NEIGHBOURS], counts, strict=True)]
        )

    def _tensors(self) -> dict[str, np.ndarray]:
        """All arrays by their names in the file."""
        shared = {_SHARED + name: values for name, values in self.shared.items()}
        return {_CLIENTS: self.client_ids, **shared, **{_PERSONAL + name: own for name, own in self.personal.items()}}


def _named(tensors: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): values for name, values in tensors.items() if name.startswith(prefix)}


def _require_sound(tensors: dict[str, np.ndarray], card: RecommenderCard, source: str) -> None:
    """Raise SubflError unless the tensors are those of the card's recommender and of users."""
    ids = tensors.get(_CLIENTS)
    if ids is None or ids.dtype != np.int64 or ids.ndim != 1 or not len(ids):
        raise SubflError(f"{source} does not say whose it is: {_CLIENTS} must be int64 [users], one user at least")
    if ids.min() < 0 or len(np.unique(ids)) < len(ids):
        raise SubflError(f"{source}: {_CLIENTS} must be different numbers of 0 or more")
    expanded = {_PERSONAL + _NEIGHBOURS, _PERSONAL + _NUM_NEIGHBOURS} & set(tensors)
    shapes = _shapes(card, len(ids), with_neighbours=bool(expanded and card.model.neighbours))
    require_tensors(tensors, shapes, source)
    if others := sorted(set(tensors) - set(shapes) - {_CLIENTS}):
        raise SubflError(f"{source} holds {others[0]}, which the recommender that it describes does not have")
    counts = tensors.get(_PERSONAL + _NUM_NEIGHBOURS, np.zeros(1))
    if not np.isin(counts, np.arange(card.model.neighbours + 1)).all():
        raise SubflError(f"{source}: {_NUM_NEIGHBOURS} must be whole numbers of 0 to {card.model.neighbours}")


def _shapes(card: RecommenderCard, num_users: int, with_neighbours: bool) -> dict[str, tuple[int, ...]]:
    """The shapes of all float32 tensors of a file."""
    recommender = card.recommender
    own = dict(recommender.personal_shapes)
    if with_neighbours:
        own |= {_NEIGHBOURS: (card.model.neighbours, card.model.dim), _NUM_NEIGHBOURS: ()}
    shared = {_SHARED + name: shape for name, shape in recommender.shapes.items()}
    return shared | {_PERSONAL + name: (num_users, *shape) for name, shape in own.items()}
