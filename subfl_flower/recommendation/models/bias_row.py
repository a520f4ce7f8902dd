"""Mean plus biases: the baseline that a recommender must beat."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from subfl_flower.data.graph import TEST, TRAIN, VALIDATION
from subfl_flower.data.ratings.table import Ratings
from subfl_flower.errors import SubflError

_TOLERANCE = 1e-8
_MOST_SWEEPS = 1000


@dataclass(frozen=True, eq=False)
class BiasRow:
    """Predictor by mean + bias of the user + bias of the item.

    Attributes:
        mean: of the training ratings, rating units.
        user: float64 [users], biases by the users' positions; 0 where a user has no training rating.
        item: float64 [items]; 0 where an item has no training rating.
        scale: lowest and highest possible rating.
    """

    mean: float
    user: np.ndarray
    item: np.ndarray
    scale: tuple[float, float]

    def predict(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Predictions in rating units, float64 [Q], clipped to the scale.

        Args:
            users: positions of users [Q].
            items: [Q].
        """
        return np.clip(self.mean + self.user[users] + self.item[items], *self.scale)


def bias_row(ratings: Ratings, shrinkage: float = 5.0) -> BiasRow:
    r"""The biases that minimise the squared errors of the training ratings plus shrinkage times the biases' squares.

    This is the baseline of Koren (KDD 2008, section 2.1) with λ₁ = s. A user's bias is :math:`\sum_i (r_{ui} - \mu -
    b_i) / (n_u + s)`, an item's likewise. The two are computed in turns until they converge. After a single turn, users
    who rated popular items would still have too large a bias.

    Args:
        ratings: of all users; those that train are used.
        shrinkage: s: a user with s ratings has half their mean deviation as bias.

    Raises:
        SubflError: no rating has the training role, or the shrinkage is not positive.
    """
    training = ratings.roles == TRAIN
    if not training.any():
        raise SubflError("a mean and biases need at least one training rating")
    if not shrinkage > 0:
        raise SubflError(f"the shrinkage of biases must be positive, not {shrinkage:g}")
    users, items = ratings.users()[training], ratings.items[training]
    values = ratings.values[training].astype(np.float64)
    mean = float(values.mean())
    user, item = np.zeros(ratings.num_users), np.zeros(ratings.num_items)
    for _ in range(_MOST_SWEEPS):
        item = _shrunk_means(values - mean - user[users], items, ratings.num_items, shrinkage)
        before, user = user, _shrunk_means(values - mean - item[items], users, ratings.num_users, shrinkage)
        if np.abs(user - before).max() < _TOLERANCE * (ratings.scale[1] - ratings.scale[0]):
            break
    return BiasRow(mean, user, item, ratings.scale)


def _shrunk_means(values: np.ndarray, groups: np.ndarray, num_groups: int, shrinkage: float) -> np.ndarray:
    """The sum of each group's values over its size plus the shrinkage."""
    sums = np.bincount(groups, weights=values, minlength=num_groups)
    return sums / (np.bincount(groups, minlength=num_groups) + shrinkage)


def bias_row_errors(ratings: Ratings) -> dict[str, float | None]:
    """Errors (RMSE) of the bias row on ``validation`` and ``test`` ratings, in rating units; None without any."""
    fitted = bias_row(ratings)
    errors: dict[str, float | None] = {}
    for name, role in (("validation", VALIDATION), ("test", TEST)):
        chosen = ratings.roles == role
        predicted = fitted.predict(ratings.users()[chosen], ratings.items[chosen])
        squares = (predicted - ratings.values[chosen]) ** 2
        errors[name] = float(np.sqrt(squares.mean())) if len(squares) else None
    return errors
