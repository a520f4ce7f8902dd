"""Attributes of users and items: numbering, parts, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rating_tables import check_same_attributes, genres
from safetensors.numpy import load_file, save_file

from subfl_flower.data.ratings import attributes as module
from subfl_flower.data.ratings.attribute_file import read_attributes, write_attributes
from subfl_flower.data.ratings.attributes import Attributes
from subfl_flower.errors import SubflError

RAW = {
    "town": {"a": ["York"], "c": ["Bath"], "z": ["Rome"]},
    "nothing": {"z": ["x"]},
    "hobby": {"a": ["golf", "chess", "golf"], "b": [], "d": ["art"]},
}


def test_values_of_all_fields_are_numbered_jointly() -> None:
    found = Attributes.numbered(RAW, ["d", "b", "a", "c"], "users")
    assert found is not None
    assert found.fields == ("town", "hobby") and found.values == (("Bath", "York"), ("art", "chess", "golf"))
    assert found.offsets.tolist() == [0, 1, 1, 4, 5] and found.codes.tolist() == [2, 1, 3, 4, 0]
    assert (found.offsets.dtype, found.codes.dtype) == (np.int64, np.int64)
    assert (found.sizes, found.num_values, len(found)) == ((2, 3), 5, 4)
    assert found.vocabularies == {"town": ["Bath", "York"], "hobby": ["art", "chess", "golf"]}
    found.require_sound(4, "here")


def test_what_nobody_has_is_no_attribute() -> None:
    assert Attributes.numbered(RAW, ["b", "y"], "users") is None
    assert Attributes.numbered({}, ["a"], "users") is None


def test_parts_are_copies_in_the_order_asked_for() -> None:
    found = genres().of([5, 0, 1, 0])
    check_same_attributes(found, replace(genres(), offsets=np.array([0, 1, 3, 3, 5]), codes=np.array([0, 1, 3, 1, 3])))
    whole = genres()
    whole.of(range(6)).codes[:] = 9
    check_same_attributes(whole, genres())
    check_same_attributes(whole.of([]), replace(genres(), offsets=np.array([0]), codes=np.zeros(0, np.int64)))


def test_parts_joined_are_the_whole() -> None:
    parts = [genres().of([0]), genres().of([1, 2, 3]), genres().of([]), genres().of([4, 5])]
    check_same_attributes(Attributes.joined(parts), genres())


def test_too_many_fields_or_values_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {str(number): {"a": ["x"]} for number in range(65)}
    with pytest.raises(SubflError, match=r"^users have 65 fields of attributes; at most 64 are allowed$"):
        Attributes.numbered(fields, ["a"], "users")
    fields.pop("0")
    assert len(Attributes.numbered(fields, ["a"], "users").fields) == 64  # type: ignore[union-attr]
    monkeypatch.setattr(module, "MOST_VALUES", 2)
    with pytest.raises(SubflError, match=r"^users: hobby has 3 values; at most 2 are allowed$"):
        Attributes.numbered(RAW, ["a", "d"], "users")


UNSOUND: list[tuple[dict[str, Any], str]] = [
    ({"codes": np.array([1, 3, 1, 2, 2, 0], np.int32)}, "lists of int64"),
    ({"codes": np.array([[1, 3, 1, 2, 2, 0]])}, "lists of int64"),
    ({"offsets": np.array([0, 2, 2, 4, 5, 6])}, "rise from 0 to 6 over 6 entities"),
    ({"offsets": np.array([1, 2, 2, 4, 5, 5, 6])}, "rise from 0"),
    ({"offsets": np.array([0, 2, 1, 4, 5, 5, 6])}, "rise from 0"),
    ({"offsets": np.array([0, 2, 2, 4, 5, 5, 5])}, "rise from 0"),
    ({"codes": np.array([1, 4, 1, 2, 2, 0])}, "within 0..3"),
    ({"codes": np.array([-1, 3, 1, 2, 2, 0])}, "within 0..3"),
    ({"codes": np.array([3, 1, 1, 2, 2, 0])}, "ascending and different within an entity"),
    ({"codes": np.array([1, 3, 2, 2, 2, 0])}, "ascending and different within an entity"),
]


@pytest.mark.parametrize(("change", "words"), UNSOUND)
def test_arrays_that_are_no_attributes_are_refused(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    genres().require_sound(6, "here")
    with pytest.raises(SubflError) as error:
        replace(genres(), **change).require_sound(6, "here")
    assert str(error.value).startswith("here: ") and words in str(error.value)
    write_attributes(tmp_path / "a.safetensors", None, replace(genres(), **change))
    with pytest.raises(SubflError) as error:
        read_attributes(tmp_path / "a.safetensors", {}, genres().vocabularies, 1, 6)
    assert str(error.value).startswith(str(tmp_path)) and words in str(error.value)


def test_a_file_gives_back_what_was_written(tmp_path: Path) -> None:
    users, items, path = genres().of([2]), genres(), tmp_path / "a.safetensors"
    write_attributes(path, users, items)
    found = read_attributes(path, users.vocabularies, items.vocabularies, 1, 6)
    assert found[0] is not None and found[1] is not None
    check_same_attributes(found[0], users)
    check_same_attributes(found[1], items)
    write_attributes(tmp_path / "none", None, None)
    assert not (tmp_path / "none").exists() and read_attributes(tmp_path / "none", {}, {}, 1, 6) == (None, None)


@pytest.mark.parametrize(
    "change", [{"user_codes": None}, {"more": np.zeros(1)}, {"item_codes": None, "codes": np.zeros(1)}]
)
def test_a_file_with_other_arrays_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    path, said = tmp_path / "a.safetensors", genres().vocabularies
    write_attributes(path, genres().of([2]), genres())
    arrays = {name: array for name, array in (load_file(path) | change).items() if array is not None}
    save_file(arrays, path, {"card": '{"kind": "attributes", "schema": 1}'})
    with pytest.raises(SubflError, match="does not hold the attributes of each user and each item and nothing else"):
        read_attributes(path, said, said, 1, 6)
    path.write_bytes(b"no such file")
    with pytest.raises(
        SubflError, match=r"a\.safetensors does not hold attributes: it is not a whole safetensors file"
    ):
        read_attributes(path, said, said, 1, 6)
