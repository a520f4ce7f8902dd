"""Roles of ratings: training, validation and test."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from subfl_flower.data.graph import TEST, TRAIN, VALIDATION
from subfl_flower.data.ratings.cleaning import CleanRatings
from subfl_flower.errors import SubflError
from subfl_flower.seeding import shared_generator

SplitName = Literal["given", "random", "time", "leave_one_out"]
DrawnSplit = Literal["random", "time", "leave_one_out"]


def split_roles(
    ratings: CleanRatings,
    split: SplitName,
    test_fraction: float,
    validation_fraction: float,
    seed: int,
    where: str,
) -> np.ndarray:
    """A role for every rating.

    `given` takes the source's roles. With `random` and `time` a user's ratings never all test: one of them goes back to
    training, the oldest with `time`. Where the source states no validation ratings, a `validation_fraction` of the
    ratings that do not test validates, drawn from all of them. A user without a training rating gets one back, too.

    `leave_one_out` is the split of implicit ranking (He et al., Neural Collaborative Filtering, WWW 2017, Section
    4.1), with a rating held out to validate as well: the newest rating of each user who has at least two tests, and
    the next newest of each who has at least three validates. Without timestamps a user's ratings are drawn in turn.

    Args:
        ratings: ratings of the whole data set.
        split: `given`; `random`: a share of all ratings; `time`: the newest share of all ratings; `leave_one_out`.
        test_fraction: the share of the ratings that test, with `random` and `time`.
        validation_fraction: the share of the other ratings that validate; no effect with `leave_one_out`, and with
            `given` where the source states validation ratings.
        seed: same seed, same split.
        where: name of the data set in an error.

    Returns:
        int8 `[ratings]`: 0 train, 1 validation, 2 test.

    Raises:
        SubflError: the source states no split or no timestamps, where `split` needs them, or no rating is left to
            train on or to test.
    """
    generator = shared_generator(seed, "ratings test")
    if split == "leave_one_out":
        roles = _two_left_out(ratings, generator)
    elif split == "given" and ratings.roles is not None and np.any(ratings.roles == VALIDATION):
        roles = ratings.roles.astype(np.int8)
    else:
        roles = np.full(ratings.items.size, TRAIN, dtype=np.int8)
        roles[_tested(ratings, split, test_fraction, generator, where)] = TEST
        rest = np.flatnonzero(roles == TRAIN)
        order = shared_generator(seed, "ratings validation").permutation(rest)
        roles[_without_emptying_users(order, round(validation_fraction * rest.size), ratings.users())] = VALIDATION
    for role, name in ((TRAIN, "train on"), (TEST, "test")):
        if not np.any(roles == role):
            raise SubflError(f"{where}: split={split} leaves no rating to {name} of {roles.size}")
    return roles


def without_newest(ratings: CleanRatings, count: int, seed: int) -> CleanRatings:
    """The ratings without the newest `count` of each user, of whom at least one rating stays.

    Without timestamps the ratings to leave out are drawn. Users and items keep their numbers.
    """
    if not count:
        return ratings
    generator = shared_generator(seed, "ratings set aside")
    recency = generator.permutation(ratings.items.size) if ratings.recency is None else ratings.recency
    newest_last = np.lexsort((recency, ratings.users()))
    lengths = np.diff(ratings.offsets)
    places = np.arange(ratings.items.size) - np.repeat(ratings.offsets[:-1], lengths)
    stay = np.maximum(lengths - count, np.minimum(lengths, 1))
    kept = np.zeros(ratings.items.size, dtype=bool)
    kept[newest_last[places < np.repeat(stay, lengths)]] = True
    return replace(
        ratings,
        offsets=np.concatenate([[0], np.cumsum(stay)]),
        items=ratings.items[kept],
        values=ratings.values[kept],
        recency=None if ratings.recency is None else ratings.recency[kept],
        roles=None if ratings.roles is None else ratings.roles[kept],
    )


def _two_left_out(ratings: CleanRatings, generator: np.random.Generator) -> np.ndarray:
    """The roles of `leave_one_out`."""
    recency = generator.permutation(ratings.items.size) if ratings.recency is None else ratings.recency
    newest_last = np.lexsort((recency, ratings.users()))  # the order of users does not change
    counts, after = np.diff(ratings.offsets), ratings.offsets[1:]
    roles = np.full(ratings.items.size, TRAIN, dtype=np.int8)
    roles[newest_last[after[counts >= 2] - 1]] = TEST
    roles[newest_last[after[counts >= 3] - 2]] = VALIDATION
    return roles


def _tested(
    ratings: CleanRatings, split: SplitName, fraction: float, generator: np.random.Generator, where: str
) -> np.ndarray:
    """The rows of the ratings that test."""
    if split == "given":
        if ratings.roles is None:
            raise SubflError(
                f"{where}: split=given needs a split of the source's own, and it has none; "
                "choose random, time or leave_one_out"
            )
        return np.flatnonzero(ratings.roles == TEST)
    total = ratings.items.size
    if split == "random":
        order = generator.permutation(total)
    elif ratings.recency is None:
        raise SubflError(
            f"{where}: split=time needs timestamps, and the source has none; choose random or leave_one_out"
        )
    else:
        order = np.argsort(ratings.recency)[::-1]
    return _without_emptying_users(order, round(fraction * total), ratings.users())


def _without_emptying_users(order: np.ndarray, count: int, users: np.ndarray) -> np.ndarray:
    """The first `count` rows of `order`, without the last one of each user who has no further row in `order`."""
    taken = order[:count]
    owners = users[taken]
    num_users = int(users[-1]) + 1
    remaining = np.bincount(users[order], minlength=num_users) - np.bincount(owners, minlength=num_users)
    _, from_the_end = np.unique(owners[::-1], return_index=True)
    last = taken.size - 1 - from_the_end
    return np.delete(taken, last[remaining[owners[last]] == 0])
