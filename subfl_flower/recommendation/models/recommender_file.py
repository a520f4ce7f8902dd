"""A trained recommender that predicts ratings, and personal parameters of some of its users, as one file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import field_validator

from subfl_flower.data.ratings.table import Ratings
from subfl_flower.errors import SubflError
from subfl_flower.models.settings import AnyRatingModel
from subfl_flower.recommendation.models.recommender import StackedRecommender
from subfl_flower.recommendation.models.trained_users import CLIENTS, TrainedUsers, UsersCard
from subfl_flower.recommendation.models.user_graphs import UserGraphs
from subfl_flower.recommendation.models.user_models import ReceivedModel
from subfl_flower.storage.tensor_file import require_tensors

_SHARED, _PERSONAL = "shared.", "personal."
_NEIGHBOURS, _NUM_NEIGHBOURS = "neighbours", "num_neighbours"


class RecommenderCard(UsersCard):
    """Origin and architecture of a recommender that predicts ratings.

    Attributes:
        model: the architecture.
        scale: lowest and highest possible rating.
    """

    kind: Literal["recommender"] = "recommender"
    model: AnyRatingModel
    scale: tuple[float, float]

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
class Recommender(TrainedUsers):
    """A recommender's parameters: the shared ones, and the personal ones of U users.

    Attributes:
        card: description of the parameters.
        shared: float32 by name, `StackedRecommender.shapes`.
        client_ids: int64 `[U]`, the users as clients, all different.
        personal: float32 by name, each `[U, ...]`: `StackedRecommender.personal_shapes`. Where users have neighbours,
            also these' embeddings ``neighbours`` `[U, settings.neighbours, dim]`, of which a user's first
            ``num_neighbours`` `[U]` count.
    """

    described_by: ClassVar[type[UsersCard]] = RecommenderCard
    ranks: ClassVar[bool] = False

    card: RecommenderCard
    shared: dict[str, np.ndarray]
    client_ids: np.ndarray
    personal: dict[str, np.ndarray]

    @property
    def clients(self) -> np.ndarray:
        """The users as clients."""
        return self.client_ids

    def at(self, positions: Sequence[int]) -> Recommender:
        """The recommender with the users at some positions."""
        personal = {name: values[positions] for name, values in self.personal.items()}
        return replace(self, client_ids=self.client_ids[positions], personal=personal)

    def predict(self, ratings: Ratings, items: Sequence[np.ndarray] | None = None) -> list[np.ndarray]:
        """Predicted ratings, in rating units, clipped to the scale.

        Args:
            ratings: of users of the recommender, in any order; their training ratings are their local graphs.
            items: int64, for each of these users the items (0 .. num_items - 1) to predict; None: all of them.

        Returns:
            For each of the users float32, an entry an item.

        Raises:
            SubflError: one of the users is unknown to it, or it has another number of items.
        """
        return [self.shown(values) for values in self.scores(ratings, items)]

    def shown(self, scores: np.ndarray) -> np.ndarray:
        """Predicted ratings, in rating units, clipped to the scale."""
        return scores.clip(*self.card.scale)

    def block_scores(self, ratings: Ratings, asked: Sequence[np.ndarray]) -> list[np.ndarray]:
        """`predict` before clipping, in rating units; this separates items whose predictions are off the scale."""
        lengths = [len(own) for own in asked]
        shared = {name: torch.from_numpy(values) for name, values in self.shared.items()}
        personal = {name: torch.from_numpy(self.personal[name]) for name in self.card.recommender.personal_shapes}
        predictions = self.card.recommender.predict(
            ReceivedModel(shared, personal, self._graphs(ratings)),
            torch.from_numpy(np.concatenate(asked)),
            torch.repeat_interleave(torch.tensor(lengths)),
        )
        in_units = predictions.numpy() * np.float32(self.card.spread) + np.float32(self.card.center)
        return np.split(in_units, np.cumsum(lengths)[:-1])

    def _graphs(self, ratings: Ratings) -> UserGraphs:
        """The local graphs of exactly these users."""
        graphs = UserGraphs.build(ratings, self.card.center, self.card.spread)
        if _NEIGHBOURS not in self.personal:
            return graphs
        counts = self.personal[_NUM_NEIGHBOURS].astype(np.int64).tolist()
        return graphs.with_neighbours(
            [rows[:count] for rows, count in zip(self.personal[_NEIGHBOURS], counts, strict=True)]
        )

    def tensors(self) -> dict[str, np.ndarray]:
        """All arrays by their names in the file."""
        shared = {_SHARED + name: values for name, values in self.shared.items()}
        return {CLIENTS: self.client_ids, **shared, **{_PERSONAL + name: own for name, own in self.personal.items()}}

    @classmethod
    def of_tensors(cls, tensors: dict[str, np.ndarray], card: RecommenderCard) -> Self:
        """Restore the recommender from `tensors`."""
        return cls(card, _named(tensors, _SHARED), tensors[CLIENTS], _named(tensors, _PERSONAL))

    @classmethod
    def require_sound(cls, tensors: Mapping[str, np.ndarray], card: RecommenderCard, source: str) -> None:
        """Raise SubflError unless the tensors are those of the card's recommender and of users."""
        expanded = {_PERSONAL + _NEIGHBOURS, _PERSONAL + _NUM_NEIGHBOURS} & set(tensors)
        shapes = _shapes(card, len(tensors[CLIENTS]), with_neighbours=bool(expanded and card.model.neighbours))
        require_tensors(tensors, shapes, source)
        if others := sorted(set(tensors) - set(shapes) - {CLIENTS}):
            raise SubflError(f"{source} holds {others[0]}, which the recommender that it describes does not have")
        counts = tensors.get(_PERSONAL + _NUM_NEIGHBOURS, np.zeros(1))
        if not np.isin(counts, np.arange(card.model.neighbours + 1)).all():
            raise SubflError(f"{source}: {_NUM_NEIGHBOURS} must be whole numbers of 0 to {card.model.neighbours}")


def _named(tensors: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): values for name, values in tensors.items() if name.startswith(prefix)}


def _shapes(card: RecommenderCard, num_users: int, with_neighbours: bool) -> dict[str, tuple[int, ...]]:
    """The shapes of all float32 tensors of a file."""
    recommender = card.recommender
    own = dict(recommender.personal_shapes)
    if with_neighbours:
        own |= {_NEIGHBOURS: (card.model.neighbours, card.model.dim), _NUM_NEIGHBOURS: ()}
    shared = {_SHARED + name: shape for name, shape in recommender.shapes.items()}
    return shared | {_PERSONAL + name: (num_users, *shape) for name, shape in own.items()}
