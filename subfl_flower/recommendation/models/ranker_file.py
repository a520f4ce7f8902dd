"""A trained recommender that ranks items: its users' scoring models, as one file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal, Self

import numpy as np

from subfl_flower.data.ratings.table import Ratings
from subfl_flower.errors import SubflError
from subfl_flower.models.settings import LightGCNSettings
from subfl_flower.recommendation.models.mixture import Mixture
from subfl_flower.recommendation.models.recommender_file import Recommender
from subfl_flower.recommendation.models.trained_users import CLIENTS, TrainedUsers, UsersCard
from subfl_flower.storage.tensor_file import read_card, require_tensors

_ITEMS, _MODELS, _USERS, _WEIGHTS = "items", "models", "users", "weights"
_OFFSETS, _OWN_ITEMS, _OWN_SCORES = "own.offsets", "own.items", "own.scores"


class RankerCard(UsersCard):
    """Origin and architecture of a recommender that ranks items.

    Attributes:
        model: the architecture that the embeddings come from.
    """

    kind: Literal["ranker"] = "ranker"
    model: LightGCNSettings


@dataclass(frozen=True, eq=False)
class Ranker(TrainedUsers):
    """A recommender's users and items as embeddings, computed from graphs, attributes and neighbours.

    Attributes:
        card: description of the embeddings.
        mixture: scoring models of U users.
    """

    described_by: ClassVar[type[UsersCard]] = RankerCard
    ranks: ClassVar[bool] = True

    card: RankerCard
    mixture: Mixture

    @property
    def clients(self) -> np.ndarray:
        """The users as clients."""
        return self.mixture.client_ids

    def at(self, positions: Sequence[int]) -> Ranker:
        """The recommender with the users at some positions."""
        return replace(self, mixture=self.mixture.at(positions))

    def block_scores(self, ratings: Ratings, asked: Sequence[np.ndarray]) -> list[np.ndarray]:
        """`scores` of all users; they have no unit, and only their order has a meaning."""
        return [own[items] for own, items in zip(self.mixture.scores(), asked, strict=True)]

    def tensors(self) -> dict[str, np.ndarray]:
        """All arrays by their names in the file."""
        mixture = self.mixture
        return {
            CLIENTS: mixture.client_ids,
            _ITEMS: mixture.tables,
            _MODELS: mixture.models,
            _USERS: mixture.users,
            _WEIGHTS: mixture.weights,
            _OFFSETS: mixture.offsets,
            _OWN_ITEMS: mixture.own_items,
            _OWN_SCORES: mixture.own_scores,
        }

    @classmethod
    def of_tensors(cls, tensors: dict[str, np.ndarray], card: RankerCard) -> Self:
        """Restore the recommender from `tensors`."""
        mixture = Mixture(
            client_ids=tensors[CLIENTS],
            tables=tensors[_ITEMS],
            models=tensors[_MODELS],
            users=tensors[_USERS],
            weights=tensors[_WEIGHTS],
            offsets=tensors[_OFFSETS],
            own_items=tensors[_OWN_ITEMS],
            own_scores=tensors[_OWN_SCORES],
        )
        return cls(card, mixture)

    @classmethod
    def require_sound(cls, tensors: Mapping[str, np.ndarray], card: RankerCard, source: str) -> None:
        """Raise SubflError unless the tensors are embeddings of the card's width and of users."""
        users, width = len(tensors[CLIENTS]), card.model.dim
        models, tables, own = (
            _length(tensors, name, axis, source) for name, axis in ((_MODELS, 1), (_ITEMS, 0), (_OWN_ITEMS, 0))
        )
        if models not in (1, 3):
            raise SubflError(f"{source}: a user has one model or three, not {models}")
        shapes = {
            _ITEMS: (tables, card.num_items, width),
            _USERS: (users, models, width),
            _WEIGHTS: (users, models),
            _OWN_SCORES: (own,),
        }
        require_tensors(tensors, shapes, source)
        numbers = {_MODELS: (users, models), _OFFSETS: (users + 1,), _OWN_ITEMS: (own,)}
        _require_integers(tensors, numbers, source)
        if others := sorted(set(tensors) - set(shapes) - set(numbers) - {CLIENTS}):
            raise SubflError(f"{source} holds {others[0]}, which a recommender that ranks items does not have")
        _require_fitting(tensors, card.num_items, source)


def read_trained(path: Path) -> TrainedUsers:
    """The recommender in a file, of either kind.

    Raises:
        SubflError: as `TrainedUsers.read`.
    """
    kind = Ranker if read_card(path).get("kind") == RankerCard.own_kind() else Recommender
    return kind.read(path)


def _length(tensors: Mapping[str, np.ndarray], name: str, axis: int, source: str) -> int:
    """The length of an axis that the card does not give."""
    found = _tensor(tensors, name, source)
    if found.ndim <= axis:
        raise SubflError(f"{source}: {name} is {found.dtype} {list(found.shape)}, which has too few axes")
    return found.shape[axis]


def _tensor(tensors: Mapping[str, np.ndarray], name: str, source: str) -> np.ndarray:
    if name not in tensors:
        raise SubflError(f"{source} holds no {name}; its tensors are {', '.join(sorted(tensors))}")
    return tensors[name]


def _require_integers(tensors: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]], source: str) -> None:
    for name, shape in shapes.items():
        found = _tensor(tensors, name, source)
        if found.shape != shape or found.dtype != np.int64:
            raise SubflError(f"{source}: {name} is {found.dtype} {list(found.shape)}, not int64 {list(shape)}")


def _require_fitting(tensors: Mapping[str, np.ndarray], num_items: int, source: str) -> None:
    """Raise SubflError where an index is out of range, or weights are invalid."""
    models, weights = tensors[_MODELS], tensors[_WEIGHTS]
    offsets, items = tensors[_OFFSETS], tensors[_OWN_ITEMS]
    last = len(tensors[_ITEMS]) - 1
    if models.min() < 0 or models.max() > last:
        raise SubflError(f"{source}: {_MODELS} must be whole numbers of 0 to {last}")
    if weights.min() < 0 or np.abs(weights.sum(1) - 1).max() > 1e-4:
        raise SubflError(f"{source}: {_WEIGHTS} must be 0 or more and sum to 1 for each user")
    if offsets[0] != 0 or offsets[-1] != len(items) or (np.diff(offsets) < 0).any():
        raise SubflError(f"{source}: {_OFFSETS} must rise from 0 to {len(items)}")
    owners = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    ascending = (np.diff(items) > 0) | (np.diff(owners) > 0)
    if len(items) and (items.min() < 0 or items.max() >= num_items or not ascending.all()):
        raise SubflError(f"{source}: {_OWN_ITEMS} must be different numbers of 0 to {num_items - 1}, ascending")
