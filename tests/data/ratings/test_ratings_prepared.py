from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from rating_tables import check_equal, check_same_attributes

from subfl_flower.data.datasets import DatasetSettings, StochasticBlockModelDataset
from subfl_flower.data.partitions import MetisPartition, UsersPartition
from subfl_flower.data.prepared import ratings as module
from subfl_flower.data.prepared.partition import prepare
from subfl_flower.data.prepared.ratings import PreparedRatings, prepare_ratings
from subfl_flower.data.ratings.datasets.custom import CustomRatingsDataset
from subfl_flower.data.ratings.datasets.synthetic import SyntheticRatingsDataset
from subfl_flower.data.ratings.settings import RatingDatasetSettings
from subfl_flower.errors import SubflError

SMALL = SyntheticRatingsDataset(num_users=40, num_items=30, ratings_per_user=8, rank=2)
USERS = UsersPartition()


def made(tmp_path: Path, dataset: RatingDatasetSettings = SMALL, partition: UsersPartition = USERS) -> PreparedRatings:
    return prepare_ratings(dataset, partition, tmp_path / "root", tmp_path / "cache")


def entries(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "cache").iterdir() if path.is_dir())


def contents(prepared: PreparedRatings) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in prepared.directory.iterdir()}


def test_what_is_read_is_what_was_loaded(tmp_path: Path) -> None:
    prepared, loaded = made(tmp_path), SMALL.load(tmp_path, USERS.seed)
    check_equal(prepared.whole(), loaded.ratings)
    train = loaded.ratings.values[loaded.ratings.roles == 0].astype(float)
    assert (prepared.center, prepared.spread) == pytest.approx((train.mean(), train.std()), rel=1e-9)
    assert (prepared.num_clients, prepared.num_items, prepared.scale) == (40, 30, (1.0, 5.0))
    assert len(prepared.key) == 16 and int(prepared.key, 16) >= 0 and prepared.overlapping is False
    assert prepared.item_names() == [str(item) for item in range(30)] and prepared.titles() is None
    assert prepared.user_names() == [str(user) for user in range(40)]
    counts = np.bincount(loaded.ratings.roles, minlength=3).tolist()
    assert [prepared.metadata[role] for role in ("train", "validation", "test")] == counts
    assert prepared.metadata["num_ratings"] == sum(counts) == len(loaded.ratings)


@pytest.mark.parametrize("block", [1, 3, 1024])
@pytest.mark.parametrize("ids", [[0], [39], range(40), range(1, 40, 7), [7, 38, 2, 2, 5], []])
def test_some_clients_are_the_part_of_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ids: list[int], block: int
) -> None:
    monkeypatch.setattr(module, "_USERS_A_BLOCK", block)
    prepared = made(tmp_path)
    check_equal(prepared.ratings(ids), prepared.whole().of_users(ids))


@pytest.mark.parametrize("client_id", [-1, 40])
def test_a_client_that_is_not_there_is_named(tmp_path: Path, client_id: int) -> None:
    with pytest.raises(SubflError, match=rf"has the clients 0\.\.39, not {client_id}"):
        made(tmp_path).ratings([3, client_id])


def test_a_second_call_writes_nothing_and_no_file_needs_pickle(tmp_path: Path) -> None:
    first = made(tmp_path)
    stamps = {path.name: path.stat().st_mtime_ns for path in first.directory.iterdir()}
    assert sorted(stamps) == ["attributes.safetensors", "metadata.json", "names.json", "ratings.safetensors"]
    assert made(tmp_path).directory == first.directory
    assert {path.name: path.stat().st_mtime_ns for path in first.directory.iterdir()} == stamps


