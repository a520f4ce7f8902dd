from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from rating_tables import raw

from subfl_flower.data.graph import TEST, TRAIN, VALIDATION
from subfl_flower.data.ratings.cleaning import CleanRatings, clean
from subfl_flower.data.ratings.splits import SplitName, split_roles, without_newest
from subfl_flower.errors import SubflError

# User a has one rating, b two, c five; of all eight the newest are c's at 9 and 8, then b's both, then a's.
ROWS = [
    ("a", "p", 1, 5),
    ("b", "p", 2, 6),
    ("b", "q", 3, 7),
    ("c", "p", 4, 1),
    ("c", "q", 5, 9),
    ("c", "r", 1, 2),
    ("c", "s", 2, 8),
    ("c", "t", 3, 3),
]


def toy(timestamps: bool = True, **more: Any) -> CleanRatings:
    return clean(raw(*[row if timestamps else row[:3] for row in ROWS], **more), None)


def many(seed: int = 0, users: int = 200, items: int = 50) -> CleanRatings:
    """A fifth of all pairs; at least one rating a user."""
    generator = np.random.default_rng(seed)
    given = generator.random((users, items)) < 0.2
    given[:, 0] = True
    u, i = np.nonzero(given)
    return clean(
        raw(*zip(u, i, generator.integers(1, 6, u.size), generator.integers(0, 1000, u.size), strict=True)), None
    )


def roles(
    ratings: CleanRatings, split: SplitName, test: float = 0.2, validation: float = 0.0, seed: int = 1
) -> np.ndarray:
    return split_roles(ratings, split, test, validation, seed, "dataset=toy")


def test_given_takes_the_sources_test_ratings_and_draws_who_validates() -> None:
    test = np.zeros(8, dtype=np.int8)
    test[[0, 2, 4]] = TEST
    found = roles(toy(roles=test), "given")
    assert found.dtype == np.int8 and found.tolist() == [2, 0, 2, 0, 2, 0, 0, 0]
    drawn = {tuple(roles(toy(roles=test), "given", validation=0.2, seed=seed).tolist()) for seed in range(40)}
    validating = {tuple(np.flatnonzero(np.array(one) == VALIDATION)) for one in drawn}
    # Of five ratings one validates: any of c's four, or b's only one left, which is given back.
    assert validating == {(3,), (5,), (6,), (7,), ()}
    assert all((np.array(one) == TEST).tolist() == (test == TEST).tolist() for one in drawn)


def test_given_takes_the_sources_validation_ratings_and_draws_none() -> None:
    stated = np.array([0, 1, 2, 0, 2, 0, 1, 0], dtype=np.int8)
    for seed in range(5):
        assert roles(toy(roles=stated), "given", validation=0.9, seed=seed).tolist() == stated.tolist()


def test_time_takes_the_newest_of_all_and_leaves_everyone_the_oldest() -> None:
    assert roles(toy(), "time", test=0.25).tolist() == [0, 0, 0, 0, 2, 0, 2, 0]  # times 9 and 8
    assert roles(toy(), "time", test=0.5).tolist() == [0, 0, 2, 0, 2, 0, 2, 0]  # 9, 8, 7, 6: the last is b's oldest
    assert roles(toy(), "time", test=0.9).tolist() == [0, 0, 2, 0, 2, 2, 2, 2]  # all but 1; b keeps 6, a its only one


def test_each_users_newest_are_set_aside_and_one_stays() -> None:
    """User a keeps item 5, b item 6, and c items 1, 2, 3 by time; another item of c tests then."""
    left = without_newest(toy(), 2, seed=1)
    assert left.offsets.tolist() == [0, 1, 2, 5]
    assert left.items.tolist() == [0, 0, 0, 2, 4] and left.values.tolist() == [1, 2, 4, 1, 3]
    assert left.item_names == toy().item_names
    assert roles(left, "leave_one_out").tolist() == [0, 0, 0, 1, 2]
    assert without_newest(toy(), 0, seed=1).items.tolist() == toy().items.tolist()
    drawn = {tuple(without_newest(toy(timestamps=False), 4, seed).items[2:].tolist()) for seed in range(60)}
    assert drawn == {(item,) for item in range(5)}


