"""Small rating tables that tests of several folders share."""

from __future__ import annotations

from typing import Any

import numpy as np

from subfl_flower.data.ratings.attributes import Attributes
from subfl_flower.data.ratings.table import Ratings, RawRatings


def raw(*rows: tuple[Any, ...], **more: Any) -> RawRatings:
    """Rows (user, item, value) or (user, item, value, timestamp)."""
    columns = list(zip(*rows, strict=True)) if rows else [(), (), ()]
    ids = [np.array(column, dtype=object if any(x is None for x in column) else None) for column in columns[:2]]
    timestamps = np.array(columns[3]) if len(columns) == 4 else None
    return RawRatings("toy.csv", *ids, np.array(columns[2], dtype=np.float64), timestamps, **more)


def three_users() -> Ratings:
    """Users 0, 1 and 2 with three ratings, none and two."""
    return Ratings(
        user_ids=np.arange(3),
        offsets=np.array([0, 3, 3, 5]),
        items=np.array([0, 2, 3, 1, 3]),
        values=np.array([5, 1.5, 3, 2, 4], dtype=np.float32),
        roles=np.array([0, 1, 2, 0, 0], dtype=np.int8),
        num_items=6,
        scale=(1.0, 5.0),
    )


def check_equal(found: Ratings, expected: Ratings) -> None:
    for name in ("user_ids", "offsets", "items", "values", "roles"):
        one, other = getattr(found, name), getattr(expected, name)
        assert one.dtype == other.dtype, name
        np.testing.assert_array_equal(one, other, err_msg=name)
    assert (found.num_items, found.scale) == (expected.num_items, expected.scale)


def genres() -> Attributes:
    """Of the items of `three_users`: Noir, nothing, Noir and War, War, nothing, Drama; and a colour of the first."""
    return Attributes(
        fields=("genre", "colour"),
        values=(("Drama", "Noir", "War"), ("grey",)),
        offsets=np.array([0, 2, 2, 4, 5, 5, 6]),
        codes=np.array([1, 3, 1, 2, 2, 0]),
    )


def check_same_attributes(found: Attributes, expected: Attributes) -> None:
    assert (found.fields, found.values) == (expected.fields, expected.values)
    for name in ("offsets", "codes"):
        one, other = getattr(found, name), getattr(expected, name)
        assert one.dtype == other.dtype == np.int64, name
        np.testing.assert_array_equal(one, other, err_msg=name)