def test_the_key_follows_every_setting_that_shapes_the_data(tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "split": "leave_one_out", "set_aside": 1, "test_fraction": 0.3, "validation_fraction": 0.1, "center": 3.0,
        "spread": 1.5,
        "scale": (0.0, 5.0), "num_users": 41, "num_items": 31, "ratings_per_user": 9.0, "rank": 3, "signal": 0.9,
        "user_bias": 0.2, "item_bias": 0.2, "noise": 0.2, "popularity_skew": 0.3, "activity_skew": 0.3, "seed": 1,
    }  # fmt: skip
    assert set(changes) | {"name", "protocol"} == set(SyntheticRatingsDataset.model_fields)
    datasets = [SMALL, *(SMALL.model_copy(update={field: value}) for field, value in changes.items())]
    directories = {made(tmp_path, dataset).directory for dataset in datasets}
    directories.add(made(tmp_path, partition=UsersPartition(seed=1)).directory)
    assert len(directories) == len(datasets) + 1 == len(entries(tmp_path))
    longer = SMALL.model_copy(update={"protocol": SMALL.protocol.model_copy(update={"rounds": 7})})
    assert made(tmp_path, longer).directory in directories


def test_the_key_follows_the_content_of_a_users_file(tmp_path: Path) -> None:
    (tmp_path / "ratings.csv").write_text("user,item,rating,title\na,x,1,X\na,y,2,\nb,x,3,X\nb,y,3,\n")
    dataset = CustomRatingsDataset(path=tmp_path / "ratings.csv", split="leave_one_out", validation_fraction=0)
    first = made(tmp_path, dataset)
    assert first.titles() == ["X", "y"] and first.user_names() == ["a", "b"] and first.item_names() == ["x", "y"]
    (tmp_path / "ratings.csv").write_text("user,item,rating\na,x,1\na,y,2\nb,x,3\nb,y,5\n")
    second = made(tmp_path, dataset)
    assert second.directory != first.directory and second.scale == (1.0, 5.0) and second.titles() is None


def test_stated_center_and_spread_are_kept(tmp_path: Path) -> None:
    prepared = made(tmp_path, SMALL.model_copy(update={"center": 2.5, "spread": 2.0}))
    assert (prepared.center, prepared.spread) == (2.5, 2.0)


def test_training_ratings_that_are_all_equal_need_a_stated_spread(tmp_path: Path) -> None:
    (tmp_path / "ratings.csv").write_text("user,item,rating,timestamp\na,x,4,1\na,y,2,9\nb,x,4,1\n")
    dataset = CustomRatingsDataset(path=tmp_path / "ratings.csv", split="leave_one_out", validation_fraction=0)
    message = r"dataset=custom_ratings: the training ratings are all 4; state dataset\.sp"
    with pytest.raises(SubflError, match=message):
        made(tmp_path, dataset)
    assert entries(tmp_path) == []
    ranked = prepare_ratings(dataset, USERS, tmp_path, tmp_path / "cache", needs_ratings=False)
    assert (ranked.center, ranked.spread) == (4.0, 1.0)
    with pytest.raises(SubflError, match=message):  # though the entry is there
        made(tmp_path, dataset)
    assert made(tmp_path, dataset.model_copy(update={"spread": 2.0})).center == 4.0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "user,item\na,x\na,y\nb,x\nb,y\n",
            r"the column rating is missing, .* and task=ranking trains on user and item",
        ),
        ("user,item,rating\na,x,3\na,y,3\nb,x,3\nb,y,3\n", r"all ratings are 3; there is nothing to predict"),
    ],
)
def test_what_nothing_can_be_predicted_of_is_for_rankings_alone(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "ratings.csv").write_text(content)
    dataset = CustomRatingsDataset(path=tmp_path / "ratings.csv", split="leave_one_out")
    with pytest.raises(SubflError, match=message):
        made(tmp_path, dataset)
    assert entries(tmp_path) == []
    ranked = prepare_ratings(dataset, USERS, tmp_path, tmp_path / "cache", needs_ratings=False)
    assert ranked.spread == 1.0 and len(ranked.whole()) == 4 and ranked.data["implicit"] == ("rating" not in content)
    with pytest.raises(SubflError, match=message) as found:
        made(tmp_path, dataset)
    assert "\n" not in str(found.value)


