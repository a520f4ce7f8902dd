from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rating_tables import raw

from subfl_flower.data.ratings.cleaning import clean
from subfl_flower.errors import SubflError


def test_users_and_items_are_numbered_by_size_and_sorted() -> None:
    cleaned = clean(
        raw(
            ("10", "b", 1, 7),
            ("9", "10", 2, 8),
            ("x", "-3", 3, 9),
            ("9", "b", 4, 6),
            item_titles={"b": "B", "2": "no item"},
            roles=np.array([2, 0, 1, 2], dtype=np.int8),
            all_users=np.array(["8"]),
            all_items=np.array([4, 10]),
        ),
        None,
    )
    assert cleaned.user_names == ["8", "9", "10", "x"] and cleaned.item_names == ["-3", "4", "10", "b"]
    assert cleaned.titles == ["-3", "4", "10", "B"]
    assert cleaned.offsets.tolist() == [0, 0, 2, 3, 4] and cleaned.users().tolist() == [1, 1, 2, 3]
    assert cleaned.items.tolist() == [2, 3, 3, 0] and cleaned.values.tolist() == [2, 4, 1, 3]
    assert cleaned.recency is not None and cleaned.recency.tolist() == [2, 0, 1, 3]  # of the times 8, 6, 7, 9
    assert cleaned.roles is not None and cleaned.roles.tolist() == [0, 2, 2, 1]
    assert cleaned.scale == (1.0, 4.0)
    assert (cleaned.items.dtype, cleaned.values.dtype) == (np.int64, np.float32)


def test_ids_that_are_numbers_give_the_same_as_their_text() -> None:
    rows = [(11, 100, 1), (2, 20, 2), (2, 100, 3)]
    one, other = clean(raw(*rows), None), clean(raw(*[(str(u), str(i), v) for u, i, v in rows]), None)
    assert one.user_names == other.user_names == ["2", "11"] and one.item_names == other.item_names == ["20", "100"]
    assert one.items.tolist() == other.items.tolist() == [0, 1, 1]
    assert one.values.tolist() == other.values.tolist() == [2, 3, 1]


def test_of_equal_times_the_later_row_is_newer() -> None:
    rows = [("a", "x", 1, 4), ("b", "x", 2, 9), ("a", "y", 3, 4), ("b", "z", 4, 1), ("a", "b", 5, 4)]
    cleaned = clean(raw(*rows), None)  # a: b, x, y, then b: x, z
    assert cleaned.recency is not None and cleaned.recency.tolist() == [3, 1, 2, 4, 0]
    assert clean(raw(*[row[:3] for row in rows]), None).recency is None


def test_attributes_are_of_the_users_and_items_that_there_are() -> None:
    cleaned = clean(
        raw(
            ("10", "b", 1),
            ("9", "a", 2),
            user_attributes={"age": {"9": ["old"], "8": ["new"]}},
            item_attributes={"genre": {"c": ["War"]}},
        ),
        None,
    )
    assert cleaned.user_attributes is not None and cleaned.user_attributes.vocabularies == {"age": ["old"]}
    assert cleaned.user_attributes.offsets.tolist() == [0, 1, 1] and cleaned.user_names == ["9", "10"]
    assert cleaned.item_attributes is None


@pytest.mark.parametrize(
    ("rows", "values", "which"),
    [
        ([("u", "i", 1), ("v", "i", 2), ("u", "i", 3), ("u", "i", 4)], [4, 2], "2 of 4 .*; the last of each pair"),
        ([("u", "i", 1, 5), ("v", "i", 2, 5), ("u", "i", 3, 9), ("u", "i", 4, 7)], [3, 2], "2 of 4 .* the newest"),
        ([("u", "i", 3, 9), ("u", "i", 4, 9), ("v", "i", 2, 1)], [4, 2], "1 of 3 ratings repeat a user and item"),
    ],
)
def test_of_repeated_ratings_the_newest_counts(rows: list[Any], values: list[float], which: str) -> None:
    cleaned = clean(raw(*rows), None)
    assert re.search(rf"^toy\.csv: {which}", cleaned.notes.dropped[0]) and len(cleaned.notes.dropped) == 1
    assert cleaned.values.tolist() == values and cleaned.items.tolist() == [0, 0]


