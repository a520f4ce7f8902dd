"""Popularity as a method: every user is recommended the items that most users have."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from subfl_flower.clients.recommendation.central_ratings import CentralRatingsClient
from subfl_flower.clients.recommendation.recommender_models import require_ranking_model
from subfl_flower.data.ratings.table import Ratings
from subfl_flower.recommendation.models.popularity import popularity


class PopularityClient(CentralRatingsClient):
    """Rank items by the number of users who have them, the same in every round."""

    @classmethod
    def check_model(cls, model: Any, method: str) -> None:
        """Refuse a model that does not rank; the model itself is not used."""
        require_ranking_model(model, method)

    def train_centrally(self, server_round: int, local_epochs: int) -> dict[str, np.ndarray]:
        """No figures: there is no training in rounds."""
        return {}

    def figures(self, ratings: Ratings) -> dict[str, np.ndarray]:
        """Ranking figures by the number of users who have an item."""
        scores = np.broadcast_to(self._counts, (ratings.num_users, len(self._counts)))
        return self.cohort.ranking_figures(ratings, scores)

    @cached_property
    def _counts(self) -> np.ndarray:
        return popularity(self.whole)