def test_facts_on_the_data(tmp_path: Path) -> None:
    (tmp_path / "ratings.csv").write_text(
        "user,item,rating,timestamp,shop,split\n"
        "a,x,1,2001-01-01,s,train\na,y,2,2002-01-01,s,test\na,y,4,2003-05-31,s,Test\na,z,5,2000-02-29,s,val\nb,x,3,2002-01-01,s,0\n"
    )
    (tmp_path / "items.csv").write_text("item,title,genre\nx,X,War|Noir\ny,Y,War\nq,Q,Drama\n")
    dataset = CustomRatingsDataset(path=tmp_path / "ratings.csv", items=tmp_path / "items.csv")
    prepared = prepare_ratings(dataset, USERS, tmp_path, tmp_path / "cache", candidates={"negatives": 10, "seed": 3})
    facts = prepared.data
    prints = facts.pop("fingerprints")
    assert facts == {
        "schema": 1, "kind": "ratings", "users": 2, "items": 3, "ratings": 4, "implicit": False, "scale": [1.0, 5.0],
        "mean": 3.25, "training_mean": 2.0, "different_ratings": 4, "different_training_ratings": 2,
        "train": 2, "validation": 1, "test": 1, "time_span": ["2000-02-29", "2003-05-31"], "density": 4 / 6,
        "ratings_of_a_user": {"least": 1, "median": 2.0, "most": 3}, "users_with_few_ratings": 1,
        "user_attributes": {}, "item_attributes": {"genre": 2}, "titles": True, "split": "given", "ids": True,
        "dropped": [
            "ratings.csv: columns shop", "items.csv: 1 of 3 ids, which are no item of ratings.csv (first: q)",
            f"{tmp_path / 'ratings.csv'}: 1 of 5 ratings repeat a user and item; the newest of each pair counts",
        ],
        "warnings": [
            "items.csv says nothing of 1 of the 3 items of ratings.csv",
            "1 of the 1 items that test have no training rating, the first is y",
        ],
    }  # fmt: skip
    sums = {name: hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in ("ratings.csv", "items.csv")}
    assert prints["files"] == sums and set(prints) == {"files", "data", "split", "partition", "candidates"}
    assert len({prints[name] for name in ("data", "split", "partition", "candidates")}) == 4
    other = prepare_ratings(dataset, USERS, tmp_path, tmp_path / "cache", candidates={"negatives": 10, "seed": 4})
    assert other.directory == prepared.directory and other.data["fingerprints"] != prints
    assert other.data["fingerprints"] | {"candidates": prints["candidates"]} == prints
    assert prepare_ratings(dataset, USERS, tmp_path, tmp_path / "cache").data["fingerprints"]["candidates"] is None


@pytest.mark.parametrize(
    ("change", "differ"),
    [
        (("x,1", "w,1"), {"data"}), (("b,y", "c,y"), {"data", "partition"}), (("y,5", "y,4"), {"data"}),
        (("x,3,0", "x,3,2"), {"split"}), (("x,", "q,"), {"data"}), (("\nb,", "\nbb,"), {"data", "partition"}),
        (("\n", "\r\n"), set()),
    ],
)  # fmt: skip
def test_fingerprints_follow_what_they_are_of(tmp_path: Path, change: tuple[str, str], differ: set[str]) -> None:
    content = "user,item,rating,split\na,x,1,0\na,y,2,2\nb,x,3,0\nb,y,5,0\n"
    found = []
    for text in (content, content.replace(*change)):
        (tmp_path / "ratings.csv").write_text(text, newline="")
        dataset = CustomRatingsDataset(path=tmp_path / "ratings.csv", validation_fraction=0)
        found.append(made(tmp_path, dataset).data["fingerprints"])
    one, other = found
    assert {name for name in ("data", "split", "partition") if one[name] != other[name]} == differ
    assert one["files"] != other["files"]


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-7])


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("name", ["ratings.safetensors", "attributes.safetensors", "names.json", "metadata.json"])
@pytest.mark.parametrize("damage", [truncate, flip_a_bit, Path.unlink])
def test_a_damaged_entry_is_made_anew(tmp_path: Path, name: str, damage: Any) -> None:
    first = made(tmp_path)
    whole = contents(first)
    damage(first.directory / name)
    if name == "metadata.json" and damage is flip_a_bit:
        (first.directory / name).write_text(json.dumps(first.metadata | {"schema": 0}))
    assert contents(made(tmp_path)) == whole and len(entries(tmp_path)) == 1