def test_leave_one_out_tests_each_users_newest_and_validates_the_next() -> None:
    # b's times are 6, 7; c's 1, 9, 2, 8, 3.
    for validation in (0.0, 0.9):
        assert roles(toy(), "leave_one_out", validation=validation).tolist() == [0, 0, 2, 0, 2, 0, 1, 0]
    three = clean(raw(("a", "p", 1, 3), ("a", "q", 2, 2), ("a", "r", 3, 1)), None)
    assert roles(three, "leave_one_out").tolist() == [2, 1, 0]


def test_without_timestamps_leave_one_out_draws() -> None:
    counts = np.zeros((2, 8))
    for seed in range(400):
        found = roles(toy(timestamps=False), "leave_one_out", seed=seed)
        assert (found[0], sorted(found[1:3]), sorted(found[3:])) == (0, [0, 2], [0, 0, 0, 1, 2])
        counts[0] += found == TEST
        counts[1] += found == VALIDATION
    expected = [[0, 0.5, 0.5, *[0.2] * 5], [0, 0, 0, *[0.2] * 5]]
    np.testing.assert_allclose(counts / 400, expected, atol=0.08)


@pytest.mark.parametrize(("split", "expected"), [("time", [0, 2, 0, 0]), ("leave_one_out", [1, 2, 0, 0])])
def test_of_equal_times_the_later_row_is_newer(split: SplitName, expected: list[int]) -> None:
    ratings = clean(raw(*[("u", item, value, 4) for item, value in (("c", 1), ("d", 2), ("a", 3), ("b", 4))]), None)
    for seed in range(20):  # rows in the source: items c, d, a, b
        assert roles(ratings, split, test=0.25, seed=seed).tolist() == expected


@pytest.mark.parametrize("split", ["random", "time", "leave_one_out"])
def test_nobody_is_left_without_a_training_rating(split: SplitName) -> None:
    for seed in range(20):
        ratings = many(seed, users=60, items=4)
        found = roles(ratings, split, test=0.6, validation=0.5, seed=seed)
        training = np.bincount(ratings.users()[found == TRAIN], minlength=60)
        assert training.min() >= 1
        alone = np.diff(ratings.offsets) == 1
        assert alone.any() and training[alone].tolist() == [1] * int(alone.sum())


def test_random_draws_a_share_of_all() -> None:
    ratings = many()
    total = ratings.items.size
    found = roles(ratings, "random", test=0.25, validation=0.1)
    tested, validating = np.count_nonzero(found == TEST), np.count_nonzero(found == VALIDATION)
    assert tested == round(0.25 * total)  # nobody rated so little that something was given back
    assert validating == round(0.1 * (total - tested))
    halves = [np.mean(found[part] == TEST) for part in (slice(None, total // 2), slice(total // 2, None))]
    np.testing.assert_allclose(halves, 0.25, atol=0.03)


def test_the_seed_and_nothing_else_decides() -> None:
    ratings = many()
    for split in ("random", "time", "leave_one_out"):
        one, same, other = (roles(ratings, split, validation=0.1, seed=seed) for seed in (1, 1, 2))
        assert one.tolist() == same.tolist()
        assert (one.tolist() == other.tolist()) == (split == "leave_one_out")  # whose times say all


def test_who_validates_does_not_change_who_tests() -> None:
    ratings = many()
    one, other = (roles(ratings, "random", validation=share) for share in (0.0, 0.3))
    assert (one == TEST).tolist() == (other == TEST).tolist() and not np.any(one == VALIDATION)


@pytest.mark.parametrize(
    ("ratings", "split", "message"),
    [
        (toy(), "given", "dataset=toy: split=given needs a split of the source's own, and it has none; choose random"),
        (toy(timestamps=False), "time", "dataset=toy: split=time needs timestamps, and the source has none; choose"),
        (toy(roles=np.full(8, TEST)), "given", "dataset=toy: split=given leaves no rating to train on of 8"),
        (toy(roles=np.full(8, TRAIN)), "given", "dataset=toy: split=given leaves no rating to test of 8"),
        (clean(raw(("u", "i", 1), ("v", "i", 2)), None), "leave_one_out", "leaves no rating to test of 2"),
    ],
)
def test_a_split_that_cannot_be_made_is_refused(ratings: CleanRatings, split: SplitName, message: str) -> None:
    with pytest.raises(SubflError, match=message):
        roles(ratings, split)
