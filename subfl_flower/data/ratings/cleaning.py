"""Cleaning of a source's ratings: numbered users and items, sorted, each pair once."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np

from subfl_flower.data.graph import Notes
from subfl_flower.data.ratings.attributes import Attributes
from subfl_flower.data.ratings.table import RawRatings
from subfl_flower.data.ratings.timestamps import day_of
from subfl_flower.data.read_arrays import ANY, NUMBERS, WHOLE, require_array, require_result
from subfl_flower.errors import SubflError


@dataclass(frozen=True, eq=False)
class CleanRatings:
    """Sound ratings, sorted by user, then by item; each pair of a user and an item at most once.

    Attributes:
        offsets: int64 `[users + 1]`; user u gave the ratings `offsets[u]` to `offsets[u + 1]`.
        items: int64 `[ratings]`.
        values: float32 `[ratings]`, in rating units.
        recency: int64 `[ratings]`, larger is newer and all are different; None where the source has no timestamps.
            Among equal timestamps the later row of the source is newer.
        roles: int8 `[ratings]`, the source's split, or None.
        user_names: the source's id of each user, as text.
        item_names: the source's id of each item, as text.
        titles: title of each item, its id where it has none; None where the source has no titles at all.
        scale: lowest and highest possible rating.
        user_attributes, item_attributes: by number; None where the source has none.
        implicit: true if the source has users and items alone; every value is then 1.
        time_span: the days of the oldest and of the newest rating, as ISO dates; None where timestamps are no times.
        notes: remarks on the source.
    """

    offsets: np.ndarray
    items: np.ndarray
    values: np.ndarray
    recency: np.ndarray | None
    roles: np.ndarray | None
    user_names: list[str]
    item_names: list[str]
    titles: list[str] | None
    scale: tuple[float, float]
    user_attributes: Attributes | None
    item_attributes: Attributes | None
    implicit: bool = False
    time_span: tuple[str, str] | None = None
    notes: Notes = field(default_factory=Notes)

    def users(self) -> np.ndarray:
        """Each rating's user, int64 `[ratings]`."""
        return np.repeat(np.arange(len(self.user_names)), np.diff(self.offsets))


def clean(raw: RawRatings, scale: tuple[float, float] | None, dataset: str = "ratings") -> CleanRatings:
    """Number users and items, check the ratings and sort them.

    Users and items are numbered in the order of their ids, whole numbers first and by their size, then text. Of
    several ratings of one user for one item the newest is kept, without timestamps the last; a note counts the dropped
    ones.

    Args:
        raw: the source's ratings.
        scale: lowest and highest possible rating; None for the source's scale.
        dataset: name of the data set, for the error of a `raw` that does not name its source.

    Raises:
        SubflError: these are no raw ratings, an array has another type or length, there is no rating, an id is empty, a
            rating is not finite or is off the scale, or a user and item have several roles; names the source, the count
            and the first; or there are too many attributes.
    """
    require_result(raw, RawRatings, dataset)
    require_array(raw.values, "values", ("ratings",), NUMBERS, raw.source)
    for array, name, kinds in (
        (raw.users, "users", ANY),
        (raw.items, "items", ANY),
        (raw.timestamps, "timestamps", WHOLE),
        (raw.roles, "roles", WHOLE),
    ):
        if array is not None:
            require_array(array, name, (len(raw.values),), kinds, raw.source)
    if raw.values.size == 0:
        raise SubflError(f"{raw.source} holds no ratings; at least two are needed")
    users, user_names = _numbered(raw.users, raw.all_users, "user", raw.source)
    items, item_names = _numbered(raw.items, raw.all_items, "item", raw.source)
    values, scale = _checked(raw, scale)
    recency = None if raw.timestamps is None else _recency(raw.timestamps)
    pairs = users * len(item_names) + items
    kept = _newest_of_each_pair(pairs, recency)
    notes = raw.notes
    if kept.size < users.size:
        _require_one_role(raw, pairs, kept)
        which = "last" if raw.timestamps is None else "newest"
        repeated = f"{users.size - kept.size} of {users.size} ratings repeat a user and item"
        notes += Notes((f"{raw.source}: {repeated}; the {which} of each pair counts",))
    titles = raw.item_titles
    return CleanRatings(
        offsets=np.concatenate([[0], np.cumsum(np.bincount(users[kept], minlength=len(user_names)))]),
        items=items[kept],
        values=values[kept],
        recency=None if recency is None else recency[kept],
        roles=None if raw.roles is None else raw.roles[kept],
        user_names=user_names,
        item_names=item_names,
        titles=None if titles is None else [titles.get(name, name) for name in item_names],
        scale=scale,
        user_attributes=Attributes.numbered(raw.user_attributes, user_names, f"{raw.source}: users"),
        item_attributes=Attributes.numbered(raw.item_attributes, item_names, f"{raw.source}: items"),
        implicit=raw.implicit,
        time_span=_time_span(raw),
        notes=notes,
    )