@pytest.mark.parametrize("ids", [range(40), [7, 38, 2, 2, 5], []])
def test_attributes_are_those_that_were_loaded(tmp_path: Path, ids: list[int]) -> None:
    prepared, loaded = made(tmp_path), SMALL.load(tmp_path, USERS.seed)
    assert loaded.user_attributes is not None and loaded.item_attributes is not None
    users, items = prepared.user_attributes(ids), prepared.item_attributes()
    assert users is not None and items is not None
    check_same_attributes(users, loaded.user_attributes.of(ids))
    check_same_attributes(items, loaded.item_attributes)
    assert (prepared.user_values, prepared.item_values) == (loaded.user_attributes.sizes, loaded.item_attributes.sizes)
    with pytest.raises(SubflError, match=r"has the clients 0\.\.39, not 40"):
        prepared.user_attributes([40])


@pytest.mark.parametrize("of", ["users", "items", ""])
def test_one_side_may_have_no_attributes(tmp_path: Path, of: str) -> None:
    (tmp_path / "ratings.csv").write_text("user,item,rating\na,x,1\na,y,2\nb,x,3\nb,y,5\n")
    (tmp_path / "people.csv").write_text("user,item,kind\nb,x,K\n")
    tables = {of: tmp_path / "people.csv"} if of else {}
    prepared = made(tmp_path, CustomRatingsDataset(path=tmp_path / "ratings.csv", **tables))
    found = {"users": prepared.user_attributes([1, 0]), "items": prepared.item_attributes()}
    assert [name for name, attributes in found.items() if attributes is not None] == ([of] if of else [])
    assert (prepared.directory / "attributes.safetensors").exists() == bool(of)
    if of == "users":
        assert found["users"] is not None and found["users"].vocabularies == {"item": ["x"], "kind": ["K"]}
        assert found["users"].codes.tolist() == [0, 1] and found["users"].offsets.tolist() == [0, 2, 2]
    assert (prepared.user_values, prepared.item_values) == (
        (1, 1) if of == "users" else (),
        (1, 1) if of == "items" else (),
    )


@pytest.mark.parametrize("read", [PreparedRatings.whole, PreparedRatings.titles, PreparedRatings.item_attributes])
def test_a_damaged_file_is_refused_when_it_is_read(tmp_path: Path, read: Any) -> None:
    directory = made(tmp_path).directory
    for name in ("ratings.safetensors", "names.json", "attributes.safetensors"):
        flip_a_bit(directory / name)
    with pytest.raises(SubflError, match=r"(ratings|names|attributes)\.\w+ is damaged \(its checksum differs\)"):
        read(PreparedRatings.open(directory))


def test_kinds_are_told_apart() -> None:
    assert (RatingDatasetSettings.kind, UsersPartition.kind) == ("ratings", "ratings")
    assert (DatasetSettings.kind, MetisPartition.kind) == ("graph", "graph")
    with pytest.raises(ValidationError):
        UsersPartition.model_validate({"kind": "graph"})
    with pytest.raises(ValidationError):
        UsersPartition.model_validate({"clients": 5})


def test_graphs_have_no_users(tmp_path: Path) -> None:
    dataset = StochasticBlockModelDataset(nodes_per_community=10, features=4)
    with pytest.raises(SubflError, match=r"^partition=users is for ratings, where every user is a client; choose"):
        prepare(dataset, USERS, tmp_path, tmp_path / "cache")


@pytest.mark.parametrize(
    "change",
    [
        {"scale": (5.0, 1.0)}, {"scale": (1.0, float("inf"))}, {"scale": (1.0,)}, {"spread": 0.0}, {"spread": "mean"},
        {"center": float("nan")}, {"test_fraction": 1.0}, {"validation_fraction": -0.1}, {"split": "temporal"},
    ],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(change))):
        SyntheticRatingsDataset(**change)
