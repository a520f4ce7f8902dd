"""Facts on prepared ratings in words and numbers: the content of `data.json` and of `subfl inspect`."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import numpy as np

from subfl_flower.data.description import DATA_SCHEMA, array_digest
from subfl_flower.data.graph import TEST, TRAIN, VALIDATION
from subfl_flower.data.ratings.attributes import Attributes
from subfl_flower.data.ratings.settings import LoadedRatings

_FEW = 3


def describe_ratings(loaded: LoadedRatings) -> dict[str, Any]:
    """Facts on ratings, cleaned and split."""
    ratings = loaded.ratings
    counts = np.diff(ratings.offsets)
    training = ratings.values[ratings.roles == TRAIN]
    return {
        "schema": DATA_SCHEMA,
        "kind": "ratings",
        "users": ratings.num_users,
        "items": ratings.num_items,
        "ratings": len(ratings),
        "implicit": loaded.implicit,
        "scale": list(ratings.scale),
        "mean": float(ratings.values.mean(dtype=np.float64)),
        "training_mean": float(training.mean(dtype=np.float64)),
        "different_ratings": int(np.unique(ratings.values).size),
        "different_training_ratings": int(np.unique(training).size),
        **ratings.role_counts(),
        "time_span": None if loaded.time_span is None else list(loaded.time_span),
        "density": len(ratings) / (ratings.num_users * ratings.num_items),
        "ratings_of_a_user": {
            "least": int(counts.min()),
            "median": float(np.median(counts)),
            "most": int(counts.max()),
        },
        "users_with_few_ratings": int(np.count_nonzero(counts < _FEW)),
        "user_attributes": _fields(loaded.user_attributes),
        "item_attributes": _fields(loaded.item_attributes),
        "titles": loaded.titles is not None,
        "split": loaded.split,
        "ids": True,
        "dropped": list(loaded.notes.dropped),
        "warnings": [*loaded.notes.warnings, *_role_warnings(loaded)],
    }


def rating_digests(loaded: LoadedRatings) -> dict[str, str]:
    """Fingerprints of the ratings with all ids (`data`), the roles (`split`) and users' client ids (`partition`)."""
    ratings = loaded.ratings
    texts = [loaded.user_names, loaded.item_names, loaded.titles]
    content = [
        *(None if text is None else np.array(text, dtype=object) for text in texts),
        ratings.offsets,
        ratings.items,
        ratings.values,
        np.array(ratings.scale),
    ]
    for attributes in (loaded.user_attributes, loaded.item_attributes):
        content += _arrays(attributes)
    return {
        "data": array_digest(content),
        "split": array_digest([ratings.roles]),
        "partition": array_digest([np.array(loaded.user_names, dtype=object)]),
    }


def candidates_digest(data: str, settings: Mapping[str, int]) -> str:
    """A fingerprint of the items among which held-out ones are ranked.

    Args:
        data: fingerprint of the ratings.
        settings: all other settings that the draw depends on.
    """
    return sha256(";".join([data, *(f"{name}={settings[name]}" for name in sorted(settings))]).encode()).hexdigest()


def _arrays(attributes: Attributes | None) -> list[np.ndarray | None]:
    if attributes is None:
        return [None]
    values = [np.array(vocabulary, dtype=object) for vocabulary in attributes.values]
    return [np.array(attributes.fields, dtype=object), *values, attributes.offsets, attributes.codes]


def _fields(attributes: Attributes | None) -> dict[str, int]:
    """Number of values of each field."""
    return {} if attributes is None else dict(zip(attributes.fields, attributes.sizes, strict=True))


def _role_warnings(loaded: LoadedRatings) -> list[str]:
    ratings, said = loaded.ratings, []
    if lacking := np.flatnonzero(ratings.counts(TRAIN) == 0).tolist():
        said.append(
            f"{len(lacking)} of {ratings.num_users} users have no training rating, the first is "
            f"{loaded.user_names[lacking[0]]}"
        )
    if not np.any(ratings.roles == VALIDATION):
        said.append("no rating validates: no round can be told to be the best")
    tested = np.unique(ratings.items[ratings.roles == TEST])
    unknown = np.setdiff1d(tested, ratings.items[ratings.roles == TRAIN]).tolist()
    if unknown:
        said.append(
            f"{len(unknown)} of the {tested.size} items that test have no training rating, the first is "
            f"{loaded.item_names[unknown[0]]}"
        )
    return said
