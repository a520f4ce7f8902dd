"""Popularity: what is known of an item without a model of taste, for rankings what the bias row is for ratings."""

from __future__ import annotations

import numpy as np

from subfl_flower.data.graph import TRAIN
from subfl_flower.data.ratings.table import Ratings
from subfl_flower.tasks.ranking import Ranking
from subfl_flower.tasks.ranking_metrics import user_figures

_USERS_AT_ONCE = 1024


def popularity(ratings: Ratings) -> np.ndarray:
    """How many users have each item among those that they train on, float32 [num_items].

    Args:
        ratings: of all users.
    """
    counts = np.bincount(ratings.items[ratings.roles == TRAIN], minlength=ratings.num_items)
    return counts.astype(np.float32)


def popularity_figures(ratings: Ratings, task: Ranking) -> dict[str, float | None]:
    """What ranking by popularity comes to: the mean over all users of each figure of `user_figures`, by name.

    Args:
        ratings: of all users.
        task: what is measured.
    """
    counts = popularity(ratings)
    parts: list[dict[str, np.ndarray]] = []
    for start in range(0, ratings.num_users, _USERS_AT_ONCE):
        users = ratings.of_users(range(start, min(start + _USERS_AT_ONCE, ratings.num_users)))
        parts.append(user_figures(np.broadcast_to(counts, (users.num_users, len(counts))), users, task))
    figures = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return {name: task.over_clients(figures, name) for name in figures}
