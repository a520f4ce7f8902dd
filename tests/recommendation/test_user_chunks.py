"""Users that are worked at once: cut by their number, and by their ratings together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from subfl_flower.data.graph import TRAIN
from subfl_flower.data.ratings.table import Ratings
from subfl_flower.recommendation import cohort as module
from subfl_flower.recommendation.cohort import UserCohort

LENGTHS = [3, 1, 4, 0, 5, 9, 2, 1]


def hosted(chunk: Any, lengths: Sequence[int] = LENGTHS) -> UserCohort:
    count = sum(lengths)
    ratings = Ratings(
        user_ids=np.arange(len(lengths)),
        offsets=np.cumsum([0, *lengths]),
        items=np.concatenate([np.arange(length) for length in lengths]),
        values=np.ones(count, dtype=np.float32),
        roles=np.full(count, TRAIN, dtype=np.int8),
        num_items=10,
        scale=(1.0, 5.0),
    )
    return UserCohort(ratings, 0.0, 1.0, torch.device("cpu"), chunk)


@pytest.mark.parametrize(
    ("users", "ratings", "expected"),
    [
        (100, 1000, [[7, 0, 5, 2, 3, 4]]),
        (2, 1000, [[7, 0], [5, 2], [3, 4]]),
        # Ratings of users so far: 1, 4, 13, 17, 17, 22. A chunk ends where they pass a multiple of ten.
        (100, 10, [[7, 0], [5, 2, 3], [4]]),
        (4, 1000, [[7, 0, 5, 2], [3, 4]]),
    ],
)
def test_chunks_are_cut_by_users_and_by_ratings(
    users: int, ratings: int, expected: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_USERS_AT_ONCE", users)
    monkeypatch.setattr(module, "_RATINGS_AT_ONCE", ratings)
    assert hosted("auto").chunks([7, 0, 5, 2, 3, 4]) == expected


@pytest.mark.parametrize(
    ("users", "lengths"),
    [(32, [32]), (33, [32, 1]), (64, [32, 32]), (101, [51, 50]), (256, [128, 128]), (300, [128, 128, 44])],
)
def test_many_users_are_two_chunks_or_more(users: int, lengths: list[int]) -> None:
    chunks = hosted("auto", [1] * users).chunks(range(users))
    assert [len(chunk) for chunk in chunks] == lengths
    assert [user for chunk in chunks for user in chunk] == list(range(users))


def test_chunks_of_a_given_size_and_of_all() -> None:
    assert hosted(4).chunks([7, 0, 5, 2, 3, 4]) == [[7, 0, 5, 2], [3, 4]]
    assert hosted("all").chunks([7, 0, 5]) == [[7, 0, 5]]
    assert [hosted(chunk).chunks([]) for chunk in ("auto", "all", 2)] == [[], [], []]
