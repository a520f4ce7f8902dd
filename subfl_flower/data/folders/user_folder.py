"""Folder with one user's ratings: all that the user's machine needs, without other users' data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from subfl_flower.data.folders.described_folder import AGAIN, DescribedFolder, Description
from subfl_flower.data.graph import TEST, TRAIN
from subfl_flower.data.ratings.attribute_file import read_attributes, write_attributes
from subfl_flower.data.ratings.attributes import MOST_FIELDS, MOST_VALUES, Attributes
from subfl_flower.data.ratings.rating_file import read_rating_arrays, write_rating_arrays
from subfl_flower.data.ratings.settings import Finite
from subfl_flower.data.ratings.table import Ratings
from subfl_flower.errors import SubflError
from subfl_flower.storage.durable_files import write_durably
from subfl_flower.storage.sealed_folder import new_folder

_RATINGS, _TITLES, _ATTRIBUTES = "ratings.safetensors", "titles.json", "attributes.safetensors"
_NAMES = "names.json"
_TYPES = {"items": np.int64, "values": np.float32, "roles": np.int8}
_Vocabulary = Annotated[list[str], Field(min_length=1, max_length=MOST_VALUES)]
_Vocabularies = Annotated[dict[str, _Vocabulary], Field(max_length=MOST_FIELDS)]


class UserDescription(Description):
    """Content of `client.json` for a client that is a user with ratings.

    Attributes:
        num_items: of the whole data set.
        scale: lowest and highest possible rating.
        center, spread: number subtracted from ratings before training, and number that they are then divided by.
        user_attributes: the values of each attribute that users may have; empty where they have none.
        item_attributes: likewise of items.
        data: fingerprint of the whole data set's ratings, 64 hexadecimal digits; None where it is not known.
    """

    needed: ClassVar[tuple[str, ...]] = (_RATINGS,)
    optional: ClassVar[tuple[str, ...]] = (_TITLES, _ATTRIBUTES, _NAMES)

    kind: Literal["ratings"] = "ratings"
    num_items: int = Field(ge=1)
    scale: tuple[Finite, Finite] = Field(strict=False)  # JSON has no tuples
    center: Finite
    spread: Finite = Field(gt=0)
    user_attributes: _Vocabularies = Field(default_factory=dict)
    item_attributes: _Vocabularies = Field(default_factory=dict)
    data: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")

    @model_validator(mode="after")
    def _attributes_fit(self) -> Self:
        if (_ATTRIBUTES in self.files) != bool(self.user_attributes or self.item_attributes):
            raise ValueError(f"{_ATTRIBUTES} and user_attributes or item_attributes must be there together")
        for vocabularies in (self.user_attributes, self.item_attributes):
            if any(a >= b for vocabulary in vocabularies.values() for a, b in pairwise(vocabulary)):
                raise ValueError("the values of an attribute must be different, in ascending order")
        return self

    @property
    def fingerprint(self) -> str | None:
        """Fingerprint of the whole data set's ratings; None where it is not known."""
        return self.data

    @property
    def of_partition(self) -> tuple[object, ...]:
        """Facts that all users of a data set share."""
        attributes = [list(said.items()) for said in (self.user_attributes, self.item_attributes)]
        return (*super().of_partition, self.num_items, self.scale, self.center, self.spread, self.data, *attributes)

    @property
    def user_values(self) -> tuple[int, ...]:
        """Number of values of each attribute of users; empty where they have none."""
        return tuple(map(len, self.user_attributes.values()))

    @property
    def item_values(self) -> tuple[int, ...]:
        """Number of values of each attribute of items; empty where they have none."""
        return tuple(map(len, self.item_attributes.values()))


