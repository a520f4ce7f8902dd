"""Which ratings train, validate and test."""

from __future__ import annotations

from typing import Literal

import numpy as np

from subfl_flower.data.graph import TEST, TRAIN, VALIDATION
from subfl_flower.data.ratings.cleaning import CleanRatings
from subfl_flower.errors import SubflError
from subfl_flower.seeding import shared_generator

SplitName = Literal["given", "random", "time", "leave_one_out"]


def split_roles(
    ratings: CleanRatings,
    split: SplitName,
    test_fraction: float,
    validation_fraction: float,
    seed: int,
    where: str,
) -> np.ndarray:
    """A role for every rating.

    `given` takes the source's own test ratings. With any other split a user's ratings never all test: one of them is
    given back to training, the oldest with `time`. Of the ratings that do not test, a `validation_fraction` validates,
    drawn from all of them; who would be left with none to train on gets one back, too.

    Args:
        ratings: of the whole data set.
        split: `given`; `random`: a share of all ratings; `time`: the newest share of all ratings; `leave_one_out`: the
            newest of each user who has at least two, drawn where there are no timestamps. Where timestamps are equal,
            the draw decides.
        test_fraction: the share of the ratings that test, with `random` and `time`.
        validation_fraction: the share of the other ratings that validate.
        seed: same seed, same split.
        where: what to call the data set in an error.

    Returns:
        int8 `[ratings]`: 0 train, 1 validation, 2 test.

    Raises:
        SubflError: the source has no split of its own or no timestamps, where `split` needs them, or no rating is left
            to train on or to test.
    """
    roles = np.full(ratings.items.size, TRAIN, dtype=np.int8)
    roles[_tested(ratings, split, test_fraction, shared_generator(seed, "ratings test"), where)] = TEST
    rest = np.flatnonzero(roles == TRAIN)
    order = shared_generator(seed, "ratings validation").permutation(rest)
    roles[_without_emptying_users(order, round(validation_fraction * rest.size), ratings.users())] = VALIDATION
    for role, name in ((TRAIN, "train on"), (TEST, "test")):
        if not np.any(roles == role):
            raise SubflError(f"{where}: split={split} leaves no rating to {name} of {roles.size}")
    return roles


def _tested(
    ratings: CleanRatings, split: SplitName, fraction: float, generator: np.random.Generator, where: str
) -> np.ndarray:
    """The rows of the ratings that test."""
    if split == "given":
        if ratings.test is None:
            raise SubflError(
                f"{where}: split=given needs a split of the source's own, and it has none; "
                "choose random, time or leave_one_out"
            )
        return np.flatnonzero(ratings.test)
    users, total = ratings.users(), ratings.items.size
    if split == "leave_one_out":
        return _newest_of_each_user(ratings, users, generator)
    if split == "random":
        order = generator.permutation(total)
    elif ratings.timestamps is None:
        raise SubflError(
            f"{where}: split=time needs timestamps, and the source has none; choose random or leave_one_out"
        )
    else:
        order = np.lexsort((generator.permutation(total), ratings.timestamps))[::-1]
    return _without_emptying_users(order, round(fraction * total), users)


def _newest_of_each_user(ratings: CleanRatings, users: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    drawn = generator.permutation(users.size)
    keys = (drawn, users) if ratings.timestamps is None else (drawn, ratings.timestamps, users)
    newest = np.lexsort(keys)[ratings.offsets[1:] - 1]
    return newest[np.diff(ratings.offsets) >= 2]


def _without_emptying_users(order: np.ndarray, count: int, users: np.ndarray) -> np.ndarray:
    """The first `count` rows of `order`, less the last one of each user who has no other row in `order`."""
    taken = order[:count]
    owners = users[taken]
    num_users = int(users[-1]) + 1
    remaining = np.bincount(users[order], minlength=num_users) - np.bincount(owners, minlength=num_users)
    _, from_the_end = np.unique(owners[::-1], return_index=True)
    last = taken.size - 1 - from_the_end
    return np.delete(taken, last[remaining[owners[last]] == 0])
