from __future__ import annotations

import numpy as np
import pytest

from subfl_flower.data.graph import TEST, TRAIN, VALIDATION
from subfl_flower.data.ratings.table import Ratings
from subfl_flower.errors import SubflError
from subfl_flower.recommendation.models.user_graphs import UserGraphs


@pytest.fixture
def ratings() -> Ratings:
    return Ratings(
        user_ids=np.array([4, 7, 9]),
        offsets=np.array([0, 3, 5, 8]),
        items=np.array([1, 4, 6, 0, 2, 2, 4, 8]),
        values=np.array([1, 2, 3, 4, 5, 4, 3, 2], dtype=np.float32),
        roles=np.array([TRAIN, TEST, TRAIN, VALIDATION, TEST, TRAIN, TRAIN, VALIDATION], dtype=np.int8),
        num_items=9,
        scale=(1.0, 5.0),
    )


def test_graphs_hold_the_training_ratings(ratings: Ratings) -> None:
    graphs = UserGraphs.build(ratings, center=3.0, spread=2.0)
    assert len(graphs) == 3
    assert graphs.client_ids == (4, 7, 9)
    assert graphs.lengths == (2, 0, 2)
    assert graphs.counts.tolist() == [2, 0, 2]
    assert graphs.rows.tolist() == [1, 6, 2, 4]
    assert graphs.targets.tolist() == [-1.0, 0.0, 0.5, 0.0]
    assert graphs.segment.tolist() == [0, 0, 2, 2]
    assert graphs.neighbour_lengths == (0, 0, 0)
    assert len(graphs.neighbours) == 0


def test_rows_point_into_what_was_received(ratings: Ratings) -> None:
    graphs = UserGraphs.build(ratings, 3.0, 2.0, items=np.array([0, 1, 2, 4, 5, 6]))
    assert graphs.rows.tolist() == [1, 5, 2, 3]


@pytest.mark.parametrize("items", [[0, 1, 2, 4], [4, 6, 8], []])
def test_an_item_that_was_not_received_is_refused(ratings: Ratings, items: list[int]) -> None:
    missing = len({1, 6, 2, 4} - set(items))
    with pytest.raises(SubflError, match=f"{missing} training ratings are of items whose rows were not received"):
        UserGraphs.build(ratings, 3.0, 2.0, items=np.array(items, dtype=np.int64))


def test_neighbours_are_tied_to_their_users(ratings: Ratings) -> None:
    given = [np.full((count, 2), count, dtype=np.float32) for count in (2, 0, 1)]
    graphs = UserGraphs.build(ratings, 3.0, 2.0).with_neighbours(given)
    assert graphs.neighbour_lengths == (2, 0, 1)
    assert graphs.neighbour_segment.tolist() == [0, 0, 2]
    assert graphs.neighbours.tolist() == [[2, 2], [2, 2], [1, 1]]
    assert graphs.rows.tolist() == [1, 6, 2, 4]
