"""The bias row against ridge regression by scikit-learn, and against numbers worked out by hand."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from subfl_flower.data.datasets.settings import Protocol
from subfl_flower.data.graph import TEST, TRAIN
from subfl_flower.data.ratings.datasets.movielens import MovieLens100KDataset
from subfl_flower.data.ratings.table import Ratings
from subfl_flower.errors import SubflError
from subfl_flower.recommendation.models.bias_row import bias_row

BENCHMARKS = Path(os.environ.get("SUBFL_TEST_DATA", Path(__file__).parents[3] / ".." / "shared" / "data"))


def some_ratings(users: int = 12, items: int = 9, share: float = 0.5) -> Ratings:
    """Users with many tastes; user 0 and item 0 have no training rating."""
    rng = np.random.default_rng(2)
    rated = rng.random((users, items)) < share
    rated[1:, 1:] |= np.eye(users - 1, items - 1, dtype=bool)
    user, item = np.nonzero(rated)
    roles = np.where((user == 0) | (item == 0) | (rng.random(len(user)) < 0.1), TEST, TRAIN)
    return Ratings(
        user_ids=np.arange(users),
        offsets=np.concatenate([[0], np.cumsum(rated.sum(1))]),
        items=item,
        values=rng.integers(1, 6, len(item)).astype(np.float32),
        roles=roles.astype(np.int8),
        num_items=items,
        scale=(1.0, 5.0),
    )


@pytest.mark.parametrize("shrinkage", [0.5, 5.0, 50.0])
def test_biases_are_those_of_ridge_regression_on_indicators(shrinkage: float) -> None:
    ratings = some_ratings()
    training = ratings.roles == TRAIN
    users, items, values = ratings.users()[training], ratings.items[training], ratings.values[training].astype(float)
    indicators = np.hstack([np.eye(ratings.num_users)[users], np.eye(ratings.num_items)[items]])
    expected = Ridge(alpha=shrinkage, fit_intercept=False).fit(indicators, values - values.mean()).coef_
    found = bias_row(ratings, shrinkage)
    assert found.mean == pytest.approx(values.mean(), abs=1e-12)
    np.testing.assert_allclose(found.user, expected[: ratings.num_users], atol=1e-5)
    np.testing.assert_allclose(found.item, expected[ratings.num_users :], atol=1e-5)
    assert found.user[0] == 0 == found.item[0]


def two_users() -> Ratings:
    """User 0 gives item 0 a 5 and item 1 a 3, user 1 gives item 0 a 1; a rating that tests must not count."""
    return Ratings(
        user_ids=np.arange(2),
        offsets=np.array([0, 2, 4]),
        items=np.array([0, 1, 0, 1]),
        values=np.array([5, 3, 1, 5], dtype=np.float32),
        roles=np.array([TRAIN, TRAIN, TRAIN, TEST], dtype=np.int8),
        num_items=2,
        scale=(1.0, 5.0),
    )


def test_by_hand() -> None:
    """Mean 3; with s = 1 users' a, b and items' p, q solve 3a + p + q = 2, 2b + p = -2, 3p + a + b = 0, 2q + a = 0."""
    found = bias_row(two_users(), 1.0)
    assert found.mean == 3.0
    a, b = found.user
    p, q = found.item
    assert (a, b, p, q) == pytest.approx((16 / 21, -22 / 21, 2 / 21, -8 / 21), abs=1e-6)
    predicted = found.predict(np.array([0, 1]), np.array([1, 1]))
    np.testing.assert_allclose(predicted, [3 + 8 / 21, 3 - 30 / 21], atol=1e-6)


def test_predictions_stay_on_the_scale() -> None:
    found = bias_row(two_users(), 1e-6)
    unclipped = found.mean + found.user[[0, 1]] + found.item[[0, 1]]
    assert unclipped[0] == pytest.approx(5.0, abs=1e-3) and unclipped[1] < 0
    assert found.predict(np.array([1]), np.array([1])).tolist() == [1.0]


def test_without_ratings_or_shrinkage_there_are_no_biases() -> None:
    empty = two_users().of_users([])
    with pytest.raises(SubflError, match="at least one training rating"):
        bias_row(empty)
    with pytest.raises(SubflError, match="shrinkage of biases must be positive, not 0"):
        bias_row(two_users(), 0.0)


def test_movielens() -> None:
    """The figure that is known of ML-100K's split u1: 0.955 with a shrinkage of 5."""
    if not (BENCHMARKS / "ml-100k" / "u1.base").is_file():
        pytest.skip(f"ml-100k is not among the benchmark files in {BENCHMARKS} (SUBFL_TEST_DATA)")
    dataset = MovieLens100KDataset(protocol=Protocol(rounds=1, local_epochs=1))
    ratings = dataset.load(BENCHMARKS, 0).ratings
    test = ratings.roles == TEST
    found = bias_row(ratings).predict(ratings.users()[test], ratings.items[test])
    assert np.sqrt(np.mean((found - ratings.values[test]) ** 2)) == pytest.approx(0.955, abs=0.002)
