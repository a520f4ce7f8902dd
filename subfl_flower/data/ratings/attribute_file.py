"""Attributes of users and of items in one safetensors file; their vocabularies are in a JSON file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal

from subfl_flower.data.ratings.attributes import Attributes
from subfl_flower.errors import SubflError
from subfl_flower.storage.tensor_file import Card, read_tensor_file, write_tensor_file

_ARRAYS = ("offsets", "codes")


class AttributesCard(Card):
    """Attributes of users, of items or of both."""

    holds: ClassVar[str] = "attributes"

    kind: Literal["attributes"] = "attributes"


def write_attributes(path: Path, users: Attributes | None, items: Attributes | None) -> None:
    """Write the attributes of users and of items; without attributes no file is written."""
    there = {of: found for of, found in (("user", users), ("item", items)) if found is not None}
    if there:
        arrays = {f"{of}_{name}": getattr(found, name) for of, found in there.items() for name in _ARRAYS}
        write_tensor_file(path, arrays, AttributesCard())


def read_attributes(
    path: Path,
    user_vocabularies: Mapping[str, Sequence[str]],
    item_vocabularies: Mapping[str, Sequence[str]],
    num_users: int,
    num_items: int,
) -> tuple[Attributes | None, Attributes | None]:
    """The attributes of users and of items, as `write_attributes` wrote them.

    Args:
        path: path of the file; it is not opened where there are no vocabularies.
        user_vocabularies: the values of each attribute of users; empty where they have none.
        item_vocabularies: likewise of items.
        num_users: number of users.
        num_items: number of items.

    Raises:
        SubflError: the file is damaged, or does not hold attributes of so many users and items with such values.
    """
    said = {"user": (user_vocabularies, num_users), "item": (item_vocabularies, num_items)}
    wanted = {of: expected for of, expected in said.items() if expected[0]}
    if not wanted:
        return None, None
    arrays, _ = read_tensor_file(path, AttributesCard)
    if set(arrays) != {f"{of}_{name}" for of in wanted for name in _ARRAYS}:
        raise SubflError(f"{path} does not hold the attributes of each {' and each '.join(wanted)} and nothing else")
    found: dict[str, Attributes] = {}
    for of, (vocabularies, count) in wanted.items():
        found[of] = Attributes.of_vocabularies(vocabularies, *(arrays[f"{of}_{name}"] for name in _ARRAYS))
        found[of].require_sound(count, str(path))
    return found.get("user"), found.get("item")
