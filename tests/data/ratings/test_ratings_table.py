from __future__ import annotations

import numpy as np
import pytest
from rating_tables import check_equal, three_users

from subfl_flower.data.ratings.table import Ratings


def test_sizes_and_counts() -> None:
    ratings = three_users()
    assert (len(ratings), ratings.num_users) == (5, 3)
    assert ratings.users().tolist() == [0, 0, 0, 2, 2]
    assert [ratings.counts(role).tolist() for role in (0, 1, 2)] == [[1, 0, 2], [1, 0, 0], [1, 0, 0]]
    assert ratings.role_counts() == {"train": 3, "validation": 1, "test": 1}


def test_a_part_is_in_the_order_asked_for_and_a_copy() -> None:
    ratings = three_users()
    part = ratings.of_users([2, 1, 0])
    assert part.user_ids.tolist() == [2, 1, 0] and part.offsets.tolist() == [0, 2, 2, 5]
    assert part.items.tolist() == [1, 3, 0, 2, 3] and part.values.tolist() == [2, 4, 5, 1.5, 3]
    assert part.roles.tolist() == [0, 0, 0, 1, 2] and (part.num_items, part.scale) == (6, (1.0, 5.0))
    part.items[:] = 0
    check_equal(ratings, three_users())
    check_equal(part.of_users([0]).of_users(np.array([0])), part.of_users([0]))
    nobody = ratings.of_users([])
    assert (len(nobody), nobody.num_users, nobody.offsets.tolist()) == (0, 0, [0])


@pytest.mark.parametrize("cuts", [[[0], [1], [2]], [[0, 1], [2]], [[0], [1, 2]], [[0, 1, 2]]])
def test_joining_undoes_dividing(cuts: list[list[int]]) -> None:
    check_equal(Ratings.joined([three_users().of_users(positions) for positions in cuts]), three_users())