def test_a_pair_with_two_roles_is_refused_and_one_that_repeats_within_a_role_is_not() -> None:
    rows = [("u", "i", 1), ("v", "i", 2), ("u", "i", 3), ("v", "j", 2), ("v", "j", 5)]
    cleaned = clean(raw(*rows, roles=np.array([0, 0, 0, 2, 2], dtype=np.int8)), None)
    assert cleaned.roles is not None and cleaned.roles.tolist() == [0, 0, 2] and cleaned.values.tolist() == [3, 2, 5]
    message = (
        r"toy\.csv: 2 x user and item that stand in more than one of train, .*, the first is user u, item i; leave"
    )
    with pytest.raises(SubflError, match=message):
        clean(raw(*rows, roles=np.array([0, 0, 2, 2, 1], dtype=np.int8)), None)


def test_the_span_of_time_is_in_days_of_utc() -> None:
    rows = [("u", "i", 1, 978307200_000), ("v", "i", 2, 946684799_999)]  # 2001-01-01 00:00, 1999-12-31 23:59:59.999
    assert clean(raw(*rows, per_second=1000), None).time_span == ("1999-12-31", "2001-01-01")
    assert clean(raw(*rows), None).time_span is None


def test_equal_ratings_are_no_matter_of_cleaning() -> None:
    cleaned = clean(raw(("u", "i", 3), ("v", "i", 3)), None)
    assert cleaned.values.tolist() == [3, 3] and cleaned.scale == (3.0, 3.0)
    implicit = clean(raw(("u", "i", 1), ("v", "i", 1), implicit=True), None)
    assert implicit.implicit and implicit.scale == (0.0, 1.0)


@pytest.mark.parametrize(
    ("rows", "scale", "message"),
    [
        ([], None, r"toy\.csv holds no ratings; at least two are needed"),
        (
            [("u", "i", 1), (None, "i", 2), ("", "j", 3)],
            None,
            r"toy\.csv: 2 x empty user, first in row 2; every rating needs one",
        ),
        ([("u", "i", 1), ("u", " ", 2)], None, r"toy\.csv: 1 x empty item, first in row 2"),
        ([(None, "i", 1), (None, "j", 2)], None, r"toy\.csv: 2 x empty user, first in row 1"),
        (
            [("u", "i", 1), ("v", "i", np.nan), ("v", "j", np.inf)],
            None,
            r"2 x rating that is no finite number, first in row 2 \(user v, item i: nan\); every rating must be one",
        ),
        ([("u", "i", 1), ("v", "i", 1e300)], None, r"1 x rating that is no finite number, first in row 2"),
        (
            [("u", "i", 1), ("v", "i", 0), ("v", "j", 6)],
            (1.0, 5.0),
            r"2 x rating off the scale 1\.\.5, first in row 2 \(user v, item i: 0\); mend them, or state another",
        ),
    ],
)
def test_what_cannot_be_used_is_named(rows: list[Any], scale: tuple[float, float] | None, message: str) -> None:
    with pytest.raises(SubflError, match=message) as found:
        clean(raw(*rows), scale)
    assert "\n" not in str(found.value)


def test_a_stated_scale_goes_before_the_sources_and_that_before_what_was_given() -> None:
    rows = [("u", "i", 2), ("v", "i", 4)]
    assert clean(raw(*rows), None).scale == (2.0, 4.0)
    assert clean(raw(*rows, scale=(1.0, 5.0)), None).scale == (1.0, 5.0)
    assert clean(raw(*rows, scale=(1.0, 5.0)), (0.0, 10.0)).scale == (0.0, 10.0)
    with pytest.raises(SubflError, match=r"1 x rating off the scale 3\.\.5"):
        clean(raw(*rows, scale=(1.0, 5.0)), (3.0, 5.0))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(-3, 12), st.integers(-3, 12), st.integers(1, 9), st.integers(0, 4)), min_size=2))
def test_cleaning_is_what_pandas_makes_of_it(rows: list[tuple[int, int, int, int]]) -> None:
    cleaned = clean(raw(*rows), None)
    table = pd.DataFrame(rows, columns=["user", "item", "value", "time"])
    expected = (
        table.sort_values("time", kind="stable")
        .drop_duplicates(["user", "item"], keep="last")
        .sort_values(["user", "item"])
    )
    assert [int(cleaned.user_names[u]) for u in cleaned.users()] == expected["user"].tolist()
    assert [int(cleaned.item_names[i]) for i in cleaned.items] == expected["item"].tolist()
    assert cleaned.values.tolist() == expected["value"].tolist()
