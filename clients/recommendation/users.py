"""The users of a node, as the parts of their client see them: data, model and random numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor

from subfl_flower.data.graph import TRAIN
from subfl_flower.data.ratings.table import Ratings
from subfl_flower.models.settings import OptimizerSettings
from subfl_flower.node.masking.used_contexts import claim
from subfl_flower.node.state import StateStore
from subfl_flower.privacy.discrete_noise import Words
from subfl_flower.recommendation.cohort import UserCohort
from subfl_flower.recommendation.models.user_graphs import UserGraphs
from subfl_flower.recommendation.models.user_models import RatedUsers
from subfl_flower.wire.contract import RunContext
from subfl_flower.wire.ragged import Ragged


@dataclass(frozen=True, eq=False)
class Chunk:
    """U users who are worked at once.

    Attributes:
        positions: of these users in the cohort.
        ratings: of these users.
        own: their state, by name, each [U, ...].
        held: True where the server holds the items' biases; a user's bias then follows from these.
    """

    positions: Sequence[int]
    ratings: Ratings
    own: dict[str, Tensor]
    held: bool = False


@dataclass(frozen=True, eq=False)
class Users:
    """The users of a node.

    Attributes:
        run: facts of the run.
        cohort: the users and their ratings.
        model: the `UserModel` that they train.
        store: keeps what users remember between messages.
    """

    run: RunContext
    cohort: UserCohort
    model: Any
    store: StateStore | None = None

    def claim_masks(self, client_ids: Sequence[int], context: bytes) -> None:
        """Remember that users make masks for a context, which they do once.

        Raises:
            SubflError: a user has made them before.
        """
        if self.store is not None:
            claim(self.store.kept, client_ids, context)

    @property
    def settings(self) -> Any:
        """The method's settings."""
        return self.run.settings

    @cached_property
    def optimizer(self) -> OptimizerSettings:
        """The optimiser of personal parameters, with `user_lr` in place of its learning rate where that is given."""
        lr = self.settings.user_lr
        return self.run.optimizer if lr is None else self.run.optimizer.model_copy(update={"lr": lr})

    def graphs(self, chunk: Chunk, samplers: Sequence[np.random.Generator] | None = None, draws: int = 1) -> UserGraphs:
        """Users' local graphs without neighbours; they index rows of the whole item table.

        Args:
            chunk: the users.
            samplers: one a user, to draw negative items from, where the model samples any; None: there is no training.
            draws: number of steps for which items are sampled.
        """
        cohort = self.cohort
        of_users = None if cohort.user_attributes is None else cohort.user_attributes.of(chunk.positions)
        users = RatedUsers(chunk.ratings, cohort.center, cohort.spread, of_users, cohort.item_attributes)
        found: UserGraphs = self.model.local_graphs(users, cohort.device, samplers, draws)
        return found

    def personal(self, chunk: Chunk) -> dict[str, Tensor]:
        """The personal parameters of users, by name, each [U, ...]."""
        return {name: chunk.own[name] for name in self.model.personal_shapes}

    def generators(self, ratings: Ratings, server_round: int, purpose: str) -> list[np.random.Generator]:
        """A generator for each user, for draws of one round."""
        users = ratings.user_ids.tolist()
        return [self.cohort.noise_generator(self.run.seed, user, server_round, purpose) for user in users]

    def noise_words(self, ratings: Ratings, server_round: int) -> list[Words]:
        """A source of random words for each user, for the noise on its upload of one round."""
        users = ratings.user_ids.tolist()
        return [self.cohort.noise_words(self.run.seed, user, server_round, "noise") for user in users]

    def lasting_generators(self, ratings: Ratings, purpose: str) -> list[np.random.Generator]:
        """A generator for each user, the same at every call of a run."""
        return [self.cohort.lasting_generator(self.run.seed, user, purpose) for user in ratings.user_ids.tolist()]


def rated_items(ratings: Ratings) -> Ragged:
    """The items of each user's training ratings."""
    return Ragged(ratings.items[ratings.roles == TRAIN], ratings.counts(TRAIN))
