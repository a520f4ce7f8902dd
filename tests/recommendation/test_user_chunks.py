"""Users that are worked at once: cut by their number, and by their ratings together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from subfl_flower.data.graph import TRAIN
from subfl_flower.data.ratings.table import Ratings
from subfl_flower.recommendation import cohort as module
from subfl_flower.recommendation.cohort import UserCohort

LENGTHS = [3, 1, 4, 0, 5, 9, 2, 1]


def hosted(chunk: Any) -> UserCohort:
    count = sum(LENGTHS)
    ratings = Ratings(
        user_ids=np.arange(len(LENGTHS)),
        offsets=np.cumsum([0, *LENGTHS]),
        items=np.concatenate([np.arange(length) for length in LENGTHS]),
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


def test_chunks_of_a_given_size_and_of_all() -> None:
    assert hosted(4).chunks([7, 0, 5, 2, 3, 4]) == [[7, 0, 5, 2], [3, 4]]
    assert hosted("all").chunks([7, 0, 5]) == [[7, 0, 5]]
    assert [hosted(chunk).chunks([]) for chunk in ("auto", "all", 2)] == [[], [], []]
