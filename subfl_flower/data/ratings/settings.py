"""Base class of the settings of rating data sets."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, field_validator

from subfl_flower.data.graph import TRAIN, Notes
from subfl_flower.data.ratings.attributes import Attributes
from subfl_flower.data.ratings.cleaning import clean
from subfl_flower.data.ratings.splits import SplitName, split_roles, without_newest
from subfl_flower.data.ratings.table import Ratings, RawRatings
from subfl_flower.data.source import Protocol, SourceSettings
from subfl_flower.errors import SubflError

Finite = Annotated[float, Field(allow_inf_nan=False)]
"""A number that is neither infinite nor NaN."""


@dataclass(frozen=True, eq=False)
class LoadedRatings:
    """A data set, cleaned and split.

    Attributes:
        ratings: ratings of all users.
        user_names: the source's id of each user, as text.
        item_names: the source's id of each item, as text.
        titles: title of each item, its id where it has none; None where the source has no titles at all.
        user_attributes, item_attributes: by number; None where the source has none.
        implicit: true if the source has users and items alone; every rating is then 1.
        split: name of the split into training, validation and test ratings.
        time_span: the days of the oldest and of the newest rating, as ISO dates; None where timestamps are no times.
        notes: remarks on the source.
    """

    ratings: Ratings
    user_names: list[str]
    item_names: list[str]
    titles: list[str] | None
    user_attributes: Attributes | None
    item_attributes: Attributes | None
    implicit: bool = False
    split: SplitName = "random"
    time_span: tuple[str, str] | None = None
    notes: Notes = field(default_factory=Notes)


class RatingDatasetSettings(SourceSettings):
    """Settings of a data set that holds ratings: their source, split and scaling.

    Your class implements `read`. It may override `files`, where the ratings come from files: their content is then part
    of the key under which prepared data are kept. Cleaning, splitting, scaling and keeping are inherited.

    Attributes:
        kind: kind of data, fixed by the class.
        name: the data set's name in `conf/dataset`.
        split: choice of test ratings. `given`: those of the source; `random`: a share, drawn from all; `time`: the
            newest share of all; `leave_one_out`: each user's newest, and the next newest validates (`split_roles`);
            `auto`, for a user's tables: `given` where they state a split.
        set_aside: number of each user's newest ratings that are left out of the data before the split, for
            development: with `leave_one_out` another item of each user then tests. Of each user at least one stays.
        test_fraction: share of test ratings; no effect with `given` and `leave_one_out`.
        validation_fraction: share of validation ratings among the others, drawn from all of them; no effect with
            `leave_one_out`, and with `given` where the source states validation ratings.
        center: number subtracted from ratings before training, in rating units; `auto`: the training ratings' mean.
        spread: divisor of ratings after that, in rating units; `auto`: the training ratings' standard deviation.
        scale: lowest and highest possible rating; None for the source's scale.
        protocol: the training length; no part of a cache key.
    """

    kind: ClassVar[Literal["graph", "ratings"]] = "ratings"

    split: SplitName | Literal["auto"] = "random"
    set_aside: int = Field(default=0, ge=0)
    test_fraction: float = Field(default=0.2, gt=0, lt=1)
    validation_fraction: float = Field(default=0.05, ge=0, lt=1)
    center: Finite | Literal["auto"] = "auto"
    spread: Annotated[Finite, Field(gt=0)] | Literal["auto"] = "auto"
    scale: tuple[Finite, Finite] | None = None
    protocol: Protocol = Protocol(rounds=100, local_epochs=1)

    @field_validator("scale")
    @classmethod
    def _lowest_first(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and value[0] >= value[1]:
            raise ValueError("scale must be the lowest and the highest possible rating, the lowest first")
        return value

    @abstractmethod
    def read(self, root: Path) -> RawRatings:
        """The ratings as their source holds them.

        Args:
            root: the data root; public benchmarks are searched below it and downloaded into it.

        Raises:
            SubflError: a file is missing or damaged; the sentence names it.
        """

    def chosen_split(self, stated: bool) -> SplitName:
        """The split to use, given whether the source states one."""
        if self.split == "auto":
            return "given" if stated else "random"
        return self.split

    def load(self, root: Path, seed: int) -> LoadedRatings:
        """The ratings, cleaned and split.

        Args:
            root: the data root.
            seed: drives a random split.

        Raises:
            SubflError: a file is missing or damaged, or its content cannot be used or split so.
        """
        where = f"dataset={self.name}"
        cleaned = without_newest(clean(self.read(root), self.scale, where), self.set_aside, seed)
        split = self.chosen_split(cleaned.roles is not None)
        roles = split_roles(cleaned, split, self.test_fraction, self.validation_fraction, seed, where)
        ratings = Ratings(
            user_ids=np.arange(len(cleaned.user_names)),
            offsets=cleaned.offsets,
            items=cleaned.items,
            values=cleaned.values,
            roles=roles,
            num_items=len(cleaned.item_names),
            scale=cleaned.scale,
        )
        return LoadedRatings(
            ratings=ratings,
            user_names=cleaned.user_names,
            item_names=cleaned.item_names,
            titles=cleaned.titles,
            user_attributes=cleaned.user_attributes,
            item_attributes=cleaned.item_attributes,
            implicit=cleaned.implicit,
            split=split,
            time_span=cleaned.time_span,
            notes=cleaned.notes,
        )

    def scaling(self, ratings: Ratings) -> tuple[float, float]:
        """Center and spread of the ratings, in rating units: scaled ratings are (rating - center) / spread.

        Where the training ratings are all equal and the spread is `auto`, it is 1.

        Args:
            ratings: ratings of the whole data set.
        """
        train = ratings.values[ratings.roles == TRAIN].astype(np.float64)  # at least one: the split ensures it
        center = float(train.mean()) if self.center == "auto" else self.center
        if self.spread != "auto":
            return center, self.spread
        return center, float(train.std()) or 1.0

    def require_different(self, facts: Mapping[str, Any]) -> None:
        """Refuse ratings from which no prediction can be learnt.

        Args:
            facts: facts on the ratings; see `description.describe_ratings`.

        Raises:
            SubflError: there are users and items alone, or all ratings, or the training ratings, are equal.
        """
        if facts["implicit"]:
            raise SubflError(
                f"dataset={self.name}: the column rating is missing, and task=rating_prediction needs it; "
                "dataset.columns.rating=... names a column, and task=ranking trains on user and item alone"
            )
        if facts["different_ratings"] == 1:
            raise SubflError(
                f"dataset={self.name}: all ratings are {facts['mean']:g}; there is nothing to predict, "
                "and task=ranking trains on user and item alone"
            )
        if facts["different_training_ratings"] == 1 and self.spread == "auto":
            raise SubflError(
                f"dataset={self.name}: the training ratings are all {facts['training_mean']:g}; state dataset.spread"
            )
