from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from subfl_flower.data.graph import TEST
from subfl_flower.data.ratings.datasets.synthetic import SyntheticRatingsDataset
from subfl_flower.data.ratings.table import Ratings

NOWHERE = Path("nowhere")
PLAIN: dict[str, Any] = {"user_bias": 0.0, "item_bias": 0.0, "signal": 0.0, "noise": 0.0}


def drawn(**settings: Any) -> Ratings:
    return SyntheticRatingsDataset(**settings).load(NOWHERE, 1).ratings


def test_sizes() -> None:
    ratings = drawn()
    assert (ratings.num_users, ratings.num_items, ratings.scale) == (300, 400, (1.0, 5.0))
    assert np.unique(ratings.values).tolist() == [1, 2, 3, 4, 5]
    assert np.diff(ratings.offsets).mean() == pytest.approx(40, rel=0.05)  # deviation of the mean: 1.2
    for user in range(300):
        assert np.all(np.diff(ratings.items[ratings.offsets[user] : ratings.offsets[user + 1]]) > 0)


def test_the_seed_decides() -> None:
    one, same, other = (SyntheticRatingsDataset(seed=seed).read(NOWHERE) for seed in (0, 0, 1))
    assert one.values.tolist() == same.values.tolist() and one.items.tolist() == same.items.tolist()
    assert one.items.tolist() != other.items.tolist()


def test_the_strongest_taste_and_its_sign_are_an_attribute() -> None:
    """The tastes are the first numbers that are drawn, and taste k is the first one's share times 1 / sqrt(k)."""
    loaded = SyntheticRatingsDataset(num_users=9, num_items=7, rank=3, seed=4).load(NOWHERE, 1)
    generator = np.random.default_rng(4)
    for size, attributes, field in ((9, loaded.user_attributes, "group"), (7, loaded.item_attributes, "genre")):
        shares = generator.standard_normal((size, 3)) / np.sqrt([1, 2, 3])
        named = [f"{k + 1}{'-' if row[k] < 0 else '+'}" for row in shares for k in [int(np.argmax(np.abs(row)))]]
        assert attributes is not None and attributes.vocabularies == {field: sorted(set(named))}
        assert attributes.offsets.tolist() == list(range(size + 1))
        assert [attributes.values[0][code] for code in attributes.codes] == named and len(set(named)) > 2


def test_popularity_follows_zipfs_law() -> None:
    # Who rates one item only draws it with a probability proportional to 1 / rank.
    settings = SyntheticRatingsDataset(
        num_users=20_000, num_items=5, ratings_per_user=1, activity_skew=0, popularity_skew=1, rank=1
    )
    counts = np.sort(np.bincount(settings.read(NOWHERE).items))[::-1]
    np.testing.assert_allclose(counts / 20_000, 1 / np.arange(1, 6) / sum(1 / k for k in range(1, 6)), atol=0.01)


def test_drawing_is_without_replacement_one_after_the_other() -> None:
    ratings = drawn(num_users=20_000, num_items=4, ratings_per_user=2, activity_skew=0, popularity_skew=0, rank=1)
    assert np.all(np.diff(ratings.offsets) == 2)
    np.testing.assert_allclose(np.bincount(ratings.items) / 20_000, 0.5, atol=0.015)
    skewed = drawn(num_users=20_000, num_items=3, ratings_per_user=2, activity_skew=0, popularity_skew=1, rank=1)
    # Popularities 1, 1/2, 1/3, that is 6/11, 3/11, 2/11. Left out: the third in 6/11 * 3/5 + 3/11 * 6/8 of all draws,
    # the second in 6/11 * 2/5 + 2/11 * 6/9, the first in 3/11 * 2/8 + 2/11 * 3/9.
    left_out = 1 - np.sort(np.bincount(skewed.items) / 20_000)
    expected = [6 / 11 * 3 / 5 + 3 / 11 * 6 / 8, 6 / 11 * 2 / 5 + 2 / 11 * 6 / 9, 3 / 11 * 2 / 8 + 2 / 11 * 3 / 9]
    np.testing.assert_allclose(left_out, expected, atol=0.015)


