"""A rating data set, cleaned and split once and kept on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from subfl_flower.data.partitions.users import UsersPartition
from subfl_flower.data.prepared.entry import PreparedEntry, described_data, opened_or_made, write_metadata
from subfl_flower.data.ratings.attribute_file import read_attributes, write_attributes
from subfl_flower.data.ratings.attributes import Attributes
from subfl_flower.data.ratings.description import candidates_digest, describe_ratings, rating_digests
from subfl_flower.data.ratings.rating_file import read_rating_arrays, write_rating_arrays
from subfl_flower.data.ratings.settings import LoadedRatings, RatingDatasetSettings
from subfl_flower.data.ratings.table import Ratings
from subfl_flower.errors import SubflError
from subfl_flower.storage.durable_files import write_durably

RATINGS_SCHEMA = 6
"""Raised whenever the same settings would give other files; since 6 each file of arrays states its kind."""

_RATINGS, _NAMES, _ATTRIBUTES = "ratings.safetensors", "names.json", "attributes.safetensors"
_USERS_A_BLOCK = 1024


class PreparedRatings(PreparedEntry):
    """A directory that holds the ratings of all users, every user being a client.

    `metadata.json`; `ratings.safetensors`, the arrays of `Ratings`; `names.json`, the source's ids of users and items
    and the items' titles, and the values that attributes have; `attributes.safetensors`, the attributes, where there
    are any. Client ids are the users' numbers.

    Attributes:
        directory: the directory of the files.
        metadata: content of `metadata.json`: settings, sizes, number of ratings of each role, scale, checksums.
        overlapping: false: clients share no rating.
        candidates: settings by which a task draws the items among which held-out ones are ranked; None without.
    """

    schema = RATINGS_SCHEMA
    overlapping = False
    candidates: Mapping[str, int] | None = None

    @property
    def data(self) -> dict[str, Any]:
        """Facts on the data; see `description.describe_ratings`."""
        facts: dict[str, Any] = self.metadata["data"]
        prints = facts["fingerprints"]
        drawn = None if self.candidates is None else candidates_digest(prints["data"], self.candidates)
        return facts | {"fingerprints": prints | {"candidates": drawn}}

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the ratings with all ids, titles and attributes, 64 hexadecimal digits."""
        return str(self.metadata["data"]["fingerprints"]["data"])

    @property
    def source(self) -> str:
        """The names of the source files of the ratings."""
        return " and ".join(self.metadata["data"]["fingerprints"]["files"]) or str(self.directory)

    @property
    def num_clients(self) -> int:
        """Number of clients, which is the number of users."""
        return int(self.metadata["num_users"])

    @property
    def num_items(self) -> int:
        """Number of items of the whole data set."""
        return int(self.metadata["num_items"])

    @property
    def scale(self) -> tuple[float, float]:
        """Lowest and highest possible rating."""
        low, high = self.metadata["scale"]
        return float(low), float(high)

    @property
    def center(self) -> float:
        """Number subtracted from ratings before training, in rating units."""
        return float(self.metadata["center"])

    @property
    def spread(self) -> float:
        """Number that ratings are then divided by, in rating units."""
        return float(self.metadata["spread"])

    def ratings(self, client_ids: Sequence[int]) -> Ratings:
        """The ratings of some clients, in the order of `client_ids`; only a block around them is in memory.

        Raises:
            SubflError: there is no such client, or the file is damaged.
        """
        chosen = self._known(client_ids)
        order = np.argsort(chosen, kind="stable")
        blocks = [chosen[order[start : start + _USERS_A_BLOCK]] for start in range(0, chosen.size, _USERS_A_BLOCK)]
        parts = [self._between(int(block[0]), int(block[-1]) + 1).of_users(block - block[0]) for block in blocks]
        ascending = Ratings.joined(parts) if parts else self._between(0, 0)
        return ascending if np.array_equal(chosen[order], chosen) else ascending.of_users(np.argsort(order))

    def whole(self) -> Ratings:
        """The ratings of all clients.

        Raises:
            SubflError: the file is damaged.
        """
        return self._between(0, self.num_clients)

    def user_names(self) -> list[str]:
        """The source's id of each user, as text.

        Raises:
            SubflError: the file is damaged.
        """
        names: list[str] = self._names["users"]
        return names

    def item_names(self) -> list[str]:
        """The source's id of each item, as text.

        Raises:
            SubflError: the file is damaged.
        """
        names: list[str] = self._names["items"]
        return names

    def titles(self) -> list[str] | None:
        """The title of each item; None where the data set has no titles.

        Raises:
            SubflError: the file is damaged.
        """
        titles: list[str] | None = self._names["titles"]
        return titles

    def user_attributes(self, client_ids: Sequence[int]) -> Attributes | None:
        """The attributes of some clients, in the order of `client_ids`; None where users have none.

        Raises:
            SubflError: there is no such client, or a file is damaged.
        """
        attributes, _ = self._attributes
        return None if attributes is None else attributes.of(self._known(client_ids))

    def item_attributes(self) -> Attributes | None:
        """The attributes of all items; None where they have none.

        Raises:
            SubflError: a file is damaged.
        """
        return self._attributes[1]

    @property
    def user_values(self) -> tuple[int, ...]:
        """Number of values of each attribute of users; empty where they have none."""
        return tuple(map(len, self._names["user_attributes"].values()))

    @property
    def item_values(self) -> tuple[int, ...]:
        """Number of values of each attribute of items; empty where they have none."""
        return tuple(map(len, self._names["item_attributes"].values()))

    def _known(self, client_ids: Sequence[int]) -> np.ndarray:
        chosen = np.asarray(client_ids, dtype=np.int64)
        strange = chosen[(chosen < 0) | (chosen >= self.num_clients)]
        if strange.size:
            raise SubflError(f"{self.directory} has the clients 0..{self.num_clients - 1}, not {strange[0]}")
        return chosen

    @cached_property
    def _attributes(self) -> tuple[Attributes | None, Attributes | None]:
        users, items = self._names["user_attributes"], self._names["item_attributes"]
        path = self.verified(_ATTRIBUTES) if users or items else self.directory
        return read_attributes(path, users, items, self.num_clients, self.num_items)

    @cached_property
    def _names(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.verified(_NAMES).read_bytes())
        return content

    @cached_property
    def _offsets(self) -> np.ndarray:
        return read_rating_arrays(self.verified(_RATINGS), ("offsets",))["offsets"]

    def _between(self, first: int, after: int) -> Ratings:
        """The ratings of the users first, ..., after - 1; other ratings are not read."""
        offsets = self._offsets[first : after + 1]
        rows = slice(int(offsets[0]), int(offsets[-1]))
        read = read_rating_arrays(self.verified(_RATINGS), ("items", "values", "roles"), rows)
        users = np.arange(first, after)
        return Ratings(users, offsets - offsets[0], num_items=self.num_items, scale=self.scale, **read)


