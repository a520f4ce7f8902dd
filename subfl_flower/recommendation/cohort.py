"""The users that one node hosts: their ratings, in normalised units and by role."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from subfl_flower.data.graph import TRAIN
from subfl_flower.data.ratings.attributes import Attributes
from subfl_flower.data.ratings.table import Ratings
from subfl_flower.node.shared_key import SharedKey
from subfl_flower.privacy.discrete_noise import Words
from subfl_flower.recommendation.tasks.ranking_metrics import Candidates, draw_candidates, user_figures
from subfl_flower.recommendation.tasks.rating_prediction import errors_by_user
from subfl_flower.seeding import client_generator, secret_generator, system_words, words_of

_USERS_AT_ONCE = 128
# So many users are worth a chunk, which another core may work.
_USERS_OF_A_CORE = 32
# Each training rating of a user takes a handful of arrays of this many numbers.
_RATINGS_AT_ONCE = 200_000


@dataclass(frozen=True)
class UserCohort:
    """The users of a node; a user's position is her row in `ratings`.

    Attributes:
        ratings: of these users.
        center, spread: a rating's normalised value is (rating - center) / spread.
        device: where models are trained.
        chunk: users worked at once; ``auto`` decides by the number of their ratings, ``all`` is the whole cohort.
        shared_key: the key that all users share and the server does not have.
        secrets: seeds of each user's private draws, by client id; who knows one can undo the protection. None in a
            simulation, where private draws follow from the run's seed, so that the same seed gives the same numbers.
        run: the run's id.
        trusted_matcher: the matcher's public key, where the operator configured it; None: the key that the server
            sends.
        keep_embeddings: True where users never send the server an embedding to be clustered by.
        whole: reads the ratings of all users; for upper bounds.
        user_attributes: of these users, by position; None where users have none.
        item_attributes: of all items; None where they have none.
        task: the task of their figures.
        fingerprint: of the whole data set's ratings; None where it is not known.
    """

    ratings: Ratings
    center: float
    spread: float
    device: torch.device
    chunk: int | Literal["auto", "all"]
    shared_key: SharedKey | None = None
    secrets: Mapping[int, SharedKey] | None = None
    run: str = ""
    trusted_matcher: bytes | None = None
    keep_embeddings: bool = False
    whole: Callable[[], Ratings] | None = None
    user_attributes: Attributes | None = None
    item_attributes: Attributes | None = None
    task: Any = None
    fingerprint: str | None = None

    @cached_property
    def client_ids(self) -> tuple[int, ...]:
        """The users, by position."""
        return tuple(self.ratings.user_ids.tolist())

    @cached_property
    def num_examples(self) -> tuple[int, ...]:
        """Number of training ratings of each user; a user may have none."""
        return tuple(self.ratings.counts(TRAIN).tolist())

    def candidates(self, ratings: Ratings) -> Candidates:
        """Candidates among which held-out items of some of these users are ranked, for a ranking task."""
        positions = np.searchsorted(self.ratings.user_ids, ratings.user_ids)
        return self._candidates.of_users(positions)

    @cached_property
    def _candidates(self) -> Candidates:
        return draw_candidates(self.ratings, self.task.negatives, self.task.seed)

    def rating_errors(self, ratings: Ratings, predicted: Tensor) -> dict[str, np.ndarray]:
        """Errors in rating units of some users' predictions, by name, each [U].

        Args:
            ratings: of U users.
            predicted: normalised units, of those ratings that do not train, in their order.
        """
        return errors_by_user(ratings, ratings.roles != TRAIN, self.in_rating_units(predicted))

    def in_rating_units(self, predicted: Tensor) -> np.ndarray:
        """Predictions in rating units, float64, clipped to the scale, from those in normalised units."""
        return np.clip(predicted.double().cpu().numpy() * self.spread + self.center, *self.ratings.scale)

    def ranking_figures(self, ratings: Ratings, scores: np.ndarray) -> dict[str, np.ndarray]:
        """Each user's hit rates and NDCG, by name, each [U], for a ranking task.

        Args:
            ratings: of U users.
            scores: of all items [U, num_items].
        """
        return user_figures(scores, ratings, self.task, self.candidates(ratings))

    @property
    def sizes(self) -> dict[str, list[float]]:
        """Sizes of each user's local graph, for the roster: its items and the user, an edge in both directions."""
        counts = self.ratings.counts(TRAIN)
        return {
            "num_examples": counts.astype(float).tolist(),
            "num_nodes": (counts + 1.0).tolist(),
            "num_edges": (2.0 * counts).tolist(),
        }

    def chunks(self, positions: Sequence[int]) -> list[list[int]]:
        """Chunks of positions that are worked at once."""
        chosen = np.asarray(positions, dtype=np.int64)
        if self.chunk == "all" or not len(chosen):
            return [chosen.tolist()] if len(chosen) else []
        if self.chunk != "auto":
            cuts = np.arange(self.chunk, len(chosen), self.chunk)
        else:
            before = np.cumsum(np.diff(self.ratings.offsets)[chosen])
            users = min(_USERS_AT_ONCE, max(_USERS_OF_A_CORE, -(-len(chosen) // 2)))
            bins = np.maximum(before // _RATINGS_AT_ONCE, np.arange(len(chosen)) // users)
            cuts = np.flatnonzero(np.diff(bins)) + 1
        return [part.tolist() for part in np.split(chosen, cuts)]

    def lasting_generator(self, seed: int, client_id: int, purpose: str) -> np.random.Generator:
        """Generator of a user's protection that is drawn once for the whole run, the same at every call."""
        if self.secrets is None:
            return client_generator(seed, client_id, 0, purpose)
        return secret_generator(self._own_secrets[client_id], client_id, f"{self.run}/{purpose}")

    def noise_words(self, seed: int, client_id: int, server_round: int, purpose: str) -> Words:
        """Random words for a user's noise. In a deployment they are the operating system's, never the same twice.

        A server that could have the same noise added to two different updates would see their difference.
        """
        if self.secrets is None:
            return words_of(client_generator(seed, client_id, server_round, purpose))
        return system_words

    def noise_generator(self, seed: int, client_id: int, server_round: int, purpose: str) -> np.random.Generator:
        """Generator of a user's draws of one round. In a deployment it is never the same twice."""
        if self.secrets is None:
            return client_generator(seed, client_id, server_round, purpose)
        return np.random.default_rng()

    @cached_property
    def _own_secrets(self) -> dict[int, bytes]:
        return {client_id: key.read() for client_id, key in (self.secrets or {}).items()}
