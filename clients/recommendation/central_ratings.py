"""Clients that have all users' ratings in one place, to compare federations with; not an upper bound.

Every node of a simulation trains the same central model, from the same random numbers, and measures the users that it
hosts. Nothing travels.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Literal

import numpy as np

from subfl_flower.data.graph import TRAIN
from subfl_flower.data.ratings.table import Ratings
from subfl_flower.errors import SubflError
from subfl_flower.node.client import CohortClient
from subfl_flower.node.iteration import Iteration, in_chunks
from subfl_flower.node.state import CohortState, StateStore
from subfl_flower.recommendation.cohort import UserCohort
from subfl_flower.wire.batch import Batch, Result
from subfl_flower.wire.contract import Declared, RunContext

CENTRAL = -1
"""Client id for the central model's state and random numbers; no client has it."""


class CentralRatingsClient(CohortClient):
    """Learn from all users' ratings; the users whom a node hosts are only measured.

    Raises:
        SubflError: the node has no access to all users' ratings, because it is not a simulation's.

    Attributes:
        whole: the ratings of all users.
    """

    kind: ClassVar[Literal["graph", "ratings"]] = "ratings"

    cohort: UserCohort

    @classmethod
    def downloads(cls, run: RunContext) -> Declared:
        """No arrays: nothing travels."""
        return {}

    def __init__(self, run: RunContext, cohort: UserCohort, store: StateStore, iterate: Iteration = in_chunks) -> None:
        super().__init__(run, cohort, store, iterate)
        if self.cohort.whole is None:
            raise SubflError("central training needs the ratings of all users in one place; they are not at hand here")
        self.whole = self.cohort.whole()

    @property
    def side_by_side(self) -> int:
        """1: there is one model to train."""
        return 1

    @abstractmethod
    def train_centrally(self, server_round: int, local_epochs: int) -> dict[str, np.ndarray]:
        """One round of central training; figures of all users by name, each [users]."""

    @abstractmethod
    def figures(self, ratings: Ratings) -> dict[str, np.ndarray]:
        """Figures of the model on the held-out ratings of U users, by name, each [U]."""

    def train(self, batch: Batch) -> Result:
        """Train the central model for one round, and measure the requested users."""
        self._of_training = self.train_centrally(batch.server_round, batch.local_epochs)
        return super().train(batch)

    def chunks(self, batch: Batch) -> list[Batch]:
        """Chunks of users by their positions in the cohort."""
        place_of = {self.position_of[client_id]: place for place, client_id in enumerate(batch.clients)}
        cut = self.cohort.chunks(sorted(place_of))
        return [batch.take([place_of[position] for position in positions]) for positions in cut]

    def train_chunk(self, batch: Batch, state: CohortState) -> Result:
        """Figures of some users, once the model has been trained."""
        ratings = self.cohort.ratings.of_users([self.position_of[client_id] for client_id in batch.clients])
        metrics = {
            "num_examples": ratings.counts(TRAIN).astype(float),
            **{name: values[ratings.user_ids] for name, values in self._of_training.items()},
            **self.figures(ratings),
        }
        return Result(batch.clients, metrics=metrics)

    def models(self, batch: Batch) -> dict[int, dict[str, np.ndarray]]:
        """None: no user has a personal model."""
        return {}