class UserNames(BaseModel):
    """Ids of the data set's source, as text.

    Attributes:
        user: id of the user.
        items: ids of all items, by number.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    user: str
    items: list[str]


@dataclass(frozen=True)
class UserFolder(DescribedFolder[UserDescription]):
    """A user's folder: `client.json`, `ratings.safetensors`, and the key that all clients share.

    Where the data set has them also `names.json`, the source's ids of the user and of all items; `titles.json`; and
    `attributes.safetensors`, the attributes of the user and of all items.

    Attributes:
        path: path of the folder.
        description: content of `client.json`.
    """

    described_by: ClassVar[type[UserDescription]] = UserDescription

    def ratings(self) -> Ratings:
        """The user's ratings, checked against their checksum and their description.

        Raises:
            SubflError: the file is damaged, holds no ratings, or not those that `client.json` describes.
        """
        file, said = self.verified(_RATINGS), self.description
        arrays = read_rating_arrays(file)
        if {name: array.dtype for name, array in arrays.items()} != _TYPES:
            wanted = ", ".join(f"{name} ({np.dtype(dtype)})" for name, dtype in _TYPES.items())
            raise SubflError(f"{file} does not hold a user's ratings: it must hold {wanted}; {AGAIN}")
        ratings = Ratings(
            user_ids=np.array([said.client_id]),
            offsets=np.array([0, arrays["items"].size]),
            num_items=said.num_items,
            scale=said.scale,
            **arrays,
        )
        _require_sound(ratings, str(file))
        said.require_facts(ratings.role_counts(), file)
        return ratings

    def titles(self) -> list[str] | None:
        """The title of each item; None where the data set has no titles.

        Raises:
            SubflError: the file is damaged, or does not hold a title for each item.
        """
        titles = self.texts(_TITLES, list[str], "titles")
        if titles is not None:
            self._require_each(_TITLES, len(titles), "titles")
        return titles

    def names(self) -> UserNames | None:
        """The source's ids of the user and of the items; None where the folder does not hold them.

        Raises:
            SubflError: the file is damaged, or does not hold an id for each item.
        """
        names = self.texts(_NAMES, UserNames, "the ids of a user and of items")
        if names is not None:
            self._require_each(_NAMES, len(names.items), "ids")
        return names

    def _require_each(self, name: str, number: int, what: str) -> None:
        if number != self.description.num_items:
            raise SubflError(f"{self.path / name} has {number} {what} for {self.description.num_items} items; {AGAIN}")

    def attributes(self) -> tuple[Attributes | None, Attributes | None]:
        """The attributes of the user, as of one entity, and of all items; None each where there are none.

        Raises:
            SubflError: the file is damaged, or does not hold attributes as `client.json` describes them.
        """
        said = self.description
        if _ATTRIBUTES not in said.files:
            return None, None
        file = self.verified(_ATTRIBUTES)
        try:
            return read_attributes(file, said.user_attributes, said.item_attributes, 1, said.num_items)
        except SubflError as error:
            raise SubflError(f"{error}; {AGAIN}") from error


def write_user_folder(
    path: Path,
    ratings: Ratings,
    *,
    dataset: str,
    partition: str,
    num_clients: int | None,
    center: float,
    spread: float,
    titles: Sequence[str] | None,
    key: bytes,
    user_attributes: Attributes | None = None,
    item_attributes: Attributes | None = None,
    user_name: str | None = None,
    item_names: Sequence[str] | None = None,
    fingerprint: str | None = None,
) -> None:
    """Write a user's folder whole or not at all: it is written under a temporary name and renamed.

    Args:
        path: path of the folder; must not exist.
        ratings: ratings of one user.
        dataset: name of the data set.
        partition: key of the prepared data, 16 hexadecimal digits; empty where a site makes its own folder.
        num_clients: number of users; None where a site does not know it.
        center: number subtracted from ratings before training, in rating units.
        spread: number that they are then divided by, in rating units.
        titles: title of each item; None where the data set has none.
        key: the clients' shared key; the file is readable by its owner alone.
        user_attributes: attributes of this one user; None where the data set has none.
        item_attributes: attributes of all items; None where the data set has none.
        user_name, item_names: the source's ids of the user and of all items, both or neither.
        fingerprint: fingerprint of the whole data set's ratings.

    Raises:
        SubflError: `path` exists, the ratings are not sound or not of one user, titles, ids or attributes are missing,
            or the folder cannot be written.
    """
    with new_folder(path) as unfinished:
        _require_one_user(ratings, {"titles": titles, "ids": item_names})
        write_rating_arrays(unfinished / _RATINGS, {name: getattr(ratings, name) for name in _TYPES})
        if titles is not None:
            write_durably(unfinished / _TITLES, json.dumps(list(titles)).encode())
        if user_name is not None and item_names is not None:
            names = UserNames(user=user_name, items=list(item_names))
            write_durably(unfinished / _NAMES, names.model_dump_json().encode())
        for attributes, count, of in ((user_attributes, 1, "the user"), (item_attributes, ratings.num_items, "items")):
            if attributes is not None:
                attributes.require_sound(count, f"the attributes of {of}")
        write_attributes(unfinished / _ATTRIBUTES, user_attributes, item_attributes)
        UserFolder.seal(
            unfinished,
            key,
            **ratings.role_counts(),
            client=int(ratings.user_ids[0]),
            dataset=dataset,
            partition=partition,
            clients=num_clients,
            num_items=ratings.num_items,
            scale=ratings.scale,
            center=center,
            spread=spread,
            user_attributes={} if user_attributes is None else user_attributes.vocabularies,
            item_attributes={} if item_attributes is None else item_attributes.vocabularies,
            data=fingerprint,
        )


def _require_one_user(ratings: Ratings, of_items: Mapping[str, Sequence[str] | None]) -> None:
    if ratings.num_users != 1:
        raise SubflError(f"a user's folder holds the ratings of one user, not of {ratings.num_users}")
    _require_sound(ratings, f"the ratings of client {ratings.user_ids[0]}")
    for what, texts in of_items.items():
        if texts is not None and len(texts) != ratings.num_items:
            raise SubflError(f"there are {len(texts)} {what} for {ratings.num_items} items; every item needs one")


def _require_sound(ratings: Ratings, where: str) -> None:
    """Refuse one user's ratings that cannot be trained on."""
    items, values, roles = ratings.items, ratings.values, ratings.roles
    if items.ndim != 1 or not items.shape == values.shape == roles.shape:
        raise SubflError(f"{where}: items, values and roles must have one entry a rating; {AGAIN}")
    if items.size and (items[0] < 0 or items[-1] >= ratings.num_items or np.any(np.diff(items) <= 0)):
        raise SubflError(f"{where}: items must be different numbers in 0..{ratings.num_items - 1}, ascending; {AGAIN}")
    low, high = np.float32(ratings.scale[0]), np.float32(ratings.scale[1])
    if not np.all((values >= low) & (values <= high)):
        raise SubflError(f"{where}: every rating must be within {low:g}..{high:g}; {AGAIN}")
    if not np.all((roles >= TRAIN) & (roles <= TEST)):
        raise SubflError(f"{where}: roles must be 0 train, 1 validation or 2 test; {AGAIN}")
