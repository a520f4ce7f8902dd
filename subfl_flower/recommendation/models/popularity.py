"""Popularity: the baseline for rankings, as the bias row is for ratings."""

from __future__ import annotations

import numpy as np

from subfl_flower.data.graph import TRAIN
from subfl_flower.data.ratings.table import Ratings


def popularity(ratings: Ratings) -> np.ndarray:
    """Number of users who have each item among their training items, float32 [num_items].

    Args:
        ratings: of all users.
    """
    counts = np.bincount(ratings.items[ratings.roles == TRAIN], minlength=ratings.num_items)
    return counts.astype(np.float32)