@pytest.mark.parametrize("part", ["signal", "user_bias", "item_bias", "noise"])
def test_each_part_has_the_stated_deviation(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np, "rint", lambda values: values)
    large = {"num_users": 1500, "num_items": 1500, "rank": 20, "activity_skew": 0.0}
    values = drawn(**(PLAIN | large | {part: 0.4})).values
    assert values.std() == pytest.approx(0.4, rel=0.06)
    assert values.mean() == pytest.approx(3.0, abs=0.05)


def test_activity_is_log_normal_with_the_stated_mean() -> None:
    counts = np.diff(drawn(num_users=5000, num_items=2000, ratings_per_user=60, activity_skew=0.8, rank=1).offsets)
    assert counts.mean() == pytest.approx(60, rel=0.04)
    assert np.log(counts).std() == pytest.approx(0.8, rel=0.05)
    assert np.median(counts) == pytest.approx(60 * np.exp(-0.32), rel=0.05)


def test_counts_are_held_within_what_there_is() -> None:
    ratings = drawn(num_users=200, num_items=6, ratings_per_user=4, activity_skew=1.5, rank=1)
    counts = np.diff(ratings.offsets)
    assert (counts.min(), counts.max()) == (1, 6)


def test_blocks_of_users_are_joined_seamlessly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subfl_flower.data.ratings.datasets.synthetic._BLOCK_ENTRIES", 1000)  # two users at a time
    raw = SyntheticRatingsDataset().read(NOWHERE)
    assert np.unique(raw.users).tolist() == list(range(300)) and np.all(np.diff(raw.users) >= 0)
    assert np.unique(raw.users * 400 + raw.items).size == raw.users.size == raw.values.size


def biases(ratings: Ratings, seen: np.ndarray) -> np.ndarray:
    """Predictions of every rating by the global mean and shrunk user and item biases."""
    users, items, values = ratings.users(), ratings.items, ratings.values.astype(np.float64)
    predicted = np.full(len(ratings), values[seen].mean())
    of_users, of_items = np.zeros(ratings.num_users), np.zeros(ratings.num_items)
    for _ in range(10):
        for ids, bias, other in ((items, of_items, of_users[users]), (users, of_users, of_items[items])):
            left = (values - predicted - other)[seen]
            bias[:] = np.bincount(ids[seen], left, bias.size) / (5 + np.bincount(ids[seen], minlength=bias.size))
    return predicted + of_users[users] + of_items[items]


def test_a_factor_model_clearly_beats_biases() -> None:
    ratings = drawn()
    seen, users, items = ratings.roles != TEST, ratings.users(), ratings.items
    base = biases(ratings, seen)
    left = (ratings.values - base)[seen]
    generator = np.random.default_rng(0)
    factors = [0.3 * generator.standard_normal((size, 4)) for size in (ratings.num_users, ratings.num_items)]
    for step in range(20):  # alternating least squares
        ids, mine, theirs = (users, items)[step % 2][seen], factors[step % 2], factors[1 - step % 2]
        rows = theirs[(items, users)[step % 2][seen]]
        squares, sums = np.tile(2 * np.eye(4), (len(mine), 1, 1)), np.zeros_like(mine)
        np.add.at(squares, ids, rows[:, :, None] * rows[:, None, :])
        np.add.at(sums, ids, rows * left[:, None])
        mine[:] = np.linalg.solve(squares, sums[:, :, None])[:, :, 0]
    products = np.einsum("rk,rk->r", factors[0][users], factors[1][items])
    rmse = [
        float(np.sqrt(np.mean((np.clip(predicted, 1, 5) - ratings.values)[~seen] ** 2)))
        for predicted in (base, base + products)
    ]
    assert rmse[0] > 0.9 and rmse[1] < 0.75