def prepare_ratings(
    dataset: RatingDatasetSettings,
    partition: UsersPartition,
    root: Path,
    cache: Path,
    needs_ratings: bool = True,
    candidates: Mapping[str, int] | None = None,
) -> PreparedRatings:
    """Load, clean and split a rating data set; or open the result of an earlier call with the same settings.

    The result is kept under `cache/<dataset>-<partition>-<key>` (`prepared_entry.opened_or_made`).

    Args:
        dataset: the data set.
        partition: the partitioner; its `seed` drives a random split.
        root: the data root, for raw files.
        cache: the folder of prepared data.
        needs_ratings: refuse data without a column of ratings, or whose ratings are all equal.
        candidates: settings by which a task draws the items among which held-out ones are ranked; not in the key.

    Raises:
        SubflError: the data cannot be loaded or split so, there is nothing to predict, or the cache cannot be written.
    """
    described = described_data(RATINGS_SCHEMA, dataset, partition, root)

    def write(directory: Path) -> None:
        loaded = dataset.load(root, partition.seed)
        facts = describe_ratings(loaded)
        if needs_ratings:
            dataset.require_different(facts)
        _write(directory, loaded, dataset.scaling(loaded.ratings), facts, described)

    prepared = opened_or_made(PreparedRatings, cache, f"{dataset.name}-{partition.name}", described, write)
    if needs_ratings:
        dataset.require_different(prepared.data)
    prepared.candidates = candidates
    return prepared


def _write(
    directory: Path,
    loaded: LoadedRatings,
    scaling: tuple[float, float],
    facts: dict[str, Any],
    described: dict[str, Any],
) -> None:
    ratings = loaded.ratings
    arrays = {name: getattr(ratings, name) for name in ("offsets", "items", "values", "roles")}
    write_rating_arrays(directory / _RATINGS, arrays)
    users, items = loaded.user_attributes, loaded.item_attributes
    names = {
        "users": loaded.user_names,
        "items": loaded.item_names,
        "titles": loaded.titles,
        "user_attributes": {} if users is None else users.vocabularies,
        "item_attributes": {} if items is None else items.vocabularies,
    }
    write_durably(directory / _NAMES, json.dumps(names).encode())
    write_attributes(directory / _ATTRIBUTES, users, items)
    center, spread = scaling
    digests = {"files": {name: digest for name, digest in described["source_files"]}, **rating_digests(loaded)}
    metadata = described | {
        "data": facts | {"fingerprints": digests},
        "num_users": ratings.num_users,
        "num_items": ratings.num_items,
        "num_ratings": len(ratings),
        "scale": ratings.scale,
        "center": center,
        "spread": spread,
        **ratings.role_counts(),
    }
    write_metadata(directory, metadata)
