"""A recommender's best items that users have not rated."""

from __future__ import annotations

import numpy as np

from subfl_flower.commands.recommendations.users import UserToRecommend
from subfl_flower.data.graph import TEST
from subfl_flower.data.ratings.table import Ratings
from subfl_flower.recommendation.models.trained_users import TrainedUsers


def recommended(user: UserToRecommend, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The n best items that the user has not rated, best first; see `best_items`."""
    (found,) = best_items(user.recommender, user.ratings, n)
    return found


def best_items(recommender: TrainedUsers, ratings: Ratings, n: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """The n best items that each user has not rated, best first; fewer where there are fewer.

    Ratings held out for the test count as not given. Among equal scores the item with the lower number comes first.
    Items are ordered by scores before clipping, so that they differ also beyond the ends of the rating scale.

    Args:
        recommender: with exactly these users.
        ratings: of these users.
        n: at least 1.

    Returns:
        For each user the items, int64, and their values, float32: predicted ratings, in rating units, clipped to the
        scale; or, of a recommender that ranks, scores without a unit.
    """
    asked = []
    for position in range(ratings.num_users):
        own = slice(int(ratings.offsets[position]), int(ratings.offsets[position + 1]))
        rated = ratings.items[own][ratings.roles[own] != TEST]
        asked.append(np.setdiff1d(np.arange(ratings.num_items), rated, assume_unique=True))
    found = []
    for items, scores in zip(asked, recommender.scores(ratings, asked), strict=True):
        best = _best(scores, n)
        found.append((items[best], recommender.shown(scores[best])))
    return found


def _best(scores: np.ndarray, n: int) -> np.ndarray:
    """Positions of the n largest scores, the largest first; among equal scores the earlier first."""
    if n < len(scores) and not np.isnan(scores).any():
        candidates = np.flatnonzero(scores >= np.partition(scores, len(scores) - n)[len(scores) - n])
        return candidates[np.argsort(-scores[candidates], kind="stable")[:n]]
    return np.argsort(-scores, kind="stable")[:n]
