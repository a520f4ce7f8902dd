"""Parts that a user's client is composed of.

A method's client (`RecommenderClient`) names one part of each kind: knowledge of neighbours, local work, changes of an
upload before it leaves, answers outside of rounds, and prediction. Each part declares its share of the contract and of
a user's state, so that parts can be combined freely.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from torch import Tensor

from subfl_flower.clients.recommendation.users import Chunk, Users
from subfl_flower.node.state import Shapes
from subfl_flower.recommendation.models.mixture import Mixture
from subfl_flower.recommendation.models.user_graphs import UserGraphs
from subfl_flower.recommendation.models.user_models import UserGradients
from subfl_flower.tasks.metric import Metric
from subfl_flower.wire.array_format import Stack
from subfl_flower.wire.batch import Answers, Batch, Question
from subfl_flower.wire.contract import Declared, RunContext
from subfl_flower.wire.ragged import Ragged

ITEMS, IDS, ROWS = "items", "item_ids", "item_rows"
"""Names of the item table, of the numbers of some of its rows, and of these rows' values."""

UPLOADS = "item_uploads"
"""Name of the number of users who send each row, where a secure sum hides which."""


@dataclass(frozen=True, eq=False)
class LocalModels:
    """Local models of U users after their work, and what they tell the server.

    Attributes:
        items: [T, width], the rows of their graphs' items.
        stacks: the other shared parameters, each [U, ...].
        graphs: the local graphs, with the neighbours that users know now.
        told: gradients, or received - trained in their place; the losses are those before the last step.
    """

    items: Tensor
    stacks: dict[str, Tensor]
    graphs: UserGraphs
    told: UserGradients


@dataclass(frozen=True, eq=False)
class Upload:
    """An upload of U users.

    Attributes:
        arrays: by name, each [U, ...]: of every parameter but the item table.
        rows: by name: numbers (``item_ids``) and values (``item_rows``) of rows of the item table, ascending by item.
    """

    arrays: Stack
    rows: dict[str, Ragged]


class OwnRows(Protocol):
    """The state of some users."""

    def read(self, name: str) -> Tensor:
        """One state array of all of them [U, ...], as it stands."""

    def working(self) -> AbstractContextManager[dict[str, Tensor]]:
        """A copy to work on, by name, each [U, ...]; kept if the block succeeds."""


@dataclass(frozen=True, eq=False)
class AskedUsers:
    """U users who are asked a question.

    Attributes:
        clients: their ids.
        positions: their positions in the cohort.
            state: their state.
    """

    clients: tuple[int, ...]
    positions: list[int]
    state: OwnRows


class UserPart:
    """A part of a client: declarations to override, and the hooks that all kinds of parts have.

    Args:
        users: of the node.
    """

    phases: ClassVar[tuple[str, ...]] = ()
    """Names of the questions that the part answers."""

    def __init__(self, users: Users) -> None:
        self.users = users
        self.settings = users.settings

    @classmethod
    def downloads(cls, declared: Declared, run: RunContext) -> Declared:
        """The arrays that users are sent, given those without this part."""
        return declared

    @classmethod
    def uploads(cls, declared: Declared, run: RunContext) -> Declared:
        """The arrays that users send, given those without this part."""
        return declared

    @classmethod
    def metrics(cls, declared: dict[str, Metric], run: RunContext) -> dict[str, Metric]:
        """The figures that users send, given those without this part."""
        return declared

    @property
    def kept(self) -> Shapes:
        """Arrays that a user predicts with, besides its personal parameters: kept as they were at the best round."""
        return {}

    @property
    def state(self) -> Shapes:
        """Further state of a user, by name."""
        return {}

    def received_items(
        self, graphs: UserGraphs, items: Tensor | None, chunk: Chunk, batch: Batch
    ) -> tuple[UserGraphs, Tensor | None]:
        """The graphs, and the item rows that they index: by default the table, None where it was not sent."""
        return graphs, items

    def take_note(self, trained: LocalModels, own: Mapping[str, Tensor]) -> None:
        """Remember something of the users' models after a round's work, in their state `own`; by default nothing."""
        return

    def answer(self, question: Question, asked: AskedUsers) -> Answers:
        """The users' answers to one of the `phases`."""
        raise NotImplementedError(f"{type(self).__name__} declares query.{question.phase}, and does not answer it")


class Neighbourhood(UserPart):
    """Neighbours of users; this base knows none."""

    trained: bool = False
    """True where users also step the embeddings of their neighbours."""

    def expanded(self, graphs: UserGraphs, own: Mapping[str, Tensor]) -> UserGraphs:
        """The local graphs with the neighbours that users know."""
        return graphs

    def step(self, graphs: UserGraphs, gradients: UserGradients, own: Mapping[str, Tensor]) -> UserGraphs:
        """The local graphs after a step of the neighbours' embeddings."""
        return graphs


class UserWork(UserPart, ABC):
    """The work of users on their own data in one round.

    Args:
        users: of the node.
        neighbourhood: the users' neighbours.
    """

    def __init__(self, users: Users, neighbourhood: Neighbourhood) -> None:
        super().__init__(users)
        self.neighbourhood = neighbourhood

    @property
    def draws(self) -> int:
        """Number of times that items are sampled in a round."""
        return 1

    @abstractmethod
    def work(self, shared: Mapping[str, Tensor], items: Tensor, graphs: UserGraphs, chunk: Chunk) -> LocalModels:
        """Change the personal parameters in place, and find what to upload.

        Args:
            shared: as received, without a user axis.
            items: the item rows that the graphs index.
            graphs: the users' local graphs.
            chunk: the users.
        """

    def refitted(self, shared: Mapping[str, Tensor], chunk: Chunk) -> dict[str, Tensor]:
        """Personal parameters that follow from the received model without training, [U, ...] by name: none by default.

        Args:
            shared: as received, without a user axis, with the whole item table.
            chunk: the users.
        """
        return {}


class UploadTransform(UserPart, ABC):
    """A change of an upload before it leaves a user."""

    @abstractmethod
    def __call__(self, upload: Upload, chunk: Chunk, batch: Batch) -> Upload:
        """The changed upload of some users.

        Args:
            upload: the upload without this change.
            chunk: the users.
            batch: the round's orders to these users.
        """


class Prediction(UserPart, ABC):
    """The model, or models, that users predict by.

    Args:
        users: of the node.
        neighbourhood: the users' neighbours.
    """

    models_sent: ClassVar[int] = 1
    """Largest number of models that a user is sent at once."""

    def __init__(self, users: Users, neighbourhood: Neighbourhood) -> None:
        super().__init__(users)
        self.neighbourhood = neighbourhood

    @abstractmethod
    def figures(self, models: list[dict[str, Tensor]], chunk: Chunk) -> dict[str, np.ndarray]:
        """Figures of users' predictions, by name, each [U].

        Args:
            models: shared parameters, without a user axis: one model that all of these users were sent, or several.
            chunk: the users, with a copy of their state.
        """

    @abstractmethod
    def mixture(self, models: list[dict[str, Tensor]], chunk: Chunk) -> Mixture | None:
        """Scorer of items, as `figures` measures it; None where the model does not rank."""
