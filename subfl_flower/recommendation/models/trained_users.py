"""A run's recommender with its users, as one file that stands alone; base of those that rate and that rank items."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field

from subfl_flower.data.ratings.table import Ratings
from subfl_flower.errors import SubflError
from subfl_flower.models.settings import LightGCNSettings, RecommenderSettings
from subfl_flower.storage.tensor_file import Card, read_tensor_file, write_tensor_file

CLIENTS = "clients"
# For each of them all items may be asked for, and every answer takes two rows of the model's width.
_USERS_AT_ONCE = 64


class UsersCard(Card):
    """Origin and architecture of a recommender.

    Attributes:
        model: the architecture.
        num_items: of the data set.
        center, spread: a rating's normalised value is (rating - center) / spread.
        dataset: name of the data set.
        data: fingerprint of its ratings with all ids; None where it is not known.
        method: name of the method.
        run: the run's id.
        round: the last round that was trained.
    """

    holds: ClassVar[str] = "a recommender"
    remedy: ClassVar[str] = "train again"

    schema_version: Literal[2] = Field(default=2, alias="schema")
    model: RecommenderSettings | LightGCNSettings
    num_items: int = Field(ge=1)
    center: float
    spread: Annotated[float, Field(gt=0)]
    dataset: str
    data: str | None = None
    method: str
    run: str
    round: int = Field(ge=0)


class TrainedUsers(ABC):
    """A recommender with some of its users.

    Attributes:
        card: its description.
    """

    described_by: ClassVar[type[UsersCard]]
    """The class of its card."""

    ranks: ClassVar[bool]
    """True where it scores items, and only the order of a user's scores counts; False where it predicts ratings."""

    card: Any

    @property
    @abstractmethod
    def clients(self) -> np.ndarray:
        """The users as clients, int64 `[U]`, all different."""

    @abstractmethod
    def at(self, positions: Sequence[int]) -> Self:
        """The recommender with the users at some positions."""

    @abstractmethod
    def tensors(self) -> dict[str, np.ndarray]:
        """All arrays by their names in the file; `CLIENTS` is one of them."""

    @classmethod
    @abstractmethod
    def of_tensors(cls, tensors: dict[str, np.ndarray], card: Any) -> Self:
        """Restore the recommender from these `tensors`, which are sound."""

    @classmethod
    @abstractmethod
    def require_sound(cls, tensors: Mapping[str, np.ndarray], card: Any, source: str) -> None:
        """Raise SubflError, naming `source`, unless the tensors are those of the card's model; `CLIENTS` is."""

    @abstractmethod
    def block_scores(self, ratings: Ratings, asked: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        """`scores` of exactly these users at once."""

    def shown(self, scores: np.ndarray) -> np.ndarray:
        """The numbers shown for recommended items with these `scores`: by default the scores."""
        return scores

    def of_users(self, client_ids: Sequence[int] | np.ndarray) -> Self:
        """The recommender with some of its users, in the order of `client_ids`.

        Raises:
            SubflError: one of them is unknown to it.
        """
        positions = {client_id: position for position, client_id in enumerate(self.clients.tolist())}
        wanted = [int(client_id) for client_id in client_ids]
        for client_id in wanted:
            if client_id not in positions:
                raise SubflError(f"the recommender knows nothing of client {client_id}, only of {self.about}")
        return self.at([positions[client_id] for client_id in wanted])

    @property
    def about(self) -> str:
        """Description of its users for messages."""
        first, last = int(self.clients.min()), int(self.clients.max())
        return f"client {first}" if first == last else f"{len(self.clients)} clients from {first} to {last}"

    def write(self, path: Path) -> None:
        """Write all to one safetensors file, the card in its metadata, in one step; a failure leaves an earlier file.

        Args:
            path: of the file; its folder is made where it does not exist.

        Raises:
            SubflError: the arrays are not those of the card's model, or the file cannot be written.
        """
        tensors = self.tensors()
        self._require_sound(tensors, self.card, str(path))
        write_tensor_file(path, tensors, self.card)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file that `write` wrote.

        Raises:
            SubflError: there is no such file, it is damaged or has no card of this kind of recommender, or its arrays
                are not those of the card's model.
        """
        if not path.is_file():
            raise SubflError(f"{path} does not exist; a recommender is a safetensors file")
        tensors, card = read_tensor_file(path, cls.described_by)
        cls._require_sound(tensors, card, str(path))
        return cls.of_tensors(tensors, card)

    def scores(self, ratings: Ratings, items: Sequence[np.ndarray] | None = None) -> list[np.ndarray]:
        """Scores by which items are recommended to users; larger is better.

        Args:
            ratings: of users of the recommender, in any order.
            items: int64, for each of these users the items (0 .. num_items - 1) to score; None: all of them.

        Returns:
            For each of the users float32, an entry an item.

        Raises:
            SubflError: one of the users is unknown to it, or it has another number of items.
        """
        if ratings.num_items != self.card.num_items:
            raise SubflError(f"the recommender has {self.card.num_items} items, and the ratings {ratings.num_items}")
        asked = [np.arange(self.card.num_items)] * ratings.num_users if items is None else items
        found: list[np.ndarray] = []
        for start in range(0, ratings.num_users, _USERS_AT_ONCE):
            users = range(start, min(start + _USERS_AT_ONCE, ratings.num_users))
            part = ratings.of_users(users)
            found += self.of_users(part.user_ids).block_scores(part, [asked[user] for user in users])
        return found

    @classmethod
    def _require_sound(cls, tensors: Mapping[str, np.ndarray], card: UsersCard, source: str) -> None:
        ids = tensors.get(CLIENTS)
        if ids is None or ids.dtype != np.int64 or ids.ndim != 1 or not len(ids):
            raise SubflError(f"{source} does not say whose it is: {CLIENTS} must be int64 [users], one user at least")
        if ids.min() < 0 or len(np.unique(ids)) < len(ids):
            raise SubflError(f"{source}: {CLIENTS} must be different numbers of 0 or more")
        cls.require_sound(tensors, card, source)
