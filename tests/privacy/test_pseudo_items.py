from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from subfl_flower.privacy import pseudo_items
from subfl_flower.privacy.pseudo_items import draw_pseudo_items, pseudo_gradients, stacked_pseudo_gradients


def real_rows(n: int, width: int, seed: int = 0) -> np.ndarray:
    """Rows with correlated columns and a mean."""
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((width, width))
    return (rng.standard_normal((n, width)) @ mixing + np.arange(width)).astype(np.float32)


def test_pseudo_items_are_unrated_distinct_and_sorted() -> None:
    rated = np.array([3, 0, 7])
    for seed in range(20):
        drawn = draw_pseudo_items(rated, 12, 5, np.random.default_rng(seed))
        assert len(drawn) == 5
        assert (np.diff(drawn) > 0).all()
        assert not np.isin(drawn, rated).any()
        assert drawn.min() >= 0
        assert drawn.max() < 12


def test_all_unrated_items_are_drawn_alike() -> None:
    times = np.zeros(6)
    for seed in range(3000):
        times[draw_pseudo_items(np.array([1]), 6, 2, np.random.default_rng(seed))] += 1
    assert times[1] == 0
    assert stats.chisquare(np.delete(times, 1)).pvalue > 0.01


def test_there_may_be_fewer_items_than_asked_for() -> None:
    drawn = draw_pseudo_items(np.array([0, 2]), 4, 10, np.random.default_rng(0))
    np.testing.assert_array_equal(drawn, [1, 3])
    assert len(draw_pseudo_items(np.arange(4), 4, 10, np.random.default_rng(0))) == 0


@pytest.mark.parametrize(("n", "most"), [(2, 1024), (40, 1024), (40, 8)], ids=["few", "rows", "triangle"])
def test_pseudo_gradients_are_normal_with_mean_and_covariance_of_real_ones(
    n: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pseudo_items, "MOST_ROOT_ROWS", most)
    real = real_rows(n, 3)
    count = 100_000
    drawn = pseudo_gradients(real, count, np.random.default_rng(1))
    assert drawn.shape == (count, 3)
    assert drawn.dtype == np.float32
    mean, covariance = real.mean(0), np.cov(real.T, bias=True)
    spread = np.sqrt(np.diag(covariance))
    assert (np.abs(drawn.mean(0) - mean) < 5 * spread / np.sqrt(count)).all()
    np.testing.assert_allclose(np.cov(drawn.T, bias=True), covariance, atol=8 * spread.max() ** 2 / np.sqrt(count))
    for column in range(3):
        law = stats.norm(mean[column], spread[column])
        assert stats.kstest(drawn[:, column], law.cdf).pvalue > 0.01


def test_pseudo_gradients_stay_among_what_real_ones_span() -> None:
    """Two real rows span a line, and so must what is drawn."""
    real = np.float32([[1.0, 2.0, 3.0], [3.0, 2.0, -1.0]])
    drawn = pseudo_gradients(real, 50, np.random.default_rng(0)) - real.mean(0)
    np.testing.assert_allclose(np.cross(drawn, real[0] - real[1]), 0.0, atol=1e-5)


def test_one_real_row_is_all_there_is_and_none_gives_zeros() -> None:
    row = np.float32([[1.5, -2.0]])
    np.testing.assert_array_equal(pseudo_gradients(row, 4, np.random.default_rng(0)), np.repeat(row, 4, 0))
    np.testing.assert_array_equal(pseudo_gradients(row[:0], 4, np.random.default_rng(0)), np.zeros((4, 2)))


def test_the_same_generator_gives_the_covariance_between_rounds() -> None:
    """With Z kept, a pseudo row of one round goes with that of another as a real row with itself."""
    before = real_rows(30, 2)
    after = (before * np.float32([0.5, -2.0]) + np.random.default_rng(1).standard_normal((30, 2))).astype(np.float32)
    first, second = (pseudo_gradients(real, 100_000, np.random.default_rng(7)) for real in (before, after))
    drawn = np.cov(np.hstack([first, second]).T, bias=True)
    real = np.cov(np.hstack([before, after]).T, bias=True)
    np.testing.assert_allclose(drawn, real, atol=8 * real.max() / np.sqrt(100_000))
    assert np.abs(real[:2, 2:]).max() > 40 * real.max() / np.sqrt(100_000)  # what a new Z would miss


def test_stacked_users_are_drawn_as_each_alone() -> None:
    real = real_rows(12, 4)
    offsets, counts = np.array([0, 5, 5, 12]), np.array([6, 2, 3])
    stacked = stacked_pseudo_gradients(real, offsets, counts, [np.random.default_rng(user) for user in range(3)])
    alone = [
        pseudo_gradients(real[offsets[user] : offsets[user + 1]], counts[user], np.random.default_rng(user))
        for user in range(3)
    ]
    np.testing.assert_array_equal(stacked, np.concatenate(alone))
    assert stacked.shape == (11, 4)
