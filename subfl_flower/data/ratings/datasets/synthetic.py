"""Ratings drawn from a low-rank model, with popular items and active users."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from subfl_flower.data.ratings.settings import RatingDatasetSettings
from subfl_flower.data.ratings.splits import SplitName
from subfl_flower.data.ratings.table import RawRatings
from subfl_flower.data.source import Protocol

_LOWEST, _HIGHEST, _MEAN = 1.0, 5.0, 3.0
_BLOCK_ENTRIES = 2**21
"""Pairs of a user and an item processed at once."""


class SyntheticRatingsDataset(RatingDatasetSettings):
    """Ratings `3 + b_u + b_i + p_u . q_i + noise`, rounded to 1..5; this project's model.

    Biases are normal. `p_u . q_i` is a sum over `rank` tastes, of which taste k has a weight proportional to 1 / k, and
    has the standard deviation `signal` over all pairs. A user chooses distinct items one after the other, each with
    a probability proportional to its popularity among the remaining items. The k-th most popular item has the
    popularity `k ** -popularity_skew` (Zipf). A user's number of items is log-normal.

    Users have the attribute `group` and items `genre`: the taste with the largest absolute share of p_u, or q_i, and
    its sign, for example `1+` or `3-`.

    Attributes:
        num_users: number of users.
        num_items: number of items, including those that nobody rated.
        ratings_per_user: mean number of ratings a user, before clipping to 1 .. `num_items`.
        rank: number of tastes.
        signal: standard deviation of the tastes' contribution, in rating units.
        user_bias: standard deviation of users' biases, in rating units.
        item_bias: standard deviation of items' biases, in rating units.
        noise: standard deviation of the noise before rounding, in rating units.
        popularity_skew: exponent of Zipf's law; 0 for equal popularity.
        activity_skew: standard deviation of the logarithm of a user's number of ratings; 0 for equal numbers.
        seed: of the ratings themselves (`partition.seed` drives the split).
    """

    name: Literal["synthetic_ratings"] = "synthetic_ratings"
    num_users: int = Field(default=300, ge=1)
    num_items: int = Field(default=400, ge=2)
    ratings_per_user: float = Field(default=40.0, ge=1)
    rank: int = Field(default=8, ge=1)
    signal: float = Field(default=1.0, ge=0)
    user_bias: float = Field(default=0.3, ge=0)
    item_bias: float = Field(default=0.3, ge=0)
    noise: float = Field(default=0.3, ge=0)
    popularity_skew: float = Field(default=0.6, ge=0)
    activity_skew: float = Field(default=0.5, ge=0)
    seed: int = Field(default=0, ge=0)
    split: SplitName = "random"
    protocol: Protocol = Protocol(rounds=50, local_epochs=1)

    def read(self, root: Path) -> RawRatings:
        """Draw the ratings; nothing is read from `root`."""
        generator = np.random.default_rng(self.seed)
        weights = 1 / np.arange(1, self.rank + 1)
        weights = np.sqrt(self.signal / np.sqrt(np.sum(weights**2)) * weights)  # its square is the weight of p_u . q_i
        tastes = weights * generator.standard_normal((self.num_users, self.rank))
        qualities = weights * generator.standard_normal((self.num_items, self.rank))
        user_bias = self.user_bias * generator.standard_normal(self.num_users)
        item_bias = self.item_bias * generator.standard_normal(self.num_items)
        users, items = self._pairs(generator)
        values = np.empty(users.size)
        for start in range(0, users.size, _BLOCK_ENTRIES):
            block = slice(start, start + _BLOCK_ENTRIES)
            u, i = users[block], items[block]
            values[block] = _MEAN + user_bias[u] + item_bias[i] + np.einsum("rk,rk->r", tastes[u], qualities[i])
            values[block] += self.noise * generator.standard_normal(u.size)
        return RawRatings(
            source="dataset=synthetic_ratings",
            users=users,
            items=items,
            values=np.clip(np.rint(values), _LOWEST, _HIGHEST),
            scale=(_LOWEST, _HIGHEST),
            all_users=np.arange(self.num_users),
            all_items=np.arange(self.num_items),
            user_attributes={"group": _strongest_tastes(tastes)},
            item_attributes={"genre": _strongest_tastes(qualities)},
        )

    def _pairs(self, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Users and items of the ratings: two int64 arrays `[ratings]`, sorted by user, then by item.

        The smallest of exponential variables with rates w_i is item i with a probability proportional to w_i, and the
        next smallest likewise among the rest (Efraimidis and Spirakis, Weighted random sampling with a reservoir,
        2006): the n smallest of a row are a draw without replacement.
        """
        popularity = (1 + generator.permutation(self.num_items)) ** -self.popularity_skew
        counts = self._counts(generator)
        users_a_block = max(1, _BLOCK_ENTRIES // self.num_items)
        users, items = [], []
        for start in range(0, self.num_users, users_a_block):
            wanted = counts[start : start + users_a_block]
            arrivals = generator.standard_exponential((wanted.size, self.num_items), dtype=np.float32)
            arrivals /= popularity.astype(np.float32)
            last = np.take_along_axis(np.sort(arrivals, axis=1), wanted[:, None] - 1, axis=1)
            rows, columns = np.nonzero(arrivals <= last)
            users.append(start + rows)
            items.append(columns)
        return np.concatenate(users), np.concatenate(items)

    def _counts(self, generator: np.random.Generator) -> np.ndarray:
        """Number of items that each user rates, int64 `[users]`."""
        log_mean = np.log(self.ratings_per_user) - self.activity_skew**2 / 2
        drawn = np.rint(generator.lognormal(log_mean, self.activity_skew, self.num_users))
        return np.clip(drawn, 1, self.num_items).astype(np.int64)


def _strongest_tastes(shares: np.ndarray) -> dict[str, list[str]]:
    """Number, from 1 on, and sign of the largest absolute entry of each row of shares `[rows, rank]`, by the row."""
    strongest = np.argmax(np.abs(shares), axis=1)
    positive = np.take_along_axis(shares, strongest[:, None], axis=1)[:, 0] >= 0
    named = zip(strongest.tolist(), positive.tolist(), strict=True)
    return {str(row): [f"{taste + 1}{'+' if sign else '-'}"] for row, (taste, sign) in enumerate(named)}
