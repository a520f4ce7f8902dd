"""Popularity: what is known of an item without a model of taste, for rankings what the bias row is for ratings."""

from __future__ import annotations

import numpy as np

from subfl_flower.data.graph import TRAIN
from subfl_flower.data.ratings.table import Ratings


def popularity(ratings: Ratings) -> np.ndarray:
    """How many users have each item among those that they train on, float32 [num_items].

    Args:
        ratings: of all users.
    """
    counts = np.bincount(ratings.items[ratings.roles == TRAIN], minlength=ratings.num_items)
    return counts.astype(np.float32)