def _require_one_role(raw: RawRatings, pairs: np.ndarray, kept: np.ndarray) -> None:
    """Refuse several ratings of one user for one item that have different roles."""
    if raw.roles is None:
        return
    role_of_pair = dict(zip(pairs[kept].tolist(), raw.roles[kept].tolist(), strict=True))
    wanted = np.array([role_of_pair[pair] for pair in pairs.tolist()])
    torn = np.flatnonzero(raw.roles != wanted)
    if torn.size:
        whose = f"user {raw.users[torn[0]]}, item {raw.items[torn[0]]}"
        raise SubflError(
            f"{raw.source}: {len(set(pairs[torn].tolist()))} x user and item that stand in more than one of train, "
            f"validation and test, the first is {whose}; leave each in one of them"
        )


def _time_span(raw: RawRatings) -> tuple[str, str] | None:
    if raw.timestamps is None or raw.per_second is None:
        return None
    first, last = int(raw.timestamps.min()), int(raw.timestamps.max())
    return day_of(first, raw.per_second), day_of(last, raw.per_second)


def _numbered(ids: np.ndarray, known: np.ndarray | None, what: str, source: str) -> tuple[np.ndarray, list[str]]:
    """Each id's number, int64 `[ratings]`, and the ids by number; `known` are further ids."""
    import pandas as pd  # slow to import, and most runs open a cache

    codes, found = pd.factorize(ids)
    names = [str(number) for number in found.tolist()]
    empty = np.array([not name.strip() for name in names] + [True])[codes]  # a missing id has the code -1
    if empty.any():
        first = int(np.flatnonzero(empty)[0]) + 1
        raise SubflError(
            f"{source}: {np.count_nonzero(empty)} x empty {what}, first in row {first}; every rating needs one"
        )
    others = [] if known is None else [str(number) for number in known.tolist()]
    ordered = sorted({*names, *others}, key=_numbers_first)
    number_of = {name: number for number, name in enumerate(ordered)}
    return np.array([number_of[name] for name in names], dtype=np.int64)[codes], ordered


def _numbers_first(name: str) -> tuple[bool, int, str]:
    number = re.fullmatch("-?[0-9]{1,18}", name)
    return number is None, int(name) if number else 0, name


def _checked(raw: RawRatings, scale: tuple[float, float] | None) -> tuple[np.ndarray, tuple[float, float]]:
    """The values as float32 and their scale."""
    with np.errstate(over="ignore"):
        values = raw.values.astype(np.float32)
    _refuse(raw, ~np.isfinite(values), "rating that is no finite number", "every rating must be one")
    if raw.implicit:
        return values, scale or (0.0, 1.0)
    low, high = scale or raw.scale or (float(raw.values.min()), float(raw.values.max()))
    off = (raw.values < low) | (raw.values > high)
    _refuse(raw, off, f"rating off the scale {low:g}..{high:g}", "mend them, or state another dataset.scale")
    return values, (low, high)


def _refuse(raw: RawRatings, wrong: np.ndarray, what: str, allowed: str) -> None:
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        whose = f"user {raw.users[first]}, item {raw.items[first]}: {raw.values[first]:g}"
        raise SubflError(
            f"{raw.source}: {np.count_nonzero(wrong)} x {what}, first in row {first + 1} ({whose}); {allowed}"
        )


def _recency(timestamps: np.ndarray) -> np.ndarray:
    """Each rating's rank by time, int64; among equal times the later row is newer."""
    recency = np.empty(timestamps.size, dtype=np.int64)
    recency[np.argsort(timestamps, kind="stable")] = np.arange(timestamps.size)
    return recency


def _newest_of_each_pair(pairs: np.ndarray, recency: np.ndarray | None) -> np.ndarray:
    """The rows to keep, in the order of `pairs`; without a recency a later row counts as newer."""
    order = np.argsort(pairs, kind="stable") if recency is None else np.lexsort((recency, pairs))
    ordered = pairs[order]
    return order[np.append(ordered[1:] != ordered[:-1], True)]
