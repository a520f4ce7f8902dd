"""Popularity: number of users who have an item, and the figures of ranking by it, on three users and five items."""

from __future__ import annotations

import math

import numpy as np
import pytest

import subfl_flower.recommendation.tasks.ranking_metrics as module
from subfl_flower.data.graph import TEST, TRAIN, VALIDATION
from subfl_flower.data.ratings.table import Ratings
from subfl_flower.recommendation.models.popularity import popularity
from subfl_flower.recommendation.tasks.ranking_metrics import popularity_figures
from subfl_flower.tasks.choices import Ranking


def three_users(roles: str = "tt+?tt?t+") -> Ratings:
    """``t`` trains, ``+`` validates, ``?`` tests; user 0 has items 0 to 3, user 1 items 0 to 2, user 2 items 0, 4."""
    role_of = {"t": TRAIN, "+": VALIDATION, "?": TEST}
    return Ratings(
        user_ids=np.arange(3),
        offsets=np.array([0, 4, 7, 9]),
        items=np.array([0, 1, 2, 3, 0, 1, 2, 0, 4]),
        values=np.array([5, 1, 2, 3, 1, 2, 5, 1, 1], np.float32),
        roles=np.array([role_of[role] for role in roles], np.int8),
        num_items=5,
        scale=(1.0, 5.0),
    )


def test_popularity_counts_the_users_who_train_on_an_item() -> None:
    counts = popularity(three_users())
    assert counts.tolist() == [3, 2, 0, 0, 0] and counts.dtype == np.float32
    assert popularity(three_users("t?tttt?t?")).tolist() == [3, 1, 1, 1, 0]


@pytest.mark.parametrize("at_once", [1, 2, 1024])
def test_figures_are_means_over_users_of_their_expected_values(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    """All held-out items are trained on by nobody, with the counts [3, 2, 0, 0, 0].

    Among all items. Validation: user 0 knows items 0 and 1, its item 2 is level with 3 and 4: the first place with
    probability 1/3. User 2 knows item 0; above its item 4 stands item 1, level are 2 and 3: never the first place, and
    the second one with probability 1/3. User 1 validates nothing. Test: user 0 knows 0, 1 and 2, its item 3 is level
    with 4: 1/2. User 1 knows 0 and 1, its item 2 is level with 3 and 4: 1/3. User 2 tests nothing.
    """
    monkeypatch.setattr(module, "_USERS_AT_ONCE", at_once)
    found = popularity_figures(three_users(), Ranking(name="ranking", negatives=2, cutoffs=(1, 2)))
    second = 1 / math.log2(3)
    expected = {
        "validation.full_hr@1": (1 / 3 + 0) / 2,
        "validation.full_hr@2": (2 / 3 + 1 / 3) / 2,
        "validation.full_ndcg@2": ((1 + second) / 3 + second / 3) / 2,
        "test.full_hr@1": (1 / 2 + 1 / 3) / 2,
        "test.full_hr@2": (1 + 2 / 3) / 2,
        "test.full_ndcg@1": (1 / 2 + 1 / 3) / 2,
        "test.full_ndcg@2": ((1 + second) / 2 + (1 + second) / 3) / 2,
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value), name


def test_among_drawn_items_it_is_the_same_with_these_alone() -> None:
    """User 0 never rated item 4 alone, user 1 items 3 and 4, user 2 items 1, 2 and 3: with 3 negatives these are all.

    User 0's and user 1's held-out items are level with their candidates. Above user 2's is item 1, two are level.
    """
    found = popularity_figures(three_users(), Ranking(name="ranking", negatives=3, cutoffs=(1, 2)))
    expected = {
        "validation.hr@1": (1 / 2 + 0) / 2,
        "validation.hr@2": (1 + 1 / 3) / 2,
        "test.hr@1": (1 / 2 + 1 / 3) / 2,
        "test.hr@2": (1 + 2 / 3) / 2,
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value), name
    assert found["validation"] == found["validation.hr@1"] and found["test"] == found["test.hr@1"]


def test_where_nobody_holds_out_anything_there_are_no_figures() -> None:
    found = popularity_figures(three_users("ttttttttt"), Ranking(name="ranking", negatives=2, cutoffs=(1,)))
    assert found["test"] is None and found["validation.full_ndcg@1"] is None
