"""Tables of ratings: raw ones from a source, and numbered, sorted ones with a role for each rating."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from subfl_flower.data.graph import TEST, TRAIN, VALIDATION, Notes
from subfl_flower.data.ratings.attributes import RawAttributes
from subfl_flower.data.ratings.rows import rows_of


@dataclass(frozen=True, eq=False)
class Ratings:
    """The ratings of a whole data set, or of some of its users; sorted by user, then by item.

    User at position p gave the ratings `offsets[p]` to `offsets[p + 1]`.

    Attributes:
        user_ids: int64 `[users]`, client ids; ascending in a whole data set.
        offsets: int64 `[users + 1]`.
        items: int64 `[ratings]`, `0 .. num_items - 1`, ascending and all different within a user.
        values: float32 `[ratings]`, in rating units.
        roles: int8 `[ratings]`: 0 train, 1 validation, 2 test.
        num_items: of the whole data set.
        scale: lowest and highest possible rating.
    """

    user_ids: np.ndarray
    offsets: np.ndarray
    items: np.ndarray
    values: np.ndarray
    roles: np.ndarray
    num_items: int
    scale: tuple[float, float]

    def __len__(self) -> int:
        """Number of ratings."""
        return int(self.items.shape[0])

    @property
    def num_users(self) -> int:
        """Number of users."""
        return int(self.user_ids.shape[0])

    def users(self) -> np.ndarray:
        """The position of each rating's user, int64 `[ratings]`."""
        return np.repeat(np.arange(self.num_users), np.diff(self.offsets))

    def counts(self, role: int) -> np.ndarray:
        """Number of ratings of a role for each user, int64 `[users]`."""
        before = np.concatenate([[0], np.cumsum(self.roles == role, dtype=np.int64)])
        return np.diff(before[self.offsets])

    def role_counts(self) -> dict[str, int]:
        """Number of ratings of each role: `train`, `validation`, `test`."""
        roles = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
        return {name: int(np.count_nonzero(self.roles == role)) for name, role in roles.items()}

    def of_users(self, positions: Sequence[int] | np.ndarray) -> Ratings:
        """The part of some users, in the order of `positions`; its arrays are copies.

        Args:
            positions: positions of the users in this table, not their ids.
        """
        offsets, rows = rows_of(self.offsets, positions)
        return Ratings(
            user_ids=self.user_ids[np.asarray(positions, dtype=np.int64)],
            offsets=offsets,
            items=self.items[rows],
            values=self.values[rows],
            roles=self.roles[rows],
            num_items=self.num_items,
            scale=self.scale,
        )

    @classmethod
    def joined(cls, parts: Sequence[Ratings]) -> Ratings:
        """At least one part of one data set, joined in order; parts must not share a user."""
        sizes = np.concatenate([np.diff(part.offsets) for part in parts])
        return cls(
            user_ids=np.concatenate([part.user_ids for part in parts]),
            offsets=np.concatenate([[0], np.cumsum(sizes)]),
            items=np.concatenate([part.items for part in parts]),
            values=np.concatenate([part.values for part in parts]),
            roles=np.concatenate([part.roles for part in parts]),
            num_items=parts[0].num_items,
            scale=parts[0].scale,
        )


@dataclass(frozen=True, eq=False)
class RawRatings:
    """Ratings as a source gives them: any ids, in any order, unchecked.

    Attributes:
        source: name in an error: the file, or files.
        users: `[ratings]`, whole numbers or text.
        items: `[ratings]`, whole numbers or text.
        values: float64 `[ratings]`, in rating units.
        timestamps: int64 `[ratings]`, larger is newer; None where the source has none.
        per_second: factor from seconds since 1970 to `timestamps`; None where these are no times.
        implicit: true if the source has users and items alone; every value is then 1.
        roles: int8 `[ratings]`, the source's split: 0 train, 1 validation, 2 test; None where it has none.
        scale: lowest and highest possible rating; None for the lowest and highest of `values`.
        item_titles: title of each item's id, as text; None where the source has no titles.
        all_users, all_items: all ids of the source, also of users who rated nothing and items that nobody
            rated; None for those with a rating.
        user_attributes, item_attributes: by field and id; empty where the source has none. Ids that are not among the
            users, or items, have no effect.
        notes: remarks on the source.
    """

    source: str
    users: np.ndarray
    items: np.ndarray
    values: np.ndarray
    timestamps: np.ndarray | None = None
    per_second: int | None = None
    implicit: bool = False
    roles: np.ndarray | None = None
    scale: tuple[float, float] | None = None
    item_titles: dict[str, str] | None = None
    all_users: np.ndarray | None = None
    all_items: np.ndarray | None = None
    user_attributes: RawAttributes = field(default_factory=dict)
    item_attributes: RawAttributes = field(default_factory=dict)
    notes: Notes = field(default_factory=Notes)
